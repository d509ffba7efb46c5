"""The second door: MkDocs publishes only pages whose every block is proved."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import BasePlugin, event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page as SitePage
from mkdocs.utils import get_relative_url

from proof import stamp
from proof.evidence import Evidence
from proof.page import Page, read
from proof.rendered import Verdict, examine
from proof.settings import Settings

LAST = -100
LINKS_LOG = logging.getLogger("mkdocs.structure.pages")
DEAD_LINK = re.compile(
    r"Doc file '(?P<page>[^']+)' contains an? [\w ]*link '(?P<link>[^']+)'"
)
log = logging.getLogger("mkdocs.plugins.proof")  # Below "mkdocs": --strict counts it.


class ProofPlugin(BasePlugin):  # type: ignore[type-arg,no-untyped-call]
    """Stamps the pages of a build; while serving, one object serves all builds."""

    def __init__(self) -> None:
        self.is_serving = False
        self.prover: subprocess.Popen[bytes] | None = None
        self.pages: dict[str, Page] = {}

    def on_startup(
        self, *, command: Literal["build", "gh-deploy", "serve"], dirty: bool
    ) -> None:
        """Remember whether somebody is writing."""
        self.is_serving = command == "serve"
        LINKS_LOG.addFilter(self._name_line)

    def on_shutdown(self) -> None:
        """Leave the log as it was."""
        LINKS_LOG.removeFilter(self._name_line)

    def _name_line(self, record: logging.LogRecord) -> bool:
        """Name the line of a dead link, which MkDocs itself does not."""
        message = record.getMessage()
        if found := DEAD_LINK.search(message):
            for name, page in self.pages.items():
                if (
                    name.partition("/")[2] == found["page"]
                    and found["link"] in page.source
                ):
                    before = page.source[: page.source.index(found["link"])]
                    line = before.count("\n") + 1
                    record.msg, record.args = f"{name}:{line}: {message}", ()
        return True

    @event_priority(LAST)
    def on_config(self, config: MkDocsConfig) -> None:
        """Read the settings anew, and tie notebooks to the evidence."""
        self.root = Path(config.config_file_path).resolve().parent
        self.settings = Settings.load(self.root)
        self.evidence = Evidence(self.settings)
        self.pages = {}
        self.problems: list[str] = []
        self.unproved: set[str] = set()
        self.verdicts: dict[str, tuple[str, list[Verdict]]] = {}
        if notebooks := config.plugins.get("mkdocs-jupyter"):
            self._tie_notebooks(notebooks.config, Path(config.docs_dir))

    def _tie_notebooks(self, options: Any, docs: Path) -> None:
        """Cache by versions; execute no notebook that was not proved in isolation."""
        if options["execute"] and options["allow_errors"]:
            raise PluginError("mkdocs.yml: mkdocs-jupyter needs allow_errors: false")
        versions = repr(sorted(self.evidence.environment.items())).encode()
        key = hashlib.sha256(versions).hexdigest()[:16]
        options["cache_dir"] = str(self.root / ".cache" / "mkdocs-jupyter" / key)
        for path in docs.rglob("*.py"):
            page = self._read(path)
            known = self.evidence.of_page(page.name)
            if not all(self.evidence.holds(known.get(b.claim)) for b in page.blocks):
                options["execute_ignore"].append(str(path))

    def _read(self, path: Path) -> Page:
        name = path.relative_to(self.root).as_posix()
        if name not in self.pages:
            self.pages[name] = read(path, name, self.settings)
        return self.pages[name]

    @event_priority(-LAST)
    def on_page_markdown(
        self, markdown: str, *, page: SitePage, config: MkDocsConfig, files: Files
    ) -> None:
        """Name the line of what is wrong with the source, before all else fails."""
        if page.file.abs_src_path:
            for line, message in self._read(Path(page.file.abs_src_path)).problems:
                self._complain(page, line, message)

    @event_priority(LAST)
    def on_page_content(
        self, html: str, *, page: SitePage, config: MkDocsConfig, files: Files
    ) -> None:
        """Look each shown block up in the evidence."""
        if not page.file.abs_src_path:
            return
        source = self._read(Path(page.file.abs_src_path))
        verdicts, problems = examine(html, source, self.evidence)
        for line, message in problems:
            self._complain(page, line, message)
        known = self.evidence.of_page(source.name)
        for block in source.blocks:
            record = known.get(block.claim)
            failed = record is not None and record["outcome"] == "failed"
            if not failed and not self.evidence.holds(record):
                self.unproved.add(source.name)
        self.verdicts[page.file.src_uri] = html, verdicts

    @event_priority(LAST)
    def on_page_context(
        self, context: Any, *, page: SitePage, config: MkDocsConfig, nav: Any
    ) -> None:
        """Stamp the page, now that the search has read it without the stamps."""
        html, verdicts = self.verdicts.get(page.file.src_uri, ("", []))
        if html and page.content != html:
            message = "a plugin changed this page after its blocks were looked up"
            raise PluginError(f"{self.settings.docs}/{page.file.src_uri}:1: {message}")
        html = stamp.stamp(html, verdicts) + stamp.foot(verdicts)
        if stamp.INDEX in html:
            index = stamp.index(self.evidence, _linker(page, self.files))
            html = html.replace(stamp.INDEX, index)
        page.content = html or page.content

    def _complain(self, page: SitePage, line: int, message: str) -> None:
        text = f"{self.settings.docs}/{page.file.src_uri}:{line}: {message}"
        if text not in self.problems:
            self.problems.append(text)
            log.warning(text)

    @event_priority(LAST)
    def on_env(self, env: Any, *, config: MkDocsConfig, files: Files) -> None:
        """Stop a strict build before it writes a page; prove while serving."""
        self.files = files
        if self.problems and config.strict:
            raise PluginError(
                f"nothing is built, {len(self.problems)} problems:\n"
                + "\n".join(self.problems)
            )
        if self.is_serving and self.unproved:
            self._prove()

    def _prove(self) -> None:
        """Run the unproved pages; the new evidence makes the server build again."""
        if self.prover is None or self.prover.poll() is not None:
            command = [sys.executable, "-m", "pytest", "-q", "--no-header"]
            self.prover = subprocess.Popen(
                [*command, *sorted(self.unproved)], cwd=self.root
            )

    def on_serve(
        self, server: LiveReloadServer, *, config: MkDocsConfig, builder: Any
    ) -> None:
        """Build again when there is new evidence."""
        self.evidence.folder.mkdir(exist_ok=True)
        server.watch(str(self.evidence.folder))


def _linker(page: SitePage, files: Files) -> Any:
    def link(name: str) -> str | None:
        file = files.get_file_from_path(name.partition("/")[2])
        return get_relative_url(file.url, page.url) if file else None

    return link
