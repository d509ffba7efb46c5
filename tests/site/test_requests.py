"""The site asks nothing of any other host, and no page complains."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.site.conftest import Opened, OpenPage, Scheme

# Hosts that a script may name, and why no page of this site asks them.
NAMED = {
    "api.github.com": "for the stars of a repository: see the test below",
    "unpkg.com": "for a Mermaid diagram: see the test below",
}
LOADED = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "image": ["href", "xlink:href"],
    "img": ["src", "srcset"],
    "input": ["src"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "track": ["src"],
    "use": ["href", "xlink:href"],
    "video": ["src", "poster"],
}
# Relations of a link that point to somewhere else and load nothing.
POINTERS = {"alternate", "author", "canonical", "license", "next", "prev"}
IN_CSS = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")
IN_SCRIPT = re.compile(r"[\"'`](?:https?:)?//([\w-]+(?:\.[\w-]+)+)")


class Loads(HTMLParser):
    """What a page's HTML makes a browser load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inside = tag
        for name in LOADED.get(tag, ()):
            if name == "srcset":
                self.found += [
                    s.split()[0] for s in given.get(name, "").split(",") if s
                ]
            else:
                self.found.append(given.get(name, ""))
        if tag == "link" and not POINTERS & set(given.get("rel", "").split()):
            self.found.append(given.get("href", ""))
        self.found += in_css(given.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.found += in_css(data)
        elif self.inside == "script":
            self.scripts.append(data)


def in_css(text: str) -> list[str]:
    return [one or other for one, other in IN_CSS.findall(text)]


def elsewhere(site: Path) -> Iterator[str]:
    """Yield each reference of the site's files to something on another host."""
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        scripts: list[str] = []
        if path.suffix == ".html":
            page = Loads(path.read_text("utf-8"))
            scripts = page.scripts
            for url in page.found:
                if urlsplit(url).netloc:
                    yield f"{name}: {url}"
        elif path.suffix == ".css":
            for url in in_css(path.read_text("utf-8")):
                if urlsplit(url).netloc:
                    yield f"{name}: {url}"
        elif path.suffix == ".js":
            scripts = [path.read_text("utf-8")]
        for script in scripts:
            for host in IN_SCRIPT.findall(re.sub(r"/\*.*?\*/", "", script, flags=re.S)):
                if host not in NAMED:
                    yield f"{name}: a script names {host}"


def test_no_file_refers_to_another_host(site: Path) -> None:
    assert list(elsewhere(site)) == []


def test_no_page_has_a_diagram_whose_library_is_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not re.search(r'class="[^"]*\bmermaid\b', path.read_text("utf-8")), path


def test_no_page_asks_another_host_or_complains(shown: Opened) -> None:
    assert shown.foreign == []
    assert shown.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nor_does_a_page_that_is_reached_by_a_click(
    open_page: OpenPage, scheme: Scheme
) -> None:
    opened = open_page("", scheme)
    page = opened.page
    page.evaluate("window.isTheSame = true")
    for path in ("question/", "question/practice/", "question/residual-block/"):
        page.locator(
            f"nav a[href$='{path}']:visible, a[href$='{path}']:visible"
        ).first.click()
        page.wait_for_url(f"**/{path}")
        opened.settle()
    assert page.evaluate("window.isTheSame"), "instant navigation loads whole pages"
    assert page.locator(".md-annotation").count() > 0
    assert opened.foreign == []
    assert opened.errors == []


def test_nor_does_a_site_that_names_its_repository(
    open_page: OpenPage, other_site: Path, serve: Callable[[Path], str]
) -> None:
    opened = open_page("", base=serve(other_site))
    opened.page.wait_for_load_state("networkidle")
    assert opened.foreign == []
    assert opened.errors == []


def test_the_tests_notice(
    open_page: OpenPage, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    (tmp_path / "x.css").write_text("@import 'https://a.invalid/a.css';")
    (tmp_path / "x.js").write_text("fetch('https://b.invalid/b.json')")
    (tmp_path / "404.html").write_text(
        "<link rel=stylesheet href=x.css><script src=x.js></script>"
        "<img src='//c.invalid/c.png'><p style='background: url(http://d.invalid)'>"
        "<a href='https://fine.invalid'></a><script>missing()</script>"
    )
    opened = open_page("404.html", base=serve(tmp_path))
    opened.page.wait_for_load_state("networkidle")
    found = " ".join(elsewhere(tmp_path))
    for host in "abcd":
        assert any(f"{host}.invalid" in url for url in opened.foreign), host
        assert f"{host}.invalid" in found, host
    assert "fine.invalid" not in " ".join(opened.foreign) + found
    assert any("missing is not defined" in error for error in opened.errors)
