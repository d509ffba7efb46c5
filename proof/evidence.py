"""What was proved: one small file for each block, `.proof/<page>/<claim>.json`.

A file is written whole or not at all, and only the block's own file is touched: a run
that is interrupted, or that runs one page, loses nothing that other runs have proved.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from proof.settings import Settings

Record = dict[str, Any]
FOLDER = ".proof"
# Without these a file is no record, or one that an older engine wrote.
FIELDS = {"claim", "code", "date", "error", "failure", "files", "language", "line"}
FIELDS |= {"lock", "outcome", "page", "parts", "python", "seconds", "torch", "varies"}


class Evidence:
    """The records of one site, and which of them hold today."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.root / FOLDER

    @cached_property
    def pinned_torch(self) -> str:
        """The version of torch that the lock file pins."""
        lock = (self.settings.root / self.settings.lock).read_text("utf-8")
        found = re.search(r"^torch==([\w.]+)", lock, re.MULTILINE)
        if not found:
            raise ValueError(f"{self.settings.lock}: no line torch==VERSION pins torch")
        return found[1]

    @cached_property
    def environment(self) -> dict[str, str]:
        """What a record must agree with to count: versions, lock file, this engine."""
        digest = hashlib.sha256((self.settings.root / self.settings.lock).read_bytes())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        return {
            "torch": self.pinned_torch,
            "python": platform.python_version(),
            "lock": digest.hexdigest()[:16],
        }

    @property
    def installed_torch(self) -> str:
        """The version of torch that this environment has, without its build's name."""
        return importlib.metadata.version("torch").split("+")[0]

    def holds(self, record: Record | None) -> bool:
        """Say whether the record proves its block, today and here."""
        return (
            record is not None
            and record["outcome"] in {"passed", "skipped"}
            and all(record[key] == value for key, value in self.environment.items())
        )

    def of_page(self, page: str) -> dict[str, Record]:
        """Read the page's records by claim; a file that is none proves nothing."""
        records = {}
        for path in (self.folder / page).glob("*.json"):
            try:
                record = json.loads(path.read_text("utf-8"))
            except (ValueError, OSError):
                continue
            if isinstance(record, dict) and record.keys() >= FIELDS:
                records[record["claim"]] = record
        return records

    def pages(self) -> list[str]:
        """Name the pages that have records."""
        found = {path.parent for path in self.folder.rglob("*.json")}
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def write(self, record: Record) -> None:
        """Keep one record, whole or not at all."""
        path = self.folder / record["page"] / f"{record['claim'][:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
        draft.replace(path)

    def keep_only(self, page: str, claims: Iterable[str]) -> None:
        """Drop the page's records of code that it no longer has, and lost drafts."""
        kept = {f"{claim[:16]}.json" for claim in claims}
        for path in (self.folder / page).glob("*.json"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
        for path in (self.folder / page).glob("*.draft"):
            if not psutil.pid_exists(int(path.suffixes[-2][1:])):
                path.unlink(missing_ok=True)

    def drop_lost_pages(self) -> None:
        """Drop the records of pages that no longer exist."""
        for page in self.pages():
            if not (self.settings.root / page).is_file():
                shutil.rmtree(self.folder / page, ignore_errors=True)
