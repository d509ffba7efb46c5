"""The second reading: the code blocks that a finished page really shows.

Nothing here knows MkDocs: `find` reads the HTML of any generator that marks a block's
language with a class `language-…` or `hl-…`, as Pygments, Python-Markdown and
JupyterLab's export do.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proof.evidence import Evidence, Record
from proof.page import EXECUTED, PLAIN, Page, normalise
from proof.settings import Settings

PIECE = re.compile(
    r"<!--(?P<comment>.*?)-->"
    r"|<div\b[^>]*\bclass=[\"'](?P<box>[^\"']*)[\"'][^>]*>"
    r"|<pre\b(?P<pre>[^>]*)>(?P<code>.*?)</pre>",
    re.DOTALL | re.IGNORECASE,
)
CODE = re.compile(
    r"\s*(?:<span></span>)?\s*<code\b(?P<attributes>[^>]*)>", re.IGNORECASE
)
CLASS = re.compile(r"\bclass=[\"']([^\"']*)[\"']")
LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|hl)-([\w#+.-]+)")
TAG = re.compile(r"<[^>]+>")
# What the cells of an executed notebook printed.
CELL_OUTPUT = "jp-OutputArea-output"


@dataclass
class Shown:
    """A code block of the finished page."""

    language: str
    code: str
    opening: int
    end: int
    is_output: bool


def find(page: str, is_notebook: bool = False) -> Iterator[Shown]:
    """Yield the code blocks of a page's HTML in the order of the page."""
    box, opening, is_output = "", -1, False
    for piece in PIECE.finditer(page):
        if piece["comment"] is not None:
            is_output = "pytest-codeblocks:expected-output" in piece["comment"]
        elif piece["box"] is not None:
            box, opening = piece["box"], piece.start()
        elif not (is_notebook and CELL_OUTPUT in box):
            code = CODE.match(piece["code"])
            own = " ".join(
                CLASS.findall(piece["pre"] + (code["attributes"] if code else ""))
            )
            named = LANGUAGE.search(own) or LANGUAGE.search(box)
            language = named[1].lower() if named else ""
            yield Shown(
                PLAIN.get(language, language),
                html.unescape(TAG.sub("", piece["code"])),
                opening if "highlight" in box else piece.start(),
                piece.end(),
                is_output,
            )
            box, opening, is_output = "", -1, False


@dataclass
class Verdict:
    """A shown block, the record that proves it, and the part that it is."""

    shown: Shown
    record: Record | None = None
    part: int = 0
    problem: str = ""


def compare(
    text: str, page: str, records: list[Record], evidence: Evidence
) -> list[Verdict]:
    """Find each block that the HTML shows in the records of its source `page`."""
    verdicts = []
    proves = f"pytest {page}".strip()
    known = [
        (normalise(part["code"]), record["language"], record, number)
        for record in records
        for number, part in enumerate(record["parts"])
    ]
    known.sort(key=lambda entry: not evidence.holds(entry[2]))
    languages = [*EXECUTED, *sorted(evidence.settings.languages)]
    last: Verdict | None = None
    for shown in find(text, page.endswith(".py")):
        verdict = Verdict(shown)
        verdicts.append(verdict)
        if shown.is_output:
            verdict.problem = _compare_output(shown, last)
            continue
        if shown.language not in EXECUTED:
            if shown.language not in evidence.settings.languages:
                verdict.problem = (
                    f"a code block in {_named(shown.language)} is shown, which is "
                    f"neither executed nor allowed: use {', '.join(languages)}"
                )
            continue
        code = normalise(shown.code)
        found = [e for e in known if e[0] == code and e[1] == shown.language]
        if not found:
            verdict.problem = (
                f"this {shown.language} block is shown, but was not executed in this "
                f"form: run `{proves}`"
            )
        else:
            verdict.record, verdict.part = found[0][2], found[0][3]
            verdict.problem = _reason(verdict.record, evidence, proves)
            # A block that is shown twice is the next one with the same text.
            known.remove(found[0])
            known.append(found[0])
        last = verdict
    return verdicts


def _named(language: str) -> str:
    return f"language `{language}`" if language else "no language"


def _reason(record: Record, evidence: Evidence, proves: str) -> str:
    """Say why a record does not prove its block, or nothing."""
    if record["outcome"] == "failed":
        first = str(record["failure"]).splitlines()[0]
        return f"this block failed: {first.split(': ', 1)[1]}"
    if record["torch"] != evidence.pinned_torch:
        return (
            f"this block ran on torch {record['torch']}, but the site pins "
            f"{evidence.pinned_torch}: run `{proves}`"
        )
    if not evidence.holds(record):
        return f"the lock file, Python or the engine changed since: run `{proves}`"
    return ""


def _compare_output(shown: Shown, last: Verdict | None) -> str:
    """Hold the shown output against what the block above printed."""
    if last is None or last.record is None or last.record["varies"]:
        return ""
    printed = last.record["parts"][last.part]["shown"] or ""
    if printed.split() != shown.code.split():
        return "the output shown is not what the block printed: run pytest on the page"
    return ""


def source_line(shown: Shown, source: str, page: Page | None) -> int:
    """The line of the page's source that made the block, as well as can be told."""
    code = normalise(shown.code)
    for block in page.blocks if page else ():
        for part in block.parts:
            if part.code == code and not part.hidden:
                return part.line
    first = next((line.strip() for line in shown.code.splitlines() if line.strip()), "")
    for number, line in enumerate(source.splitlines(), 1):
        if first and first in html.unescape(line):
            return number
    return 1


def executed_code(verdict: Verdict) -> str:
    """What was executed up to and with the shown block: what the copy button yields."""
    assert verdict.record
    parts = verdict.record["parts"][: verdict.part + 1]
    return "".join(part["code"] for part in parts)


def setup_parts(verdict: Verdict) -> list[str]:
    """The hidden parts that ran between the last shown block and this one."""
    assert verdict.record
    parts = verdict.record["parts"][: verdict.part]
    shown = [n for n, part in enumerate(parts) if not part["hidden"]]
    return [part["code"] for part in parts[shown[-1] + 1 if shown else 0 :]]


def check_site(site: Path, settings: Settings) -> list[str]:
    """Hold a built site against the evidence, without its generator."""
    evidence, problems = Evidence(settings), []
    for path in sorted(site.rglob("*.html")):
        name = page_of(path.relative_to(site), settings)
        text = path.read_text("utf-8")
        records = list(evidence.of_page(name).values()) if name else []
        source = (settings.root / name).read_text("utf-8") if name else text
        for verdict in compare(text, name, records, evidence):
            if verdict.problem:
                line = source_line(verdict.shown, source, None)
                where = name or path.relative_to(site).as_posix()
                problems.append(f"{where}:{line}: {verdict.problem}")
    return problems


def page_of(path: Path, settings: Settings) -> str:
    """The source of a built page, or nothing if it has none."""
    stem = path.with_suffix("") if path.name != "index.html" else path.parent
    folder = settings.root / settings.docs
    for name in (f"{stem}.md", f"{stem}.py", f"{stem}/index.md", f"{stem}/README.md"):
        if (folder / name).is_file():
            return (folder / name).relative_to(settings.root).as_posix()
    return ""
