"""The second door: MkDocs publishes only pages whose every block is proved."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import BasePlugin, event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as SitePage
from mkdocs.utils import get_relative_url

from proof import notebook, quiz, stamp
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
        """Read the settings anew."""
        self.root = Path(config.config_file_path).resolve().parent
        self.settings = Settings.load(self.root)
        self.evidence = Evidence(self.settings)
        self.pages = {}
        self.problems: list[str] = []
        self.unproved: set[str] = set()
        self.verdicts: dict[str, tuple[str, list[Verdict]]] = {}
        jupyter = config.plugins.get("mkdocs-jupyter")
        if jupyter and jupyter.config["execute"]:
            message = "set execute: false, the engine has executed the notebooks"
            raise PluginError(f"mkdocs.yml: mkdocs-jupyter: {message}")

    @event_priority(LAST)
    def on_files(self, files: Files, *, config: MkDocsConfig) -> None:
        """Show each notebook page as it ran, and publish what it wrote beside it."""
        for file in list(files):
            path = Path(config.docs_dir, file.src_uri)
            if path.suffix == ".py" and file.src_dir == config.docs_dir:
                self._show_as_it_ran(file, self._read(path), files, config)

    def _show_as_it_ran(
        self, file: File, page: Page, files: Files, config: MkDocsConfig
    ) -> None:
        known = self.evidence.of_page(page.name)
        records = [known.get(block.claim) for block in page.blocks]
        record = next((r for r in records if self.evidence.holds(r)), None)
        shown = self.root / ".cache" / "notebooks" / f"{file.src_uri[:-3]}.ipynb"
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(notebook.executed(page, record), "utf-8")
        file.abs_src_path = str(shown)
        folder = PurePosixPath(file.src_uri).with_suffix("")
        beside: dict[str, str | bytes] = {**notebook.files(record)}
        beside[f"{folder.name}.ipynb"] = notebook.portable(page)
        for name, content in beside.items():
            uri = (folder / name).as_posix()
            files.append(File.generated(config, uri, content=content))

    def _source(self, page: SitePage, config: MkDocsConfig) -> Page | None:
        """The first reading of a page, if it has a source."""
        path = Path(config.docs_dir, page.file.src_uri)
        return self._read(path) if path.is_file() else None

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
        if source := self._source(page, config):
            for line, message in source.problems:
                self._complain(page.file.src_uri, line, message)

    @event_priority(LAST)
    def on_page_content(
        self, html: str, *, page: SitePage, config: MkDocsConfig, files: Files
    ) -> None:
        """Look each shown block up in the evidence."""
        source = self._source(page, config)
        if source is None:
            return
        verdicts, problems = examine(html, source, self.evidence)
        for line, message in problems:
            self._complain(page.file.src_uri, line, message)
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

    def _complain(self, uri: str, line: int, message: str) -> None:
        text = f"{self.settings.docs}/{uri}:{line}: {message}"
        if text not in self.problems:
            self.problems.append(text)
            log.warning(text)

    @event_priority(LAST)
    def on_env(self, env: Any, *, config: MkDocsConfig, files: Files) -> None:
        """Stop a strict build before it writes a page; prove while serving."""
        self.files = files
        asked = [q for page in self.pages.values() for q in page.questions]
        for name, line, message in quiz.habits(asked):
            self._complain(name.partition("/")[2], line, message)
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
