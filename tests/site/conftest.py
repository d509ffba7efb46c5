"""A real browser on the built site, and what the tests of its pages share."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from proof.evidence import Evidence, Record
from proof.page import EXECUTED, normalise
from proof.rendered import find
from proof.settings import Settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
INSTALL = "python -m playwright install chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    # Blocks what is asked of other hosts, and unlike a route leaves the cache on.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# Any address on GitHub: Material's bundle asks GitHub's API about such a repository.
REPOSITORY = "https://github.com/o/r"
Scheme = Literal["light", "dark"]
HEIGHT = {1440: 900, 390: 844}


# Unfolds what is folded, and folds that again.
FOLD = """
open => document.querySelectorAll(
  open ? "article details:not([open])" : "article details[data-folded]"
).forEach(details => {
  details.open = open
  details.toggleAttribute("data-folded", open)
})
"""


class Document(NamedTuple):
    """A page of the site: its source, if it has one, and its address."""

    source: str
    url: str


def _documents() -> list[Document]:
    found = [Document("", "404.html")]
    for path in sorted((ROOT / "docs").rglob("*.*")):
        if path.suffix in {".md", ".py"}:
            inside = path.relative_to(ROOT / "docs").with_suffix("")
            folder = inside.parent if inside.name == "index" else inside
            url = "" if folder == Path() else f"{folder.as_posix()}/"
            found.append(Document(path.relative_to(ROOT).as_posix(), url))
    return found


DOCUMENTS = _documents()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run all tests of a page, which is opened once."""
    for item in items:
        if isinstance(item, pytest.Function) and HERE in item.path.parents:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            pages = (param for param in params.values() if isinstance(param, Document))
            page = next(pages, None)
            group = item.path.name if page is None else page.url
            item.add_marker(pytest.mark.xdist_group(group or "home"))


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Every page that the site must have, 404.html included."""
    return DOCUMENTS


@dataclass
class Opened:
    """A page in the browser, with what it asked of others and complained about."""

    page: Page
    base: str
    document: Document
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type == "error" else None
            ),
        )

    def _note(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:", "about:")):
            self.foreign.append(url)

    def load(self, path: str | None = None) -> None:
        """Load a page and wait until Material has mounted its parts."""
        if path is not None:
            self.document = next(d for d in DOCUMENTS if d.url == path)
        self.page.goto(self.base + self.document.url)
        self.settle()

    def settle(self) -> None:
        """Wait for what the site's script does after Material's."""
        self.page.wait_for_function("document.fonts.status === 'loaded'")
        self.page.wait_for_timeout(350)

    def look(self, scheme: Scheme = "light", width: int = 1440) -> None:
        """Show the page in another colour scheme or width."""
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.set_viewport_size({"width": width, "height": HEIGHT[width]})
        wanted = "slate" if scheme == "dark" else "default"
        self.page.wait_for_function(
            "wanted => document.body.dataset.mdColorScheme === wanted", arg=wanted
        )
        # Two frames: colours and sizes that depend on the change are then final.
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => "
            "requestAnimationFrame(done)))"
        )

    @contextmanager
    def unfolded(self) -> Iterator[None]:
        """Unfold all that is folded, and fold it again at the end."""
        self.page.evaluate(FOLD, True)
        try:
            yield
        finally:
            self.page.evaluate(FOLD, False)


def _choose_browser(which: Callable[[str], str | None], own: Path, is_ci: bool) -> Path:
    """The system's browser, else Playwright's own, else skip; in CI, fail."""
    for name in NAMES:
        if found := which(name):
            return Path(found)
    if own.is_file():
        return own
    message = f"no Chromium or Chrome on PATH: install one, or run `{INSTALL}`"
    if is_ci:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def choose_browser() -> Callable[[Callable[[str], str | None], Path, bool], Path]:
    """The rule by which a browser is chosen, for its own test."""
    return _choose_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The one browser of the run."""
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        path = _choose_browser(shutil.which, own, os.environ.get("CI") == "true")
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/sitemap.xml":
            self._send_sitemap()
        else:
            super().do_GET()

    def _send_sitemap(self) -> None:
        """The sitemap of a site that is published at this address.

        Material reads it to know which links it may follow without a page load.
        """
        text = Path(self.directory, "sitemap.xml").read_text("utf-8")
        text = re.sub(
            r"<loc>https?://[^/]+/", f"<loc>http://{self.headers['Host']}/", text
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(text.encode())

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _HandlerWithoutSearch(_Handler):
    def do_GET(self) -> None:
        """Serve an index of nothing: a browser works on the whole at every page."""
        if self.path == "/search/search_index.json":
            text = Path(self.directory, self.path[1:]).read_text("utf-8")
            empty = json.dumps({**json.loads(text), "docs": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(empty)
        else:
            super().do_GET()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Serve a folder on a free port; the answer is its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path, kind: type[_Handler] = _Handler) -> str:
        def handler(*args: Any) -> _Handler:
            return kind(*args, directory=str(folder))

        server = _Server(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def server(serve: Callable[..., str], site: Path) -> str:
    """The address of the built site."""
    return serve(site)


@pytest.fixture(scope="session")
def server_without_search(serve: Callable[..., str], site: Path) -> str:
    """The address of the built site, for pages that are only looked at."""
    return serve(site, _HandlerWithoutSearch)


def _new_context(browser: Browser) -> BrowserContext:
    return browser.new_context(permissions=["clipboard-read", "clipboard-write"])


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for all pages that are only looked at: it keeps their assets."""
    made = _new_context(browser)
    yield made
    made.close()


# Answers each quiz somehow, so that all that is shown after an answer can be seen.
ANSWER = """
() => document.querySelectorAll(".quiz").forEach(quiz => {
  quiz.querySelectorAll("input[type=text]").forEach(blank => blank.value = "?")
  const first = quiz.querySelector("input")
  first.checked = true
  first.dispatchEvent(new Event("input", {bubbles: true}))
  quiz.querySelector("[type=submit]").click()
  quiz.querySelectorAll("section > details").forEach(shown => shown.open = true)
  scrollTo(0, 0)
})
"""


@pytest.fixture(scope="session", params=DOCUMENTS, ids=lambda d: d.url or "home")
def shown(
    request: pytest.FixtureRequest, context: BrowserContext, server_without_search: str
) -> Iterator[Opened]:
    """Each page of the site, loaded once for all tests that look at it.

    A test may change scheme and width, and must leave the page's content as it was.
    """
    page = context.new_page()
    opened = Opened(page, server_without_search, request.param)
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1440, "height": 900})
    opened.load()
    page.evaluate(ANSWER)
    page.evaluate("localStorage.clear()")  # The next page begins anew.
    page.add_style_tag(
        content="* { animation: none !important; transition: none !important }"
    )
    yield opened
    page.close()


OpenPage = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Browser, server: str) -> Iterator[OpenPage]:
    """Open a page as somebody sees it who was never here.

    Each test has its own profile: storage, permissions and clock belong to a profile.
    """
    context = _new_context(browser)

    def open_(
        path: str, scheme: Scheme = "light", width: int = 1440, base: str = server
    ) -> Opened:
        page = context.new_page()
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": HEIGHT[width]})
        opened = Opened(page, base, Document("", path))
        opened.load()
        return opened

    yield open_
    context.close()


@pytest.fixture(scope="session")
def evidence(site: Path) -> Evidence:
    """The records, after the run that the site was built from."""
    return Evidence(Settings.load(ROOT))


@pytest.fixture(scope="session")
def records(evidence: Evidence) -> Callable[[Document], list[Record]]:
    """The records of a page that hold."""

    def of(document: Document) -> list[Record]:
        if not document.source:
            return []
        found = evidence.of_page(document.source).values()
        return [record for record in found if evidence.holds(record)]

    return of


@pytest.fixture(scope="session")
def shown_code(site: Path) -> Callable[[Document], Counter[tuple[str, str]]]:
    """Language and text of each Python and shell block of a built page's HTML."""

    def of(document: Document) -> Counter[tuple[str, str]]:
        path = site / document.url
        path = path / "index.html" if path.is_dir() else path
        found = find(path.read_text("utf-8"), document.source.endswith(".py"))
        blocks = (shown for shown in found if shown.language in EXECUTED)
        return Counter((shown.language, normalise(shown.code)) for shown in blocks)

    return of


@pytest.fixture(scope="session")
def other_site(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same mkdocs.yml built by ProperDocs, as a site that names its repository."""
    folder = tmp_path_factory.mktemp("other")
    command = ["properdocs", "build", "--strict", "-f", "mkdocs.yml"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "REPO_URL": REPOSITORY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
