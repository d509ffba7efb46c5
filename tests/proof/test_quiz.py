"""Faults planted in questions, each found with its line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from proof.page import Page, read
from proof.quiz import Question, habits
from proof.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHOICES = """
# Questions { #questions }

## Which one? { #q-one data-level="junior" data-kind="choice" }

<quiz>
How many layers has `net`?

- [ ] `1`
> The chain has two entries.
- [x] `2`
> Right: [one for each](container.md#length).
- [ ] None, a chain has entries
> Its entries are layers.

Explained.

```python
from torch import nn

count = len(nn.Sequential(nn.ReLU(), nn.ReLU()))
print([count == choice for choice in (1, 2, None)])
```
<!--pytest-codeblocks:expected-output-->
```text
[False, True, False]
```
</quiz>
"""
BLANK = """
# Questions { #questions }

## Fill in { #q-two data-level="staff" data-kind="complete the line" }

<quiz>
`self.blocks = nn.`[[ModuleList]]`(blocks)`

---
Registered: [containers](containers.md#list).

```python
from torch import nn

kept = [isinstance(kind([]), nn.Module) for kind in (nn.ModuleList, list, tuple)]
print(kept)
```
<!--pytest-codeblocks:expected-output-->
```text
[True, False, False]
```
</quiz>
"""


class Fault(NamedTuple):
    """A healthy page, what is changed in it, where the fault is, and what is said."""

    name: str
    page: str
    old: str
    new: str
    line: str
    match: str


FAULTS = [
    Fault("never_closed", CHOICES, "</quiz>", "", "<quiz>", "never closed"),
    Fault(
        "asks_nothing",
        CHOICES,
        "How many layers has `net`?\n",
        "",
        "<quiz>",
        "asks nothing",
    ),
    Fault(
        "no_heading",
        CHOICES,
        ' { #q-one data-level="junior" data-kind="choice" }',
        "",
        "<quiz>",
        "no heading of its own: write ## Title",
    ),
    Fault(
        "level", CHOICES, "junior", "expert", "<quiz>", "'expert': use one of junior"
    ),
    Fault(
        "kind",
        CHOICES,
        'data-kind="choice"',
        'data-kind="riddle"',
        "<quiz>",
        "'riddle': use one of choice, several",
    ),
    Fault(
        "kind_of_a_blank",
        BLANK,
        "complete the line",
        "choice",
        "<quiz>",
        "'choice': use one of complete the line, order the steps",
    ),
    Fault("no_right", CHOICES, "[x]", "[ ]", "<quiz>", "no right answer: mark one"),
    Fault("no_wrong", CHOICES, "[ ]", "[x]", "<quiz>", "no wrong choice: add one"),
    Fault(
        "several",
        CHOICES,
        "- [ ] `1`",
        "- [x] `1`",
        "<quiz>",
        '2 choices are right: that is data-kind="several"',
    ),
    Fault(
        "all_of_the_above",
        CHOICES,
        "None, a chain has entries",
        "All of the above",
        "- [ ] All of the above",
        "speaks of the others",
    ),
    Fault(
        "none_of_these",
        CHOICES,
        "None, a chain has entries",
        "None of these",
        "- [ ] None of these",
        "speaks of the others",
    ),
    Fault(
        "negated",
        CHOICES,
        "How many layers has `net`?",
        "Which number is not the length?",
        "<quiz>",
        r"\*\*emphasise\*\* the negation `not`",
    ),
    Fault(
        "twice",
        CHOICES,
        "None, a chain has entries",
        "1",
        "- [ ] 1",
        "stands there twice",
    ),
    Fault(
        "no_feedback",
        CHOICES,
        "> The chain has two entries.\n",
        "",
        "- [ ] `1`",
        "no feedback: add a line >",
    ),
    Fault(
        "no_link",
        CHOICES,
        "[one for each](container.md#length)",
        "one for each",
        "<quiz>",
        "link the section that teaches it",
    ),
    Fault(
        "link_to_no_section",
        CHOICES,
        "container.md#length",
        "container.md",
        "<quiz>",
        "link the section that teaches it",
    ),
    Fault(
        "no_block",
        CHOICES,
        CHOICES[CHOICES.index("```python") : CHOICES.index("</quiz>")],
        "",
        "<quiz>",
        r"no block decides it: .* prints \[True, False, \.\.\.\]",
    ),
    Fault(
        "no_verdicts",
        CHOICES,
        "[False, True, False]",
        "2",
        "<quiz>",
        "no block decides it",
    ),
    Fault(
        "too_few_verdicts",
        CHOICES,
        "[False, True, False]",
        "[False, True]",
        "```python",
        "2 verdicts on 3 choices",
    ),
    Fault(
        "marked_right_and_false",
        CHOICES,
        "[False, True, False]",
        "[False, False, False]",
        "- [x] `2`",
        "marked right, its block says False",
    ),
    Fault(
        "marked_wrong_and_true",
        CHOICES,
        "[False, True, False]",
        "[True, True, False]",
        "- [ ] `1`",
        "marked wrong, its block says True",
    ),
    Fault(
        "verdicts_typed_in",
        CHOICES,
        "print([count == choice for choice in (1, 2, None)])",
        "print([count == 1, True, False])",
        "```python",
        "compute the verdicts: True and False are typed in",
    ),
    Fault(
        "choice_is_not_tested",
        CHOICES,
        "- [ ] `1`",
        "- [ ] `7`",
        "- [ ] `7`",
        "does not test `7`",
    ),
    Fault(
        "neither_blank_nor_choices",
        BLANK,
        "[[ModuleList]]",
        "ModuleList",
        "<quiz>",
        r"no choices: write - \[x\]",
    ),
    Fault(
        "blank_is_not_run",
        BLANK,
        "[[ModuleList]]",
        "[[ModuleDict]]",
        "```python",
        "does not run the answer ModuleDict",
    ),
    Fault(
        "blank_is_wrong",
        BLANK,
        "[True, False, False]",
        "[False, False, False]",
        "```python",
        r"print \[True, False, \.\.\.\]",
    ),
    Fault(
        "nothing_but_the_blank_is_tried",
        BLANK,
        "[True, False, False]",
        "[True]",
        "```python",
        r"print \[True, False, \.\.\.\]",
    ),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.proof]\nlanguages = ['markdown', 'text']\n"
    )
    (tmp_path / "mkdocs.yml").write_text("site_name: Small\n")
    return tmp_path / "page.md"


def read_text(path: Path, text: str) -> Page:
    path.write_text(text, "utf-8")
    return read(path, path.name, Settings.load(path.parent))


@pytest.mark.parametrize("text", [CHOICES, BLANK])
def test_a_healthy_question(page: Path, text: str) -> None:
    found = read_text(page, text)
    assert found.problems == []
    assert len(found.questions) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_with_its_line(page: Path, fault: Fault) -> None:
    assert fault.old in fault.page
    text = fault.page.replace(fault.old, fault.new)
    found = read_text(page, text).problems
    lines = text.split("\n")
    wanted = next(n for n, line in enumerate(lines, 1) if line.startswith(fault.line))
    told = [message for line, message in found if line == wanted]
    assert any(re.search(fault.match, message) for message in told), found


def test_a_blank_beside_choices_is_refused(page: Path) -> None:
    """The plugin takes every [[ for a blank, in a list of lists too."""
    text = CHOICES.replace("How many layers has `net`?", "What is `[[1]][0]`?")
    messages = [message for _, message in read_text(page, text).problems]
    assert any("[[ ]] makes a blank" in message for message in messages)


def test_one_choice_is_refused(page: Path) -> None:
    start, end = CHOICES.index("- [ ] None"), CHOICES.index("Explained.")
    text = CHOICES[:start] + CHOICES[end:]
    start, end = text.index("- [ ] `1`"), text.index("- [x]")
    messages = [
        message for _, message in read_text(page, text[:start] + text[end:]).problems
    ]
    assert any("one choice only" in message for message in messages)


def test_a_quiz_that_is_only_shown_is_none(page: Path) -> None:
    found = read_text(page, f"# Page {{ #page }}\n\n````markdown\n{CHOICES}\n````\n")
    assert found.questions == []
    assert found.problems == []


def test_the_example_for_contributors_is_healthy(page: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    example = text.partition("````markdown\n")[2].partition("\n````")[0]
    found = read_text(page, example)
    assert found.problems == []
    assert [question.name for question in found.questions] == ["q-empty-chain"]


def test_an_emphasised_negation_is_fine(page: Path) -> None:
    text = CHOICES.replace("How many layers has", "Which is **not** the length of")
    assert read_text(page, text).problems == []


# Over all questions


def many(page: Path, places: list[int], texts: list[str]) -> list[Question]:
    """Questions whose right choice stands in these places, with these three texts."""
    model = read_text(page, CHOICES).questions[0]
    made = []
    for number, place in enumerate(places):
        choices = [
            replace(choice, text=text, is_right=False)
            for choice, text in zip(model.choices, texts, strict=True)
        ]
        choices[place] = replace(choices[place], is_right=True)
        made.append(replace(model, name=f"q-{number}", choices=tuple(choices)))
    return made


def test_no_habit(page: Path) -> None:
    assert list(habits(many(page, [0, 1, 2] * 3, ["a", "bb", "bb"]))) == []


def test_always_the_same_place(page: Path) -> None:
    ((_, line, message),) = habits(many(page, [1] * 5 + [0, 0, 2, 2], ["a"] * 3))
    assert line == 6
    assert "in 5 of 9 questions the right choice is in place 2" in message


def test_always_the_longest(page: Path) -> None:
    questions = many(page, [0, 1, 2] * 3, ["a", "b", "c"])
    longer = [
        replace(
            question,
            choices=tuple(
                replace(choice, text=choice.text + "!" * choice.is_right)
                for choice in question.choices
            ),
        )
        for question in questions
    ]
    ((_, _, message),) = habits(longer)
    assert "the right choice is the longest one" in message


def test_a_name_is_given_once(page: Path) -> None:
    question = read_text(page, CHOICES).questions[0]
    ((_, _, message),) = habits([question, question])
    assert "#q-one names another question too" in message
