"""What holds for every file in snippets/, and for the canaries planted here."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.snippets.mutation import build

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = sorted((ROOT / "snippets").glob("*.py"))
MARK = re.compile(r"^ *# --8<-- \[(start|end):([\w-]+)\]\n", re.MULTILINE)


def outermost_section(source: str) -> str:
    """The section around all others, which a page includes to show the whole code."""
    marks = list(MARK.finditer(source))
    assert marks, "no section"
    open_: list[str] = []
    for mark in marks:
        kind, name = mark.groups()
        if kind == "start":
            assert open_ or mark is marks[0], f"{name} stands outside the first section"
            open_.append(name)
        else:
            assert open_, f"{name} ends and never began"
            assert open_.pop() == name, f"{name} crosses another section"
    assert open_ == [], f"never closed: {open_}"
    names = [mark[2] for mark in marks if mark[1] == "start"]
    assert len(set(names)) == len(names), "a section of the same name twice"
    return source[marks[0].end() : marks[-1].start()]


def problems(source: str) -> list[str]:
    """Say what the house style misses in a snippet's source."""
    tree = ast.parse(source)
    found = []
    said = ast.get_docstring(tree) or ""
    for word in ("What:", "When to use:", "When not:", "Source:"):
        if word not in said:
            found.append(f"module docstring without {word}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top not in {"torch", "__future__"} | sys.stdlib_module_names:
                found.append(f"line {node.lineno}: imports {name}")
    defined = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    if [sorted(names) for names in listed] != [sorted(defined)]:
        found.append(f"__all__ is {listed}, public names are {sorted(defined)}")
    for name, node in defined.items():
        said = ast.get_docstring(node) or ""
        raises = any(isinstance(inside, ast.Raise) for inside in ast.walk(node))
        if not said:
            found.append(f"{name} has no docstring")
        elif raises and "Raises:" not in ast.unparse(node):
            found.append(f"{name} raises and does not say so")
    return found


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_house_style(path: Path) -> None:
    assert problems(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_the_outermost_section_is_complete(path: Path) -> None:
    source = path.read_text("utf-8")
    whole, part = build(source), build(outermost_section(source))
    assert part.__all__ == whole.__all__
    assert all(hasattr(part, name) for name in part.__all__)


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_a_recipe_and_a_test_share_the_name(path: Path) -> None:
    name = path.stem
    assert (ROOT / "tests" / "snippets" / f"test_{name}.py").is_file()
    page = f"{name.replace('_', '-')}.md"
    folders = [ROOT / "docs" / folder for folder in ("recipes", "resnet")]
    recipes = [folder / page for folder in folders if (folder / page).is_file()]
    assert recipes, f"no page {page}"
    recipe = recipes[0].read_text("utf-8")
    assert f'--8<-- "snippets/{name}.py:' in recipe
    assert f"(../snippets/{name}.py){{ download" in recipe


def test_each_runs_alone_when_copied(tmp_path: Path) -> None:
    program = (
        "import runpy, pathlib, os\n"
        "for path in sorted(pathlib.Path.cwd().glob('*/*.py')):\n"
        "    os.chdir(path.parent)\n"
        "    module = runpy.run_path(path.name)\n"
        "    print(path.stem, all(name in module for name in module['__all__']))\n"
    )
    for path in SNIPPETS:
        (tmp_path / path.stem).mkdir()
        shutil.copy(path, tmp_path / path.stem)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = "".join(f"{path.stem} True\n" for path in SNIPPETS)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_the_checks_notice() -> None:
    source = (
        '"""What: x. When to use: x. When not: x."""\n'
        "import numpy\n"
        "def shown(): pass\n"
        'def refused():\n    """Refuse."""\n    raise ValueError\n'
    )
    assert problems(source) == [
        "module docstring without Source:",
        "line 2: imports numpy",
        "__all__ is [], public names are ['refused', 'shown']",
        "shown has no docstring",
        "refused raises and does not say so",
    ]
    start, end = "# --8<-- [start:a]\n", "# --8<-- [end:a]\n"
    for text, said in {
        "": "no section",
        end: "ends and never began",
        start: "never closed",
        start + end + start + end: "stands outside",
        start + start.replace("a]", "b]") + end: "crosses",
    }.items():
        with pytest.raises(AssertionError, match=said):
            outermost_section(text)
