"""What all tests share: one thread for torch, and the site built once."""

from __future__ import annotations

import subprocess
import sys
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
    folder = tmp_path_factory.mktemp("site")
    for command in (
        ["pytest", "-q", "docs"],
        ["mkdocs", "build", "--strict", "--site-dir", str(folder)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder
