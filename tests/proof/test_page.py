"""The first reading equals the second: every form of a block, held against its HTML."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from markdown import Markdown
from mkdocs.config import load_config
from mkdocs.utils.meta import get_data

from proof.extract import extract
from proof.page import EXECUTED, Page, PageError, normalise, parse_mark, read
from proof.rendered import find
from proof.settings import Settings

if TYPE_CHECKING:
    from tests.proof.conftest import Site

ROOT = Path(__file__).resolve().parent.parent.parent
Lines = list[str]


class Readers:
    """Both readings of a page, on a small site with the real Markdown extensions."""

    def __init__(self, root: Path, includes: Path) -> None:
        self.root = root
        config = load_config(str(root / "mkdocs.yml"), plugins=[])
        self.options: dict[str, Any] = {
            "extensions": config.markdown_extensions,
            "extension_configs": config.mdx_configs,
        }
        snippets = {"base_path": [str(includes)]}
        self.options["extension_configs"]["pymdownx.snippets"] |= snippets
        self.settings = Settings.load(root)
        self.settings.snippets["base_path"] = [str(includes)]

    def read(self, text: str, name: str = "docs/page.md") -> Page:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return read(path, name, self.settings)

    def shown(self, text: str) -> list[tuple[str, str]]:
        """Language and code of what a reader sees of the page."""
        html = Markdown(**self.options).convert(get_data(text)[0])
        blocks = [b for b in find(html) if b.language in EXECUTED and not b.is_output]
        return [(block.language, normalise(block.code)) for block in blocks]


@pytest.fixture(scope="module")
def readers(make_site: Callable[[str], Site]) -> Readers:
    site = make_site("readers")
    return Readers(site.root, site.root)


def visible(page: Page) -> list[tuple[str, str]]:
    return [
        (block.language, part.code)
        for block in page.blocks
        for part in block.parts
        if not part.hidden
    ]


def codes(page: Page) -> list[str]:
    return [block.code for block in page.blocks]


def assert_read_as_shown(readers: Readers, text: str) -> Page:
    """Both readings agree, and each line of code is found on the line that it names."""
    page = readers.read(text)
    assert page.problems == []
    assert visible(page) == readers.shown(text)
    assert [block for block, _ in extract(page)] == page.blocks
    assert page.problems == []
    source = text.splitlines()
    for block in page.blocks:
        for number, line in enumerate(block.code.splitlines(), 1):
            origin = source[block.page_line(number) - 1].expandtabs(4)
            assert line in origin or "8<" in origin or "part.py" in origin
    return page


def indented(lines: Lines, by: str = "    ") -> Lines:
    return [by + line if line else line for line in lines]


CONTAINERS: dict[str, Callable[[Lines], Lines]] = {
    "tab": lambda inner: ['=== "Tab"', "", *indented(inner)],
    "admonition": lambda inner: ["!!! note", "", *indented(inner)],
    "details": lambda inner: ['??? question "Why?"', "", *indented(inner)],
    "open details": lambda inner: ["???+ tip", "", *indented(inner)],
    "list": lambda inner: ["* item", "", *indented(inner)],
    "numbered list": lambda inner: ["1. item", "", *indented(inner)],
    "quote": lambda inner: ["> q", ">", *[f"> {line}".rstrip() for line in inner]],
    "footnote": lambda inner: ["See.[^1]", "", "[^1]:", *indented(inner)],
    "definition": lambda inner: ["Term", "", ":   text", "", *indented(inner)],
    "html": lambda inner: ["<div markdown>", "", *inner, "", "</div>"],
    "tight list": lambda inner: ["* item", *indented(inner)],
    "list indented by two": lambda inner: ["- item", *indented(inner, "  ")],
}
# What Markdown itself does not read as one in the other.
IMPOSSIBLE = {
    *(("tight list", inner) for inner in ("tab", "admonition", "details")),
    *(("tight list", inner) for inner in ("open details", "definition")),
    ("footnote", "footnote"),
    ("list", "definition"),
    ("numbered list", "definition"),
}
INFOS = [
    "```python",
    "```py",
    "```python3",
    "```Python",
    "``` python",
    "~~~python",
    "~~~~ py",
    "````python",
    "```{.python}",
    "``` { .python .annotate }",
    '```{.py title="A title"}',
    '```{ .python #an-id .a-class hl_lines="1" }',
    '```python title="A title"',
    '```python linenums="1"',
    '```python hl_lines="1 2"',
    '```python title="A title" linenums="3" hl_lines="1-2"',
    '```python {linenums="1"}',
    "```sh",
    "```bash",
    "```shell",
]
BODIES = {
    "one line": "x = 1",
    "blank lines": "def f():\n\n    return 1\n\n\nprint(f())",
    "outer blank lines": "\n\nx = 1\n\n",
    "annotations": "x = 1  # (1)!\ny = 2 # (2)\nz = 3  # not (1)",
    "tabs": "if x:\n\ty = 1",
    "spaces at the end": "x = 1   \n   \ny = 2",
    "indented": "    x = 1\n    y = 2",
    "entities": "x = '<b> &amp; \"quoted\" &#10;'",
    "markdown": "# heading\n\n# * item\n#\n# > quote\n# [^1] `code` **bold**",
    "comment marks": 'x = "-->"\ny = "<!--"',
    "whole include": '--8<-- "snippets/part.py"',
    "included section": 'x = 1\n\n--8<-- "snippets/part.py:double"\n\ny = double(2)',
    "included lines": '--8<-- "snippets/part.py:3:5"',
    "included list": "--8<--\nsnippets/part.py:double\n--8<--\ny = double(2)",
    "escaped include": ';--8<-- "snippets/part.py"',
}


def fence(info: str, body: str) -> Lines:
    return [info, *body.split("\n"), info[: len(info) - len(info.lstrip("`~"))]]


@pytest.mark.parametrize("info", INFOS)
def test_every_fence_in_every_container(readers: Readers, info: str) -> None:
    for wrap in (lambda inner: inner, *CONTAINERS.values()):
        lines = wrap(fence(info, BODIES["blank lines"]))
        text = "\n".join(["# Page", "", *lines, "", "The end.", ""])
        page = assert_read_as_shown(readers, text)
        assert codes(page) == [BODIES["blank lines"] + "\n"], text
        assert info in text.splitlines()[page.blocks[0].line - 1]


@pytest.mark.parametrize("body", BODIES)
def test_every_body_in_every_container(readers: Readers, body: str) -> None:
    for wrap in (lambda inner: inner, *CONTAINERS.values()):
        lines = wrap(fence("```python", BODIES[body]))
        text = "\n".join(["# Page", "", *lines, "", "The end.", ""])
        page = assert_read_as_shown(readers, text)
        assert len(page.blocks) == 1, text


@pytest.mark.parametrize("outer", CONTAINERS)
def test_containers_in_containers(readers: Readers, outer: str) -> None:
    for inner in CONTAINERS:
        if (outer, inner) not in IMPOSSIBLE:
            lines = CONTAINERS[inner](fence("```python", BODIES["blank lines"]))
            text = "\n".join(["Text.", "", *CONTAINERS[outer](lines), ""])
            assert len(assert_read_as_shown(readers, text).blocks) == 1, text


def test_pages_of_the_site(make_site: Callable[[str], Site]) -> None:
    """What the real pages show is what the real pages run."""
    readers, settings = Readers(make_site("real").root, ROOT), Settings.load(ROOT)
    blocks = 0
    for path in sorted((ROOT / "docs").rglob("*.md")):
        page = read(path, path.relative_to(ROOT).as_posix(), settings)
        assert page.problems == [], path
        assert visible(page) == readers.shown(path.read_text("utf-8")), path
        blocks += len(page.blocks)
    assert blocks > 20


def test_many_blocks_keep_their_order(readers: Readers) -> None:
    wraps = [wrap for name, wrap in CONTAINERS.items() if name != "footnote"]
    lines = [
        line
        for number, wrap in zip(range(22), itertools.cycle(wraps), strict=False)
        for line in ["", *wrap(fence("```python", f"x = {number}")), "", "Text.", ""]
    ]
    page = assert_read_as_shown(readers, "\n".join(lines))
    assert codes(page) == [f"x = {number}\n" for number in range(22)]


def test_hidden_setup_is_one_block_with_what_is_shown(readers: Readers) -> None:
    text = dedent(
        """\
        ---
        title: A page
        ---
        <!--
        ```python
        import torch
        ```
        -->
        <!--pytest-codeblocks:cont-->
        ```python title="Shown"

        x = torch.ones(1)  # (1)!
        ```

        === "Tab"

            <!-- setup
            ```python
            y = 1
            ```
            -->
            <!-- pytest-codeblocks:cont -->
            ```python
            z = y
            ```
        """
    )
    page = assert_read_as_shown(readers, text)
    first, second = page.blocks
    assert first.code == "import torch\nx = torch.ones(1)\n"
    assert [part.hidden for part in first.parts] == [True, False]
    assert [part.line for part in first.parts] == [5, 10]
    assert first.line == 10
    assert [first.page_line(number) for number in (0, 1, 2, 3)] == [10, 6, 12, 10]
    assert second.code == "y = 1\nz = y\n"
    assert [part.line for part in second.parts] == [18, 23]


def test_marks_and_output_belong_to_their_block(readers: Readers) -> None:
    text = dedent(
        """\
        <!--pytest-codeblocks:importorskip(numpy)-->
        <!--pytest.mark.timeout(90, reason="trains")-->
        <!--pytest.mark.raises(ValueError, match="it's (one)?")-->
        ```python
        print(1)
        raise ValueError("it's one")
        ```

        * The output:

            <!--pytest-codeblocks:expected-output-ignore-whitespace-->
            ```text
              1

            2
            ```

        ```python
        x = 1
        ```
        """
    )
    page = assert_read_as_shown(readers, text)
    first, second = page.blocks
    assert first.importorskip == "numpy"
    assert [mark.name for mark in first.marks] == ["timeout", "raises"]
    assert first.marks[0].args == [90]
    assert first.marks[1].args == ["ValueError"]
    assert first.marks[1].options == {"match": "it's (one)?"}
    assert first.parts[0].expected == "  1\n\n2\n"
    assert first.ignore_whitespace
    assert not second.marks
    assert not second.importorskip
    assert second.parts[0].expected is None


@pytest.mark.parametrize(
    "text",
    [
        "````markdown\n```python\nraise KeyError\n```\n````\n",
        "~~~markdown\n```python\nraise KeyError\n```\n~~~\n",
        '=== "Tab"\n\n    ````markdown\n    ```python\n    x\n    ```\n    ````\n',
        "```json\n{}\n```\n",
        "The word `python` and `#!python x = 1`.\n",
    ],
)
def test_text_is_not_executed(readers: Readers, text: str) -> None:
    assert assert_read_as_shown(readers, text).blocks == []


def test_included_page(readers: Readers) -> None:
    part = '# Part\n\n```python\nx = 1\n```\n\n```py title="T"\nx = 2\n```\n'
    (readers.root / "part.md").write_text(part)
    text = '# Page\n\n--8<-- "part.md"\n\n```python\nx = 3\n```\n'
    page = assert_read_as_shown(readers, text)
    assert codes(page) == ["x = 1\n", "x = 2\n", "x = 3\n"]
    assert [block.line for block in page.blocks] == [3, 3, 5]
    assert [b.parts[0].is_included for b in page.blocks] == [True, True, False]


def test_windows_line_ends_and_byte_order_mark(readers: Readers) -> None:
    text = "---\ntitle: A page\n---\n\n```python\nx = 1\n\ny = 2\n```\n"
    unix = readers.read(text)
    windows = readers.read("\ufeff" + text.replace("\n", "\r\n"))
    assert codes(windows) == codes(unix) == ["x = 1\n\ny = 2\n"]
    assert windows.blocks[0].line == unix.blocks[0].line == 5
    assert windows.blocks[0].claim == unix.blocks[0].claim


def test_cells_of_a_notebook(readers: Readers) -> None:
    text = dedent(
        """\
        # %% [markdown]
        # # Title
        # ```python
        # raise KeyError
        # ```

        # %%

        x = 1


        y = 2
        # %% [markdown]
        # Text
        # %% tags=["a"]
        z = x + y
        # %%
        """
    )
    (block,) = readers.read(text, "docs/notebook.py").blocks
    assert [part.code for part in block.parts] == ["x = 1\n\n\ny = 2\n", "z = x + y\n"]
    assert [part.line for part in block.parts] == [7, 15]
    assert [block.page_line(number) for number in (1, 4, 5)] == [9, 12, 16]


def claim(readers: Readers, text: str) -> str:
    (block,) = readers.read(text).blocks
    return block.claim


def test_claim_is_of_what_is_said_not_of_where_it_stands(readers: Readers) -> None:
    text = "```python\nprint(1)\n```\n\n<!--pytest-codeblocks:expected-output-->\n"
    text += "```text\n1\n```\n"
    same = [
        f"# Title\n\n{text}",
        text.replace("```python", '```py title="Title" hl_lines="1"'),
        text.replace("print(1)\n", "\nprint(1)  \n\n"),
        text.replace("print(1)\n", "print(1)  # (1)!\n"),
    ]
    assert {claim(readers, one) for one in same} == {claim(readers, text)}
    mark = "<!--pytest.mark.{}-->\n"
    other = [
        text,
        text.replace("print(1)", "print( 1)"),
        text.replace("text\n1", "text\n2"),
        text.split("<!--")[0],
        text.replace("expected-output", "expected-output-ignore-whitespace"),
        text.replace("```python", "```bash"),
        "<!--\n" + text.replace("<!--", "-->\n<!--"),
        "<!--pytest-codeblocks:importorskip(torch)-->\n" + text,
        mark.format('skip(reason="a")') + text,
        mark.format('skip(reason="b")') + text,
        mark.format('chance(reason="a")') + text,
        mark.format('raises(ValueError, match="a")') + text,
        mark.format('raises(KeyError, match="a")') + text,
        mark.format('timeout(9, reason="a")') + text,
        text.replace(
            "```\n\n", "```\n\n<!--pytest-codeblocks:cont-->\n```python\n```\n"
        ),
    ]
    assert len({claim(readers, one) for one in other}) == len(other)


def test_code_of_a_claim_has_no_annotation_marks(readers: Readers) -> None:
    (block,) = readers.read("```python\nx = 1  # (1)!\ny = '# (1)'\n```\n").blocks
    assert block.code == "x = 1\ny = '# (1)'\n"


@pytest.mark.parametrize(
    "text",
    [
        "pytest.mark.raises(__import__('os').system('false'), match='x')",
        "pytest.mark.raises(RuntimeError, match='a' 'b' + 'c' * 3 + f())",
        "pytest.mark.timeout('90', reason='a')",
        "pytest.mark.timeout(True or 90, reason='a')",
        "pytest.mark.skip('no reason keyword')",
        "pytest.mark.chance(reason='')",
        "pytest.mark.skip(reason=None, **{})",
        "pytest.mark",
        "pytest.mark.raises(RuntimeError, match='x'), 1",
    ],
)
def test_marks_are_not_evaluated(text: str) -> None:
    with pytest.raises(PageError) as caught:
        parse_mark(text, 7)
    assert caught.value.line == 7


def test_a_pattern_may_escape_a_bracket() -> None:
    text = r'pytest.mark.raises(TypeError, match="takes \(2\) .* but \d")'
    assert parse_mark(text, 7).options["match"] == r"takes \(2\) .* but \d"


def test_backticks_in_a_title(readers: Readers) -> None:
    assert_read_as_shown(readers, '```python title="A `Module`"\nx = 1\n```\n')


def test_comment_mark_in_inline_code(readers: Readers) -> None:
    text = "A comment opens with `<!--`.\n\n```python\nx = 1\n```\n\nIt ends.\n"
    assert_read_as_shown(readers, text)


def test_problems_are_in_the_order_of_lines(readers: Readers) -> None:
    text = "```\n```\n\n```nope\n```\n\n<!--pytest.mark.xfail-->\n\n```pycon\n```\n"
    page = readers.read(text)
    assert [line for line, _ in page.problems] == [1, 4, 7, 9]
