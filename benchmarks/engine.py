"""What the engine costs, as figures of one run: `make bench`.

1. The processor time of `mkdocs build` of this site with the engine, over without it.
2. The processor time that one trivial block costs, beyond the one import of torch that
   any number of blocks needs, and how many cores were busy meanwhile.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
BLOCKS = 200
# Runs pytest in its own process, then adds up all that it and the fork server used.
MEASURED_PYTEST = """
import json, sys, time, psutil, pytest
started = time.perf_counter()
code = pytest.main(["-q", "-p", "no:sugar", "docs"])
seconds = time.perf_counter() - started
used = sum(psutil.Process().cpu_times()[:4])
for child in psutil.Process().children():
    used += sum(child.cpu_times()[:4])
print(json.dumps([int(code), used, seconds]))
"""


def processor_seconds(command: list[str], folder: Path) -> float:
    """Run a command to its end and return the processor time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def build_times() -> tuple[float, float]:
    """Return the least processor times of a build with and without the engine."""
    lines = (ROOT / "mkdocs.yml").read_text("utf-8").splitlines()
    without = [line for line in lines if not line.startswith("  - proof")]
    assert len(without) == len(lines) - 1, "mkdocs.yml names the engine in another way"
    times: dict[str, list[float]] = {"mkdocs.yml": [], ".without-proof.yml": []}
    config = ROOT / ".without-proof.yml"
    config.write_text("\n".join(without), "utf-8")
    try:
        with tempfile.TemporaryDirectory() as site:
            build = [sys.executable, "-m", "mkdocs", "build", "--site-dir", site]
            for number in range(ROUNDS + 1):
                for name, used in times.items():
                    seconds = processor_seconds([*build, "--config-file", name], ROOT)
                    if number:  # The first round fills the caches of notebook pages.
                        used.append(seconds)
    finally:
        config.unlink()
    engine, alone = (min(used) for used in times.values())
    return engine, alone


def prove(blocks: int) -> tuple[float, float]:
    """Return processor time and wall time of proving a site of so many blocks."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        (site / "docs").mkdir()
        (site / "mkdocs.yml").write_text("site_name: Bench\n", "utf-8")
        (site / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", "utf-8")
        lock = (ROOT / "constraints.txt").read_text("utf-8")
        (site / "constraints.txt").write_text(lock, "utf-8")
        block = textwrap.dedent("""\
            ```python
            x = {number}
            ```
            """)
        page = "\n".join(block.format(number=number) for number in range(blocks))
        (site / "docs" / "index.md").write_text(page, "utf-8")
        command = [sys.executable, "-c", MEASURED_PYTEST]
        done = subprocess.run(command, cwd=site, capture_output=True, text=True)
        code, used, seconds = json.loads(done.stdout.splitlines()[-1])
        assert code == 0, done.stdout + done.stderr
        return used, seconds


def main() -> None:
    """Print the figures."""
    engine, alone = build_times()
    print(f"mkdocs build with the engine over without it: {engine / alone:.3f}")
    least = f"{engine:.2f} s over {alone:.2f} s, the least of {ROUNDS} rounds each"
    print(f"  (processor time: {least})")
    few, many = prove(1), prove(BLOCKS + 1)
    used, seconds = many[0] - few[0], many[1] - few[1]
    print(f"processor time a trivial block: {1000 * used / BLOCKS:.1f} ms")
    print(f"cores busy while proving {BLOCKS} of them: {used / seconds:.2f}")


if __name__ == "__main__":
    main()
