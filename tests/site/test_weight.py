"""What a page weighs, and that fonts are the site's own."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.site.conftest import Document

KILOBYTE = 1000
FONTS = {".eot", ".otf", ".ttf", ".woff", ".woff2"}


def weight(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 9))


def test_html_is_light(site: Path, documents: list[Document]) -> None:
    for document in documents:
        path = site / document.url
        path = path / "index.html" if path.is_dir() else path
        assert weight(path) < 64 * KILOBYTE, f"{document.url}: {weight(path)} bytes"


def test_what_every_page_loads_is_light(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    loaded = re.findall(r'(?:src|href)="([^":]+\.(?:css|js))"', page)
    assert len(loaded) >= 4
    total = sum(weight(site / name) for name in loaded)
    fonts = sum(path.stat().st_size for path in site.rglob("*.woff2"))
    assert total < 66 * KILOBYTE  # with the heaviest page, less than 130
    assert fonts < 120 * KILOBYTE


def test_fonts_are_woff2_and_the_sites_own(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in FONTS]
    assert {path.suffix for path in files} == {".woff2"}
    css = site / "assets" / "site.css"
    named = re.findall(r"@font-face\s*{[^}]*}", css.read_text("utf-8"))
    sources = [re.findall(r'url\("([^"]+)"\)', rule) for rule in named]
    assert len(sources) == len(files)
    for (source,) in sources:
        assert (css.parent / source).resolve() in [path.resolve() for path in files]


def test_only_pages_with_a_quiz_carry_the_quiz(
    site: Path, documents: list[Document]
) -> None:
    carriers = []
    for document in documents:
        path = site / document.url
        path = path / "index.html" if path.is_dir() else path
        text = path.read_text("utf-8")
        has_quiz = 'class="quiz"' in text
        carries = "quizTracker" in text or ".quiz-button {" in text
        assert carries == has_quiz, document.url
        carriers += [document.url] * carries
    assert "question/practice/" in carriers
