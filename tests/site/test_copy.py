"""Copy is what ran: every copy button of the site, pressed, and its text executed."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proof.evidence import Evidence, Record
from proof.sandbox import Job, Result, Sandbox

if TYPE_CHECKING:
    from tests.site.conftest import Document, Opened, OpenPage

EXECUTED = ("python", "sh", "bash")
LIMIT = 120.0
# Pages of which one text is also run by an interpreter of its own, nothing preloaded.
INTERPRETED = {
    "",
    "question/",
    "question/choosing/",
    "question/practice/",
    "question/residual-block/",
    "question/wrong-approach/",
}
MARK = re.compile(r"#\s*\(\d+\)!?|^\s*(?:>>>|\.\.\.|\$|In \[)\s", re.MULTILINE)
# Where something stands in memory or on the disk, which an error may name.
PLACE = re.compile(r"0x[0-9a-f]+|\"?/[^\s\"]+\"?")

PRINTED = ".jp-OutputArea-output pre"  # of a notebook's cell
# Press the buttons of a block, and note what the page shows for it. The clipboard is
# emptied before, so that a button that does nothing is seen.
PRESS = """
async (code, printed) => {
  const pre = code.closest("pre")
  const box = pre.closest("[class*=language-]")
  const under = pre.nextElementSibling
  const block = {
    language: box ? box.className.match(/language-([\\w+-]+)/)[1] : "",
    code: code.innerText,
    isSetup: pre.closest(".proof details") !== null,
    isOutput: pre.closest(`.proof-output, ${printed}`) !== null,
    anchor: under && under.matches(".proof") ? under.id : "",
    error: "",
    buttons: 0,
    copied: null,
  }
  if (block.anchor)
    block.error = (under.querySelector(".proof-error") || {innerText: ""}).innerText
  for (const button of pre.querySelectorAll("button[data-md-type=copy]")) {
    block.buttons++
    await navigator.clipboard.writeText("")
    button.click()
    block.copied = await navigator.clipboard.readText()
  }
  return block
}
"""


@dataclass
class Shown:
    """A block as the page shows it, with what its button copies."""

    language: str
    code: str
    isSetup: bool  # noqa: N815  # as the script in the page names it
    isOutput: bool  # noqa: N815
    anchor: str
    error: str
    buttons: int
    copied: str | None


def press(opened: Opened) -> list[Shown]:
    codes = opened.page.locator(f"article pre > code, {PRINTED}").element_handles()
    with opened.unfolded():
        # Each by itself: on a busy machine, one script for all copied nothing late.
        return [Shown(**code.evaluate(PRESS, PRINTED)) for code in codes]


class Runner:
    """Runs copied texts as fresh scripts, two at a time, and no text twice."""

    def __init__(self, evidence: Evidence) -> None:
        self.settings = evidence.settings
        self.sandbox = Sandbox(0)
        self.pool = ThreadPoolExecutor(2)
        self.jobs: dict[tuple[str, str], Future[Result]] = {}
        self.interpreted: dict[str, Future[Result]] = {}

    def start(
        self, texts: list[tuple[str, str]], in_clone: bool
    ) -> dict[tuple[str, str], tuple[Future[Result], int]]:
        """Start each text; one that another continues is run as its first part."""
        running: dict[tuple[str, str], tuple[Future[Result], int]] = {}
        for language, text in sorted(set(texts), key=lambda t: -len(t[1])):
            if (language, text) in running:
                continue
            ends = sorted(
                len(other)
                for kind, other in set(texts)
                if kind == language and f"{text}\n".startswith(f"{other}\n")
            )
            starts = [0, *(end + 1 for end in ends[:-1])]
            script = f"{text}\n"
            parts = [
                script[start : end + 1] for start, end in zip(starts, ends, strict=True)
            ]
            job = Job(
                language,
                parts,
                LIMIT,
                self.settings.memory,
                0,
                self.settings.ignored_warnings,
                self.settings.root if in_clone else None,
            )
            known = self.jobs.get((language, text))
            future = known or self.pool.submit(self.sandbox.run, job)
            self.jobs[language, text] = future
            for number, end in enumerate(ends):
                running.setdefault((language, text[:end]), (future, number))
        return running

    def interpret(self, text: str, folder: Path) -> Future[Result]:
        """Run a Python text in an interpreter of its own, nothing preloaded."""
        if text not in self.interpreted:
            self.interpreted[text] = self.pool.submit(self._interpret, text, folder)
        return self.interpreted[text]

    def _interpret(self, text: str, folder: Path) -> Result:
        (folder / "copied.py").write_text(text, "utf-8")
        ignored = [f"-Wignore:{said}" for said in self.settings.ignored_warnings]
        done = subprocess.run(
            [sys.executable, "-Werror", *ignored, "copied.py"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        kind, _, said = done.stderr.rpartition("\n  File ")[2].partition(": ")
        kind = kind.rpartition("\n")[2]
        kind *= bool(done.returncode)
        return Result([done.stdout], error_type=kind, error=said.rstrip())


@pytest.fixture(scope="module")
def runner(evidence: Evidence) -> Iterator[Runner]:
    made = Runner(evidence)
    yield made
    made.pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class Recorded:
    """What the records say that a text does."""

    output: str
    error: str
    varies: bool


def recorded(text: str, records: list[Record]) -> Recorded | None:
    """Look a copied text up among the parts of the records."""
    for record in records:
        for number in range(len(record["parts"])):
            parts = record["parts"][: number + 1]
            if "".join(part["code"] for part in parts).rstrip() == text.rstrip():
                return Recorded(
                    "".join(part["output"] for part in parts),
                    record["error"] if number == len(record["parts"]) - 1 else "",
                    record["varies"],
                )
    return None


def differences(
    blocks: list[Shown],
    records: list[Record],
    runner: Runner,
    in_clone: bool,
    folder: Path | None = None,
    runs: bool = True,
) -> list[str]:
    """Say where the buttons of a page yield something else than what ran.

    What is copied is run again, if `runs`; else it must be what the records have run.
    """
    found = []
    texts = []
    for block in blocks:
        where = (block.code.strip().splitlines() or [""])[0]
        is_executed = block.language in EXECUTED and not block.isOutput
        if block.buttons != int(is_executed):
            found.append(f"{block.buttons} copy buttons at: {where}")
        if not is_executed or block.copied is None:
            continue
        if not block.copied.strip():
            found.append(f"the button copies nothing at: {where}")
        elif MARK.search(block.copied):
            found.append(f"a mark or a prompt is copied at: {where}")
        else:
            texts.append((block.language, block.copied))
    if not runs:
        foreign = [text for _, text in texts if recorded(text, records) is None]
        found += [f"what is copied was never executed: {text}" for text in foreign]
        return [*found, *shown_differences(blocks, records)]
    running = runner.start(texts, in_clone)
    # The longest has most to lose.
    python = [text for language, text in texts if language == "python"]
    longest = max(python, key=len, default="")
    fresh = runner.interpret(longest, folder) if longest and folder else None
    for (language, text), (future, number) in running.items():
        where = f"{language} ending in: {text.splitlines()[-1]}"
        known = recorded(text, records)
        if known is None:
            found.append(f"what is copied was never executed: {where}")
            continue
        outcomes = [(future.result(), number)]
        if fresh and text == longest:
            outcomes.append((fresh.result(), 0))
        for result, last in outcomes:
            output = "".join(result.outputs[: last + 1])
            is_whole = last == len(result.outputs) - 1
            error = f"{result.error_type}: {result.error}" if result.error_type else ""
            if not is_whole:
                error = ""
            if PLACE.sub("", error) != PLACE.sub("", known.error):
                found.append(f"error {error!r}, not {known.error!r}: {where}")
            if output != known.output and not known.varies:
                found.append(f"prints {output!r}, not {known.output!r}: {where}")
    return [*found, *shown_differences(blocks, records)]


def shown_differences(blocks: list[Shown], records: list[Record]) -> list[str]:
    """Say where outputs and errors on the page are not those of the records."""
    outputs: dict[str, str] = {}
    errors: dict[str, str] = {}
    claim = ""
    for block in blocks:
        if block.anchor:
            claim, _, _ = block.anchor.removeprefix("proof-").rpartition("-")
            outputs.setdefault(claim, "")
            errors[claim] = block.error
        elif block.isOutput:
            outputs[claim] += block.code
    found = []
    for record in records:
        claim = record["claim"][:8]
        printed = "".join(part["output"] for part in record["parts"])
        # Pytest's own timing is not on the page.
        if not record["varies"] and outputs.get(claim, "").split() != printed.split():
            found.append(f"{record['page']}:{record['line']}: shows another output")
        if errors.get(claim, "").split() != record["error"].split():
            found.append(f"{record['page']}:{record['line']}: shows another error")
    return found


def test_every_copied_text_does_what_the_page_shows(
    shown: Opened,
    records: Callable[[Document], list[Record]],
    evidence: Evidence,
    runner: Runner,
    tmp_path: Path,
) -> None:
    blocks = press(shown)
    in_clone = shown.document.source in evidence.settings.in_clone
    of_page = records(shown.document)
    folder = tmp_path if shown.document.url in INTERPRETED else None
    # An experiment is not made again for each of its cells.
    runs = not shown.document.source.endswith(".py")
    assert differences(blocks, of_page, runner, in_clone, folder, runs) == []
    # One button for each visible part and each setup that was executed.
    visible = sum(not part["hidden"] for r in of_page for part in r["parts"])
    assert sum(block.buttons for block in blocks if not block.isSetup) == visible


def test_six_pages_are_interpreted(documents: list[Document]) -> None:
    assert len(INTERPRETED & {document.url for document in documents}) >= 6


def test_a_button_works_by_mouse_and_by_keyboard(open_page: OpenPage) -> None:
    page = open_page("question/residual-block/").page
    first, second = page.locator("article button[data-md-type=copy]:visible").all()[:2]
    first.scroll_into_view_if_needed()
    first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("from torch import Tensor, nn\n")
    second.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("navigator.clipboard.readText()").startswith(copied)
    assert page.get_by_text("Copied to clipboard").first.is_visible()


@pytest.mark.parametrize("tampering", ["other code", "a mark", "no button"])
def test_the_test_notices(
    site: Path,
    open_page: OpenPage,
    serve: Callable[[Path], str],
    records: Callable[[Document], list[Record]],
    documents: list[Document],
    runner: Runner,
    tmp_path: Path,
    tampering: str,
) -> None:
    copy = tmp_path / "site"
    shutil.copytree(site, copy, ignore=shutil.ignore_patterns("*.map", "question"))
    text = (copy / "index.html").read_text("utf-8")
    code = re.search(r"<code>.*?</code>", text[text.index("language-python") :], re.S)
    assert code
    plain = html.escape(html.unescape(re.sub("<[^>]+>", "", code[0])))
    other = {
        "other code": plain.replace("import torch", "import torch; print(0)", 1),
        "a mark": plain.replace("import torch", "import torch  # (1)", 1),
        "no button": "",
    }[tampering].replace("\n", "&#10;")
    planted = f' data-copy="{other}"' if other else ' data-no="copy"'
    text = text.replace(
        '<div class="language-python highlight"',
        f'<div class="language-python {"highlight" if other else "highlight no-copy"}"'
        + planted,
        1,
    )
    (copy / "index.html").write_text(text, "utf-8")
    opened = open_page("", base=serve(copy))
    home = next(document for document in documents if document.url == "")
    found = differences(press(opened), records(home), runner, False)
    said = {
        "other code": "what is copied was never executed",
        "a mark": "a mark or a prompt is copied",
        "no button": "0 copy buttons",
    }[tampering]
    assert [line for line in found if said in line]
