"""A small site like the real one, in a folder of its own, and ways to run and build it.

Its Markdown extensions and its validation are those of the real `mkdocs.yml`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from proof.settings import _AnyTag

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = """\
[tool.proof]
lock = "constraints.txt"
timeout = 4
memory = 6
languages = ["json", "markdown", "text"]

[tool.pytest.ini_options]
testpaths = ["docs"]
filterwarnings = ["error"]
addopts = ["--strict-markers"]
"""
SNIPPET = '''\
"""A vetted snippet."""

# --8<-- [start:double]
def double(number: int) -> int:
    """Return twice the number."""

    return 2 * number
# --8<-- [end:double]


# --8<-- [start:fails]
def fails() -> None:
    """Raise what no page expects."""
    raise LookupError("from the snippet")


fails()
# --8<-- [end:fails]
'''
MESSAGE = re.compile(r"^(?:\w+ +-  )?(?P<page>[\w./-]+):(?P<line>\d+): (?P<said>.*)$")
# Plugins that change how a run looks, or would change the run around a run in here.
OPTIONS = ["-p", "no:sugar", "-p", "no:cacheprovider", "-q"]
INSIDE = [
    *OPTIONS,
    "-s",
    "--assert=plain",
    *("-p", "no:faulthandler", "-p", "no:unraisableexception"),
    *("-p", "no:threadexception", "-p", "no:logging"),
]


@dataclass(frozen=True)
class Message:
    """A line `page:line: what is wrong` of a run or of a build."""

    page: str
    line: int
    said: str


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    output: str

    @property
    def messages(self) -> list[Message]:
        found = (MESSAGE.match(line) for line in self.output.splitlines())
        return [Message(m["page"], int(m["line"]), m["said"]) for m in found if m]


class Site:
    """A small site at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configure()
        self.write("pyproject.toml", PROJECT)
        self.write("constraints.txt", "numpy==2.4.6\ntorch==2.13.0\n")
        self.write("snippets/part.py", SNIPPET)
        self.write("docs/index.md", "# Index { #index }\n\nHere it starts.\n")

    def configure(self, plugins: list[Any] | None = None, **more: Any) -> None:
        """Write mkdocs.yml; `plugins` stand before the engine's own."""
        real = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader=_AnyTag)
        site = {
            "site_name": "Small",
            "theme": {"name": "mkdocs"},
            "plugins": ["search", *(plugins or []), "proof"],
            "markdown_extensions": real["markdown_extensions"],
            "validation": real["validation"],
            **more,
        }
        self.write("mkdocs.yml", yaml.safe_dump(site, sort_keys=False))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text("utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert old in text
        self.write(name, text.replace(old, new))

    def records(self, page: str = "") -> list[dict[str, Any]]:
        """The records of one page, or of all, in the order of their lines."""
        paths = sorted((self.root / ".proof" / page).rglob("*.json"))
        found = [json.loads(path.read_text("utf-8")) for path in paths]
        return sorted(found, key=lambda r: (str(r["page"]), int(r["line"])))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a Python module as a process of its own."""
        outer = ("PYTEST", "PYTHONHASHSEED")  # The run around this one has its own.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, *command: str) -> Ran:
        process = self.start(*command)
        output, _ = process.communicate(timeout=120)
        return Ran(process.returncode, output)

    def run(self, *arguments: str) -> Ran:
        """Run pytest as a contributor does."""
        return self.command("pytest", *OPTIONS, *arguments)

    def run_inside(self, *arguments: str) -> Ran:
        """Run pytest in this process: all such runs share one fork server."""
        output = io.StringIO()
        before, environment = Path.cwd(), dict(os.environ)
        place = ["--rootdir", str(self.root), "-c", str(self.root / "pyproject.toml")]
        os.chdir(self.root)
        try:
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
            ):
                code = pytest.main([*INSIDE, *place, *arguments])
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)
        return Ran(int(code), output.getvalue())

    def git(self, *arguments: str) -> Ran:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *who, *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Ran(done.returncode, done.stdout)

    def build(self) -> Ran:
        """Build as a contributor does."""
        return self.command("mkdocs", "build", "--strict")


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Site]:
    """Make small sites, each in a folder of its own."""
    return lambda name: Site(tmp_path_factory.mktemp(name))


@pytest.fixture
def small_site(tmp_path: Path) -> Site:
    """One small site for one test."""
    return Site(tmp_path)
