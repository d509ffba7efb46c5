"""The gallery of broken blocks names faults that the tests of the snippets plant."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.snippets import test_residual_block, test_resnet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "resnet" / "wrong-block.md"
ROW = re.compile(r"^\| \[[^\n]*?\]\(#(?P<section>[\w-]+)\) \|(?P<planted>.*)\|$", re.M)
PLANTED = {
    mutant.name for mutant in [*test_residual_block.MUTANTS, *test_resnet.MUTANTS]
}


def problems(page: str, planted: Iterable[str]) -> list[str]:
    """Say which sections of the gallery no planted fault stands behind."""
    gallery, _, table = page.partition("{ #planted }")
    rows = {row["section"]: row["planted"] for row in ROW.finditer(table)}
    found = []
    for section, names in rows.items():
        if f"{{ #{section} }}" not in gallery:
            found.append(f"there is no section #{section}")
        named = re.findall(r"`([^`]+)`", names)
        found += [f"{name!r} is not planted" for name in named if name not in planted]
        if not named:
            found.append(f"#{section} names no planted fault")
    return found


def test_every_fault_of_the_gallery_is_planted() -> None:
    page = PAGE.read_text("utf-8")
    assert problems(page, PLANTED) == []
    assert len(ROW.findall(page.partition("{ #planted }")[2])) >= 15


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("| [A](#a) | `known` |", []),
        ("| [A](#a) | `known`, `other` |", ["'other' is not planted"]),
        ("| [A](#b) | `known` |", ["there is no section #b"]),
        ("| [A](#a) | none |", ["#a names no planted fault"]),
    ],
)
def test_the_test_notices(row: str, said: list[str]) -> None:
    page = f"## A {{ #a }}\n\n## Planted {{ #planted }}\n\n{row}\n"
    assert problems(page, {"known"}) == said
