"""The second reading: the blocks of finished HTML, held against the evidence."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proof.page import normalise
from proof.rendered import find, page_of
from proof.settings import Settings

if TYPE_CHECKING:
    from tests.proof.conftest import Site

HIGHLIGHTED = """\
<div class="language-python highlight"><span class="filename">a.py</span><pre>\
<span></span><code><span id="__span-0-1"><a id="l1" name="l1" href="#l1"></a>\
<span class="n">x</span> <span class="o">=</span> <span class="mi">1</span>
</span><span class="hll"><span class="k">if</span> x <span class="o">&lt;</span> 2 \
<span class="ow">and</span> <span class="s2">&quot;&amp;&quot;</span>:
</span>    pass
</code></pre></div>"""
FORMS = {
    "highlighted": (HIGHLIGHTED, "python", 'x = 1\nif x < 2 and "&":\n    pass\n'),
    "bare": ("<pre>x = 1</pre>", "", "x = 1"),
    "class of the code": (
        '<pre><code class="language-python">x = 1\n</code></pre>',
        "python",
        "x = 1\n",
    ),
    "class of the pre": (
        "<pre class='a lang-py b'><code>x = 1</code></pre>",
        "python",
        "x = 1",
    ),
    "capitals": (
        '<PRE><CODE CLASS="language-Python">x = 1</CODE></PRE>'.replace(
            "CLASS", "class"
        ),
        "python",
        "x = 1",
    ),
    "shell": ('<pre><code class="language-shell">ls</code></pre>', "sh", "ls"),
    "class of a box": (
        '<div class="hl-python"><pre><span></span>x = 1</pre></div>',
        "python",
        "x = 1",
    ),
    "table of lines": (
        '<div class="language-python highlight"><table><tr><td class="linenos">'
        '<div class="linenodiv"><span>1</span></div></td><td class="code"><div>'
        '<pre><code class="language-python">x = 1</code></pre></div></td></tr>'
        "</table></div>",
        "python",
        "x = 1",
    ),
    "lines broken in tags": (
        '<pre\n  class="x"\n><code\n  class="language-python"\n>x = 1</code></pre>',
        "python",
        "x = 1",
    ),
    "entities": (
        '<pre><code class="language-c++">a &lt;b&gt; &#39;&#x27;&nbsp;</code></pre>',
        "c++",
        "a <b> ''\xa0",
    ),
    "misspelt": (
        '<pre><code class="language-pyhton">x = 1</code></pre>',
        "pyhton",
        "x = 1",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str) -> None:
    text, language, code = FORMS[form]
    page = f"<p>Text</p>\n{text}\n<p><code class='language-python'>x</code></p>"
    (shown,) = find(page)
    assert (shown.language, shown.code) == (language, code)
    assert not shown.is_output
    assert page[shown.opening : shown.end].count("<pre") <= 1
    assert page[: shown.end].lower().endswith("</pre>")


def test_block_opens_at_its_own_box() -> None:
    page = f'<div class="admonition"><p>a</p>{HIGHLIGHTED}</div><pre>b</pre>'
    first, second = find(page)
    assert page[first.opening :].startswith('<div class="language-python highlight">')
    assert page[second.opening :] == "<pre>b</pre>"
    assert second.language == ""


def test_what_a_comment_holds_is_not_shown() -> None:
    block = '<pre><code class="language-python">{}</code></pre>'
    page = f"<!-- {block.format('hidden')} -->\n{block.format('shown')}\n<!-- a -->"
    assert [shown.code for shown in find(page)] == ["shown"]


def test_expected_output_is_the_next_block_alone() -> None:
    output = "<!--pytest-codeblocks:expected-output-->\n<p>It prints</p>\n"
    text = '<div class="language-text highlight"><pre><code>1\n</code></pre></div>'
    page = HIGHLIGHTED + output + text + text
    assert [shown.is_output for shown in find(page)] == [False, True, False]
    page = HIGHLIGHTED + output + "<!-- another comment -->" + text
    assert [shown.is_output for shown in find(page)] == [False, False]


def test_outputs_of_notebook_cells_are_not_code() -> None:
    cell = '<div class="highlight-ipynb hl-python"><pre>x = 1</pre></div>'
    printed = '<div class="jp-RenderedText jp-OutputArea-output"><pre>1</pre></div>'
    page = cell + printed + cell
    assert [shown.language for shown in find(page, True)] == ["python", "python"]
    assert [shown.language for shown in find(page)] == ["python", "", "python"]


def test_nothing_is_found_in_nothing() -> None:
    assert list(find("")) == []
    assert list(find("<p>pre code</p><preface>x</preface>")) == []


PAGE = """\
# Page { #page }

<!--
```python
import torch
```
-->
<!--pytest-codeblocks:cont-->
```python title="A &lt;title&gt;"
x = torch.ones(2)  # (1)!
```

1.  Two ones.

<!--pytest-codeblocks:cont-->
```python
print(x)
assert "a" < "b" and '"'  # not (1)
```

<!--pytest-codeblocks:expected-output-->
```text
tensor([1., 1.])
```

<!--pytest.mark.raises(RuntimeError, match="must match")-->
```python
import torch

torch.ones(2) + torch.ones(3)
```

<!--pytest.mark.skip(reason="needs a <GPU>")-->
```python
x.cuda()
```

```bash
true
```
"""
NOTEBOOK = """\
# %% [markdown]
# # Notebook

# %%
x = 1

# %%
print(x + 1)
"""
INDEX = "# Proved { #proved }\n\n<!-- proof:index -->\n"


@pytest.fixture(scope="module")
def built(make_site: Callable[[str], Site]) -> Site:
    """A site that was proved and built, with a notebook that was executed."""
    site = make_site("built")
    site.configure([{"mkdocs-jupyter": {"include": ["*.py", "*.ipynb"]}}])
    site.write("docs/page.md", PAGE)
    site.write("docs/folder/index.md", "# Folder { #f }\n\n```python\ny = 1\n```\n")
    site.write("docs/notebook.py", NOTEBOOK)
    site.write("docs/proved.md", INDEX)
    run = site.run_inside()
    assert run.code == 0, run.output
    build = site.build()
    assert build.code == 0, build.output
    return site


@pytest.fixture
def page(built: Site) -> str:
    return built.read("site/page/index.html")


def check(site: Site) -> tuple[int, list[str]]:
    done = site.command("proof", "check", "site")
    return done.code, done.output.splitlines()


def test_copy_is_what_ran(page: str) -> None:
    copies = re.findall(r' data-copy="([^"]*)"', page)
    first = "import torch\nx = torch.ones(2)\n"
    second = first + 'print(x)\nassert "a" < "b" and \'"\'  # not (1)\n'
    assert [html.unescape(text) for text in copies] == [first, second]
    for text in copies:
        exec(compile(html.unescape(text), "copied", "exec"), {})


def test_a_setup_is_sent_once_and_not_in_a_comment_too(page: str) -> None:
    comments = re.findall(r"<!--.*?-->", page, re.DOTALL)
    assert comments
    assert [comment for comment in comments if "<pre" in comment] == []
    assert page.count("<summary>setup</summary>") == 1


def test_block_without_setup_is_copied_as_shown(page: str) -> None:
    raises = page[page.index("torch.ones") :]
    assert "data-copy" not in raises[raises.index("must match") :]
    plain = page[: page.index("true")].rpartition("<div")[2]
    assert "data-copy" not in plain
    assert "no-copy" not in plain


def test_what_was_not_executed_is_not_copied(page: str) -> None:
    opening = page[: page.index("cuda")].rpartition("<div")[2]
    assert "no-copy" in opening
    assert "not executed: needs a &lt;GPU&gt;" in page


def test_stamps(page: str) -> None:
    assert page.count("ran on torch 2.13.0 in ") == 4
    assert page.count("<summary>setup</summary>") == 1
    assert '<samp class="proof-error">RuntimeError: The size of tensor' in page
    assert "5 blocks on this page, 4 executed: torch 2.13.0, Python 3." in page
    assert "not proved" not in page
    anchors = re.findall(r'id="(proof-[0-9a-f]{8}-\d)"', page)
    assert len(set(anchors)) == len(anchors) == 5
    # Between a block and its list of annotations nothing may stand.
    assert re.search(r"</pre><div class=\"proof\".*?</div></div>\s*<ol>", page, re.S)


def test_index_lists_every_block(built: Site) -> None:
    index = built.read("site/proved/index.html")
    records = built.records()
    assert len(records) == 6
    assert f"{len(records) - 1} of {len(records)} blocks executed" in index
    assert "Not executed: 1." in index
    assert "docs/page.md:34: needs a &lt;GPU&gt;" in index


def test_index_links_to_every_block(built: Site) -> None:
    index = built.read("site/proved/index.html")
    links = re.findall(r'href="([^"#]*)#(proof-[^"]*)"', index)
    assert len(links) == 6
    for link, anchor in links:
        folder = built.root / "site/proved" / link
        text = (folder / "index.html").read_text("utf-8")
        assert f'id="{anchor}"' in text, (link, anchor)


def test_a_visible_block_may_be_the_setup_of_others(
    make_site: Callable[[str], Site],
) -> None:
    site = make_site("setup")
    cont = "<!--pytest-codeblocks:cont-->"
    setup = f"<!--\n```python\nx = 1\n```\n-->\n{cont}\n"
    page = "# A { #a }\n\n" + setup + "```python\ny = x\n```\n\n"
    page += setup + "```python\nz = x\n```\n\n```python\nx = 1\n```\n"
    site.write("docs/index.md", page)
    run = site.run_inside()
    assert run.code == 0, run.output
    build = site.build()
    assert build.code == 0, build.output
    assert check(site)[0] == 0
    # And a visible block that is taken out is missed, setups of its text or not.
    text = site.read("site/index.html")
    start = text.rindex('<div class="language-python highlight"')
    site.edit("site/index.html", text[start:], "</body></html>")
    code, lines = check(site)
    assert code == 1
    assert "docs/index.md:23: the page does not show this block as code" in lines[0]


def test_good_site_is_accepted(built: Site) -> None:
    code, lines = check(built)
    assert (code, lines[-1]) == (0, f"proof: {len(lines[-1:]) * 6} pages, 0 problems")


PLANTED = {
    "unproved": (
        "page/index.html",
        "</body>",
        '<pre><code class="language-python">planted = 1</code></pre></body>',
        r"docs/page.md:1: this python block is shown, but was not executed",
    ),
    "changed": (
        "folder/index.html",
        '<span class="mi">1</span>',
        '<span class="mi">2</span>',
        r"docs/folder/index.md:\d+: this python block is shown, but was not executed",
    ),
    "output": (
        "page/index.html",
        "tensor([1., 1.])",
        "tensor([1., 2.])",
        r"docs/page.md:2[1-4]: the output shown is not what the block printed",
    ),
    "language": (
        "page/index.html",
        "</body>",
        '<pre><code class="language-pyhton">planted</code></pre></body>',
        r"docs/page.md:1: a code block in language `pyhton` is shown",
    ),
    "no language": (
        "page/index.html",
        "</body>",
        "<pre>planted</pre></body>",
        r"docs/page.md:1: a code block in no language is shown",
    ),
    "page of its own": (
        "alone.html",
        "",
        "<p>a</p>\n<pre><code class='language-python'>planted = 1</code></pre>",
        r"alone.html:2: this python block is shown, but was not executed",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_block_is_named(built: Site, planted: str) -> None:
    name, old, new, message = PLANTED[planted]
    path = built.root / "site" / name
    text = path.read_text("utf-8") if old else ""
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else new, "utf-8")
    try:
        code, lines = check_inside(built)
    finally:
        path.write_text(text, "utf-8") if old else path.unlink()
    assert code == 1
    assert re.match(message, lines[0]), lines
    assert len(lines) == 2
    assert lines[1].endswith("1 problems")


def check_inside(site: Site) -> tuple[int, list[str]]:
    from proof.rendered import check_site

    problems = check_site(site.root / "site", Settings.load(site.root))
    return bool(problems), [*problems, f"{len(problems)} problems"]


def test_site_that_is_none(built: Site) -> None:
    done = built.command("proof", "check", "nowhere")
    assert done.code == 2
    assert "nowhere is not a folder" in done.output


def test_stale_evidence_is_no_evidence(built: Site) -> None:
    lock = built.read("constraints.txt")
    built.write("constraints.txt", lock.replace("numpy==2.4.6", "numpy==2.4.5"))
    try:
        _, lines = check_inside(built)
    finally:
        built.write("constraints.txt", lock)
    assert any("docs/folder/index.md" in line for line in lines)
    assert all("changed since" in line for line in lines[:-1]), lines
    # What is shown of the page with its unfolded setup, the folder and the notebook.
    assert len(lines[:-1]) == 6 + 1 + 2


def test_check_names_the_line_of_a_block(built: Site) -> None:
    """Many blocks begin with the same line, `import torch`."""
    old, new = "must match", "must  match"
    built.edit("docs/page.md", old, new)
    path = built.root / "site/page/index.html"
    text = path.read_text("utf-8")
    three = '<span class="mi">3</span>'
    assert text.count(three) == 1
    path.write_text(text.replace(three, three.replace("3", "4")))
    try:
        _, lines = check_inside(built)
    finally:
        path.write_text(text)
        built.edit("docs/page.md", new, old)
    assert re.match(r"docs/page.md:(27|28|30): ", lines[0]), lines


def test_sources_of_built_pages(built: Site) -> None:
    settings = Settings.load(built.root)
    sources = {
        "index.html": "docs/index.md",
        "page/index.html": "docs/page.md",
        "page.html": "docs/page.md",
        "folder/index.html": "docs/folder/index.md",
        "notebook/index.html": "docs/notebook.py",
        "404.html": "",
        "search/nowhere.html": "",
    }
    assert {name: page_of(Path(name), settings) for name in sources} == sources


def test_normalising_twice_changes_nothing() -> None:
    code = "\n\n\tx = 1  # (1)!\n\n  y = 2   \n\n"
    assert normalise(code) == "    x = 1\n\n  y = 2\n"
    assert normalise(normalise(code)) == normalise(code)
