"""Whether the experiments reach their conclusions with other seeds: `make seeds`.

Every notebook page ends with assertions of what it concludes. Each is run with three
seeds that the site is not built with; one line for each page says what came of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2, 3)


def holds(page: Path, seed: int) -> bool:
    """Run one page with one seed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:sugar"]
    command += ["--seed", str(seed), str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


def main() -> int:
    """Print a table, and fail if a conclusion does not hold."""
    pages = sorted((ROOT / "docs").rglob("*.py"))
    failures = 0
    for page in pages:
        results = [holds(page, seed) for seed in SEEDS]
        failures += results.count(False)
        said = ["holds" if held else "FAILS" for held in results]
        seeds = ", ".join(f"seed {s} {w}" for s, w in zip(SEEDS, said, strict=True))
        print(f"{page.relative_to(ROOT)}: {seeds}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
