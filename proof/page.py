"""The first reading: the blocks of a page's source, in whatever form they stand there.

Includes are expanded; fences are found in tabs, admonitions, lists, quotes and HTML
comments; the comments above a fence are read as what they say about the block.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from pymdownx.snippets import SnippetMissingError, SnippetPreprocessor

from proof import quiz
from proof.settings import Settings

PLAIN = {"py": "python", "py3": "python", "python3": "python", "shell": "sh"}
EXECUTED = ("python", "sh", "bash")
MARKS = {
    "raises": "raises(RuntimeError, match=...)",
    "timeout": "timeout(90, reason=...)",
    "skip": "skip(reason=...)",
    "chance": "chance(reason=...)",
}
FENCE = re.compile(
    r'(?P<prefix>[ >]*)(?P<fence>`{3,}|~{3,})(?P<info>(?:[^`"]|"[^"]*")*)$'
)
INLINE_CODE = re.compile(r"(`+).*?\1")
LANGUAGE = re.compile(r"\{?[ .]*(?P<language>[\w#+.-]*)")
DIRECTIVE = re.compile(r"<!--[-\s]*(?P<text>pytest[\w-]*[.:].*?)[-\s]*-->")
KEYWORD = re.compile(
    r"pytest-codeblocks:\s*(cont|expected-output(-ignore-whitespace)?|importorskip\([\w.]+\))"
)
ANNOTATION = re.compile(r"[ ]*#[ ]*\(\d+\)!?[ ]*$", re.MULTILINE)

SNIPPETS = "snippets"
SNIPPET_IMPORT = re.compile(rf"^from {SNIPPETS}\.(?P<module>\w+) import", re.MULTILINE)


class PageError(Exception):
    """A page that cannot be read, with the line that says why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Part:
    """One fence of a block: a block is a chain of parts, run in one process."""

    code: str
    line: int
    hidden: bool
    code_lines: list[int]
    end: int = 0
    prefix: str = ""
    info: str = ""
    expected: str | None = None
    expected_lines: tuple[int, int] = (0, 0)
    expected_info: str = ""

    @property
    def is_included(self) -> bool:
        """Whether the fence itself stands in another file, which the page includes."""
        return self.end == self.line


@dataclass
class Mark:
    """A `<!--pytest.mark.…-->` above a block."""

    name: str
    args: list[object]
    options: dict[str, object]
    line: int


@dataclass
class Block:
    """What pytest runs: a chain of parts with the marks above it."""

    page: str
    language: str
    parts: list[Part]
    marks: list[Mark]
    importorskip: str | None = None
    ignore_whitespace: bool = False
    snippets: dict[str, str] = field(default_factory=dict)  # what a notebook imports

    @property
    def is_notebook(self) -> bool:
        """Whether the parts are the cells of a notebook page."""
        return self.page.endswith(".py")

    @property
    def line(self) -> int:
        """The page line of the first fence that a reader sees."""
        return next((p.line for p in self.parts if not p.hidden), self.parts[0].line)

    @property
    def code(self) -> str:
        """All that is executed."""
        return "".join(part.code for part in self.parts)

    @cached_property
    def claim(self) -> str:
        """A hash of the code and of everything that the page says about it."""
        said: list[object] = [self.page, self.language, self.importorskip]
        said += [[part.code, part.hidden, part.expected] for part in self.parts]
        said += [
            [mark.name, repr(mark.args), repr(mark.options)] for mark in self.marks
        ]
        said += [self.ignore_whitespace, self.snippets]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def mark(self, name: str) -> Mark | None:
        """The mark of that name, if the block has it."""
        return next((mark for mark in self.marks if mark.name == name), None)

    def page_line(self, number: int) -> int:
        """The page line of line `number` of the code."""
        lines = [line for part in self.parts for line in part.code_lines]
        return lines[number - 1] if 0 < number <= len(lines) else self.line


@dataclass
class Page:
    """A page as the first reading has it."""

    name: str
    blocks: list[Block]
    problems: list[tuple[int, str]]
    source: str = ""
    questions: list[quiz.Question] = field(default_factory=list)


def normalise(code: str) -> str:
    """Code as it is executed and compared: no annotation marks, no trailing blanks."""
    lines = [
        line.rstrip() for line in ANNOTATION.sub("", code.expandtabs(4)).split("\n")
    ]
    return "\n".join(lines).strip("\n") + "\n"


def fence_for(text: str) -> str:
    """Return a fence of backticks that `text` cannot close."""
    runs = re.findall(r"^\s*(`+)", text, re.MULTILINE)
    return "`" * max([3, *(len(run) + 1 for run in runs)])


def expand(
    lines: list[str], expander: SnippetPreprocessor
) -> Iterator[tuple[int, str]]:
    """Yield each line with includes expanded, and the number of its page line."""
    number = 0
    while number < len(lines):
        first, group = number + 1, [lines[number]]
        number += 1
        if "8<" not in group[0]:
            yield first, group[0].expandtabs(4)
            continue
        marker = expander.RE_ALL_SNIPPETS.match(group[0])
        if marker and marker["block_marker"] and not marker["escape"]:
            while number < len(lines):
                group.append(lines[number])
                number += 1
                marker = expander.RE_ALL_SNIPPETS.match(group[-1])
                if marker and marker["block_marker"] and not marker["escape"]:
                    break
        try:
            expanded = expander.run(group)
        except SnippetMissingError as error:
            raise PageError(
                first, f"{error}: correct the path or the section's name"
            ) from None
        for line in expanded:
            yield first, line.expandtabs(4)


def without_front_matter(lines: list[str]) -> list[str]:
    """Blank the front matter, so that line numbers stay."""
    if not lines or lines[0].rstrip() != "---":
        return lines
    ends = (i for i, line in enumerate(lines[1:], 1) if line.rstrip() in {"---", "..."})
    end = next(ends, None)
    if end is None:
        raise PageError(1, "the front matter is never closed: end it with a line ---")
    try:
        meta = yaml.safe_load("\n".join(lines[1:end])) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        problem = getattr(error, "problem", error)
        message = f"the front matter is not valid YAML ({problem}): correct it"
        raise PageError(line, message) from None
    if not isinstance(meta, dict):
        raise PageError(
            1, "the front matter is not a mapping: write `key: value` lines"
        )
    return [""] * (end + 1) + lines[end + 1 :]


def parse_mark(text: str, line: int) -> Mark:
    """Read `pytest.mark.name(...)` without evaluating it: pages are not trusted."""
    known = ", ".join(MARKS.values())
    try:
        with warnings.catch_warnings():
            # A pattern may say \( in a plain literal, of which Python warns.
            warnings.simplefilter("ignore")
            call = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise PageError(line, f"`{text}` is not a mark: use one of {known}") from None
    target = call.func if isinstance(call, ast.Call) else call
    name = target.attr if isinstance(target, ast.Attribute) else text
    if name in {"xfail", "skipif", "parametrize"}:
        message = f"pytest.mark.{name} is refused: use one of {known}"
        raise PageError(line, message)
    if name not in MARKS:
        message = f"unknown mark pytest.mark.{name}: use one of {known}"
        raise PageError(line, message)
    args: list[object] = []
    options: dict[str, object] = {}
    try:
        if isinstance(call, ast.Call):
            args = [
                node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
                for node in call.args
            ]
            options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError:
        message = f"`{text}`: arguments must be literals, as in {MARKS[name]}"
        raise PageError(line, message) from None
    given = [type(arg) for arg in args], sorted(options)
    wanted: dict[str, tuple[tuple[type, ...], list[str]]] = {
        "raises": ((str,), ["match"]),
        "timeout": ((int, float), ["reason"]),
        "skip": ((), ["reason"]),
        "chance": ((), ["reason"]),
    }
    types, keys = wanted[name]
    right = len(given[0]) == bool(types) and all(kind in types for kind in given[0])
    if (
        not right
        or given[1] != keys
        or not all(str(v).strip() for v in options.values())
    ):
        message = f"`{text}` lacks something or has too much: write {MARKS[name]}"
        raise PageError(line, message)
    if name == "raises":
        if args[0] in {"Exception", "BaseException"}:
            message = (
                f"raises({args[0]}) accepts any error: name the type that it raises"
            )
            raise PageError(line, message)
        try:
            if re.search(str(options["match"]), "\0\0\0"):
                message = f"match={options['match']!r} accepts any message: say more"
                raise PageError(line, message)
        except re.error as error:
            message = f"match={options['match']!r} is not a regular expression: {error}"
            raise PageError(line, message) from None
    return Mark(name, args, options, line)


class _Reader:
    """Walks over the lines of one page, writes the plain page, gathers its blocks."""

    def __init__(self, page: Page, languages: frozenset[str]) -> None:
        self.page = page
        self.languages = languages
        self.plain: list[str] = []
        self.marks: list[Mark] = []
        self.importorskip: str | None = None
        self.continues = 0
        self.expects: tuple[int, str] | None = None

    def problem(self, line: int, message: str) -> None:
        self.page.problems.append((line, message))

    def directive(self, text: str, line: int) -> None:
        if text.startswith("pytest.mark."):
            self.marks.append(parse_mark(text, line))
        elif not KEYWORD.fullmatch(text):
            message = (
                f"unknown directive <!--{text}-->: use cont, expected-output or "
                "importorskip(module) after `pytest-codeblocks:`, or a pytest.mark"
            )
            raise PageError(line, message)
        else:
            keyword = text.split(":", 1)[1].strip()
            if keyword != "cont" and not keyword.startswith("importorskip"):
                self.expects = line, keyword
            elif keyword == "cont":
                self.continues = line
            else:
                self.importorskip = keyword[len("importorskip(") : -1]

    def fence(self, language: str, part: Part) -> None:
        """Take one finished fence."""
        if self.expects and language != "text":
            message = f"expected output stands in a `text` block, not `{language}`"
            self.problem(part.line, message)
        elif self.expects:
            self.expected_output(part)
        elif language in EXECUTED:
            self.executed(language, part)
        elif not language:
            message = f"this code block names no language: use {self.allowed}"
            self.problem(part.line, message)
        elif language not in self.languages:
            message = f"unknown language `{language}`: use {self.allowed}"
            self.problem(part.line, message)
        if self.continues and language not in EXECUTED:
            message = f"cont stands above a `{language}` block: it continues code only"
            self.problem(self.continues, message)
        if self.marks:
            mark = self.marks[0]
            message = f"pytest.mark.{mark.name} stands above no block that is executed"
            self.problem(mark.line, message)
        self.marks, self.importorskip = [], None
        self.continues, self.expects = 0, None

    @property
    def allowed(self) -> str:
        return ", ".join([*EXECUTED, *sorted(self.languages)])

    def executed(self, language: str, part: Part) -> None:
        blocks = self.page.blocks
        blank = len(part.code) - len(part.code.lstrip("\n "))
        skipped = part.code[:blank].count("\n")
        part.code = normalise(part.code)
        part.code_lines = part.code_lines[skipped:][: part.code.count("\n")]
        if not self.continues:
            block = Block(
                self.page.name, language, [part], self.marks, self.importorskip
            )
            blocks.append(block)
        elif not blocks:
            self.problem(self.continues, "cont: there is no block above to continue")
        elif blocks[-1].language != language:
            message = (
                f"cont: a `{language}` block cannot continue `{blocks[-1].language}`"
            )
            self.problem(self.continues, message)
        else:
            blocks[-1].parts.append(part)
            blocks[-1].marks += self.marks
        self.marks = []

    def expected_output(self, part: Part) -> None:
        assert self.expects
        line, keyword = self.expects
        last = self.page.blocks[-1].parts[-1] if self.page.blocks else None
        if last is None:
            self.problem(line, "expected-output: there is no block above that prints")
        elif last.expected is not None:
            self.problem(line, "expected-output: the block above already has one")
        else:
            last.expected = part.code
            last.expected_lines, last.expected_info = (part.line, part.end), part.info
            self.page.blocks[-1].ignore_whitespace |= keyword.endswith("whitespace")


def read(path: Path, name: str, settings: Settings) -> Page:
    """Read the page at `path`; what is wrong with it is in the page's `problems`."""
    page = Page(name, [], [], path.read_text("utf-8", "replace"))
    reader = _Reader(page, settings.languages)
    try:
        if "\ufffd" in page.source:
            line = page.source[: page.source.index("\ufffd")].count("\n") + 1
            raise PageError(line, "this line is not UTF-8: save the file as UTF-8")
        if path.suffix == ".py":
            _read_notebook(page, settings)
        else:
            lines = without_front_matter(page.source.split("\n"))
            _read_lines(list(expand(lines, settings.expander)), reader)
            page.questions = list(quiz.questions(name, page.source, page.blocks))
            for question in page.questions:
                page.problems += quiz.problems(question)
    except PageError as error:
        reader.problem(error.line, str(error))
    page.problems.sort()
    return page


def _read_lines(lines: list[tuple[int, str]], reader: _Reader) -> None:
    number, comment = 0, 0
    while number < len(lines):
        line, text = lines[number]
        number += 1
        bare = text.lstrip(" >")
        if found := DIRECTIVE.match(bare):
            try:
                reader.directive(found["text"], line)
            except PageError as error:
                reader.problem(error.line, str(error))
        elif opened := FENCE.match(text):
            start, body = number, []
            closing = re.compile(re.escape(opened["fence"]) + r" *$")
            for _, content in lines[start:]:
                content = _strip(content, len(opened["prefix"]))
                if closing.match(content):
                    break
                body.append(content)
            else:
                message = f"this fence is never closed: add a line {opened['fence']}"
                raise PageError(line, message)
            number = start + len(body) + 1
            language = LANGUAGE.match(opened["info"].strip())
            spoken = language["language"].lower() if language else ""
            part = Part(
                code="".join(f"{content}\n" for content in body),
                line=line,
                hidden=bool(comment),
                code_lines=[origin for origin, _ in lines[start : number - 1]],
                end=lines[number - 1][0],
                prefix=opened["prefix"],
                info=opened["info"],
            )
            reader.fence(PLAIN.get(spoken, spoken), part)
        elif comment:
            comment = 0 if "-->" in text else comment
        else:
            _, opened_comment, rest = INLINE_CODE.sub("", text).rpartition("<!--")
            comment = line if opened_comment and "-->" not in rest else 0
    if comment:
        raise PageError(comment, "this HTML comment is never closed: add -->")
    if reader.continues or reader.expects or reader.marks:
        line = reader.continues or (reader.expects or (reader.marks[0].line, ""))[0]
        raise PageError(line, "this directive stands above no code block")


def _strip(line: str, width: int) -> str:
    """Take up to `width` characters of indentation and quote marks off a line."""
    kept = line.lstrip(" >")
    return line[min(width, len(line) - len(kept)) :]


def _read_notebook(page: Page, settings: Settings) -> None:
    """Read a percent-format notebook: its code cells are the parts of one block."""
    cells: list[tuple[int, list[str]]] = []
    for number, line in enumerate(page.source.split("\n"), 1):
        if line.startswith("# %%"):
            prose = re.match(r"# %%.*\[(markdown|md|raw)\]", line)
            cells.append((0 if prose else number, []))
        elif cells and cells[-1][0]:
            cells[-1][1].append(line)
    parts = []
    for opening, body in cells:
        code = normalise("\n".join(body))
        if opening and code.strip():
            skipped = next(i for i, content in enumerate(body) if content.strip())
            first = opening + 1 + skipped
            lines = list(range(first, first + code.count("\n")))
            parts.append(Part(code, opening, False, lines, end=lines[-1]))
    if parts:
        block = Block(page.name, "python", parts, [])
        block.snippets = dict(_imported_snippets(page.source, settings.root))
        page.blocks.append(block)


def _imported_snippets(source: str, root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each snippet that the source imports."""
    for found in SNIPPET_IMPORT.finditer(source):
        name = f"{SNIPPETS}/{found['module']}.py"
        if not (root / name).is_file():
            line = source[: found.start()].count("\n") + 1
            raise PageError(line, f"there is no {name}: correct the import")
        yield name, (root / name).read_text("utf-8")
