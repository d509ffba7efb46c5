"""`python -m proof check site/`: hold a built site against the evidence."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from proof.rendered import check_site
from proof.settings import Settings


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check", help="check every code block of a built site")
    check.add_argument("site", type=Path, help="folder of the built site")
    given = parser.parse_args()
    if not given.site.is_dir():
        parser.error(f"{given.site} is not a folder: build the site first")
    problems = check_site(given.site, Settings.load(Path.cwd()))
    for problem in problems:
        print(problem)
    pages = len(list(given.site.rglob("*.html")))
    print(f"proof: {pages} pages, {len(problems)} problems")
    return 1 if problems or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
