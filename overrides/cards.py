"""Review cards of the site's questions, errors and table: a page, and a deck for Anki.

The page is the one source: what stands on it is what the deck for Anki holds.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from zlib import crc32

import genanki
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocs.utils import get_build_timestamp

from proof.page import read
from proof.quiz import Question
from proof.settings import Settings

HERE = re.compile(r"<!-- cards: ([\w ]+) -->")
DECK_FILE = "block-by-block.apkg"
DECKS = ("Questions", "Errors", "Silent mistakes", "Sequential and Module")
SECTION = re.compile(r"^## (?P<title>.+?) \{ #(?P<name>[\w-]+) \}$", re.MULTILINE)
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
TARGET = re.compile(r"\]\((?P<path>[^)#\s:]*)(?P<anchor>#[\w-]+)?\)")
FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
SHOWN = re.compile(
    r'<div class="card" data-deck="(?P<deck>[^"]+)" id="card-(?P<name>[\w-]+)">\s*'
    r'<div class="front">(?P<front>.*?)</div>\s*<details class="back">\s*'
    r"<summary>Answer</summary>(?P<back>.*?)</details>\s*</div>",
    re.DOTALL,
)
STYLE = (
    ".card { font: 1.1rem/1.5 sans-serif; text-align: left; } code { color: #00695c; }"
)


@dataclass(frozen=True)
class Card:
    """One card in Markdown, with links as they stand on the page that it is made of."""

    name: str
    deck: str
    front: str
    back: str
    page: str
    proof: str

    def shown_on(self, uri: str) -> str:
        """The card as Markdown of another page."""

        def rebase(found: re.Match[str]) -> str:
            folder = posixpath.dirname(self.page)
            path = posixpath.normpath(posixpath.join(folder, found["path"]))
            path = path if found["path"] else self.page
            path = posixpath.relpath(path, posixpath.dirname(uri))
            return f"]({path}{found['anchor'] or ''})"

        proof = f"[The proof]({self.proof})"
        front, back = (
            TARGET.sub(rebase, text) for text in (self.front, f"{self.back}\n\n{proof}")
        )
        known = f'id="card-{self.name}" data-deck="{self.deck}"'
        return (
            f'<div class="card" {known} markdown>\n'
            f'<div class="front" markdown>\n\n{front}\n\n</div>\n'
            f'<details class="back" markdown>\n<summary>Answer</summary>\n\n{back}\n\n'
            "</details>\n</div>"
        )


def of_questions(questions: list[Question]) -> Iterator[Card]:
    """A card for each question that shows no code of its own."""
    for question in questions:
        page = question.page.partition("/")[2]
        if FENCE.search(question.asked):
            continue
        asked = re.sub(r"\[\[[^]]*\]\]", "____", question.asked)
        choices = "\n".join(f"- {choice.text}" for choice in question.choices)
        right = [choice for choice in question.choices if choice.is_right]
        answers = [f"- {choice.text}: {choice.feedback}" for choice in right]
        answers = answers or [f"- `{blank}`" for blank in question.blanks]
        said = re.split(r"^<!--|^```", question.explanation, maxsplit=1, flags=re.M)[0]
        back = "\n".join(answers) + f"\n\n{said.strip()}"
        front = f"{asked}\n\n{choices}"
        yield Card(question.name, DECKS[0], front, back, page, f"#{question.name}")


def of_errors(page: str, source: str) -> Iterator[Card]:
    """A card for each section on one message or one silent mistake: cause and fix."""
    _, *pieces = SECTION.split(source)
    is_silent = "silent" in page
    deck = DECKS[2] if is_silent else DECKS[1]
    asks = "Why is it silent" if is_silent else "What does it mean"
    for title, name, text in zip(*[iter(pieces)] * 3, strict=True):
        paragraphs = text.strip().split("\n\n")
        fix = next((p for p in paragraphs if p.startswith("**Fix.**")), "")
        if fix and not FENCE.match(paragraphs[0]):
            stem = page.rpartition("/")[2].partition(".")[0]
            front = f"**{title}**\n\n{asks}, and what mends it?"
            back = f"{paragraphs[0]}\n\n{fix}"
            yield Card(f"{stem}-{name}", deck, front, back, page, f"#{name}")


def of_table(page: str, source: str) -> Iterator[Card]:
    """A card for each row of the comparison."""
    table = source.partition("{ #table }")[2].partition("\n## ")[0]
    for dimension, sequential, module, precisely in ROW.findall(table)[1:]:
        slug = re.sub(r"\W+", "-", dimension.lower()).strip("-")
        front = f"`nn.Sequential` against a Module of your own: **{dimension}**?"
        back = f"Sequential: {sequential}.\n\nModule: {module}.\n\n{precisely}"
        found = TARGET.search(precisely)
        proof = found["path"] + (found["anchor"] or "") if found else "#table"
        yield Card(f"table-{slug}", DECKS[3], front, back, page, proof)


def _cards(config: Any, files: Any) -> list[Card]:
    root = Path(config.config_file_path).resolve().parent
    settings = Settings.load(root)
    cards: list[Card] = []
    for file in files.documentation_pages():
        if not file.src_uri.endswith(".md"):
            continue
        uri, source = file.src_uri, file.content_string
        if "<quiz>" in source:
            path = Path(config.docs_dir, uri)
            page = read(path, path.relative_to(root).as_posix(), settings)
            cards += of_questions(page.questions)
        elif uri.startswith("errors/"):
            cards += of_errors(uri, source)
        elif uri == "compare/index.md":
            cards += of_table(uri, source)
    return cards


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put the cards on their page, deck by deck."""
    if not HERE.search(markdown):
        return markdown
    cards = _cards(config, files)

    def deck(found: re.Match[str]) -> str:
        shown = [c.shown_on(page.file.src_uri) for c in cards if c.deck == found[1]]
        if not shown:
            line = page.file.content_string.partition(found[0])[0].count("\n") + 1
            place = f"docs/{page.file.src_uri}:{line}"
            decks = ", ".join(DECKS)
            raise PluginError(f"{place}: no cards in {found[1]!r}: use one of {decks}")
        return "\n\n".join(shown)

    return HERE.sub(deck, markdown)


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """Make the deck for Anki of the cards on the page."""
    cards = [found.groupdict() for found in SHOWN.finditer(html)]
    if len(cards) != html.count('class="card"'):
        raise PluginError(f"{page.file.src_uri}: a card has not the form of the others")
    if not cards:
        return html
    address = urljoin(config.site_url or "", page.url)
    uri = posixpath.join(posixpath.dirname(page.file.src_uri), DECK_FILE)
    files.append(File.generated(config, uri, content=anki(cards, address)))
    link = f'<a href="../{DECK_FILE}" download>{DECK_FILE}</a>'
    return html.replace("<!-- cards:deck -->", link)


def anki(cards: list[dict[str, str]], address: str) -> bytes:
    """A package for Anki, which knows a card again by its name."""
    model = genanki.Model(
        crc32(b"Block by Block: card"),
        "Block by Block",
        fields=[{"name": "Front"}, {"name": "Back"}],
        templates=[
            {
                "name": "Card",
                "qfmt": "{{Front}}",
                "afmt": "{{Front}}<hr id=answer>{{Back}}",
            }
        ],
        css=STYLE,
    )
    decks: dict[str, genanki.Deck] = {}
    for card in cards:
        name = f"Block by Block::{card['deck']}"
        deck = decks.setdefault(name, genanki.Deck(crc32(name.encode()), name))
        sides = [
            re.sub(
                r'href="([^"]+)"',
                lambda found: f'href="{urljoin(address, found[1])}"',
                card[side].strip(),
            )
            for side in ("front", "back")
        ]
        guid = genanki.guid_for("block-by-block", card["name"])
        deck.add_note(genanki.Note(model, sides, guid=guid))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, DECK_FILE)
        package = genanki.Package(list(decks.values()))
        package.write_to_file(path, timestamp=float(get_build_timestamp()))
        return path.read_bytes()
