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
from proof.page import EXECUTED, PLAIN, Page, Part, normalise, read
from proof.settings import Settings

PIECE = re.compile(
    r"(?P<comment><!--(?:-?>|.*?--!?>))"
    r"|<div\b[^>]*\bclass=[\"'](?P<box>[^\"']*)[\"'][^>]*>"
    r"|<pre\b(?P<pre>[^>]*)>(?P<code>.*?)</pre>"
    r"|(?P<setup><summary>setup</summary>)|(?P<end></details>)",
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
    is_setup: bool  # folded under a stamp


def find(page: str, is_notebook: bool = False) -> Iterator[Shown]:
    """Yield the code blocks of a page's HTML in the order of the page."""
    box, opening, is_output, is_setup = "", -1, False, False
    for piece in PIECE.finditer(page):
        if piece["setup"] or piece["end"]:
            is_setup = bool(piece["setup"])
        elif piece["comment"] is not None:
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
                is_setup,
            )
            box, opening, is_output = "", -1, False


@dataclass
class Verdict:
    """A shown block, the record that proves it, and the part that it is."""

    shown: Shown
    record: Record | None = None
    part: int = 0
    problem: str = ""
    above: Verdict | None = None  # the block whose output this is


Problem = tuple[int, str]  # the line of the page's source, and what is wrong there


def examine(
    text: str, page: Page, evidence: Evidence
) -> tuple[list[Verdict], list[Problem]]:
    """Compare what the HTML shows with the records of its source, both ways."""
    known = evidence.of_page(page.name)
    # A record whose claim the source no longer makes proves nothing.
    claims = [block.claim for block in page.blocks]
    records = [known[claim] for claim in dict.fromkeys(claims) if claim in known]
    verdicts = _compare(text, page.name, records, evidence)
    shown = {(v.record["claim"], v.part) for v in verdicts if v.record}
    unseen = [
        part
        for block, claim in zip(page.blocks, claims, strict=True)
        for number, part in enumerate(block.parts)
        if not part.hidden and (claim, number) not in shown
    ]
    problems = []
    for verdict in verdicts:
        if verdict.problem:
            owner = verdict.above or verdict
            line = _line_of_part(owner, page, verdict.above is not None)
            problems.append((line or _line_of(verdict, page, unseen), verdict.problem))
    named = {line for line, _ in problems}
    for block, claim in zip(page.blocks, claims, strict=True):
        reason = _reason(known.get(claim), page.name, evidence)
        if reason and block.line not in named:
            problems.append((block.line, reason))
        for part in block.parts:
            if not reason and part in unseen:
                message = "the page does not show this block as code: correct its fence"
                problems.append((part.line, message))
    return verdicts, problems


def _compare(
    text: str, page: str, records: list[Record], evidence: Evidence
) -> list[Verdict]:
    """Find each block that the HTML shows in the records."""
    verdicts = []
    languages = evidence.settings.languages
    known = [
        (normalise(part["code"]), record["language"], record, number)
        for record in records
        for number, part in enumerate(record["parts"])
    ]
    known.sort(key=lambda entry: not evidence.holds(entry[2]))
    last: Verdict | None = None
    for shown in find(text, page.endswith(".py")):
        verdict = Verdict(shown)
        verdicts.append(verdict)
        code = normalise(shown.code)
        found = [e for e in known if e[0] == code and e[1] == shown.language]
        # The text of a visible block may be another's setup.
        found.sort(key=lambda e: e[2]["parts"][e[3]]["hidden"] != shown.is_setup)
        if shown.is_output:
            verdict.above = last
            verdict.problem = _compare_output(shown, last)
        elif shown.language not in EXECUTED:
            if shown.language not in languages:
                allowed = ", ".join([*EXECUTED, *sorted(languages)])
                verdict.problem = (
                    f"a code block in {_named(shown.language)} is shown, which is "
                    f"neither executed nor allowed: use {allowed}"
                )
        elif not found:
            last = verdict
            verdict.problem = (
                f"this {shown.language} block is shown, but was not executed in this "
                f"form: run `pytest {page}`"
            )
        else:
            verdict.record, verdict.part = found[0][2], found[0][3]
            if not verdict.record["parts"][verdict.part]["hidden"]:
                last = verdict
            verdict.problem = _reason(verdict.record, page, evidence)
            # A block that is shown twice is the next one with the same text.
            known.remove(found[0])
            known.append(found[0])
    return verdicts


def _named(language: str) -> str:
    return f"language `{language}`" if language else "no language"


def _reason(record: Record | None, page: str, evidence: Evidence) -> str:
    """Say why a record does not prove its block, or nothing."""
    if record is None:
        return f"this block was not executed in this form: run `pytest {page}`"
    if record["outcome"] == "failed":
        place, _, message = str(record["failure"]).splitlines()[0].partition(": ")
        return f"this block failed in line {place.rpartition(':')[2]}: {message}"
    if record["torch"] != evidence.pinned_torch:
        return (
            f"this block ran on torch {record['torch']}, but the site pins "
            f"{evidence.pinned_torch}: run `pytest {page}`"
        )
    if not evidence.holds(record):
        return f"the lock file, Python or the engine changed since: run `pytest {page}`"
    return ""


def _compare_output(shown: Shown, last: Verdict | None) -> str:
    """Hold the shown output against what the block above printed."""
    if last is None or last.record is None or last.record["varies"]:
        return ""
    printed = last.record["parts"][last.part]["shown"] or ""
    if printed.split() != shown.code.split():
        return "the output shown is not what the block printed: run pytest on the page"
    return ""


def _line_of_part(verdict: Verdict, page: Page, of_output: bool) -> int | None:
    """The line of the fence of a block that the source has, or of its output."""
    for block in page.blocks:
        if verdict.record and block.claim == verdict.record["claim"]:
            part = block.parts[verdict.part]
            return part.expected_lines[0] if of_output else part.line
    return None


def _line_of(verdict: Verdict, page: Page, unseen: list[Part]) -> int:
    """The line of the source that a block comes from which the source has otherwise."""
    code = [line for line in normalise(verdict.shown.code).split("\n") if line.strip()]
    for part in unseen:
        same = set(code) & set(part.code.split("\n"))
        if code and len(same) * 2 >= len(set(code)):
            unseen.remove(part)
            return part.line
    source = [html.unescape(line) for line in page.source.split("\n")]
    best, most = 0, 0
    for start, line in enumerate(source, 1):
        if code and code[0].strip() in line:
            rest = (text for text in source[start - 1 :] if text.strip())
            same_lines = sum(a.strip() in b for a, b in zip(code, rest, strict=False))
            if same_lines > most:
                best, most = start, same_lines
    return best or (unseen.pop(0).line if unseen else 1)


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
    evidence, found = Evidence(settings), []
    for path in sorted(site.rglob("*.html")):
        name, text = page_of(path.relative_to(site), settings), path.read_text("utf-8")
        source = settings.root / name
        page = read(source, name, settings) if name else Page("", [], [], text)
        _, problems = examine(text, page, evidence)
        where = name or path.relative_to(site).as_posix()
        for line, message in sorted(page.problems + problems):
            found.append(f"{where}:{line}: {message}")
    return found


def page_of(path: Path, settings: Settings) -> str:
    """The source of a built page, or nothing if it has none."""
    stem = path.with_suffix("") if path.name != "index.html" else path.parent
    folder = settings.root / settings.docs
    for name in (f"{stem}.md", f"{stem}.py", f"{stem}/index.md", f"{stem}/README.md"):
        if (folder / name).is_file():
            return (folder / name).relative_to(settings.root).as_posix()
    return ""
