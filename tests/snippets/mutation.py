"""Faults planted in a snippet's source, which the snippet's own checks must refuse."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

Edits = tuple[tuple[str, str], ...]


class Mutant(NamedTuple):
    """A fault: exact replacements in the source, and how the battery must refuse it."""

    name: str
    edits: Edits
    error: type[Exception]
    match: str


def one(
    name: str, old: str, new: str, match: str, error: type[Exception] = AssertionError
) -> Mutant:
    """Return a mutant of one replacement."""
    return Mutant(name, ((old, new),), error, match)


def build(source: str, edits: Edits = ()) -> types.ModuleType:
    """Execute the source after the edits; an edit that changes nothing is an error."""
    for old, new in edits:
        assert old in source, f"no-op edit: {old!r}"
        assert old != new, f"no-op edit: {old!r}"
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module


def kill(
    mutant: Mutant, source: str, check: Callable[[types.ModuleType], object]
) -> None:
    """Assert that the battery refuses the fault, for the stated reason."""
    with pytest.raises(mutant.error, match=mutant.match) as caught:
        check(build(source, mutant.edits))
    assert caught.type is mutant.error


def assert_distinct(mutants: Iterable[Mutant]) -> None:
    """Assert that no fault is listed twice, by name or by text."""
    listed = list(mutants)
    assert len({mutant.name for mutant in listed}) == len(listed)
    assert len({mutant.edits for mutant in listed}) == len(listed)
