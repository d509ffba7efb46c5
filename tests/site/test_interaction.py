"""What a reader does on the site, by mouse and by keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from tests.site.conftest import OpenPage

ROOT = Path(__file__).resolve().parents[2]
BLOCK = "question/residual-block/"


def centre(page: Page, target: Locator) -> tuple[float, float]:
    """Where to click something that pulses, and so never stands still."""
    target.evaluate("e => e.scrollIntoView({block: 'center'})")
    box = target.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# Notes in code


def notes() -> list[str]:
    """The first words of each note, in the order of the page."""
    text = (ROOT / "docs/question/residual-block.md").read_text("utf-8")
    return re.findall(r"^\d+\. +(\S+ \S+)", text.partition("## What")[0], re.MULTILINE)


def test_notes_open_by_mouse(open_page: OpenPage) -> None:
    page = open_page(BLOCK).page
    marks, tip = page.locator(".md-annotation"), page.locator(".md-tooltip--active")
    expect(marks).to_have_count(len(notes()))
    for number, words in enumerate(notes()):
        mark = marks.nth(number)
        index = mark.locator(".md-annotation__index")
        page.mouse.click(*centre(page, index))
        expect(tip).to_have_count(1)
        plain = " ".join(tip.inner_text().split())
        assert plain.startswith(re.sub(r"[`*\[\]]", "", words)), number
        page.mouse.click(720, 5)
        expect(tip).to_have_count(0)


def test_notes_open_by_keyboard_and_are_whole(open_page: OpenPage) -> None:
    page = open_page(BLOCK).page
    marks, tip = page.locator(".md-annotation"), page.locator(".md-tooltip--active")
    marks.first.scroll_into_view_if_needed()
    marks.first.focus()
    for number, words in enumerate(notes()):
        if number:
            page.keyboard.press("Tab")
            while not page.evaluate("document.activeElement.matches('.md-annotation')"):
                page.keyboard.press("Tab")  # Links in the note are stops of their own.
        expect(tip).to_be_visible()
        plain = re.sub(r"[`*\[\]]", "", words)
        expect(tip).to_contain_text(plain)
        assert tip.locator("ol, ul").count() == 0, f"note {number + 1} became a list"


# Setup


def test_setup_unfolds_by_mouse_and_keyboard(open_page: OpenPage) -> None:
    page = open_page(BLOCK).page
    first, second = page.locator(".proof details").all()[:2]
    first.locator("summary").click()
    expect(first.locator("pre")).to_be_visible()
    expect(first.locator("pre")).to_contain_text("class ResidualBlock(nn.Module)")
    first.locator("summary").click()
    expect(first.locator("pre")).to_be_hidden()
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(second.locator("pre")).to_be_visible()


# Colours


def test_palette_has_three_ways_and_is_remembered(open_page: OpenPage) -> None:
    page = open_page("", "dark").page
    scheme = "document.body.dataset.mdColorScheme"
    shown = "label[for^=__palette]:visible"
    seen = []
    for _ in range(3):
        seen.append(page.evaluate(scheme))
        page.locator(shown).click()
        after = page.evaluate(scheme)
        page.reload()
        expect(page.locator(shown)).to_have_count(1)
        assert page.evaluate(scheme) == after
    assert seen == ["slate", "default", "slate"]  # the system's, light, dark
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{scheme} === 'default'")


# Search


def test_search_by_keyboard(open_page: OpenPage) -> None:
    page = open_page("").page
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.matches('a.md-skip')")
    page.keyboard.press("Enter")
    assert page.url.endswith("#sequential-or-module")
    page.wait_for_timeout(250)  # Material closes the search just after a jump.
    field = page.locator(".md-search__input")
    for key in ("/", "s", "f"):
        # It opens once the index is read, and a busy machine misses a key before that.
        for _ in range(10):
            page.keyboard.press(key)
            expect(field).to_be_focused()
            page.wait_for_timeout(500)
            if page.locator("#__search").is_checked():
                break
            field.blur()
        expect(page.locator("#__search")).to_be_checked()
        assert field.input_value() == ""
        page.keyboard.press("Escape")
        expect(page.locator("#__search")).not_to_be_checked()
        expect(field).not_to_be_focused()
        page.wait_for_timeout(250)  # Nor does it take note of a shorter absence.
    page.keyboard.press("/")
    page.keyboard.insert_text("wrong approac")
    page.keyboard.type("h")
    expect(page.locator(".md-search-result__item").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    chosen = page.locator(".md-search-result__link:focus")
    expect(chosen).to_have_attribute("href", re.compile("/question/wrong-approach/"))
    page.keyboard.press("Enter")
    page.wait_for_function("location.pathname === '/question/wrong-approach/'")
    expect(page.locator("article mark:visible").first).to_be_visible()


# Navigation


def test_menu_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("question/", width=390).page
    link = page.locator(f".md-nav--primary a[href$='{BLOCK.split('/')[1]}/']").first
    expect(link).not_to_be_in_viewport()
    page.locator("label.md-header__button[for=__drawer]").click()
    expect(link).to_be_in_viewport()
    link.click()
    page.wait_for_url(f"**/{BLOCK}")
    expect(page.locator("#__drawer")).not_to_be_checked()
    expect(page.locator("h1")).to_be_in_viewport()
