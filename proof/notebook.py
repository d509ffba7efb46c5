"""Notebook pages: shown with what the run that proved them printed and wrote.

No notebook is executed to be rendered, so that each runs once, and runs confined.
"""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from typing import Any

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_output

from proof.evidence import Record
from proof.page import Page

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(page: Page, record: Record | None) -> str:
    """The page as a notebook, with the outputs of its cells if there are any."""
    notebook = _notebook(page)
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    for cell, part in zip(cells, record["parts"] if record else [], strict=False):
        if part["output"]:
            output = new_output("stream", name="stdout", text=part["output"])
            cell.outputs = [output]
    return _written(notebook)


def portable(page: Page) -> str:
    """The page as a notebook that needs no file beside it: it writes its snippets."""
    notebook = _notebook(page)
    for block in page.blocks:
        folders = {str(PurePosixPath(name).parent) for name in block.snippets}
        cells = [f"import os\n\nos.makedirs({f!r}, exist_ok=True)" for f in folders]
        cells += [
            f"%%writefile {name}\n{text}" for name, text in block.snippets.items()
        ]
        notebook.cells[:0] = [new_code_cell(cell) for cell in cells]
    return _written(notebook)


def files(record: Record | None) -> dict[str, bytes]:
    """What the page's code wrote: its figures, its results."""
    written = record["files"] if record else {}
    return {name: base64.b64decode(text) for name, text in written.items()}


def _notebook(page: Page) -> Any:
    notebook = jupytext.reads(page.source, fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def _written(notebook: Any) -> str:
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # nbformat draws them by lot.
    return f"{nbformat.writes(notebook)}\n"
