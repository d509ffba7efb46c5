"""The first door: pytest collects the pages and runs each block as one test."""

from __future__ import annotations

import concurrent.futures
import datetime
import difflib
import hashlib
import importlib.util
import json
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_codeblocks import plugin as codeblocks

from proof.evidence import Evidence, Record
from proof.extract import extract
from proof.page import SNIPPETS, Block, Part, fence_for, read
from proof.sandbox import Job, Result, Sandbox
from proof.settings import Settings


class NotProvedError(Exception):
    """A block that is not proved; the text names page and line."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the engine."""
    group = parser.getgroup("proof", "blocks of the site's pages")
    group.addoption(
        "--reprove", action="store_true", help="run blocks that have valid evidence too"
    )
    group.addoption(
        "--update-output",
        action="store_true",
        help="write what the blocks print into the pages",
    )
    group.addoption(
        "--seed",
        type=int,
        default=0,
        help="seed of torch and of hashes; another than 0 runs every block, compares, "
        "and writes no evidence",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the engine where there is a site."""
    # This engine collects the pages; the stock option would collect them again.
    config.option.codeblocks = False
    for name in ("raises", "timeout", "skip", "chance"):
        config.addinivalue_line("markers", f"{name}: see CONTRIBUTING.md")
    if (config.rootpath / "mkdocs.yml").is_file():
        config.pluginmanager.register(Proof(config), "proof-engine")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say against what the blocks run."""
    proof = config.pluginmanager.get_plugin("proof-engine")
    return proof.header() if isinstance(proof, Proof) else None


class Proof:
    """One run of the engine: its settings, its evidence, what it has started."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = Settings.load(config.rootpath)
        self.evidence = Evidence(self.settings)
        self.seed: int = config.getoption("--seed")
        self.is_worker = hasattr(config, "workerinput")
        self.running: dict[str, concurrent.futures.Future[Result]] = {}
        self.pool: concurrent.futures.ThreadPoolExecutor | None = None
        self.sandbox: Sandbox | None = None
        self.edits: dict[str, list[tuple[int, int, list[str]]]] = {}
        self.counts: Counter[str] = Counter()

    def header(self) -> str:
        """One line for pytest's header."""
        seed = f", seed {self.seed}" if self.seed else ""
        return f"proof: torch {self.evidence.pinned_torch}{seed}"

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Collect the site's pages, whatever else pytest is asked for."""
        name = self.settings.page(file_path)
        return PageFile.of(parent, file_path, name, self) if name else None

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Keep pytest from importing a notebook page that it is asked for by name."""
        is_page = self.settings.page(module_path) is not None
        return NoModule.from_parent(parent, path=module_path) if is_page else None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start what must run, on every core; pytest waits for one at a time."""
        if self.config.option.collectonly:
            return
        blocks = [item for item in session.items if isinstance(item, BlockItem)]
        if blocks and self.evidence.installed_torch != self.evidence.pinned_torch:
            raise pytest.UsageError(
                f"torch {self.evidence.installed_torch} is installed, but "
                f"{self.settings.lock} pins torch {self.evidence.pinned_torch}: "
                "install that, or change the pin and prove everything again"
            )
        if not self.is_worker:  # A worker of pytest-xdist is told its items one by one.
            # Those that take longest first: the others fill the cores beside them.
            for item in sorted(blocks, key=lambda item: not item.block.is_notebook):
                item.start()

    def submit(self, claim: str, job: Job) -> concurrent.futures.Future[Result]:
        """Run a job in the background."""
        if self.pool is None or self.sandbox is None:
            self.sandbox = Sandbox(self.seed)
            workers = 1 if self.is_worker else os.cpu_count() or 1
            self.pool = concurrent.futures.ThreadPoolExecutor(workers)
        if claim not in self.running:
            self.running[claim] = self.pool.submit(self.sandbox.run, job)
        return self.running[claim]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep evidence as it comes in; under pytest-xdist the controller does."""
        properties = dict(report.user_properties)
        if self.is_worker or report.when != "call" or "proof" not in properties:
            return
        found = json.loads(str(properties["proof"]))
        self.counts[found["kind"]] += 1
        if record := found.get("record"):
            self.evidence.write(record)
        for page, first, last, lines in found.get("edits", ()):
            self.edits.setdefault(page, []).append((first, last, lines))

    def pytest_sessionfinish(self) -> None:
        """Stop what still runs, and write outputs into pages if asked to."""
        if self.pool and self.sandbox:
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.sandbox.stop()
            self.pool.shutdown(wait=True)
        for page, edits in self.edits.items():
            update(self.settings.root / page, edits)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many blocks ran and how many had valid evidence."""
        if self.counts:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items()))
            terminalreporter.write_line(f"proof: {self.counts.total()} blocks: {kinds}")
        for page in sorted(self.edits):
            terminalreporter.write_line(f"proof: wrote output into {page}")


class NoModule(pytest.File):
    """In the place of a Python module that must not be imported."""

    def collect(self) -> list[pytest.Item]:
        """Find nothing."""
        return []


class PageFile(codeblocks.MarkdownFile):
    """A page of the site."""

    proof: Proof

    @classmethod
    def of(
        cls, parent: pytest.Collector, path: Path, name: str, proof: Proof
    ) -> PageFile:
        """Make the collector of one page."""
        file: PageFile = cls.from_parent(parent, path=path)
        file.proof, file.page_name = proof, name
        return file

    page_name: str

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each block, and one for each thing wrong with the page."""
        proof = self.proof
        page = read(self.path, self.page_name, proof.settings)
        pairs = extract(page)
        if not proof.is_worker and not proof.config.option.collectonly:
            claims = [block.claim for block in page.blocks]
            proof.evidence.keep_only(page.name, claims)
            proof.evidence.drop_lost_pages()
        for line, message in page.problems:
            text = f"{page.name}:{line}: {message}"
            yield ProblemItem.from_parent(
                self, name=f"problem at line {line}", text=text
            )
        known = proof.evidence.of_page(page.name)
        names: Counter[str] = Counter()
        for block, source in pairs:
            name = f"line {block.line}"
            names[name] += 1
            if names[name] > 1:  # Blocks of an included page stand on one line.
                name += f", block {names[name]}"
            item: BlockItem = BlockItem.from_parent(parent=self, name=name, obj=source)
            item.block, item.proof, item.known = block, proof, known.get(block.claim)
            for mark in block.marks:
                # The item decides on `skip`, so that the reason reaches the evidence.
                if mark.name != "skip":
                    item.add_marker(getattr(pytest.mark, mark.name)(*mark.args))
            yield item


class ProblemItem(pytest.Item):
    """What is wrong with a page, as a test that fails."""

    def __init__(self, *, text: str, **options: Any) -> None:
        super().__init__(**options)
        self.text = text

    def runtest(self) -> None:
        """Fail."""
        raise NotProvedError(self.text)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """Show the message alone."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the page."""
        return self.path, None, self.name


class BlockItem(codeblocks.TestBlock):
    """pytest-codeblocks' item, run in its own process, held against the page."""

    block: Block
    proof: Proof
    known: Record | None

    @property
    def skip_reason(self) -> str:
        """Why the block is not executed, or nothing."""
        if mark := self.block.mark("skip"):
            return str(mark.options["reason"])
        module = self.block.importorskip
        if module and importlib.util.find_spec(module.split(".")[0]) is None:
            return f"needs {module}, which is not installed"
        return ""

    @property
    def is_known(self) -> bool:
        """Whether there is valid evidence, so that the block need not run."""
        fresh = self.proof.config.getoption("--reprove") or self.proof.seed
        return not fresh and self.proof.evidence.holds(self.known)

    def start(self) -> concurrent.futures.Future[Result] | None:
        """Start the block if it must run."""
        if self.is_known or self.skip_reason:
            return None
        block, settings = self.block, self.proof.settings
        limit = settings.notebook_timeout if block.is_notebook else settings.timeout
        if mark := block.mark("timeout"):
            limit = float(str(mark.args[0]))
        job = Job(
            block.language,
            [part.code for part in block.parts],
            limit,
            settings.memory,
            self.proof.seed,
            settings.ignored_warnings,
            clone_of=settings.root if block.page in settings.in_clone else None,
            snippets=settings.root / SNIPPETS if block.is_notebook else None,
            keeps_files=block.is_notebook,
        )
        return self.proof.submit(self.block.claim, job)

    def runtest(self) -> None:
        """Wait for the block, keep the evidence, fail if it does not hold."""
        if self.is_known:
            assert self.known
            self.note("unchanged")
            if self.known["outcome"] == "skipped":
                pytest.skip(self.known["reason"])
            return
        if reason := self.skip_reason:
            record = self.record(Result(), "skipped", "") | {"reason": reason}
            self.note("not executed", record)
            pytest.skip(reason)
        running = self.start()
        assert running
        result = running.result()
        failure, edits = judge(self.block, result, self.proof.seed)
        if edits and self.proof.config.getoption("--update-output"):
            failure = ""
        else:
            edits = []
        record = self.record(result, "failed" if failure else "passed", failure)
        self.note("executed", None if self.proof.seed or edits else record, edits)
        if failure:
            raise NotProvedError(failure)

    def note(self, kind: str, record: Record | None = None, edits: Any = ()) -> None:
        """Hand the controller what it is to keep."""
        found = {"kind": kind, "record": record, "edits": edits}
        self.user_properties.append(("proof", json.dumps(found)))

    def record(self, result: Result, outcome: str, failure: str) -> Record:
        """Write down what was run and what came of it."""
        block = self.block
        return {
            **self.proof.evidence.environment,
            "torch": result.torch.split("+")[0] or self.proof.evidence.pinned_torch,
            "build": result.torch,
            "platform": platform.platform(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
            "page": block.page,
            "line": block.line,
            "claim": block.claim,
            "language": block.language,
            "code": hashlib.sha256(block.code.encode()).hexdigest(),
            "parts": [
                {
                    "code": part.code,
                    "hidden": part.hidden,
                    "line": part.line,
                    "output": output,
                    "shown": shown,
                }
                for part, output, shown in _printed(block, result)
            ],
            "varies": block.mark("chance") is not None,
            "outcome": outcome,
            "error": f"{result.error_type}: {result.error}"
            if result.error_type
            else "",
            "failure": failure,
            "files": result.files,
            "seconds": round(result.seconds, 4),
        }

    def repr_failure(self, excinfo: Any) -> str:
        """Show the message of a block alone, anything else as pytest does."""
        if isinstance(excinfo.value, NotProvedError):
            return str(excinfo.value)
        return str(pytest.Item.repr_failure(self, excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the page and the line."""
        return self.path, self.block.line - 1, self.name


def _printed(block: Block, result: Result) -> Iterator[tuple[Part, str, str | None]]:
    """Yield each part, what it printed, and what its expected output stands for.

    An expected output covers all that was printed since the one before it.
    """
    covered = ""
    outputs = [*result.outputs, *[""] * len(block.parts)]
    for part, output in zip(block.parts, outputs, strict=False):
        covered += output
        yield part, output, covered if part.expected is not None else None
        if part.expected is not None:
            covered = ""


Edits = list[tuple[str, int, int, list[str]]]


def judge(block: Block, result: Result, seed: int) -> tuple[str, Edits]:
    """Say why the block is not proved, or nothing; and what would correct the page."""
    page, wanted = block.page, block.mark("raises")
    said = f"{result.error_type}: {result.error}"
    line = block.page_line(result.line)
    if result.error_type and not wanted:
        return f"{page}:{line}: {said}{_details(block, result)}", []
    if wanted:
        kind, pattern = str(wanted.args[0]), str(wanted.options["match"])
        if not result.error_type:
            message = f"it must raise {kind} (match={pattern!r}), but raises nothing"
            return f"{page}:{block.line}: {message}", []
        if result.error_type not in {kind, f"{kind}.{kind}"}:
            message = f"it must raise {kind}, but raises {said}"
            return f"{page}:{line}: {message}{_details(block, result)}", []
        if not re.search(pattern, result.error):
            message = f"the error does not match {pattern!r}: {said}"
            return f"{page}:{line}: {message}", []
        if len(result.outputs) < len(block.parts):
            message = f"only the last part of a block may raise: {said}"
            return f"{page}:{line}: {message}", []
    return _judge_output(block, result, seed)


def _details(block: Block, result: Result) -> str:
    """The traceback, with page lines for lines of block.py."""

    def on_page(found: re.Match[str]) -> str:
        number = int(found["line"])
        return f'File "{block.page}", line {block.page_line(number)}{found["rest"]}'

    own = re.compile(r'File "[^"\n]*block\.py", line (?P<line>\d+)(?P<rest>.*)')
    return "\n\n" + own.sub(on_page, result.details) if result.details else ""


def _judge_output(block: Block, result: Result, seed: int) -> tuple[str, Edits]:
    if block.is_notebook or block.mark("chance"):
        return "", []
    failures, edits, uncovered = [], [], ""
    for part, output, shown in _printed(block, result):
        uncovered += output
        if shown is not None:
            uncovered = ""
            if not _same(part.expected or "", shown, block.ignore_whitespace):
                failures.append(_difference(block, part, shown, seed))
                if not part.is_included:
                    edits.append(_edit(block, part, shown))
    if uncovered.strip():
        part = block.parts[-1]
        failures.append(
            f"{block.page}:{part.line}: it prints, and the page does not show it: run "
            f"`pytest --update-output {block.page}`\n\n{uncovered}"
        )
        if not part.hidden and not part.is_included:
            edits.append(_edit(block, part, uncovered))
    return "\n".join(failures), edits


def _same(expected: str, printed: str, ignore_whitespace: bool) -> bool:
    if ignore_whitespace:
        return expected.split() == printed.split()
    return _lines(expected) == _lines(printed)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.expandtabs(4).strip("\n").split("\n")]


def _difference(block: Block, part: Part, printed: str, seed: int) -> str:
    lines = difflib.unified_diff(
        _lines(part.expected or ""),
        _lines(printed),
        f"{block.page} says",
        f"the run with seed {seed} printed",
        lineterm="",
    )
    advice = f"run `pytest --update-output {block.page}` if the new output is right"
    if seed:
        advice = (
            "this output depends on chance: call torch.manual_seed in the block, print "
            "what does not vary, or add <!--pytest.mark.chance(reason=...)-->"
        )
    difference = "\n".join(lines)
    return f"{block.page}:{part.line}: the output differs: {advice}\n\n{difference}"


def _edit(block: Block, part: Part, printed: str) -> tuple[str, int, int, list[str]]:
    """The lines `first` to `last - 1` of the page are to become these lines."""
    text = [f"{part.prefix}{line}".rstrip() for line in _lines(printed)]
    fence = part.prefix + fence_for(printed)
    if part.expected is not None:
        opening, closing = part.expected_lines
        text = [fence + part.expected_info, *text, fence]
        return block.page, opening, closing + 1, text
    marker = f"{part.prefix}<!--pytest-codeblocks:expected-output-->"
    text = [marker, f"{fence}text", *text, fence]
    return block.page, part.end + 1, part.end + 1, text


def update(page: Path, edits: list[tuple[int, int, list[str]]]) -> None:
    """Apply the edits to the page, from its end to its start, in one step."""
    lines = page.read_text("utf-8").split("\n")
    for first, last, text in sorted(edits, reverse=True):
        lines[first - 1 : last - 1] = text
    draft = page.with_name(f".{page.name}.draft")
    draft.write_text("\n".join(lines), "utf-8")
    draft.replace(page)
