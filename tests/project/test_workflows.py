"""The workflows have least privilege, pinned actions, and annotate what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

GITHUB = Path(__file__).resolve().parents[2] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
MATCHER = json.loads((GITHUB / "problems.json").read_text("utf-8"))
PROBLEM = re.compile(MATCHER["problemMatcher"][0]["pattern"][0]["regexp"])


def problems(text: str) -> list[str]:
    """Say what makes a workflow unsafe."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as true.
    found = []
    if workflow.get("permissions") != {}:
        found.append("permissions are not empty for the whole workflow")
    if "pull_request_target" in triggers or "workflow_run" in triggers:
        found.append("a fork's code could run with secrets")
    for name, job in workflow["jobs"].items():
        writes = [k for k, v in job.get("permissions", {}).items() if v == "write"]
        if "permissions" not in job:
            found.append(f"{name} names no permissions")
        if writes and "pull_request" in triggers:
            found.append(f"{name} may write on a pull request")
        for step in job["steps"]:
            uses = step.get("uses", "")
            if uses and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses):
                found.append(f"{uses} is not pinned by hash")
            checkout = uses.startswith("actions/checkout@")
            if (
                checkout
                and step.get("with", {}).get("persist-credentials") is not False
            ):
                found.append("the token stays in the checkout")
    if "pull_request" in triggers and "secrets." in text:
        found.append("a pull request sees secrets")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_safe(path: Path) -> None:
    assert problems(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("permissions: {}", "permissions: write-all", "permissions are not empty"),
        ("  pull_request:\n", "  pull_request_target:\n", "with secrets"),
        ("contents: read", "contents: write", "may write on a pull request"),
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd", "@v6", "not pinned by hash"),
        ("persist-credentials: false", "fetch-depth: 1", "token stays"),
        ("PIP_EXTRA_INDEX_URL: ", "TOKEN: ${{ secrets.X }} # ", "sees secrets"),
    ],
)
def test_a_planted_fault_is_seen(old: str, new: str, problem: str) -> None:
    text = (GITHUB / "workflows" / "check.yml").read_text("utf-8")
    assert old in text
    assert any(problem in found for found in problems(text.replace(old, new)))


def test_both_workflows_are_there() -> None:
    assert [path.name for path in WORKFLOWS] == ["check.yml", "publish.yml"]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (
            "docs/question/index.md:12: RuntimeError: boom",
            ("docs/question/index.md", "12"),
        ),
        ("WARNING -  docs/index.md:3: not executed", ("docs/index.md", "3")),
        ("proof/page.py:7: error: no", ("proof/page.py", "7")),
        (
            "snippets/residual_block.py:8:89: E501 long",
            ("snippets/residual_block.py", "8"),
        ),
    ],
)
def test_what_is_refused_becomes_an_annotation(
    line: str, place: tuple[str, str]
) -> None:
    found = PROBLEM.match(line)
    assert found
    assert found.groups()[:2] == place


def test_other_lines_become_none() -> None:
    assert not PROBLEM.match("INFO    -  Documentation built in 3.2 seconds")
