"""The site as a whole: its pages, its proof, and a second generator."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from proof.evidence import Evidence, Record
from proof.page import normalise

if TYPE_CHECKING:
    from tests.site.conftest import Document, Opened

ROOT = Path(__file__).resolve().parents[2]
STAMP = re.compile(r'\bid="(proof-[0-9a-f]+-\d+)"')
EMPTY = {"base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
# End tags of these may be left out.
LOOSE = {"dd", "dt", "li", "option", "p", "tbody", "td", "th", "thead", "tr"}


def read(site: Path, document: Document) -> str:
    path = site / document.url
    return (path / "index.html" if path.is_dir() else path).read_text("utf-8")


class Balance(HTMLParser):
    """End tags that close nothing, and elements that nothing closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, int]] = []
        self.problems: list[str] = []
        self.in_svg = 0
        self.feed(text)
        self.problems += [f"line {n}: <{t}> is never closed" for t, n in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in EMPTY | LOOSE:
            self.open.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An empty element of an inline drawing closes itself."""

    def handle_endtag(self, tag: str) -> None:
        if tag in EMPTY | LOOSE:
            return
        if self.open and self.open[-1][0] == tag:
            self.open.pop()
        else:
            inside = self.open[-1][0] if self.open else "nothing"
            self.problems.append(f"line {self.getpos()[0]}: </{tag}> inside {inside}")


def test_the_site_has_these_pages_and_no_others(
    site: Path, documents: list[Document]
) -> None:
    built = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    urls = {d.url for d in documents}
    assert built == {url if "." in url else f"{url}index.html" for url in urls}
    sitemap = ElementTree.parse(site / "sitemap.xml")
    listed = [e.text or "" for e in sitemap.iter() if e.tag.endswith("}loc")]
    root = min(listed, key=len)
    assert {url.removeprefix(root) for url in listed} == urls - {"404.html"}


def test_every_page_is_in_the_search_index(
    site: Path, documents: list[Document]
) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    entries = index["docs"]
    pages = {entry["location"].partition("#")[0] for entry in entries}
    # Cards repeat what stands elsewhere, and must not be found in its place.
    assert pages == {d.url for d in documents} - {"404.html", "practice/cards/"}
    for entry in entries:
        assert entry["title"].strip()
        assert not re.search(r"¶|Link to this section|Copied!", entry["title"])
        assert not re.search(r"ran on torch \d", entry["text"])
    texts: dict[str, str] = {}
    for entry in entries:
        page = entry["location"].partition("#")[0]
        texts[page] = texts.get(page, "") + entry["text"]
    assert min(map(len, texts.values())) > 200


def test_html_is_balanced(site: Path, documents: list[Document]) -> None:
    for document in documents:
        assert Balance(read(site, document)).problems == [], document.url


def test_the_test_of_balance_notices() -> None:
    problems = Balance("<div><p>a<br></div></div><b><svg><path/></svg>").problems
    assert problems == [
        "line 1: </div> inside nothing",
        "line 1: <b> is never closed",
    ]


def test_every_block_of_the_html_carries_evidence(
    documents: list[Document],
    shown_code: Callable[[Document], Counter[tuple[str, str]]],
    records: Callable[[Document], list[Record]],
) -> None:
    total = 0
    for document in documents:
        parts = [
            (part["hidden"], (record["language"], normalise(part["code"])))
            for record in records(document)
            for part in record["parts"]
            if record["outcome"] == "passed"
        ]
        proved = Counter(code for hidden, code in parts if not hidden)
        proved += Counter({code for hidden, code in parts if hidden})
        # Both ways: the page shows all that was executed too, each setup once, folded.
        assert shown_code(document) == proved, document.url
        total += proved.total()
    assert total > 90


@pytest.mark.parametrize("generator", ["mkdocs", "properdocs"])
def test_the_command_line_accepts_the_site(
    site: Path, other_site: Path, generator: str
) -> None:
    folder = site if generator == "mkdocs" else other_site
    done = subprocess.run(
        [sys.executable, "-m", "proof", "check", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = len(list(site.rglob("*.html")))
    assert done.stdout.splitlines() == [f"proof: {pages} pages, 0 problems"]


def test_the_command_line_notices(site: Path, tmp_path: Path) -> None:
    text = (site / "index.html").read_text("utf-8")
    (tmp_path / "index.html").write_text(text.replace("torch", "touch"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "proof", "check", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search(r"^docs/index\.md:\d+: this python block ", done.stdout)


def test_properdocs_stamps_the_same(
    site: Path, other_site: Path, documents: list[Document]
) -> None:
    total = 0
    for document in documents:
        stamps = STAMP.findall(read(site, document))
        assert STAMP.findall(read(other_site, document)) == stamps, document.url
        assert len(set(stamps)) == len(stamps), document.url
        total += len(stamps)
    assert total > 90


def test_edit_links_where_there_is_a_repository(
    site: Path, other_site: Path, documents: list[Document]
) -> None:
    for document in documents:
        edit = re.findall(r'href="([^"]+/edit/[^"]+)"', read(other_site, document))
        source = [f"https://github.com/o/r/edit/main/{document.source}"]
        assert edit == (source if document.source else [])
        assert "/edit/" not in read(site, document)


def test_the_index_lists_every_block_with_its_evidence(
    shown: Opened,
    site: Path,
    documents: list[Document],
    records: Callable[[Document], list[Record]],
    evidence: Evidence,
) -> None:
    if shown.document.url != "proved/":
        return
    rows = shown.page.evaluate(
        "() => [...document.querySelectorAll('.proof-index tbody tr')].map(row => ["
        "new URL(row.querySelector('a').href).pathname.slice(1), "
        "row.querySelector('a').hash.slice(1), "
        "...[...row.cells].map(cell => cell.textContent)])"
    )
    expected: dict[tuple[str, int, float], int] = {}
    for document in documents:
        for record in records(document):
            key = document.url, record["line"], round(record["seconds"], 2)
            expected[key] = expected.get(key, 0) + 1
    listed: dict[tuple[str, int, float], int] = {}
    for page, anchor, line, code, outcome, seconds in rows:
        key = page, int(line), float(seconds)
        listed[key] = listed.get(key, 0) + 1
        target = next(d for d in documents if d.url == page)
        assert f'id="{anchor}"' in read(site, target), f"{page}#{anchor} leads nowhere"
        assert code.strip()
        assert outcome in {"passed", "raised, as it must"}
    assert listed == expected
    every = [r for document in documents for r in records(document)]
    raised = sum(row[4] == "raised, as it must" for row in rows)
    assert raised == sum(bool(r["error"]) for r in every)
    seconds = sum(r["seconds"] for r in every)
    said = shown.page.locator(".proof-index > p").inner_text()
    assert said == (
        f"{len(every)} of {len(every)} blocks executed in {seconds:.1f} s, on torch "
        f"{evidence.pinned_torch} and Python {evidence.environment['python']}. "
        "Not executed: 0."
    )
