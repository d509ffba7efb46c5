"""What this site changes in the HTML of its theme and plugins."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# mkdocs-jupyter repeats half a megabyte of JupyterLab's styles in every notebook page,
# and marks up code in its own way: its cells become blocks like those of other pages.
NOTEBOOK_EXTRAS = re.compile(
    r"<style\b.*?</style>|<script\b.*?</script>"
    r"|<clipboard-copy\b.*?</clipboard-copy>",
    re.DOTALL,
)
NOTEBOOK_CODE = re.compile(
    r'<div class="highlight-ipynb hl-python"><pre>(.*?)</pre></div>', re.DOTALL
)
# A name that the search's separator splits where its case changes.
CAMEL_CASE = re.compile(r"\b(?:[A-Z][a-z]+[0-9]*[a-z]?){2,}\b")


def on_config(config: Any) -> None:
    """Offer edit links only where it is known what they lead to."""
    if not config.repo_url:
        config.edit_uri = None


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Take the weight off notebook pages, and show their code as other pages do."""
    if not page.file.src_uri.endswith(".py"):
        return html
    block = r'<div class="language-python highlight"><pre><code>\1</code></pre></div>'
    source = page.file.src_uri.rpartition("/")[2]
    link = f'<a href="{source}" download>Download this page as a script, {source}</a>'
    return NOTEBOOK_CODE.sub(block, NOTEBOOK_EXTRAS.sub("", html)) + f"<p>{link}</p>"


def on_post_page(output: str, **_: Any) -> str:
    """Name the search dialog, which Material leaves without a name."""
    unnamed = 'data-md-component="search" role="dialog"'
    return output.replace(unnamed, f'{unnamed} aria-label="Search"')


def on_post_build(config: Any) -> None:
    """Let names be found in lower case too: `batchnorm2d` for BatchNorm2d.

    The search splits BatchNorm2d into its parts, so that they are found; what is typed
    in lower case is not split, and would find neither.
    """
    path = Path(config.site_dir, "search", "search_index.json")
    index = json.loads(path.read_text("utf-8"))
    for entry in index["docs"]:
        names = set(CAMEL_CASE.findall(f"{entry['title']} {entry['text']}"))
        if names:
            entry["text"] += f"<p>{' '.join(sorted(names)).lower()}</p>"
    path.write_text(json.dumps(index), "utf-8")
