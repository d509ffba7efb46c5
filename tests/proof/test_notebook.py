"""Notebook pages: executed once, shown as they ran, with what they wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.proof.conftest import Site

ROOT = Path(__file__).resolve().parents[2]
SVG = '<svg width="9pt"><metadata>m</metadata><g id="axes_1" style="stroke: #000000"/>'
SVG += '<path d="M 1.25 2.7182"/>'
NOTEBOOK = f'''\
# %% [markdown]
# # An experiment
#
# It doubles: see [the page beside it](../page.md#p).
#
# ![A line that rises](line.svg)

# %%
from pathlib import Path

from snippets.part import double

print(double(21))

# %%
Path("line.svg").write_text("""<?xml version="1.0"?>\\n{SVG}</svg>""")
Path("results.json").write_text('{{"answer": 42}}')
'''
# The snippet of the small site does not run as a whole, and a notebook imports whole.
SNIPPET = (
    '"""A snippet."""\n\n\ndef double(number: int) -> int:\n    return 2 * number\n'
)


@pytest.fixture(scope="module")
def built(make_site: Callable[[str], Site]) -> Site:
    site = make_site("notebooks")
    site.configure(
        [{"mkdocs-jupyter": {"include": ["*.py", "*.ipynb"]}}],
        hooks=[str(ROOT / "overrides" / "hooks.py")],
    )
    site.write("snippets/part.py", SNIPPET)
    site.write("docs/page.md", "# Page { #p }\n\nText.\n")
    site.write("docs/lab/try.py", NOTEBOOK)
    run = site.run_inside()
    assert run.code == 0, run.output
    build = site.build()
    assert build.code == 0, build.output
    return site


@pytest.fixture(scope="module")
def page(built: Site) -> str:
    return built.read("site/lab/try/index.html")


def test_outputs_are_those_of_the_run_that_proved_it(built: Site, page: str) -> None:
    (record,) = built.records("docs/lab/try.py")
    assert [part["output"] for part in record["parts"]] == ["42\n", ""]
    outputs = re.findall(r"jp-OutputArea-output.*?<pre>(.*?)</pre>", page, re.DOTALL)
    assert [output.strip() for output in outputs] == ["42"]


def test_what_it_wrote_is_published_beside_it(built: Site) -> None:
    results = json.loads(built.read("site/lab/try/results.json"))
    assert results == {"answer": 42}
    assert built.read("site/lab/try/line.svg").startswith("<?xml")


def test_a_figure_is_drawn_in_the_page(page: str) -> None:
    start = page.index("<svg role=")
    figure = page[start : page.index("</svg>", start)]
    tag = 'role="img" aria-label="A line that rises" fill="currentColor" width="9pt"'
    assert tag in figure
    assert "currentColor" in figure
    assert "#000000" not in figure
    assert "metadata" not in figure
    assert '<path d="M 1.2 2.7"/>' in figure
    assert "axes_1" not in figure


def test_links_are_those_of_the_site(page: str) -> None:
    assert '<a href="../../page/#p">the page beside it</a>' in page
    assert '<a href="try.ipynb" download>' in page


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("../page.md#p", "../pag.md#p", r"docs/lab/try.py:4: .*'\.\./pag\.md"),
        ("../page.md#p", "../page.md#q", r"docs/lab/try.py:4: .*anchor '#q'"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(
    built: Site, good: str, bad: str, said: str
) -> None:
    built.edit("docs/lab/try.py", good, bad)
    try:
        build = built.build()
    finally:
        built.edit("docs/lab/try.py", bad, good)
    assert build.code != 0
    assert re.search(said, build.output), build.output


def test_it_needs_no_file_beside_it(built: Site, tmp_path: Path) -> None:
    notebook = tmp_path / "try.ipynb"
    notebook.write_text(built.read("site/lab/try/try.ipynb"), "utf-8")
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", str(notebook)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.json").is_file()
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    printed = [o["text"] for c in cells for o in c.get("outputs", ()) if "text" in o]
    assert printed == [["Writing snippets/part.py\n"], ["42\n"]]


def test_another_snippet_is_another_claim(built: Site) -> None:
    assert "1 blocks: 1 unchanged" in built.run_inside("docs").output
    built.edit("snippets/part.py", "2 * number", "number * 2")
    assert "1 blocks: 1 executed" in built.run_inside("docs").output


def test_it_is_not_imported_by_pytest(built: Site) -> None:
    run = built.run_inside("--reprove", "docs/lab/try.py")
    assert run.code == 0, run.output
    assert "1 blocks: 1 executed" in run.output
    assert not (built.root / "results.json").exists()


def test_an_unproved_notebook_is_not_published(built: Site) -> None:
    built.edit("docs/lab/try.py", "double(21)", "double(22)")
    try:
        build = built.build()
    finally:
        built.edit("docs/lab/try.py", "double(22)", "double(21)")
    assert build.code != 0
    assert "docs/lab/try.py:8: this" in build.output
    assert "was not executed in this form" in build.output


def test_a_snippet_that_is_not_there_is_named(small_site: Site) -> None:
    small_site.write("docs/try.py", "# %%\nx = 1\nfrom snippets.lost import double\n")
    run = small_site.run_inside()
    assert run.code != 0
    assert "docs/try.py:3: there is no snippets/lost.py: correct" in run.output


def test_files_have_a_limit(small_site: Site) -> None:
    code = 'from pathlib import Path\nPath("x.bin").write_bytes(bytes(5 << 20))\n'
    small_site.write("docs/try.py", f"# %%\n{code}")
    run = small_site.run_inside()
    assert run.code != 0
    assert "TooMuch: its files are larger than 4 MiB" in run.output


def test_mkdocs_jupyter_must_not_execute(small_site: Site) -> None:
    small_site.configure([{"mkdocs-jupyter": {"execute": True}}])
    build = small_site.build()
    assert build.code != 0
    assert "mkdocs-jupyter: set execute: false" in build.output
