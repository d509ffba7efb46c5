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
PRACTICE = "question/practice/"


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
    marks = page.locator(".md-annotation")
    expect(marks).to_have_count(len(notes()))
    for number, words in enumerate(notes()):
        mark = marks.nth(number)
        page.mouse.click(*centre(page, mark.locator(".md-annotation__index")))
        tip = page.locator(".md-tooltip--active")
        expect(tip).to_have_count(1)
        plain = " ".join(tip.inner_text().split())
        assert plain.startswith(re.sub(r"[`*\[\]]", "", words)), number
        page.mouse.click(720, 5)
        expect(tip).to_have_count(0)


def test_notes_open_by_keyboard_and_are_whole(open_page: OpenPage) -> None:
    page = open_page(BLOCK).page
    marks = page.locator(".md-annotation")
    marks.first.scroll_into_view_if_needed()
    marks.first.focus()
    for number, words in enumerate(notes()):
        if number:
            page.keyboard.press("Tab")
            while not page.evaluate("document.activeElement.matches('.md-annotation')"):
                page.keyboard.press("Tab")  # Links in the note are stops of their own.
        tip = page.locator(".md-tooltip--active")
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
        page.keyboard.press(key)
        expect(field).to_be_focused()
        # It opens once the index is read, which takes a busy machine its time.
        expect(page.locator("#__search")).to_be_checked(timeout=30_000)
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


# The quiz


class Choice:
    """One choice of a quiz, as its author wrote it."""

    def __init__(self, mark: str, text: str, feedback: str) -> None:
        self.is_right = mark == "x"
        self.text, self.feedback = plain(text), plain(feedback)


def plain(text: str) -> str:
    """The text of a line of Markdown."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    pieces = text.split("`")  # Every second one is code, where a star is a star.
    pieces[::2] = [piece.replace("*", "") for piece in pieces[::2]]
    return " ".join("".join(pieces).split())


def quizzes() -> list[list[Choice]]:
    text = (ROOT / "docs/question/practice.md").read_text("utf-8")
    option = re.compile(r"^- \[([x ])\] (.*)\n> (.*)$", re.MULTILINE)
    found = [
        [Choice(*choice) for choice in option.findall(quiz)]
        for quiz in re.findall(r"<quiz>(.*?)</quiz>", text, re.DOTALL)
    ]
    written = len(re.findall(r"^- \[[x ]\]", text, re.MULTILINE))
    assert sum(map(len, found)) == written, "a choice has no feedback"
    return found


def choose(quiz: Locator, choice: Choice) -> None:
    labels = quiz.locator("label")
    shown = [" ".join(text.split()) for text in labels.all_inner_texts()]
    assert choice.text in shown
    labels.nth(shown.index(choice.text)).click()


def judge(quiz: Locator, chosen: list[Choice], is_right: bool) -> None:
    """Hold what the page says of an answer against its source."""
    verdict = "correct" if is_right else "incorrect"
    said = quiz.locator(f".quiz-feedback-item.{verdict}:visible")
    expect(said).to_have_count(len(chosen))
    told = " ".join(quiz.locator(".quiz-feedback").inner_text().split())
    for choice in chosen:
        assert choice.feedback in told


def test_every_choice_by_mouse(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    page.on("dialog", lambda dialog: dialog.accept())
    written = quizzes()
    expect(page.locator(".quiz")).to_have_count(len(written))
    for round_ in range(max(map(len, written))):
        for quiz, choices in zip(page.locator(".quiz").all(), written, strict=True):
            if round_ < len(choices):
                choice = choices[round_]
                choose(quiz, choice)
                quiz.locator("button[type=submit]").click()
                is_only = sum(c.is_right for c in choices) == 1
                judge(quiz, [choice], choice.is_right and is_only)
        page.evaluate("localStorage.clear()")
        page.reload()


def test_the_whole_answer_is_right_and_kept(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    written = quizzes()
    for quiz, choices in zip(page.locator(".quiz").all(), written, strict=True):
        right = [choice for choice in choices if choice.is_right]
        for choice in right:
            choose(quiz, choice)
        quiz.locator("button[type=submit]").click()
        judge(quiz, right, True)
    total = len(written)
    progress = page.locator("#quiz-progress-sidebar")
    expect(progress).to_contain_text(f"{total} / {total} (100%)")
    page.reload()
    expect(progress).to_contain_text(f"{total} / {total} (100%)")
    expect(page.locator(".quiz-feedback-item.correct").first).to_be_visible()


def test_too_much_is_wrong_too(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    several = [n for n, q in enumerate(quizzes()) if sum(c.is_right for c in q) > 1]
    assert several
    for number in several:
        quiz, choices = page.locator(".quiz").nth(number), quizzes()[number]
        for choice in choices:
            choose(quiz, choice)
        quiz.locator("button[type=submit]").click()
        judge(quiz, choices, False)


def test_a_quiz_by_keyboard(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    quiz, choices = page.locator(".quiz").first, quizzes()[0]
    page.locator("#q-stack a.headerlink").focus()
    while not page.evaluate("document.activeElement.matches('.quiz input')"):
        page.keyboard.press("Tab")
    chosen = "document.activeElement.nextElementSibling.innerText.trim()"
    page.keyboard.press("Space")
    for _ in choices:
        if page.evaluate(chosen) == "nn.Sequential":
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    judge(quiz, [choice for choice in choices if choice.is_right], True)
    expect(quiz.locator(".quiz-feedback")).to_be_focused()


def test_submitting_nothing_is_no_answer(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    quiz = page.locator(".quiz").first
    expect(quiz.locator("button[type=submit]")).to_be_disabled()
    choose(quiz, quizzes()[0][1])
    expect(quiz.locator("button[type=submit]")).to_be_enabled()


def test_another_choice_can_be_tried(open_page: OpenPage) -> None:
    page = open_page(PRACTICE).page
    quiz, choices = page.locator(".quiz").first, quizzes()[0]
    choose(quiz, choices[1])
    quiz.locator("button[type=submit]").click()
    quiz.get_by_role("button", name="Try Again").click()
    choose(quiz, choices[0])
    quiz.locator("button[type=submit]").click()
    judge(quiz, choices[:1], True)


def test_quiz_after_a_click_from_another_page(open_page: OpenPage) -> None:
    opened = open_page("question/")
    page = opened.page
    page.locator("a[href$='practice/']:visible").first.click()
    page.wait_for_url(f"**/{PRACTICE}")
    opened.settle()
    quiz, choices = page.locator(".quiz").first, quizzes()[0]
    choose(quiz, choices[0])
    quiz.locator("button[type=submit]").click()
    judge(quiz, choices[:1], True)
