"""Which browser the tests use, what they do without one, and how they share it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Rule = Callable[[Callable[[str], str | None], Path, bool], Path]
INSTALL = "python -m playwright install chromium"


def nothing(name: str) -> str | None:
    return None


@pytest.mark.parametrize(
    "name",
    [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ],
)
def test_a_browser_on_path_is_taken_first(
    choose_browser: Rule, tmp_path: Path, name: str
) -> None:
    own = tmp_path / "own"
    own.touch()
    taken = choose_browser({name: f"/usr/bin/{name}"}.get, own, False)
    assert taken == Path(f"/usr/bin/{name}")


def test_playwrights_own_is_taken_if_installed(
    choose_browser: Rule, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.touch()
    assert choose_browser(nothing, own, True) == own


def test_without_any_the_tests_skip_and_name_the_command(
    choose_browser: Rule, tmp_path: Path
) -> None:
    with pytest.raises(pytest.skip.Exception, match=INSTALL):
        choose_browser(nothing, tmp_path / "none", False)


def test_without_any_ci_fails(choose_browser: Rule, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=INSTALL):
        choose_browser(nothing, tmp_path / "none", True)


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="needs workers")
def test_tests_of_a_page_are_of_one_group(request: pytest.FixtureRequest) -> None:
    # Where the two do not fit each other, pytest-xdist says nothing: pages load twice.
    assert request.node.nodeid.endswith("@test_browser.py")
