"""What the engine is told: `[tool.proof]` in pyproject.toml, and mkdocs.yml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from markdown import Markdown
from markdown.preprocessors import Preprocessor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _AnyTag(yaml.SafeLoader):
    """mkdocs.yml as plain data: what `!ENV` and the like make is not needed."""


_AnyTag.add_multi_constructor("", lambda loader, suffix, node: None)


@dataclass(frozen=True)
class Settings:
    """The settings of one site; every path is relative to `root`."""

    root: Path
    docs: str
    pages: tuple[str, ...]
    in_clone: tuple[str, ...]
    lock: str
    timeout: float
    notebook_timeout: float
    memory: float
    languages: frozenset[str]
    ignored_warnings: tuple[str, ...]
    snippets: dict[str, Any]

    @classmethod
    def load(cls, root: Path) -> Settings:
        """Read the two files of the site at `root`."""
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
        own = project.get("tool", {}).get("proof", {})
        # A multi-constructor on SafeLoader's subclass leaves the standard tags alone.
        site = yaml.load((root / "mkdocs.yml").read_text("utf-8"), Loader=_AnyTag)
        options: dict[str, Any] = {}
        for extension in site.get("markdown_extensions", ()):
            if isinstance(extension, dict):
                options |= extension.get("pymdownx.snippets") or {}
        bases = options.get("base_path", ["."])
        bases = [bases] if isinstance(bases, str) else bases
        options["base_path"] = [str(root / base) for base in bases]
        return cls(
            root=root,
            docs=site.get("docs_dir", "docs"),
            pages=tuple(own.get("pages", ())),
            in_clone=tuple(own.get("in-clone", ())),
            lock=own.get("lock", "constraints.txt"),
            timeout=float(own.get("timeout", 30)),
            notebook_timeout=float(own.get("notebook-timeout", 300)),
            memory=float(own.get("memory", 8)),
            languages=frozenset(own.get("languages", ("text",))),
            ignored_warnings=tuple(own.get("ignored-warnings", ())),
            snippets=options,
        )

    @cached_property
    def expander(self) -> Preprocessor:
        """The preprocessor of pymdownx.snippets, set up as the site sets it up."""
        # What it appends to every page is for abbreviations and links, not for code.
        options = self.snippets | {"check_paths": True, "auto_append": []}
        markdown = Markdown(
            extensions=["pymdownx.snippets"],
            extension_configs={"pymdownx.snippets": options},
        )
        return markdown.preprocessors["snippet"]

    def page(self, path: Path) -> str | None:
        """The name of the page at `path`, or None if it is not one of the site's."""
        if not path.is_relative_to(self.root):
            return None
        name = path.relative_to(self.root).as_posix()
        inside = name.startswith(f"{self.docs}/") and path.suffix in {".md", ".py"}
        return name if inside or name in self.pages else None
