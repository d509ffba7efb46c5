"""What the site's own search finds: names, parts of names, and real questions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

HERE = Path(__file__).parent
# Questions that people asked in public, each with the query that they would type
# and the sections of the site that answer it.
QUESTIONS: list[dict[str, Any]] = json.loads(
    (HERE / "questions.json").read_text("utf-8")
)
BLOCK = "question/residual-block/"
Search = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def search(context: BrowserContext, server: str) -> Iterator[Search]:
    """Type a query into the search box; the answer is the pages found, in order."""
    page = context.new_page()
    page.goto(server)
    field, meta = (
        page.locator(".md-search__input"),
        page.locator(".md-search-result__meta"),
    )

    def ask(query: str) -> list[str]:
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        field.fill(" ")
        page.keyboard.press("Backspace")
        expect(meta).to_have_text("Type to start searching")
        # One key is typed, since Material asks its worker at each key that comes up.
        page.keyboard.insert_text(query[:-1])
        page.keyboard.type(query[-1])
        expect(meta).to_have_text(re.compile("matching"))
        links = page.locator(".md-search-result__item").evaluate_all(
            "items => items.map(item => new URL(item.querySelector('a').href).pathname)"
        )
        return [str(link).removeprefix("/") for link in links]

    yield ask
    page.close()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("Sequential or Module", "compare/chooser/"),
        ("BatchNorm2d", BLOCK),
        ("batchnorm", BLOCK),
        ("in_channels", BLOCK),
        ("channels", "resnet/changing/"),
        ("residual block", BLOCK),
        ("ResidualBlock", BLOCK),
        ("residualblock", BLOCK),
        ("ModuleList", "compare/containers/"),
        ("modulelist", "compare/containers/"),
        ("load_state_dict", "compare/state-dict/"),
        ("state_dict", "compare/state-dict/"),
    ],
)
def test_search_finds(search: Search, query: str, wanted: str) -> None:
    found = search(query)
    assert wanted in found[:3], found


def test_every_question_is_answered_on_the_site(site: Path) -> None:
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS) == 74
    for question in QUESTIONS:
        assert question["answers"], question["query"]
        for answer in question["answers"]:
            page, _, anchor = answer.partition("#")
            text = (site / page / "index.html").read_text("utf-8")
            heading = re.search(rf'<h[2-6] id="{re.escape(anchor)}"', text)
            assert heading, f"{question['id']}: {answer} leads nowhere"


def test_questions_lead_to_their_answers(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, first_three = [], 0
    for question in QUESTIONS:
        answers = {answer.partition("#")[0] for answer in question["answers"]}
        found = search(question["query"])
        ranks = [n for n, page in enumerate(found, 1) if page in answers]
        rank = min(ranks, default=0)
        first_three += 0 < rank <= 3
        lines.append(f"{question['id']} rank {rank or 'none'}: {question['query']}")
    lines.append(f"{first_three} of {len(QUESTIONS)} among the first three")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert first_three >= 0.9 * len(QUESTIONS)


def test_a_query_without_an_answer_has_no_rank(search: Search) -> None:
    found = search("gearbox of a lorry")
    assert "compare/sharing/" not in found[:3]
