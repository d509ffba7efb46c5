"""What every page shows, on a desk and on a phone, in light and dark."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proof.evidence import Evidence

if TYPE_CHECKING:
    from tests.site.conftest import Document, Opened, Scheme

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ("python", "sh", "bash")

# Of each block of code: what it is, and what stands under it.
BLOCKS = """
() => [...document.querySelectorAll("article pre > code")].map(code => {
  const pre = code.parentElement
  const box = pre.closest("[class*=language-]")
  const under = pre.nextElementSibling
  const stamp = under && under.matches(".proof") ? under : null
  const size = stamp ? stamp.getBoundingClientRect() : {width: 0, height: 0}
  return {
    language: box ? box.className.match(/language-([\\w+-]+)/)[1] : "",
    code: code.innerText,
    isSetup: pre.closest(".proof details") !== null,
    stamp: stamp ? stamp.innerText : "",
    isVisible: size.width > 100 && size.height > 8 && stamp.checkVisibility(),
  }
})
"""
HEADINGS = """
() => [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")]
  .map(heading => [heading.localName, heading.id, heading.innerText.trim()])
"""
# What sticks out of the window without a box of its own that scrolls.
OVERFLOW = """
() => {
  const width = document.documentElement.clientWidth
  const found = []
  const scrolls = element => {
    for (let e = element; e && e !== document.body; e = e.parentElement)
      if (getComputedStyle(e).overflowX !== "visible") return true
    return false
  }
  for (const element of document.querySelectorAll("main *"))
    if (element.getBoundingClientRect().right > width + 1
        && element.checkVisibility() && !scrolls(element))
      found.push(element.outerHTML.slice(0, 120))
  const beyond = document.documentElement.scrollWidth - width
  return {beyond, found: found.slice(0, 3)}
}
"""
# Executed code that stands on the page as running text too.
TWICE = """
() => {
  const squeeze = text => text.replace(/\\s+/g, " ").trim()
  const article = document.querySelector("article").cloneNode(true)
  const blocks = [...article.querySelectorAll(".language-python pre > code")]
  const codes = blocks.map(code => squeeze(code.textContent).slice(0, 200))
  article.querySelectorAll("pre, table").forEach(element => element.remove())
  const text = squeeze(article.textContent)
  return codes.filter(code => code.length > 40 && text.includes(code))
}
"""
# The column that text has: a page whose markup is broken shows it first here.
COLUMN = """
() => {
  const column = document.querySelector("article").clientWidth
  return [...document.querySelectorAll("article :is(h1, h2)")]
    .map(heading => heading.offsetWidth / column)
}
"""


@pytest.fixture
def blocks(shown: Opened) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shown.page.evaluate(BLOCKS)
    return found


def test_nothing_sticks_out(shown: Opened) -> None:
    looks: list[tuple[Scheme, int]] = [("dark", 390), ("light", 1440)]
    over, narrowest = {}, {}
    for look in looks:
        shown.look(*look)
        over[look] = shown.page.evaluate(OVERFLOW)
        narrowest[look] = min(shown.page.evaluate(COLUMN))
    assert over == {look: {"beyond": 0, "found": []} for look in looks}
    assert min(narrowest.values()) > 0.8, f"headings lack the whole column: {narrowest}"


def test_head_and_headings(shown: Opened) -> None:
    page = shown.page
    headings = page.evaluate(HEADINGS)
    assert [level for level, _, _ in headings].count("h1") == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title().strip()
    assert page.evaluate("[...document.images].filter(i => !i.alt).length") == 0
    if shown.document.source:
        described = page.locator("meta[name=description]").get_attribute("content")
        assert described
        ids = [identifier for _, identifier, _ in headings]
        assert all(ids), headings
        assert len(set(ids)) == len(ids), headings


def test_heading_ids_are_written_in_the_source(shown: Opened) -> None:
    if not shown.document.source.endswith(".md"):
        return  # Jupyter names the headings of a notebook itself.
    text = (ROOT / shown.document.source).read_text("utf-8")
    for included in re.findall(r'--8<-- "([^":]+)', text):
        text += (ROOT / included).read_text("utf-8")
    for _, identifier, said in shown.page.evaluate(HEADINGS):
        assert re.search(rf"\{{[^}}\n]*#{re.escape(identifier)}\b", text), said


def test_every_executed_block_says_so(
    shown: Opened,
    shown_code: Callable[[Document], Counter[tuple[str, str]]],
    evidence: Evidence,
    blocks: list[dict[str, Any]],
) -> None:
    shown.look(width=390)
    narrow = shown.page.evaluate(BLOCKS)
    shown.look()
    code = [b for b in blocks if b["language"] in EXECUTED and not b["isSetup"]]
    for block in code + [b for b in narrow if b["stamp"]]:
        said = f"ran on torch {evidence.pinned_torch} in "
        assert said in block["stamp"] or "not executed: " in block["stamp"], block
        assert block["isVisible"], block
    assert len([b for b in narrow if b["stamp"]]) == len(code)
    others = [b for b in blocks if b["language"] not in EXECUTED]
    assert not [b for b in others if b["stamp"]]
    # The reader of the built HTML sees the same blocks, and the setups among them.
    setups = sum(b["isSetup"] for b in blocks)
    assert shown_code(shown.document).total() == len(code) + setups


def test_code_is_not_shown_a_second_time_as_text(shown: Opened) -> None:
    twice = shown.page.evaluate(TWICE)
    assert twice == []


def test_the_foot_counts_the_blocks(
    shown: Opened, blocks: list[dict[str, Any]], evidence: Evidence
) -> None:
    code = [b for b in blocks if b["language"] in EXECUTED and not b["isSetup"]]
    executed = [b for b in code if "ran on torch" in b["stamp"]]
    foot = shown.page.locator(".proof-foot")
    if not executed:
        assert foot.count() == 0
        return
    assert foot.is_visible()
    environment = evidence.environment
    assert re.fullmatch(
        rf"{len(code)} blocks? on this page, {len(executed)} executed: "
        rf"torch {environment['torch']}, Python {environment['python']}, "
        r"\d{4}-\d\d-\d\d",
        foot.inner_text(),
    )
    last = "document.querySelector('article .proof-foot').getBoundingClientRect().top"
    lowest = (
        "Math.max(...[...document.querySelectorAll('article pre')]"
        ".filter(e => e.checkVisibility())"
        ".map(e => e.getBoundingClientRect().bottom))"
    )
    assert shown.page.evaluate(f"{last} > {lowest}"), "the foot stands above a block"
