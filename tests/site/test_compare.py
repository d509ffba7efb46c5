"""The table, the chooser, the list of errors and the recipes lead to what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from proof.evidence import Evidence, Record
from proof.page import read

if TYPE_CHECKING:
    from tests.site.conftest import OpenPage

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HEADING = re.compile(r"^(#{1,6}) (.+?) \{ #([\w-]+) \}$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Section(NamedTuple):
    """A heading of a page, and the lines from it to the next heading of any level."""

    level: int
    title: str
    start: int
    end: int


def sections(path: Path) -> dict[str, Section]:
    text = path.read_text("utf-8")
    found = list(HEADING.finditer(text))
    lines = [text.count("\n", 0, match.start()) + 1 for match in found]
    ends = [*lines[1:], text.count("\n") + 2]
    return {
        match[3]: Section(len(match[1]), match[2], start, end)
        for match, start, end in zip(found, lines, ends, strict=True)
    }


def blocks(path: Path, section: Section, evidence: Evidence) -> list[Record]:
    """The blocks whose visible part stands in the section, each with evidence."""
    name = path.relative_to(ROOT).as_posix()
    known = evidence.of_page(name)
    found = []
    for block in read(path, name, evidence.settings).blocks:
        visible = [part for part in block.parts if not part.hidden]
        if any(section.start <= part.line < section.end for part in visible):
            record = known[block.claim]
            assert evidence.holds(record), f"{name}:{block.line}"
            found.append(record)
    return found


def rows(text: str) -> list[str]:
    """The rows of a page's first table, without its head."""
    table = re.search(r"^(\|.*\n)(\|[-:| ]+\n)((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, "no table"
    return table[3].splitlines()


def target(path: Path, link: str) -> tuple[Path, Section]:
    page, _, anchor = link.partition("#")
    found = (path.parent / page).resolve() if page else path
    assert anchor, f"{link} names no section"
    return found, sections(found)[anchor]


def test_each_row_of_the_table_leads_to_a_proved_block(evidence: Evidence) -> None:
    path = DOCS / "compare" / "index.md"
    found = rows(path.read_text("utf-8"))
    assert len(found) >= 25
    for row in found:
        links = [link for link in LINK.findall(row) if "://" not in link]
        assert links, row
        for link in links:
            page, section = target(path, link)
            assert blocks(page, section, evidence), f"{link}: no proved block there"


def test_the_test_of_the_table_notices(evidence: Evidence) -> None:
    path = DOCS / "compare" / "index.md"
    page, section = target(path, "chooser.md#questions")
    assert blocks(page, section, evidence) == []
    with pytest.raises(KeyError):
        target(path, "chooser.md#nowhere")


# Errors


ERRORS = DOCS / "errors"
SILENT = sorted(ERRORS.glob("silent-*.md"))
RAISED = sorted(set(ERRORS.glob("*.md")) - {ERRORS / "index.md"} - set(SILENT))


def pattern(title: str) -> re.Pattern[str]:
    """What a heading says of a message: `...` stands for what may differ."""
    plain = re.sub(r"\\([\\`*_{}\[\]()<>#+.!|~-])", r"\1", title)
    parts = [re.escape(part.strip()) for part in plain.split("...")]
    return re.compile(
        r"\s*.*\s*".join(part.replace(r"\ ", r"\s+") for part in parts), re.S
    )


@pytest.mark.parametrize("path", RAISED, ids=lambda path: path.stem)
def test_each_message_is_raised_and_mended_in_its_section(
    path: Path, evidence: Evidence
) -> None:
    for anchor, section in sections(path).items():
        if section.level == 1 or anchor == "related":
            continue
        records = blocks(path, section, evidence)
        errors = [record["error"] for record in records if record["error"]]
        mended = [record for record in records if not record["error"]]
        said = pattern(section.title)
        assert any(said.match(error) for error in errors), (section.title, errors)
        assert mended, f"{section.title}: no block that runs"


@pytest.mark.parametrize("path", SILENT, ids=lambda path: path.stem)
def test_each_silent_mistake_is_shown_and_detected(
    path: Path, evidence: Evidence
) -> None:
    for anchor, section in sections(path).items():
        if section.level == 1 or anchor == "related":
            continue
        parts = [
            part
            for record in blocks(path, section, evidence)
            for part in record["parts"]
            if not part["hidden"]
        ]
        assert len(parts) >= 2, section.title


def test_the_index_lists_every_error_and_every_mistake() -> None:
    path = ERRORS / "index.md"
    listed = re.findall(r"\]\(([\w-]+\.md#[\w-]+)\)", path.read_text("utf-8"))
    wanted = [
        f"{page.name}#{anchor}"
        for page in [*RAISED, *SILENT]
        for anchor, section in sections(page).items()
        if section.level > 1 and anchor != "related"
    ]
    assert sorted(listed) == sorted(wanted)
    raised = [name for name in wanted if not name.startswith("silent-")]
    assert len(raised) >= 31
    assert len(wanted) - len(raised) >= 15


def test_the_common_errors_are_all_there(evidence: Evidence) -> None:
    """The stable part of each of the 31 most common messages is raised by a block."""
    common = (Path(__file__).parent / "common_errors.txt").read_text().splitlines()
    assert len(common) == 31
    raised = [
        record["error"]
        for path in RAISED
        for record in evidence.of_page(path.relative_to(ROOT).as_posix()).values()
    ]
    for message in common:
        said = pattern(message)
        assert any(said.search(error) for error in raised), message


# The chooser


CHOOSER = DOCS / "compare" / "chooser.md"
LEAVES = ["sequential", "sequential-of-modules", "module", "module-list"]
LEAVES += ["module-dict", "functional"]


def test_the_chooser_ends_at_complete_examples(evidence: Evidence) -> None:
    text = CHOOSER.read_text("utf-8")
    tree = text[text.index('<div class="chooser"') : text.index("</div>")]
    assert {link.lstrip("#") for link in LINK.findall(tree)} == set(LEAVES)
    assert 1 <= len(re.findall(r"\*\*\d\. .*\?\*\*", tree)) <= 6
    for leaf in LEAVES:
        assert blocks(CHOOSER, sections(CHOOSER)[leaf], evidence), leaf


def answers(page: Page) -> list[str]:
    """The answers that can be chosen now."""
    return page.locator(".chooser summary:visible").all_inner_texts()


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_chooser_leads_there_by_keyboard(open_page: OpenPage, leaf: str) -> None:
    page = open_page("compare/chooser/").page
    link = page.locator(f".chooser a[href$='#{leaf}']")
    assert len(answers(page)) == 2
    # The answers around the leaf, from the outside in.
    around = link.locator("xpath=ancestor::details/summary")
    for summary in around.all():
        expect(summary).to_be_visible()
        summary.focus()
        page.keyboard.press("Enter")
    expect(link).to_be_visible()
    assert len(answers(page)) == 2 * around.count()
    link.focus()
    page.keyboard.press("Enter")
    assert page.url.endswith(f"#{leaf}")
    expect(page.locator(f"#{leaf}")).to_be_in_viewport()


def test_one_answer_closes_the_other(open_page: OpenPage) -> None:
    page = open_page("compare/chooser/").page
    first, second = page.locator(".chooser summary:visible").all()
    first.click()
    second.click()
    expect(page.locator(".chooser a[href$='#functional']")).to_be_hidden()
    expect(page.locator(".chooser a[href$='#sequential']")).to_be_hidden()
    assert len(answers(page)) == 4


def test_the_chooser_is_a_list_without_javascript(
    browser: Browser, server: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server}compare/chooser/")
    for leaf in LEAVES:
        assert page.locator(f".chooser li a[href$='#{leaf}']").is_visible(), leaf
    context.close()


# Recipes


def test_the_offered_files_are_the_snippets(site: Path) -> None:
    snippets = sorted((ROOT / "snippets").glob("*.py"))
    offered = sorted((site / "snippets").glob("*.py"))
    assert [path.name for path in offered] == [path.name for path in snippets]
    for path, source in zip(offered, snippets, strict=True):
        assert path.read_bytes() == source.read_bytes()
        page = f"{path.stem.replace('_', '-')}/index.html"
        recipes = [site / folder / page for folder in ("recipes", "resnet")]
        text = next(recipe for recipe in recipes if recipe.is_file()).read_text("utf-8")
        link = f'href="../../snippets/{path.name}"'
        assert re.search(rf"<a [^>]*download[^>]*{link}|<a {link}[^>]* download", text)


def test_every_page_opens_with_its_answer(site: Path) -> None:
    """The first thing under the title is a paragraph of at most three sentences."""
    for path in sorted(DOCS.rglob("*.md")):
        source = path.relative_to(DOCS).with_suffix("")
        folder = source.parent if source.name == "index" else source
        text = (site / folder / "index.html").read_text("utf-8")
        body = text[text.index("<article") :]
        opening = re.search(r"</h1>\s*(?:<!--.*?-->\s*)*<p>(.*?)</p>", body, re.S)
        assert opening, f"{path.name}: no paragraph under the title"
        plain = re.sub(r"<[^>]+>", "", opening[1])
        ends = re.findall(r"[.!?:](?=\s+[A-Z`]|\s*$)", plain)
        assert 1 <= len(ends) <= 4, f"{path.name}: {plain}"
