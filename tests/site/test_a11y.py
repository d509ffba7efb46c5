"""axe-core finds nothing on any page, in light and dark."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.site.conftest import Opened, OpenPage, Scheme

# The package is used for the copy of axe-core that it brings.
PACKAGE = importlib.util.find_spec("axe_playwright_python")
assert PACKAGE
assert PACKAGE.origin
AXE = Path(PACKAGE.origin).with_name("axe.min.js").read_text("utf-8")
# These depend on colours, so they are asked in both schemes; axe takes them apart text
# by text, so they are asked of one text of each kind that the pages have.
COLOURS = ["color-contrast", "link-in-text-block"]
# Marks a text of each kind that is not known to be right: element, colours, size and
# weight of it and its grounds. Lines of code that hold no such text are then taken out
# of the page for the moment.
THIN = """
known => {
  const seen = new Set(known)
  const found = []
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())
    if (!hasText && !element.matches("input[type=text]")) continue
    if (!element.checkVisibility()) continue
    const style = getComputedStyle(element)
    const kind = [element.localName, style.color, style.fontSize, style.fontWeight]
    for (let e = element; e; e = e.parentElement) {
      const {backgroundColor, opacity} = getComputedStyle(e)
      if (backgroundColor !== "rgba(0, 0, 0, 0)" || opacity !== "1")
        kind.push(backgroundColor, opacity)
    }
    const name = kind.join()
    if (seen.has(name)) continue
    seen.add(name)
    found.push(name)
    element.setAttribute("data-kind", "")
  }
  window.takenOut = []
  for (const line of document.querySelectorAll("pre > code > span + span"))
    if (!line.matches("[data-kind]") && !line.querySelector("[data-kind]"))
      window.takenOut.push([line, line.parentElement, line.nextSibling])
  window.takenOut.forEach(([line]) => line.remove())
  return found
}
"""
UNDO = """
() => {
  document.querySelectorAll("[data-kind]").forEach(e => e.removeAttribute("data-kind"))
  for (const [line, parent, next] of window.takenOut.reverse())
    parent.insertBefore(line, next)
}
"""
# Letters in the very colour of their ground are undecided for axe, which cannot tell
# whether they are meant to be seen. Here all are.
RUN = """
async ([include, options]) => {
  const resultTypes = ["violations", "incomplete"]
  const {violations, incomplete} = await axe.run(
    include ? {include} : document, {resultTypes, ...options})
  const isUnseen = node => node.any.some(({data}) => data?.messageKey === "equalRatio")
  for (const rule of incomplete) rule.nodes = rule.nodes.filter(isUnseen)
  return [...violations, ...incomplete].flatMap(rule => rule.nodes.map(node =>
    [rule.id, node.target.join(" "), node.failureSummary.replace(/\\s+/g, " ")]))
}
"""


Known = dict["Scheme", set[str]]


@pytest.fixture(scope="session")
def known() -> Known:
    """The kinds of text whose colours were found right, by scheme."""
    return {"light": set(), "dark": set()}


def violations(
    opened: Opened,
    schemes: list[Scheme],
    known: Known | None = None,
    colours_alone: bool = False,
) -> list[Any]:
    page = opened.page
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(AXE)
    found = []
    with opened.unfolded():
        for scheme in schemes:
            opened.look(scheme)
            judged = known[scheme] if known else set()
            if kinds := page.evaluate(THIN, list(judged)):
                only = {"runOnly": {"type": "rule", "values": COLOURS}}
                wrong = page.evaluate(RUN, [["[data-kind]"], only])
                found += [[scheme, *violation] for violation in wrong]
                judged.update(() if wrong else kinds)
            if scheme == schemes[-1] and not colours_alone:
                others = {"rules": {rule: {"enabled": False} for rule in COLOURS}}
                found += page.evaluate(RUN, [None, others])
            page.evaluate(UNDO)
    opened.look()
    return found


def test_axe_finds_nothing(shown: Opened, known: Known) -> None:
    assert violations(shown, ["light", "dark"], known) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_before_an_answer_or_in_the_search(
    open_page: OpenPage, scheme: Scheme
) -> None:
    opened = open_page("question/practice/", scheme)
    page = opened.page
    expect(page.locator(".quiz-feedback:visible")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("sequential")
    page.locator(".md-search-result__item").first.wait_for()
    assert violations(opened, [scheme], colours_alone=scheme == "dark") == []


def test_the_test_notices(open_page: OpenPage) -> None:
    opened = open_page("contribute/")
    before = violations(opened, ["light"])
    opened.page.evaluate(
        "document.querySelector('article').innerHTML +="
        '\'<p style="color: #bbb">faint</p><img src="/assets/logo.svg">'
        '<p style="color: red; background: red">unseen</p>\''
    )
    found = violations(opened, ["light"])
    added = sorted(violation[-3] for violation in found if violation not in before)
    assert added == ["color-contrast", "color-contrast", "image-alt"]
