"""What all tests share: one thread for torch, and the site built once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as it is published: every page proved, then built strictly."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _build(tmp_path_factory.mktemp("site"))
    # Workers have a folder in common: the first to come builds, the others wait.
    folder = tmp_path_factory.getbasetemp().parent / "site"
    is_built = folder.with_name("site-is-built")
    try:
        folder.mkdir()
    except FileExistsError:
        while not is_built.exists():
            time.sleep(0.1)
        return folder
    try:
        return _build(folder)
    finally:
        is_built.touch()


def _build(folder: Path) -> Path:
    for command in (
        ["pytest", "-q", "docs"],
        ["mkdocs", "build", "--strict", "--site-dir", str(folder)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder
