"""A page made plain for pytest-codeblocks, which extracts the blocks that pytest runs.

pytest-codeblocks knows one form of a block: a fence of backticks, not indented, whose
info string is exactly `python`, `sh` or `bash`. What `page.read` found is written in
that form, read by pytest-codeblocks, and both readings must agree.
"""

from __future__ import annotations

import io

from pytest_codeblocks import CodeBlock, extract_from_buffer

from proof.page import EXECUTED, Block, Page, fence_for


def plain(block: Block) -> str:
    """Write one block in the form that pytest-codeblocks knows."""
    lines = []
    if block.importorskip:
        lines.append(f"<!--pytest-codeblocks:importorskip({block.importorskip})-->")
    for part in block.parts:
        if part is not block.parts[0]:
            lines.append("<!--pytest-codeblocks:cont-->")
        fence = fence_for(part.code)
        lines += [fence + block.language, part.code + fence]
    if any(part.expected is not None for part in block.parts):
        # It compares one output for a whole chain.
        said = "".join(part.expected or "" for part in block.parts)
        keyword = "expected-output" + "-ignore-whitespace" * block.ignore_whitespace
        fence = fence_for(said)
        lines += [f"<!--pytest-codeblocks:{keyword}-->", fence + "text", said + fence]
    return "\n".join(lines) + "\n"


def extract(page: Page) -> list[tuple[Block, CodeBlock]]:
    """Pair each block of the page with what pytest-codeblocks extracts for it."""
    text = "".join(plain(block) for block in page.blocks)
    found = extract_from_buffer(io.StringIO(text), text.count("\n") + 2)
    found = [one for one in found if one.syntax in EXECUTED]
    if [one.code for one in found] != [block.code for block in page.blocks]:
        message = "pytest-codeblocks reads other blocks from this page than the engine"
        page.problems.append((1, message))
    for block, one in zip(page.blocks, found, strict=False):
        one.lineno = block.line
    return list(zip(page.blocks, found, strict=False))
