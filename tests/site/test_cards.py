"""The cards: on their page, reviewed there, and imported by Anki itself."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from mkdocs.exceptions import PluginError
from playwright.sync_api import Page, expect

from overrides import cards as hook

if TYPE_CHECKING:
    from tests.site.conftest import OpenPage

ROOT = Path(__file__).resolve().parents[2]
CARDS = "practice/cards/"
NOW = datetime(2030, 5, 1, 9, 0)
# Of dist/index.mjs in ts-fsrs 5.4.2 on npm.
SCHEDULER = "ad4a4b3b7e259fcbf02764454c8f9db4ea3bf5aae2f473198129ecb7728f1a19"


class Texts(HTMLParser):
    """The text of a piece of HTML, and the addresses that it links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())


def cards_on(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.locator(".card").evaluate_all(
        """cards => cards.map(card => ({
             name: card.id, deck: card.dataset.deck,
             front: card.querySelector(".front").innerHTML,
             back: card.querySelector(".back").innerHTML}))"""
    )
    return found


def test_cards_are_many_and_lead_to_their_proof(
    open_page: OpenPage, site: Path
) -> None:
    page = open_page(CARDS).page
    cards = cards_on(page)
    assert len(cards) > 200  # as the page's description says
    assert len({card["name"] for card in cards}) == len(cards)
    decks = [card["deck"] for card in cards]
    assert all(decks.count(deck) >= 20 for deck in set(decks)), decks
    for card in cards:
        front, back = Texts(card["front"]), Texts(card["back"])
        assert len(front.text) > 10, card["name"]
        assert len(back.text) > len("Answer The proof") + 10, card["name"]
        link = urlsplit(back.links[-1])
        text = (site / link.path.lstrip("/") / "index.html").read_text("utf-8")
        assert link.fragment, card["name"]
        assert f'id="{link.fragment}"' in text, card["name"]


def test_what_is_no_card_is_refused() -> None:
    odd = '<div class="card" id="card-x"></div>'
    file = SimpleNamespace(src_uri="cards.md", content_string="\n<!-- cards: None -->")
    page = SimpleNamespace(file=file, url="cards/")
    with pytest.raises(PluginError, match=r"cards\.md: a card has not the form"):
        hook.on_page_content(odd, page=page, config=None, files=None)
    config = SimpleNamespace(config_file_path=str(ROOT / "mkdocs.yml"))
    files = SimpleNamespace(documentation_pages=list)
    with pytest.raises(PluginError, match=r"docs/cards\.md:2: no cards in 'None'"):
        hook.on_page_markdown(
            file.content_string, page=page, config=config, files=files
        )


def test_cards_are_not_found_in_place_of_what_they_are_made_of(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    assert not [e for e in index["docs"] if e["location"].startswith(CARDS)]


def test_a_card_comes_back_when_it_is_due(
    open_page: OpenPage, server_without_search: str
) -> None:
    opened = open_page(CARDS, base=server_without_search)
    page = opened.page
    total = len(cards_on(page))
    page.clock.install(time=NOW)
    opened.load()
    review = page.locator(".review")
    expect(review).to_contain_text(f"0 due, 10 new for now; 0 of {total} cards seen.")
    review.get_by_role("button", name="Review").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".review-card")).to_be_focused()
    first = page.locator(".review-card").inner_text()
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement.matches('.review button')"):
        page.keyboard.press("Tab")  # Links on the card are stops of their own.
    page.keyboard.press("Enter")
    expect(page.locator(".review-card")).to_have_count(2)
    expect(page.locator(".review-card").nth(1)).to_be_focused()
    grades = review.get_by_role("group", name="How well did you know it?")
    said = grades.get_by_role("button").all_inner_texts()
    assert [text.split(":")[0] for text in said] == ["Again", "Hard", "Good", "Easy"]
    grades.get_by_role("button", name="Good").click()
    expect(page.locator(".review-card")).to_be_focused()
    assert page.locator(".review-card").inner_text() != first
    opened.load()
    expect(review).to_contain_text(f"0 due, 10 new for now; 1 of {total} cards seen.")
    page.clock.set_fixed_time(NOW + timedelta(minutes=30))
    opened.load()
    expect(review).to_contain_text("1 due")
    review.get_by_role("button", name="Review").click()
    assert page.locator(".review-card").inner_text() == first
    review.get_by_role("button", name="Show the answer").click()
    easy = grades.get_by_role("button", name="Easy").inner_text()
    days = re.fullmatch(r"Easy: (\d+) d", easy)
    assert days, easy
    grades.get_by_role("button", name="Easy").click()
    page.clock.set_fixed_time(NOW + timedelta(days=int(days[1]) - 1))
    opened.load()
    expect(review).to_contain_text("0 due")
    page.clock.set_fixed_time(NOW + timedelta(days=int(days[1]) + 1))
    opened.load()
    expect(review).to_contain_text("1 due")
    page.on("dialog", lambda dialog: dialog.accept())
    review.get_by_role("button", name="Forget my progress").click()
    expect(review).to_contain_text(f"0 due, 10 new for now; 0 of {total} cards seen.")
    assert opened.errors == []


def test_one_deck_is_reviewed(open_page: OpenPage) -> None:
    page = open_page(CARDS).page
    errors = [card for card in cards_on(page) if card["deck"] == "Errors"]
    review = page.locator(".review")
    review.get_by_label("Deck").select_option("Errors")
    expect(review).to_contain_text(f"0 of {len(errors)} cards seen.")
    review.get_by_role("button", name="Review").click()
    shown = " ".join(page.locator(".review-card").inner_text().split())
    assert shown == Texts(errors[0]["front"]).text


def test_without_a_script_cards_unfold(site: Path) -> None:
    text = (site / CARDS / "index.html").read_text("utf-8")
    assert text.count('<details class="back">') == text.count('class="card"')


def test_the_scheduler_is_what_npm_has(site: Path) -> None:
    vendor = site / "assets" / "vendor"
    found = hashlib.sha256((vendor / "ts-fsrs.js").read_bytes()).hexdigest()
    assert found == SCHEDULER
    assert "MIT License" in (vendor / "LICENSE-ts-fsrs.txt").read_text("utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_anki_imports_every_card_and_knows_it_again(
    open_page: OpenPage, site: Path, tmp_path: Path
) -> None:
    from anki.collection import Collection
    from anki.import_export_pb2 import ImportAnkiPackageRequest

    page = open_page(CARDS).page
    cards = cards_on(page)
    link = page.locator("a[download]").get_attribute("href") or ""
    package = site / "practice" / link.rpartition("/")[2]
    collection = Collection(str(tmp_path / "collection.anki2"))
    request = ImportAnkiPackageRequest(package_path=str(package))
    try:
        for _ in range(2):
            collection.import_anki_package(request)
            notes = [collection.get_note(note) for note in collection.find_notes("")]
            assert len(notes) == len(collection.find_cards("")) == len(cards)
        fronts = {Texts(note.fields[0]).text for note in notes}
        assert fronts == {Texts(card["front"]).text for card in cards}
        decks = {deck.name for deck in collection.decks.all_names_and_ids()}
        assert {f"Block by Block::{card['deck']}" for card in cards} <= decks
        for note in notes:
            links = Texts(note.fields[1]).links
            assert links
            assert all(link.startswith("http") for link in links), links
    finally:
        collection.close()
