"""Every question, answered wrong and right, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from markdown import markdown
from mkdocs.exceptions import PluginError
from playwright.sync_api import Browser, Locator, Page, expect

from overrides import quiz as hook
from proof.page import read
from proof.quiz import CHOSEN, FILLED, LEVELS, Question
from proof.settings import Settings
from tests.site.conftest import DOCUMENTS

if TYPE_CHECKING:
    from tests.site.conftest import Document, OpenPage

ROOT = Path(__file__).resolve().parents[2]


def _questions(document: Document) -> list[Question]:
    path = ROOT / document.source
    if path.suffix != ".md":
        return []
    return read(path, document.source, Settings.load(ROOT)).questions


ASKED = {d: found for d in DOCUMENTS if (found := _questions(d))}
EVERY = [question for questions in ASKED.values() for question in questions]
asked = pytest.mark.parametrize("asked", ASKED, ids=lambda d: d.url)


@pytest.fixture
def look_at(open_page: OpenPage, server_without_search: str) -> OpenPage:
    """Open a page of which nothing is searched."""
    return partial(open_page, base=server_without_search)


def plain(text: str) -> str:
    """What a reader sees of a piece of Markdown."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", markdown(text))).split())


def text_of(found: Locator) -> str:
    return " ".join(found.inner_text().split())


def quiz_of(page: Page, question: Question) -> Locator:
    # Material shows a part of a page in a tooltip, where it is there a second time.
    return page.locator(f"article #quiz-{question.name}")


def label_of(quiz: Locator, text: str) -> Locator:
    labels = quiz.locator("label")
    shown = [" ".join(label.split()) for label in labels.all_inner_texts()]
    return labels.nth(shown.index(plain(text)))


def wrong_answer(question: Question) -> list[str]:
    """An answer that is not right, though a part of it may be."""
    if question.blanks:
        return ["?" for _ in question.blanks]
    right = [choice.text for choice in question.choices if choice.is_right]
    wrong = [choice.text for choice in question.choices if not choice.is_right]
    return [right[0], wrong[-1]] if len(right) > 1 else [wrong[-1]]


def right_answer(question: Question) -> list[str]:
    right = [choice.text for choice in question.choices if choice.is_right]
    return right or question.blanks


def answer_by_mouse(quiz: Locator, question: Question, answer: list[str]) -> None:
    for number, said in enumerate(answer):
        if question.blanks:
            quiz.locator("input").nth(number).fill(said)
        else:
            label_of(quiz, said).click()
    quiz.locator("button[type=submit]").click()


def answer_by_keyboard(page: Page, question: Question, answer: list[str]) -> None:
    """Come from the heading, as somebody does who reads on."""
    quiz, keys = quiz_of(page, question), page.keyboard
    page.locator(f"#{question.name} a.headerlink").focus()
    focused = "document.activeElement"
    for _ in range(30):
        keys.press("Tab")
        if page.evaluate(f"{focused}.matches('#quiz-{question.name} input')"):
            break
    label = f"{focused}.labels?.[0]?.innerText.replace(/\\s+/g, ' ').trim()"
    wanted = {plain(said) for said in answer}
    if question.blanks:
        for number, said in enumerate(answer):
            keys.press("Control+a")
            keys.type(said)
            if number + 1 < len(answer):
                keys.press("Tab")
    elif len(answer) > 1 or quiz.locator("[type=checkbox]").count():
        for _ in question.choices:
            if page.evaluate(label) in wanted:
                keys.press("Space")
            keys.press("Tab")
        keys.press("Shift+Tab")
    else:
        keys.press("Space")
        for _ in question.choices:
            if page.evaluate(label) in wanted:
                break
            keys.press("ArrowDown")
    keys.press("Enter")


STATE = """
quiz => ({
  status: quiz.querySelector("[role=status]").innerText,
  items: [...quiz.querySelectorAll(".quiz-feedback-item")]
    .map(item => item.matches(".correct")),
  section: quiz.querySelector("section").innerText,
  isProofShown: quiz.querySelector("section .proof").checkVisibility(),
  whole: quiz.innerText,
})
"""


def judge(page: Page, question: Question, answer: list[str], is_right: bool) -> None:
    """Hold what the page says of an answer against the source of the question."""
    quiz = quiz_of(page, question)
    expect(quiz.get_by_role("status")).to_be_visible()
    state = quiz.evaluate(STATE)
    status, section, whole = (
        " ".join(state[part].split()) for part in ("status", "section", "whole")
    )
    if question.blanks:
        assert ("Correct answer!" in status) == is_right, status
        assert all(blank in section for blank in question.blanks)
    else:
        assert status.startswith("Right." if is_right else "Not right"), status
        right = [choice.text for choice in question.choices if choice.is_right]
        assert sorted(state["items"]) == sorted(text in right for text in answer)
    for choice in question.choices:
        assert plain(choice.feedback) in whole, choice.text
    said = re.split(r"^<!--|^```", question.explanation, maxsplit=1, flags=re.M)[0]
    assert plain(said) in section
    assert not state["isProofShown"]


def test_there_are_enough_of_each() -> None:
    practice = [q for q in EVERY if q.page.startswith("docs/practice/")]
    assert len(practice) >= 60
    assert {q.level for q in practice} == set(LEVELS)
    assert {q.kind for q in practice} == {*CHOSEN, *FILLED}
    assert len({q.page for q in practice}) == 7


@asked
def test_every_question_wrong_by_mouse_and_right_by_keyboard(
    asked: Document, look_at: OpenPage
) -> None:
    page = look_at(asked.url).page
    questions = ASKED[asked]
    expect(page.locator("article .quiz")).to_have_count(len(questions))
    for question in questions:
        submit = quiz_of(page, question).locator("button[type=submit]")
        expect(submit, "submitting nothing is no answer").to_be_disabled()
        wrong = wrong_answer(question)
        answer_by_mouse(quiz_of(page, question), question, wrong)
        judge(page, question, wrong, is_right=False)
    page.reload()
    progress = page.locator("#quiz-progress-sidebar")
    total = len(questions)
    expect(progress).to_contain_text(f"{total} / {total} (100%)")
    for question in questions:
        judge(page, question, wrong_answer(question), is_right=False)
        again = quiz_of(page, question).get_by_role("button", name="Try Again")
        again.focus()
        page.keyboard.press("Enter")
        expect(quiz_of(page, question).get_by_role("status")).to_be_hidden()
        right = right_answer(question)
        answer_by_keyboard(page, question, right)
        judge(page, question, right, is_right=True)
    expect(progress).to_contain_text(f"Correct: {total} / {total} (100%)")
    page.reload()
    expect(progress).to_contain_text(f"Correct: {total} / {total} (100%)")
    for question in questions:
        judge(page, question, right_answer(question), is_right=True)
    unfold = quiz_of(page, questions[0]).locator("section > details > summary")
    unfold.focus()
    page.keyboard.press("Enter")
    expect(quiz_of(page, questions[0]).locator("section .proof").first).to_be_visible()


def test_all_choices_together_are_not_right(look_at: OpenPage) -> None:
    document, question = next(
        (d, q)
        for d, questions in ASKED.items()
        for q in questions
        if q.kind == "several"
    )
    page = look_at(document.url).page
    every = [choice.text for choice in question.choices]
    answer_by_mouse(quiz_of(page, question), question, every)
    judge(page, question, every, is_right=False)


def test_choices_are_shuffled(look_at: OpenPage) -> None:
    page = look_at("question/practice/").page
    labels = page.locator("article .quiz").first.locator("label")
    orders = {tuple(labels.all_inner_texts())}
    for _ in range(8):
        page.reload()
        orders.add(tuple(labels.all_inner_texts()))
        if len(orders) > 1:
            return
    raise AssertionError("the order is always the same")


def test_a_blank_left_blank_is_no_answer(look_at: OpenPage) -> None:
    document, question = next(
        (d, q) for d, questions in ASKED.items() for q in questions if q.blanks
    )
    quiz = quiz_of(look_at(document.url).page, question)
    for blank in quiz.locator("input").all():
        blank.fill(" ")
    expect(quiz.locator("button[type=submit]")).to_be_disabled()


def test_answers_are_forgotten_page_by_page(look_at: OpenPage) -> None:
    """Also where there is a blank, at which the plugin's own reset fails."""
    document = next(d for d in ASKED if any(q.blanks for q in ASKED[d]))
    opened = look_at(document.url)
    page = opened.page
    page.on("dialog", lambda dialog: dialog.accept())
    for question in ASKED[document]:
        answer_by_mouse(quiz_of(page, question), question, right_answer(question))
    page.locator("#quiz-progress-sidebar .quiz-reset-all-link").click()
    page.wait_for_load_state()
    total = len(ASKED[document])
    expect(page.locator("#quiz-progress-sidebar")).to_contain_text(f"0 / {total} (0%)")
    expect(page.locator(".quiz-feedback:visible")).to_have_count(0)
    assert opened.errors == []


def test_a_quiz_after_a_click_from_another_page(open_page: OpenPage) -> None:
    opened = open_page("question/")
    page = opened.page
    page.locator("a[href$='question/practice/']:visible").first.click()
    page.wait_for_url("**/question/practice/")
    opened.settle()
    question = _questions(next(d for d in ASKED if d.url == "question/practice/"))[0]
    answer_by_mouse(quiz_of(page, question), question, right_answer(question))
    judge(page, question, right_answer(question), is_right=True)


# Without a script, and for the search


WITHOUT = """
quiz => ({
  feedback: [...quiz.querySelectorAll(".answer-feedback")]
    .map(said => said.checkVisibility() ? said.innerText : ""),
  marks: [...quiz.querySelectorAll("label")]
    .map(label => getComputedStyle(label, "::after").content),
  section: quiz.querySelector("section").innerText,
  canSubmit: quiz.querySelector("button[type=submit]").checkVisibility(),
})
"""


@asked
def test_all_is_there_without_a_script(
    asked: Document, browser: Browser, server: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server + asked.url)
    for question in ASKED[asked]:
        quiz = quiz_of(page, question)
        state = quiz.evaluate(WITHOUT)
        shown = [" ".join(said.split()) for said in state["feedback"]]
        assert shown == [plain(choice.feedback) for choice in question.choices]
        marked = ["right" in mark for mark in state["marks"]]
        assert marked == [choice.is_right for choice in question.choices]
        assert all(blank in state["section"] for blank in question.blanks)
        assert not state["canSubmit"]
        quiz.locator("section > details > summary").click()
        expect(quiz.locator("section .proof").first).to_be_visible()
    context.close()


def test_the_search_knows_questions_and_no_answers(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    known = " ".join(re.sub(r"<[^>]+>", "", entry["text"]) for entry in index["docs"])
    known = " ".join(known.split())
    for question in EVERY:
        first = question.asked.split("\n\n")[0]
        if "[[" not in first:
            # The index escapes what HTML would take for a tag.
            assert plain(first)[:40].replace("<", "&lt;").replace(">", "&gt;") in known
        for choice in question.choices:
            assert plain(choice.feedback) not in known


# What is kept


def test_progress_is_shown_exported_and_forgotten(look_at: OpenPage) -> None:
    opened = look_at("question/practice/")
    page = opened.page
    questions = ASKED[next(d for d in ASKED if d.url == "question/practice/")]
    right, wrong = questions[:2]
    answer_by_mouse(quiz_of(page, right), right, right_answer(right))
    answer_by_mouse(quiz_of(page, wrong), wrong, wrong_answer(wrong))
    opened.load("practice/")
    progress = page.locator(".progress")
    expect(progress).to_contain_text(f"{len(EVERY)} questions, 2 answered, 1 right.")

    def row(question: Question) -> Locator:
        return page.locator(f".questions tr:has(a[href$='#{question.name}'])")

    assert page.locator(".questions tbody tr").count() == len(EVERY)
    expect(row(right)).to_contain_text("right")
    expect(row(wrong)).to_contain_text("not right yet")
    with page.expect_download() as download:
        progress.get_by_role("button", name="Export").click()
    exported = json.loads(Path(download.value.path()).read_text("utf-8"))
    kept = exported["answers"]["quiz_progress_/question/practice/"]
    assert kept[f"quiz-{right.name}"]["correct"] is True
    assert kept[f"quiz-{wrong.name}"]["correct"] is False
    page.on("dialog", lambda dialog: dialog.accept())
    progress.get_by_role("button", name="Forget").click()
    expect(progress).to_contain_text("0 answered, 0 right")
    opened.load("question/practice/")
    expect(page.locator(".quiz-feedback:visible")).to_have_count(0)


def test_a_list_of_a_page_without_a_quiz_is_refused() -> None:
    text = "# Practice\n\n<!-- quiz:index nowhere.md -->"
    page = SimpleNamespace(
        file=SimpleNamespace(src_uri="practice/index.md", content_string=text)
    )
    with pytest.raises(PluginError, match=r"docs/practice/index\.md:3: .* nowhere\.md"):
        hook.on_page_markdown(text, page=page)


QUESTION = """
## {title} {{ #q-{name} data-level="junior" data-kind="choice" }}

<quiz>
Is this {title}?

- [ ] No
> It is.
- [x] Yes
> Right.
</quiz>
"""


def test_an_inserted_question_moves_no_answer(
    open_page: OpenPage, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    first, second, new = (
        QUESTION.format(title=name.title(), name=name)
        for name in ("first", "second", "new")
    )
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs" / "assets", docs / "assets")
    (tmp_path / "pyproject.toml").write_text("[tool.proof]\n")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: Small\ntheme: {name: material, font: false}\n"
        f"hooks: [{ROOT}/overrides/quiz.py]\nextra_javascript: [assets/site.js]\n"
        "plugins: [mkdocs_quiz: {enabled_by_default: false, confetti: false,"
        " auto_submit: false, disable_after_submit: false}]\n"
        "markdown_extensions: [attr_list]\n"
    )

    def build(*questions: str) -> None:
        (docs / "index.md").write_text("# Quiz\n" + "".join(questions))
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
        subprocess.run(command, cwd=tmp_path, check=True)

    build(first, second)
    opened = open_page("", base=serve(tmp_path / "site"))
    page = opened.page
    for name, said in (("first", "No"), ("second", "Yes")):
        quiz = page.locator(f"#quiz-q-{name}")
        quiz.get_by_label(said).check()
        quiz.locator("button[type=submit]").click()
    build(new, first, second)
    page.goto(page.url + "?anew")
    verdicts = {"new": "", "first": "Not right.", "second": "Right."}
    for name, said in verdicts.items():
        status = page.locator(f"#quiz-q-{name} .quiz-feedback")
        if said:
            expect(status).to_contain_text(said)
        else:
            expect(status).to_be_hidden()


def test_the_timer_of_a_scenario(look_at: OpenPage) -> None:
    opened = look_at("practice/siamese/")
    page = opened.page
    page.clock.install()
    page.reload()
    page.get_by_role("button", name="Start a timer: 5 minutes").click()
    expect(page.get_by_role("timer")).to_have_text("5:00")
    page.clock.run_for(61_000)
    expect(page.get_by_role("timer")).to_have_text("3:59")
    page.clock.run_for(240_000)
    expect(page.locator(".timer [role=status]")).to_contain_text("Time is up.")


def test_every_scenario_has_a_timer_and_a_rubric(site: Path) -> None:
    room = (ROOT / "docs/practice/interview.md").read_text("utf-8")
    names = re.findall(r"^\| \[[^]]+\]\(([^)]+)\.md\)", room, re.MULTILINE)
    assert len(names) >= 8
    for name in names:
        text = (ROOT / "docs/practice" / f"{name}.md").resolve().read_text("utf-8")
        assert "answer aloud first" in text.lower(), name
        assert text.count('<div class="timer"') == 1, name
        rubric = text.partition("{ #rubric }")[2].partition("\n## ")[0]
        for level in ("Junior", "Senior", "Staff"):
            assert re.search(rf"^\| \**{level}", rubric, re.MULTILINE), (name, level)
