"""Questions in the syntax of mkdocs-quiz: each choice is decided by a block that ran.

A question is a heading with a name, a level and a kind, and a `<quiz>` below it. The
last block in the quiz prints a list of True and False: its verdicts on the choices.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mkdocs_quiz.parsing import CHECKBOX_REGEX, FILL_BLANK_REGEX, collect_feedback

if TYPE_CHECKING:
    from proof.page import Block

LEVELS = ("junior", "senior", "staff")
CHOSEN = ("choice", "several", "predict", "find the bug")
FILLED = ("complete the line", "order the steps")
MODEL = '## Title { #q-name data-level="junior" data-kind="choice" }'
HEADING = re.compile(r"#{2,6} (?P<title>.+?) \{ #(?P<name>[\w-]+)(?P<rest>[^}]*)\}")
ATTRIBUTE = re.compile(r'data-(level|kind)="([^"]*)"')
FENCE = re.compile(r"[ >]*(?P<fence>`{3,}|~{3,})")
VERDICTS = re.compile(r"\[((True|False)(, (True|False))*)\]")
ALL_OR_NONE = re.compile(
    r"\b(all|none|both|neither) of (the )?(above|these|them)\b", re.I
)
NEGATION = re.compile(r"\b(not|never|except|cannot|neither)\b|n't\b", re.I)
EMPHASIS = re.compile(r"\*\*.*?\*\*|`[^`]*`")
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\([^)\s]*[^)\s#]#[\w-]+\)")
MANY = 8  # From so many questions on, a habit of their author shows.


@dataclass(frozen=True)
class Choice:
    """One choice, as its author wrote it."""

    text: str
    feedback: str
    is_right: bool
    line: int


@dataclass(frozen=True)
class Question:
    """One question: what is asked, what may be answered, and the block that decides."""

    page: str
    line: int
    name: str
    title: str
    level: str
    kind: str
    asked: str
    choices: tuple[Choice, ...]
    explanation: str
    block: Block | None

    @property
    def blanks(self) -> list[str]:
        """What is to be filled in."""
        return [blank.strip() for blank in re.findall(FILL_BLANK_REGEX, self.asked)]

    @property
    def verdicts(self) -> list[bool] | None:
        """What the block says of each choice; of what is to be filled in, the first."""
        printed = (self.block.parts[-1].expected or "") if self.block else ""
        found = VERDICTS.fullmatch(printed.rstrip().rpartition("\n")[2])
        return [word == "True" for word in found[1].split(", ")] if found else None


def questions(page: str, source: str, blocks: list[Block]) -> Iterator[Question]:
    """Yield the questions of a page in order."""
    lines = source.split("\n")
    fence, heading, start = "", None, 0
    for number, line in enumerate(lines, 1):
        if found := FENCE.match(line):
            if not fence:
                fence = found["fence"]
            elif line.strip(" >") == fence:
                fence = ""
        elif fence:
            continue
        elif line.startswith("#") and not start:
            heading = HEADING.fullmatch(line.rstrip())
        elif line.strip() == "<quiz>":
            start = number
        elif line.strip() == "</quiz>" and start:
            yield _question(page, lines, start, number, heading, blocks)
            start, heading = 0, None
    if start:
        yield _question(page, lines, start, 0, heading, blocks)


def _question(
    page: str,
    lines: list[str],
    start: int,
    end: int,
    heading: re.Match[str] | None,
    blocks: list[Block],
) -> Question:
    """The question between two lines; one that is never closed asks nothing."""
    inside = lines[start : end - 1] if end else []
    within = [b for b in blocks if any(start < p.line < end for p in b.parts)]
    choices, at = [], 0
    first = next((n for n, line in enumerate(inside) if CHECKBOX_REGEX.match(line)), -1)
    if first >= 0:
        asked, at = inside[:first], first
        while at < len(inside):
            if box := CHECKBOX_REGEX.match(inside[at]):
                line = start + at + 1
                feedback, at = collect_feedback(inside, at + 1)
                is_right = box[1] in {"x", "X"}
                choices.append(Choice(box[2].strip(), feedback or "", is_right, line))
            elif inside[at].strip():
                break
            else:
                at += 1
    else:
        rule = inside.index("---") if "---" in inside else len(inside)
        asked, at = inside[:rule], rule + 1
    said = dict(ATTRIBUTE.findall(heading["rest"])) if heading else {}
    return Question(
        page,
        start,
        heading["name"] if heading else "",
        heading["title"] if heading else "",
        said.get("level", ""),
        said.get("kind", ""),
        "\n".join(asked).strip(),
        tuple(choices),
        "\n".join(inside[at:]).strip(),
        within[-1] if within else None,
    )


def problems(question: Question) -> Iterator[tuple[int, str]]:
    """What is wrong with one question, with the line."""
    line = question.line
    if not question.asked:
        yield line, "this quiz asks nothing or is never closed: add </quiz>"
        return
    if not question.name:
        yield line, f"this quiz has no heading of its own: write {MODEL} above it"
    elif question.level not in LEVELS:
        yield line, f"data-level={question.level!r}: use one of {', '.join(LEVELS)}"
    yield from _problems_of_answers(question)
    for sentence in re.findall(r"[^.?!]+\?", EMPHASIS.sub("", question.asked)):
        if found := NEGATION.search(sentence):
            yield line, f"**emphasise** the negation `{found[0]}`, or ask without it"
    if not LINK.search(question.explanation + str(question.choices)):
        yield line, "link the section that teaches it: [text](page.md#section)"
    yield from _problems_of_proof(question)


def _problems_of_answers(question: Question) -> Iterator[tuple[int, str]]:
    line, choices = question.line, question.choices
    kinds = CHOSEN if choices else FILLED
    if question.name and question.kind not in kinds:
        yield line, f"data-kind={question.kind!r}: use one of {', '.join(kinds)}"
    if question.blanks and choices:
        yield (
            line,
            "[[ ]] makes a blank to fill in, also in code: a quiz has no choices then",
        )
    if not choices:
        if not question.blanks:
            yield (
                line,
                "this quiz has no choices: write - [x] and - [ ] lines, or [[ ]]",
            )
        return
    right = sum(choice.is_right for choice in choices)
    if not right:
        yield line, "this quiz has no right answer: mark one with - [x]"
    if len(choices) == 1:
        yield line, "this quiz has one choice only: add a wrong one, or ask for a blank"
    elif right == len(choices):
        yield line, "this quiz has no wrong choice: add one that is often believed"
    if question.kind in CHOSEN and (right > 1) != (question.kind == "several"):
        yield line, f'{right} choices are right: that is data-kind="several" or not'
    seen = set()
    for choice in choices:
        if not choice.feedback.strip():
            yield choice.line, "this choice has no feedback: add a line > below it"
        if ALL_OR_NONE.search(choice.text):
            yield choice.line, "this choice speaks of the others: say what it claims"
        if (said := _bare(choice.text)) in seen:
            yield choice.line, "this choice stands there twice: change one"
        seen.add(said)


def _problems_of_proof(question: Question) -> Iterator[tuple[int, str]]:
    """A block decides, it says so of each choice, and what it says is computed."""
    line, verdicts = question.line, question.verdicts
    if question.block is None or verdicts is None:
        wanted = "[True, False, ...]" if question.choices else "[True, False]"
        message = (
            f"no block decides it: end the quiz with one that prints {wanted} last"
        )
        yield line, f"{message}, the verdict on each choice"
        return
    code = question.block.code
    if _is_typed_in(code):
        yield question.block.line, "compute the verdicts: True and False are typed in"
    bare = _bare(code)
    if not question.choices:
        if verdicts[0] is not True or any(verdicts[1:]) or len(verdicts) < 2:
            message = (
                "print [True, False, ...]: the right answer holds, wrong ones fail"
            )
            yield question.block.line, message
        for blank in question.blanks:
            if not blank.isdecimal() and _bare(blank) not in bare:
                message = f"the block that decides does not run the answer {blank}"
                yield question.block.line, message
        return
    if len(verdicts) != len(question.choices):
        message = f"{len(verdicts)} verdicts on {len(question.choices)} choices"
        yield question.block.line, f"{message}: print one for each, in order"
        return
    for choice, verdict in zip(question.choices, verdicts, strict=True):
        if choice.is_right != verdict:
            mark = "right" if choice.is_right else "wrong"
            yield choice.line, f"this choice is marked {mark}, its block says {verdict}"
        found = CODE.fullmatch(choice.text)
        if found and _bare(found[1]) not in bare:
            yield choice.line, f"the block that decides does not test {choice.text}"


def _bare(text: str) -> str:
    return re.sub(r"[\s`*]", "", text).replace("'", '"').lower()


def _is_typed_in(code: str) -> bool:
    """Whether what is printed last is a list with True or False written in it."""
    prints = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return any(
        isinstance(entry, ast.Constant) and isinstance(entry.value, bool)
        for call in prints
        if isinstance(call.func, ast.Name) and call.func.id == "print"
        for printed in call.args
        if isinstance(printed, ast.List)
        for entry in printed.elts
    )


def habits(asked: Iterable[Question]) -> Iterator[tuple[str, int, str]]:
    """What a reader could learn of the set instead of the subject."""
    every = sorted(asked, key=lambda question: question.name)
    for name, group in groupby(every, key=lambda question: question.name):
        for question in list(group)[1:]:
            message = f"#{name} names another question too: answers are kept by name"
            yield question.page, question.line, message
    single = [q for q in every if sum(choice.is_right for choice in q.choices) == 1]
    if len(single) < MANY:
        return
    longest, places = [], dict[int, list[Question]]()
    for question in single:
        lengths = [len(_bare(choice.text)) for choice in question.choices]
        right = next(n for n, choice in enumerate(question.choices) if choice.is_right)
        places.setdefault(right, []).append(question)
        if sorted(lengths)[-2] < lengths[right]:
            longest.append(question)
    told = [(longest, "the longest one")]
    told += [(found, f"in place {place + 1}") for place, found in places.items()]
    for found, habit in told:
        if len(found) > len(single) / 2:
            message = f"in {len(found)} of {len(single)} questions the right choice is"
            advice = f"{message} {habit}, here too: change some"
            yield found[0].page, found[0].line, advice
