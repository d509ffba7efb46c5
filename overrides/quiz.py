"""What mkdocs-quiz lacks, added to its HTML: fit to be offered to it.

Answers are kept by the name of the question and not by its place on the page; a blank
has a label of its own and is submitted by Enter; the verdict is announced; answers are
kept out of the search; the block that decides unfolds below the answer.
"""

from __future__ import annotations

import html as escaping
import posixpath
import re
from itertools import count
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

from proof.page import read
from proof.quiz import LEVELS, Question
from proof.settings import Settings

INDEX = re.compile(r"<!-- quiz:index ([\w./-]+) -->")
PLACE = re.compile(r"\bquiz-(\d+)(?=[-\"])")
OPENING = re.compile(r'(?=<div class="quiz[ "])')
SECTION = re.compile(r'<section class="content hidden">(.*?)</section>', re.DOTALL)
PROOF = re.compile(r'<!--|<div class="language-')
LINE_NUMBER = re.compile(r"\b(__codelineno|__span)-")
BLANK = re.compile(r'(<input type="text" [^>]*?)aria-label="[^"]*">')
asked: dict[str, list[Question]] = {}  # the questions of each page, by its source


def on_files(files: Any, *, config: Any) -> None:
    """Read the questions of all pages, for their overview."""
    asked.clear()
    root = Path(config.config_file_path).resolve().parent
    settings = Settings.load(root)
    for file in files.documentation_pages():
        if file.src_uri.endswith(".md") and "<quiz>" in file.content_string:
            path = Path(config.docs_dir, file.src_uri)
            name = path.relative_to(root).as_posix()
            if questions := read(path, name, settings).questions:
                asked[file.src_uri] = questions


@event_priority(100)
def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn the quiz plugin on where there is a quiz; list all questions."""
    if page.file.src_uri in asked:
        page.meta["quiz"] = {"enabled": True}
    return INDEX.sub(lambda found: _index(page, found[0], found[1]), markdown)


def _index(page: Any, marker: str, name: str) -> str:
    """The questions of a page as a table, the easier ones first."""
    folder = posixpath.dirname(page.file.src_uri)
    questions = asked.get(posixpath.normpath(posixpath.join(folder, name)))
    if questions is None:
        line = page.file.content_string.partition(marker)[0].count("\n") + 1
        place = f"docs/{page.file.src_uri}:{line}"
        raise PluginError(f"{place}: there is no quiz on {name}: correct the path")
    rows = ["| Question | Level | Kind |", "|---|---|---|"]
    for question in sorted(questions, key=lambda q: (*LEVELS, q.level).index(q.level)):
        link = f"[{_bare(question)}]({name}#{question.name})"
        rows.append(f"| {link} | {question.level} | {question.kind} |")
    return "\n".join(rows)


def _bare(question: Question) -> str:
    """A title without its number on its page."""
    return re.sub(r"^\d+\. ", "", question.title)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Add to each quiz of the page what its plugin lacks."""
    questions = asked.get(page.file.src_uri, [])
    before, *quizzes = OPENING.split(html)
    extended = [_extend(*pair) for pair in zip(quizzes, questions, strict=True)]
    return before + "".join(extended)


def _extend(html: str, question: Question) -> str:
    html = PLACE.sub(f"quiz-{question.name}", html)
    html = LINE_NUMBER.sub(rf"\1-{question.name}-", html)
    about = f"{question.level.capitalize()}: {question.kind}"
    start = '<div class="quiz-question"'
    html = html.replace(start, f'<p class="quiz-about">{about}</p>{start}', 1)
    form = f'form="{question.name}-form"'
    html = html.replace("<form ", f"<form data-search-exclude id={form[5:]} ", 1)
    feedback = 'class="quiz-feedback hidden"'
    html = html.replace(feedback, f'{feedback} role="status"', 1)
    number = count(1)
    html = BLANK.sub(
        lambda found: f'{found[1]}{form} aria-label="blank {next(number)}">', html
    )
    return SECTION.sub(lambda found: _show_me(found[1], question), html, 1)


def _show_me(content: str, question: Question) -> str:
    """The explanation, and folded below it the block that decides."""
    start = PROOF.search(content)
    said, proof = content, ""
    if start:
        said, proof = content[: start.start()], content[start.start() :]
        proof = f"<details><summary>Show me</summary>{proof}</details>"
    if question.blanks:
        answers = ", ".join(escaping.escape(blank) for blank in question.blanks)
        said = f"<p>Answer: <code>{answers}</code></p>{said}"
    return (
        f'<section class="content hidden" data-search-exclude>{said}{proof}</section>'
    )
