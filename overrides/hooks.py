"""What this site changes in the HTML of its theme and plugins."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path, PurePosixPath
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File
from mkdocs.structure.pages import _RelativePathTreeprocessor

# mkdocs-jupyter repeats half a megabyte of JupyterLab's styles in every notebook page,
# and marks up code in its own way: its cells become blocks like those of other pages.
NOTEBOOK_EXTRAS = re.compile(
    r"<style\b.*?</style>|<script\b.*?</script>"
    r"|<clipboard-copy\b.*?</clipboard-copy>"
    r'|<div class="clipboard-copy-txt".*?</div>|<metadata>.*?</metadata>',
    re.DOTALL,
)
NOTEBOOK_CODE = re.compile(
    r'<div class="highlight-ipynb hl-python"><pre>(.*?)</pre></div>', re.DOTALL
)
# Names that the search takes for one word, and the words that they are made of.
NAME = re.compile(r"\b(?:(?:[A-Z][a-z]+[0-9]*[a-z]?){2,}|[a-z]+(?:_[a-z0-9]+)+)\b")
WORD = re.compile(r"[A-Z]?[a-z]+[0-9]*")
PAGE_BOOST = 0.6
MATH = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)
LINK = re.compile(r'href="(?!#)([^":]+)"')
ANCHOR = re.compile(r'\bid="([^"]+)"')
FIGURE = re.compile(r'<img alt="(?P<alt>[^"]*)" src="(?P<name>[\w-]+\.svg)"[^>]*>')
UNUSED_ID = re.compile(r'\s+id="([^"]+)"')
PATH = re.compile(r' d="[^"]*"')
FINER = re.compile(r"(\.\d)\d+")  # than a tenth of a point


def on_config(config: Any) -> None:
    """Offer edit links only where it is known what they lead to."""
    if not config.repo_url:
        config.edit_uri = None


def on_files(files: Any, *, config: Any) -> None:
    """Publish each snippet as a file of its own, for the recipes to offer."""
    root = Path(config.config_file_path).parent
    for path in sorted((root / "snippets").glob("*.py")):
        uri = path.relative_to(root).as_posix()
        files.append(File.generated(config, uri, content=path.read_bytes()))


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """Set formulas; show notebook pages as other pages are shown."""
    html = MATH.sub(_formula, html)
    return _notebook(html, page, config, files) if _is_notebook(page) else html


def _formula(found: re.Match[str]) -> str:
    """A formula as MathML, which browsers draw without a script."""
    display = "block" if found["tag"] == "div" else "inline"
    return str(latex2mathml.converter.convert(unescape(found["tex"]), display=display))


def _is_notebook(page: Any) -> bool:
    return str(page.file.src_uri).endswith(".py")


def _notebook(html: str, page: Any, config: Any, files: Any) -> str:
    """Take the weight off a notebook page, follow its links, draw its figures."""
    block = r'<div class="language-python highlight"><pre><code>\1</code></pre></div>'
    html = NOTEBOOK_CODE.sub(block, NOTEBOOK_EXTRAS.sub("", html))
    html = html.replace('class="anchor-link"', 'class="headerlink"')
    # Material makes a selector of this id, in which `=` may not stand.
    html = html.replace('id="cell-id=', 'id="cell-')
    folder = PurePosixPath(page.file.src_uri).with_suffix("")

    def draw(found: re.Match[str]) -> str:
        drawn = files.get_file_from_path((folder / found["name"]).as_posix())
        return _figure(drawn.content_string, found["alt"]) if drawn else found[0]

    # MkDocs follows and checks the links of pages that it has made from Markdown.
    links = _RelativePathTreeprocessor(page.file, files, config)
    html = LINK.sub(lambda found: f'href="{links.path_to_url(found[1])}"', html)
    page.links_to_anchors = links.links_to_anchors
    page.present_anchor_ids = set(ANCHOR.findall(html))
    name = f"{folder.name}.ipynb"
    link = f'<a href="{name}" download>Download this page as a notebook, {name}</a>'
    return FIGURE.sub(draw, html) + f"<p>{link}</p>"


def _figure(svg: str, alt: str) -> str:
    """A figure of matplotlib in the page itself, so that its ink is the text's."""
    svg = NOTEBOOK_EXTRAS.sub("", svg[svg.index("<svg") :])
    svg = UNUSED_ID.sub(lambda id_: id_[0] if f"#{id_[1]}" in svg else "", svg)
    svg = PATH.sub(lambda path: FINER.sub(r"\1", path[0]), svg)
    svg = svg.replace("#000000", "currentColor").replace("#ffffff", "none")
    # Letters have no colour of their own: they take that of the whole.
    start = f'<svg role="img" aria-label="{alt}" fill="currentColor"'
    return svg.replace("<svg", start, 1)


def on_post_page(output: str, **_: Any) -> str:
    """Name the search dialog; ask no other host for facts about the repository."""
    unnamed = 'data-md-component="search" role="dialog"'
    output = output.replace(unnamed, f'{unnamed} aria-label="Search"')
    return output.replace(' data-md-component="source"', "")


def on_post_template(output_content: str, *, template_name: str, **_: Any) -> str:
    """Treat the page for what is not found as other pages are treated."""
    is_page = template_name.endswith(".html")
    return on_post_page(output_content) if is_page else output_content


def on_post_build(config: Any) -> None:
    """Let names be found by their parts: BatchNorm2d by `norm`, in_channels by either.

    The search keeps names whole, so that a name that is typed, in whatever case, leads
    to where it stands and not to wherever its parts do. And it ranks a page whose title
    has one word of the query before a section that has them all: that is set right.
    """
    path = Path(config.site_dir, "search", "search_index.json")
    index = json.loads(path.read_text("utf-8"))
    for entry in index["docs"]:
        if "#" not in entry["location"]:
            entry["boost"] = PAGE_BOOST * entry.get("boost", 1)
        names = NAME.findall(f"{entry['title']} {entry['text']}")
        parts = {part.lower() for name in names for part in WORD.findall(name)}
        if parts:
            entry["text"] += f"<p>{' '.join(sorted(parts))}</p>"
    path.write_text(json.dumps(index), "utf-8")
