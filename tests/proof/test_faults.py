"""Faults of a contributed page, planted one by one: each is refused with file and line.

In the text of a page `¶` ends the line that the message must name, and `§` the line
that the build names where it is another one: the build names the fence of a block
that failed, the run the line inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from tests.proof.conftest import Ran, Site

ROOT = Path(__file__).resolve().parents[2]
RUN, BUILD = "¶", "§"


@dataclass(frozen=True)
class Fault:
    """One fault on one page, `docs/<name>.md`."""

    name: str
    text: str
    match: str
    caught: Literal["run", "build", "both"] = "both"
    sound: int = 0  # Blocks of the page that are without fault.
    suffix: str = ".md"
    # What happens to the site after the run that proves the page.
    edit: Callable[[Site], object] | None = field(default=None, compare=False)

    @property
    def page(self) -> str:
        return f"docs/{self.name}{self.suffix}"

    @property
    def lines(self) -> list[str]:
        return dedent(self.text).lstrip("\n").split("\n")

    @property
    def source(self) -> str:
        return "\n".join(line.rstrip(RUN + BUILD) for line in self.lines)

    def line(self, mark: str) -> int:
        marked = [n for n, line in enumerate(self.lines, 1) if mark in line[-2:]]
        return marked[0] if marked or mark == RUN else self.line(RUN)


# A block that the run refuses, and so the build.
FAILING = [
    Fault(
        "endless_loop",
        """
        ```python¶
        while True:
            pass
        ```
        """,
        r"TimeLimit: still running after its limit of 4 s",
    ),
    Fault(
        "longer_than_it_asked_for",
        """
        <!--pytest.mark.timeout(1, reason="waits a little")-->
        ```python¶
        import time

        time.sleep(60)
        ```
        """,
        r"TimeLimit: still running after its limit of 1 s",
    ),
    Fault(
        "exit_zero",
        """
        ```python§
        import sys

        sys.exit(0)¶
        ```
        """,
        r"SystemExit: 0",
    ),
    Fault(
        "exit_three",
        """
        ```python§
        import sys

        sys.exit(3)¶
        ```
        """,
        r"SystemExit: 3",
    ),
    Fault(
        "os_exit",
        """
        ```python¶
        import os

        os._exit(0)
        ```
        """,
        r"the block ended its own process with exit code 0",
    ),
    Fault(
        "segfault",
        """
        ```python¶
        import ctypes

        ctypes.string_at(0)
        ```
        """,
        r"the block's process was killed by SIGSEGV",
    ),
    Fault(
        "runaway_allocation",
        """
        ```python§
        kept = []
        while True:
            kept.append(bytes(1 << 30))¶
        ```
        """,
        r"MemoryError",
    ),
    Fault(
        "huge_tensor",
        """
        ```python§
        import torch

        torch.empty(10**11)¶
        ```
        """,
        r"RuntimeError: .*allocate",
    ),
    Fault(
        "syntax_error",
        """
        ```python§
        x = 1
        if x == 1¶
            print(x)
        ```
        """,
        r"SyntaxError: expected ':'",
    ),
    Fault(
        "invalid_escape",
        r"""
        ```python§
        x = 1
        pattern = "\d"¶
        ```
        """,
        r"SyntaxError: .*invalid escape sequence",
    ),
    Fault(
        "error_in_a_function",
        """
        ```python§
        def divide(a, b):

            return a / b¶


        divide(1, 0)
        ```
        """,
        r"ZeroDivisionError: division by zero",
    ),
    Fault(
        "error_in_torch",
        """
        # Shapes { #shapes }

        ```python§
        import torch
        from torch import nn

        nn.Linear(2, 3)(torch.ones(1, 4))¶
        ```
        """,
        r"RuntimeError: mat1 and mat2 shapes cannot be multiplied",
    ),
    Fault(
        "error_in_tab",
        """
        === "Module"

            ```python§
            x = 1

            raise KeyError("in a tab")¶
            ```
        """,
        r"KeyError: 'in a tab'",
    ),
    Fault(
        "error_in_admonition",
        """
        !!! note

            ```python§
            x = 1

            raise KeyError("in an admonition")¶
            ```
        """,
        r"KeyError: 'in an admonition'",
    ),
    Fault(
        "error_in_details",
        """
        ??? question "Why?"

            ```python§
            x = 1

            raise KeyError("in details")¶
            ```
        """,
        r"KeyError: 'in details'",
    ),
    Fault(
        "error_in_list",
        """
        1. One

            * nested

                ```python§
                x = 1

                raise KeyError("in a list")¶
                ```
        """,
        r"KeyError: 'in a list'",
    ),
    Fault(
        "error_in_quote",
        """
        > A quote
        >
        > ```python§
        > x = 1
        >
        > raise KeyError("in a quote")¶
        > ```
        """,
        r"KeyError: 'in a quote'",
    ),
    Fault(
        "error_in_footnote",
        """
        See the note.[^1]

        [^1]:
            ```python§
            x = 1

            raise KeyError("in a footnote")¶
            ```
        """,
        r"KeyError: 'in a footnote'",
    ),
    Fault(
        "error_in_snippet",
        """
        ```python§
        x = 1

        --8<-- "snippets/part.py:fails"¶
        y = 2
        ```
        """,
        r"LookupError: from the snippet",
    ),
    Fault(
        "error_in_snippets_of_a_list",
        """
        ```python§
        x = 1
        --8<--¶
        snippets/part.py:double
        snippets/part.py:fails
        --8<--
        ```
        """,
        r"LookupError: from the snippet",
    ),
    Fault(
        "error_below_snippet",
        """
        ```python§
        --8<-- "snippets/part.py:double"

        raise KeyError(double(2))¶
        ```
        """,
        r"KeyError: 4",
    ),
    Fault(
        "error_in_hidden_setup",
        """
        <!--
        ```python
        raise KeyError("hidden")¶
        ```
        -->
        <!--pytest-codeblocks:cont-->
        ```python§
        x = 1
        ```
        """,
        r"KeyError: 'hidden'",
    ),
    Fault(
        "error_in_hidden_block",
        """
        <!--
        ```python§
        raise KeyError("nobody sees it")¶
        ```
        -->
        """,
        r"KeyError: 'nobody sees it'",
    ),
    Fault(
        "error_in_continuation",
        """
        ```python
        x = 1
        ```

        <!--pytest-codeblocks:cont-->
        ```python§
        y = x

        raise KeyError(y)¶
        ```
        """,
        r"KeyError: 1",
    ),
    Fault(
        "error_under_main_guard",
        """
        ```python§
        if __name__ == "__main__":
            raise KeyError("entered")¶
        ```
        """,
        r"KeyError: 'entered'",
    ),
    Fault(
        "tildes",
        """
        ~~~python§
        raise KeyError("tildes")¶
        ~~~
        """,
        r"KeyError: 'tildes'",
    ),
    Fault(
        "py",
        """
        ```py§
        raise KeyError("py")¶
        ```
        """,
        r"KeyError: 'py'",
    ),
    Fault(
        "capital",
        """
        ```Python§
        raise KeyError("capital")¶
        ```
        """,
        r"KeyError: 'capital'",
    ),
    Fault(
        "attributes",
        """
        ``` { .python .annotate }§
        raise KeyError("attributes")  # (1)!¶
        ```

        1.  A note
        """,
        r"KeyError: 'attributes'",
    ),
    Fault(
        "title",
        """
        ```python title="A title"§
        raise KeyError("title")¶
        ```
        """,
        r"KeyError: 'title'",
    ),
    Fault(
        "options",
        """
        ```python linenums="1" hl_lines="1 2"§
        x = 1

        raise KeyError("options")¶
        ```
        """,
        r"KeyError: 'options'",
    ),
    Fault(
        "wrong_output",
        """
        ```python¶
        print(1 + 1)
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        3
        ```
        """,
        r"the output differs",
    ),
    Fault(
        "wrong_output_in_tab",
        """
        === "Tab"

            ```python¶
            print("one")
            print()
            print("two")
            ```

            <!--pytest-codeblocks:expected-output-->
            ```text
            one

            three
            ```
        """,
        r"the output differs",
    ),
    Fault(
        "missing_output",
        """
        ```python¶
        print(1 + 1)
        ```
        """,
        r"it prints, and the page does not show it",
    ),
    Fault(
        "missing_output_of_setup",
        """
        <!--
        ```python
        print("hidden")
        ```
        -->
        <!--pytest-codeblocks:cont-->
        ```python¶
        x = 1
        ```
        """,
        r"it prints, and the page does not show it",
    ),
    Fault(
        "output_expected_of_silence",
        """
        ```python¶
        x = 1
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        1
        ```
        """,
        r"the output differs",
    ),
    Fault(
        "time_in_output",
        """
        ```python¶
        import time

        print(time.time_ns())
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        1700000000000000000
        ```
        """,
        r"the output differs",
    ),
    Fault(
        "no_error",
        """
        <!--pytest.mark.raises(ValueError, match="invalid")-->
        ```python¶
        int("1")
        ```
        """,
        r"it must raise ValueError \(match='invalid'\), but raises nothing",
    ),
    Fault(
        "error_of_other_type",
        """
        <!--pytest.mark.raises(RuntimeError, match="size of tensor")-->
        ```python§
        import torch

        torch.oness(1) + 1¶
        ```
        """,
        r"it must raise RuntimeError, but raises AttributeError: .*oness",
    ),
    Fault(
        "error_with_other_message",
        """
        <!--pytest.mark.raises(ValueError, match="too many values")-->
        ```python§
        int("one")¶
        ```
        """,
        r"the error does not match 'too many values': ValueError: invalid literal",
    ),
    Fault(
        "error_too_early",
        """
        <!--pytest.mark.raises(ValueError, match="invalid")-->
        ```python
        int("one")¶
        ```

        <!--pytest-codeblocks:cont-->
        ```python§
        int("two")
        ```
        """,
        r"only the last part of a block may raise: ValueError",
    ),
    Fault(
        "wrong_output_before_error",
        """
        <!--pytest.mark.raises(ValueError, match="invalid")-->
        ```python¶
        print("before")
        int("one")
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        after
        ```
        """,
        r"the output differs",
    ),
    Fault(
        "name_of_another_block",
        """
        ```python
        import torch

        x = torch.ones(1)
        ```

        ```python§
        y = x + 1¶
        ```
        """,
        r"NameError: name 'x' is not defined",
        sound=1,
    ),
    Fault(
        "thread_left",
        """
        ```python¶
        import threading
        import time

        threading.Thread(target=time.sleep, args=(60,), name="sleeper").start()
        ```
        """,
        r"it left a thread running \(sleeper\)",
    ),
    Fault(
        "daemon_left",
        """
        ```python¶
        import threading
        import time

        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        ```
        """,
        r"it left a thread running",
    ),
    Fault(
        "child_left",
        """
        ```python¶
        import subprocess

        child = subprocess.Popen(["sleep", "60"])
        ```
        """,
        r"it left a process running \(sleep 60\)",
    ),
    Fault(
        "orphan_left",
        """
        ```python¶
        import os
        import time

        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        os.waitpid(child, 0)
        ```
        """,
        r"it left a process running",
    ),
    Fault(
        "network",
        """
        ```python§
        import socket

        socket.create_connection(("192.0.2.1", 80), timeout=1)¶
        ```
        """,
        r"PermissionError: code of a page must not use the network \(192.0.2.1\)",
    ),
    Fault(
        "download",
        """
        ```python§
        import urllib.request

        urllib.request.urlopen("https://pytorch.org")¶
        ```
        """,
        r"code of a page must not use the network \(pytorch.org\)",
    ),
    Fault(
        "network_of_a_child",
        """
        ```python§
        import subprocess
        import sys

        code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
        subprocess.run([sys.executable, "-c", code], check=True)¶
        ```
        """,
        r"CalledProcessError",
    ),
    Fault(
        "warning",
        """
        ```python§
        import warnings

        warnings.warn("soon gone", DeprecationWarning)¶
        ```
        """,
        r"DeprecationWarning: soon gone",
    ),
    Fault(
        "warning_of_torch",
        """
        ```python§
        import torch

        torch.nn.Softmax()(torch.ones(2, 2))¶
        ```
        """,
        r"UserWarning: Implicit dimension choice for softmax",
    ),
    Fault(
        "error_in_thread",
        """
        ```python§
        import threading

        thread = threading.Thread(target=lambda: 1 / 0)¶
        thread.start()
        thread.join()
        ```
        """,
        r"ZeroDivisionError: division by zero",
    ),
    Fault(
        "error_in_destructor",
        """
        ```python§
        class Resource:
            def __del__(self):
                raise KeyError("in a destructor")¶


        Resource()
        ```
        """,
        r"KeyError: 'in a destructor'",
    ),
    Fault(
        "file_left_open",
        """
        ```python§
        open("x.txt", "w").write("x")¶
        ```
        """,
        r"ResourceWarning: unclosed file",
    ),
    Fault(
        "asks_the_reader",
        """
        ```python§
        name = input("Name? ")¶
        ```
        """,
        r"EOFError",
    ),
    Fault(
        "shell_command_fails",
        """
        ```bash§
        true

        ls /nowhere¶
        true
        ```
        """,
        r"ExitCode: the command ended with exit code 2",
    ),
    Fault(
        "shell_command_not_found",
        """
        ```sh§
        no-such-command --version¶
        ```
        """,
        r"ExitCode: the command ended with exit code 127",
    ),
    Fault(
        "shell_syntax_error",
        """
        ```bash§
        true

        echo one )¶
        ```
        """,
        r"ExitCode: the command ended with exit code 2",
    ),
    Fault(
        "shell_exit_in_the_middle",
        """
        ```bash§
        true
        exit 3¶
        true
        ```
        """,
        r"ExitCode: the command ended with exit code 3",
    ),
    Fault(
        "shell_exit_zero_in_the_middle",
        """
        ```bash§
        true
        exit 0¶
        ls /nowhere
        ```
        """,
        r"EarlyExit: the script ended before its last line",
    ),
    Fault(
        "shell_pipeline_fails",
        """
        ```bash§
        cat /nowhere | sort¶
        ```
        """,
        r"ExitCode: the command ended with exit code 1",
    ),
    Fault(
        "shell_continuation_fails",
        """
        ```bash
        x=1
        ```

        <!--pytest-codeblocks:cont-->
        ```bash§
        test $x = 1

        test $x = 2¶
        ```
        """,
        r"ExitCode: the command ended with exit code 1",
    ),
    Fault(
        "shell_network",
        """
        ```bash§
        curl --silent --max-time 2 http://192.0.2.1/¶
        ```
        """,
        r"ExitCode: the command ended with exit code",
    ),
    Fault(
        "shell_process_left",
        """
        ```bash¶
        sleep 60 &
        ```
        """,
        r"it left a process running \(sleep 60\)",
    ),
    Fault(
        "cell_of_notebook",
        """
        # %% [markdown]
        # # A notebook

        # %%
        x = 1

        # %%§
        y = 2

        raise KeyError("in a cell")¶
        """,
        r"KeyError: 'in a cell'",
        suffix=".py",
    ),
]

# A page that says something which the engine does not accept.
MISWRITTEN = [
    Fault(
        "quiz_without_proof",
        """
        ## Which? { #q-which data-level="junior" data-kind="choice" }

        <quiz>¶
        Which?

        - [ ] one
        > It is two.
        - [x] two
        > Right: [counted](count.md#two).
        </quiz>
        """,
        r"no block decides it: end the quiz with one that prints",
    ),
    Fault(
        "raises_anything",
        """
        <!--pytest.mark.raises(Exception, match="x")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"raises\(Exception\) accepts any error: name the type",
    ),
    Fault(
        "raises_base",
        """
        <!--pytest.mark.raises(BaseException, match="x")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"raises\(BaseException\) accepts any error: name the type",
    ),
    Fault(
        "raises_without_match",
        """
        <!--pytest.mark.raises(KeyError)-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"lacks something or has too much: write raises\(RuntimeError, match=",
    ),
    Fault(
        "raises_with_misspelt_match",
        """
        <!--pytest.mark.raises(KeyError, mach="x")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"lacks something or has too much: write raises\(RuntimeError, match=",
    ),
    Fault(
        "raises_invalid_pattern",
        """
        <!--pytest.mark.raises(KeyError, match="(x")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"match='\(x' is not a regular expression",
    ),
    Fault(
        "mark_that_calls",
        """
        <!--pytest.mark.raises(KeyError, match=str(1))-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"arguments must be literals",
    ),
    Fault(
        "mark_not_closed",
        """
        <!--pytest.mark.raises(KeyError, match="x"-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"is not a mark: use one of",
    ),
    Fault(
        "xfail",
        """
        <!--pytest.mark.xfail-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"pytest.mark.xfail is refused: use one of raises",
    ),
    Fault(
        "xfail_with_reason",
        """
        <!--pytest.mark.xfail(reason="it fails")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"pytest.mark.xfail is refused: use one of raises",
    ),
    Fault(
        "xfail_with_type",
        """
        <!--pytest.mark.xfail(raises=KeyError)-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"pytest.mark.xfail is refused: use one of raises",
    ),
    Fault(
        "skip",
        """
        <!--pytest.mark.skip-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"lacks something or has too much: write skip\(reason=...\)",
    ),
    Fault(
        "skip_with_empty_reason",
        """
        <!--pytest.mark.skip(reason=" ")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"lacks something or has too much: write skip\(reason=...\)",
    ),
    Fault(
        "skipif",
        """
        <!--pytest.mark.skipif(True, reason="never")-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"pytest.mark.skipif is refused: use one of",
    ),
    Fault(
        "parametrize",
        """
        <!--pytest.mark.parametrize("x", [])-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"pytest.mark.parametrize is refused: use one of",
    ),
    Fault(
        "unknown_mark",
        """
        <!--pytest.mark.slow-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"unknown mark pytest.mark.slow: use one of",
    ),
    Fault(
        "timeout_without_reason",
        """
        <!--pytest.mark.timeout(90)-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"lacks something or has too much: write timeout\(90, reason=...\)",
    ),
    Fault(
        "mark_above_text",
        """
        <!--pytest.mark.skip(reason="no GPU")-->¶
        ```text
        x
        ```
        """,
        r"pytest.mark.skip stands above no block that is executed",
    ),
    Fault(
        "mark_at_the_end",
        """
        The end.

        <!--pytest.mark.skip(reason="no GPU")-->¶
        """,
        r"this directive stands above no code block",
    ),
    Fault(
        "unknown_directive",
        """
        ```python
        print("x")
        ```

        <!--pytest-codeblocks:expected-outptu-->¶
        ```text
        x
        ```
        """,
        r"unknown directive <!--pytest-codeblocks:expected-outptu-->: use cont",
    ),
    Fault(
        "skipfile",
        """
        <!--pytest-codeblocks:skipfile-->¶

        ```python
        raise KeyError("x")
        ```
        """,
        r"unknown directive <!--pytest-codeblocks:skipfile-->: use cont",
    ),
    Fault(
        "continues_nothing",
        """
        <!--pytest-codeblocks:cont-->¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"cont: there is no block above to continue",
    ),
    Fault(
        "continues_with_text",
        """
        ```python
        x = 1
        ```

        <!--pytest-codeblocks:cont-->¶
        ```text
        x
        ```
        """,
        r"cont stands above a `text` block: it continues code only",
        sound=1,
    ),
    Fault(
        "continues_in_other_language",
        """
        ```python
        x = 1
        ```

        <!--pytest-codeblocks:cont-->¶
        ```bash
        false
        ```
        """,
        r"cont: a `bash` block cannot continue `python`",
        sound=1,
    ),
    Fault(
        "continues_at_the_end",
        """
        ```python
        x = 1
        ```

        <!--pytest-codeblocks:cont-->¶
        """,
        r"this directive stands above no code block",
        sound=1,
    ),
    Fault(
        "output_of_nothing",
        """
        <!--pytest-codeblocks:expected-output-->¶
        ```text
        x
        ```
        """,
        r"expected-output: there is no block above that prints",
    ),
    Fault(
        "output_twice",
        """
        ```python
        print("x")
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        x
        ```

        <!--pytest-codeblocks:expected-output-->¶
        ```text
        y
        ```
        """,
        r"expected-output: the block above already has one",
        sound=1,
    ),
    Fault(
        "output_as_code",
        """
        ```python
        print("x")
        ```

        <!--pytest-codeblocks:expected-output-->
        ```python¶
        x
        ```
        """,
        r"expected output stands in a `text` block, not `python`",
    ),
    Fault(
        "unclosed_fence",
        """
        # Page { #page }

        ```python¶
        raise KeyError("x")
        """,
        r"this fence is never closed: add a line ```",
    ),
    Fault(
        "fence_closed_by_another",
        """
        ````python¶
        raise KeyError("x")
        ```
        """,
        r"this fence is never closed: add a line ````",
    ),
    Fault(
        "unclosed_comment",
        """
        <!--¶
        ```python
        raise KeyError("x")
        ```
        """,
        r"this HTML comment is never closed: add -->",
    ),
    Fault(
        "unknown_language",
        """
        ```brainfuck¶
        +++
        ```
        """,
        r"unknown language `brainfuck`: use python, sh, bash, json",
    ),
    Fault(
        "misspelt_language",
        """
        ```pyhton¶
        raise KeyError("x")
        ```
        """,
        r"unknown language `pyhton`: use python",
    ),
    Fault(
        "no_language",
        """
        ```¶
        raise KeyError("x")
        ```
        """,
        r"this code block names no language: use python",
    ),
    Fault(
        "pycon",
        """
        ```pycon¶
        >>> 1 + 1
        3
        ```
        """,
        r"unknown language `pycon`: use python",
    ),
    Fault(
        "console",
        """
        ```console¶
        $ ls /nowhere
        ```
        """,
        r"unknown language `console`: use python",
    ),
    Fault(
        "broken_front_matter",
        """
        ---
        title: A page
        tags: [one, two¶
        ---
        # Page { #page }
        """,
        r"the front matter is not valid YAML",
    ),
    Fault(
        "unclosed_front_matter",
        """
        ---¶
        title: A page

        # Page { #page }
        """,
        r"the front matter is never closed: end it with a line ---",
    ),
    Fault(
        "front_matter_of_words",
        """
        ---¶
        just words
        ---
        # Page { #page }
        """,
        r"the front matter is not a mapping: write `key: value` lines",
    ),
    # What only the finished page shows.
    Fault(
        "indented",
        """
        Some text:

            raise KeyError("x")¶
        """,
        r"a code block in language `output` is shown, which is neither executed nor",
        caught="build",
    ),
    Fault(
        "indented_fence",
        """
        Some text:

            ```python¶
            x = 1
            ```
        """,
        r"shown",
        caught="build",
        sound=1,
    ),
    Fault(
        "raw_html",
        """
        Some text.

        <pre><code class="language-python">raise KeyError("x")¶
        </code></pre>
        """,
        r"this python block is shown, but was not executed in this form",
        caught="build",
    ),
    Fault(
        "raw_html_class_first",
        """
        <div class="language-py highlight"><pre><span></span><code>
        raise KeyError("x")¶
        </code></pre></div>
        """,
        r"this python block is shown, but was not executed in this form",
        caught="build",
    ),
    Fault(
        "raw_html_without_language",
        """
        <pre>
        raise KeyError("x")¶
        </pre>
        """,
        r"a code block in no language is shown, which is neither executed nor allowed",
        caught="build",
    ),
    Fault(
        "fence_that_is_not_rendered",
        """
        Some text.

        ```python hl_lines=1¶
        x = 1
        ```
        """,
        r"the page does not show this block as code",
        caught="build",
        sound=1,
    ),
    Fault(
        "hidden_by_a_wrong_comment",
        """
        Some text.

        <!-->
        <pre><code class="language-python">raise KeyError("x")¶
        </code></pre>
        <!-- -->
        """,
        r"this python block is shown, but was not executed in this form",
        caught="build",
    ),
]


def _change_record(site: Site, page: str, **changes: object) -> None:
    (path,) = (site.root / ".proof" / page).glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


def _damage_record(site: Site, page: str) -> None:
    (path,) = (site.root / ".proof" / page).glob("*.json")
    path.write_text(path.read_text("utf-8")[:40])


BLOCK = """
```python¶
x = 1
print(x)
```

<!--pytest-codeblocks:expected-output-->
```text
1
```
"""
NOT_IN_THIS_FORM = r"was not executed in this form: run `pytest docs/"

# A page that was proved, and is no longer what was proved.
STALE = [
    Fault(
        "code_edited",
        BLOCK,
        NOT_IN_THIS_FORM,
        edit=lambda site: site.edit("docs/code_edited.md", "x = 1", "x = 2"),
    ),
    Fault(
        "output_edited",
        BLOCK,
        r"not executed in this form: run `pytest docs/output_edited.md`",
        edit=lambda site: site.edit("docs/output_edited.md", "text\n1", "text\n2"),
    ),
    Fault(
        "output_taken_away",
        BLOCK,
        r"not executed in this form: run `pytest docs/",
        edit=lambda site: site.write(
            "docs/output_taken_away.md", "```python\nx = 1\nprint(x)\n```\n"
        ),
    ),
    Fault(
        "mark_added",
        "Here:" + BLOCK,
        r"not executed in this form: run `pytest docs/",
        edit=lambda site: site.edit(
            "docs/mark_added.md",
            "Here:",
            '<!--pytest.mark.raises(ValueError, match="x")-->',
        ),
    ),
    Fault(
        "setup_edited",
        """
        <!--
        ```python
        x = 1
        ```
        -->
        <!--pytest-codeblocks:cont-->
        ```python¶
        y = x
        ```
        """,
        r"not executed in this form: run `pytest docs/",
        edit=lambda site: site.edit("docs/setup_edited.md", "x = 1", "x = 2"),
    ),
    Fault(
        "snippet_edited",
        """
        ```python¶
        --8<-- "snippets/mine.py"
        ```
        """,
        NOT_IN_THIS_FORM,
        edit=lambda site: site.write("snippets/mine.py", "x = 2\n"),
    ),
    Fault(
        "block_added",
        BLOCK,
        NOT_IN_THIS_FORM,
        edit=lambda site: site.edit(
            "docs/block_added.md", "```python", "```python\ny = 2\n```\n\n```python"
        ),
    ),
    Fault(
        "record_of_other_torch",
        BLOCK,
        r"this block ran on torch 2.12.0, but the site pins 2.13.0: run `pytest",
        edit=lambda site: _change_record(
            site, "docs/record_of_other_torch.md", torch="2.12.0"
        ),
    ),
    Fault(
        "record_of_other_python",
        BLOCK,
        r"the lock file, Python or the engine changed since: run `pytest",
        edit=lambda site: _change_record(
            site, "docs/record_of_other_python.md", python="3.9.0"
        ),
    ),
    Fault(
        "record_of_other_lock_file",
        BLOCK,
        r"the lock file, Python or the engine changed since: run `pytest",
        edit=lambda site: _change_record(
            site, "docs/record_of_other_lock_file.md", lock="0" * 16
        ),
    ),
    Fault(
        "record_damaged",
        BLOCK,
        NOT_IN_THIS_FORM,
        edit=lambda site: _damage_record(site, "docs/record_damaged.md"),
    ),
    Fault(
        "record_lost",
        BLOCK,
        NOT_IN_THIS_FORM,
        edit=lambda site: next(
            (site.root / ".proof/docs/record_lost.md").iterdir()
        ).unlink(),
    ),
]

# Output that depends on chance: the first run writes it, the second refuses it.
CHANCE = [
    Fault(
        "random_output",
        """
        ```python¶
        import torch

        print(torch.rand(2))
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        ```
        """,
        r"the output differs: this output depends on chance: call torch.manual_seed",
        caught="run",
    ),
    Fault(
        "random_output_of_python",
        """
        ```python¶
        import random

        print(random.randint(0, 10**9))
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        ```
        """,
        r"the output differs: this output depends on chance: call torch.manual_seed",
        caught="run",
    ),
    Fault(
        "output_in_the_order_of_hashes",
        """
        ```python¶
        print(list({"conv", "norm", "relu", "linear", "pool", "drop"}))
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        ```
        """,
        r"the output differs: this output depends on chance: call torch.manual_seed",
        caught="run",
    ),
    Fault(
        "error_by_chance",
        """
        ```python
        import torch

        if torch.initial_seed() != 0:
            raise KeyError("by chance")¶
        ```
        """,
        r"KeyError: 'by chance'",
        caught="run",
    ),
]


# Links: MkDocs itself refuses them, and the engine adds the line.
LINKS = [
    Fault(
        "dead_link",
        "See [it](nowhere.md).¶\n",
        r"nowhere.md",
        caught="build",
    ),
    Fault(
        "dead_image",
        "![A figure](nowhere.png)¶\n",
        r"nowhere.png",
        caught="build",
    ),
    Fault(
        "dead_anchor",
        "See [it](#nowhere).¶\n",
        r"#nowhere",
        caught="build",
    ),
    Fault(
        "dead_anchor_of_another_page",
        "See [it](index.md#nowhere).¶\n",
        r"index.md#nowhere",
        caught="build",
    ),
    Fault(
        "absolute_link",
        "See [it](/index.md).¶\n",
        r"/index.md",
        caught="build",
    ),
    Fault(
        "not_in_nav",
        "Nobody leads here.\n",
        r"not included in the .nav. configuration",
        caught="build",
    ),
]

# What ends the build at once.
FATAL = [
    Fault(
        "missing_include",
        """
        ```python
        x = 1
        --8<-- "snippets/nowhere.py"¶
        ```
        """,
        r"nowhere.py.* could not be found",
    ),
    Fault(
        "missing_section",
        """
        ```python
        x = 1
        --8<-- "snippets/part.py:nowhere"¶
        ```
        """,
        r"'nowhere' could not be located: correct the path or the section's name",
    ),
    Fault(
        "missing_include_of_a_page",
        """
        # Page { #page }

        --8<-- "nowhere.md"¶
        """,
        r"nowhere.md.* could not be found",
    ),
    Fault(
        "quiz_without_right_answer",
        """
        # Quiz { #quiz }

        <quiz>¶
        Which?

        - [ ] one
        - [ ] two
        </quiz>
        """,
        r"this quiz has no right answer",
        caught="build",
    ),
]

HEALTHY = """---
title: A healthy page
---
# A healthy page { #healthy }

<!--
```python
import torch
```
-->
<!--pytest-codeblocks:cont-->
```python title="With hidden setup" hl_lines="1"
x = torch.ones(2)  # (1)!

print(x)
```

1.  A note

<!--pytest-codeblocks:expected-output-->
```text
tensor([1., 1.])
```

=== "In a tab"

    ```py
    --8<-- "snippets/part.py:double"

    assert double(2) == 4
    ```

> ~~~python
> x = 1
>
> y = x
> ~~~

<!--pytest.mark.raises(RuntimeError, match="must match the size")-->
```python
import torch

torch.ones(2) + torch.ones(3)
```

<!--pytest.mark.skip(reason="needs a GPU")-->
```python
import torch

torch.ones(1, device="cuda")
```

```bash
echo "from the shell"
```

<!--pytest-codeblocks:expected-output-->
```text
from the shell
```

````markdown
```python
raise KeyError("this is text")
```
````

[The start](index.md#index)
"""

ALL = [*FAILING, *MISWRITTEN, *STALE, *CHANCE, *LINKS, *FATAL]


@dataclass(frozen=True)
class Planted:
    """A site with faults, and what came of it."""

    site: Site
    run: Ran
    build: Ran


def plant(site: Site, faults: list[Fault]) -> None:
    site.write("docs/healthy.md", HEALTHY)
    for fault in faults:
        site.write(fault.page, fault.source)


def cases(faults: list[Fault], caught: str) -> list[Any]:
    return [
        pytest.param(fault, id=fault.name)
        for fault in faults
        if fault.caught in {caught, "both"} or caught == "evidence"
    ]


def assert_refused(ran: Ran, fault: Fault, line: int) -> None:
    assert ran.code != 0
    messages = [message for message in ran.messages if message.page == fault.page]
    right = [message for message in messages if re.search(fault.match, message.said)]
    assert right, messages or ran.output[-500:]
    assert line in {message.line for message in right}, messages


@pytest.fixture(scope="session")
def planted(make_site: Callable[[str], Site]) -> Planted:
    """All pages that fail by themselves, on one site."""
    site = make_site("faults")
    site.configure([{"mkdocs-jupyter": {"include": ["*.py", "*.ipynb"]}}])
    plant(site, FAILING + MISWRITTEN)
    return Planted(site, site.run(), site.build())


@pytest.fixture(scope="session")
def stale(make_site: Callable[[str], Site]) -> Planted:
    """All pages that were proved and are no longer what was proved."""
    site = make_site("stale")
    site.write("snippets/mine.py", "x = 1\n")
    plant(site, STALE)
    run = site.run_inside()
    for fault in STALE:
        assert fault.edit
        fault.edit(site)
    return Planted(site, run, site.build())


@pytest.fixture(scope="session")
def chance(make_site: Callable[[str], Site]) -> Planted:
    """All pages that pass by chance: `build` is the second run, under another seed."""
    site = make_site("chance")
    plant(site, CHANCE)
    site.run_inside("--update-output", *(fault.page for fault in CHANCE))
    run = site.run_inside()
    return Planted(site, run, site.run("--seed", "1"))


@pytest.mark.parametrize("fault", cases(FAILING + MISWRITTEN, "run"))
def test_run_refuses(planted: Planted, fault: Fault) -> None:
    assert_refused(planted.run, fault, fault.line(RUN))


@pytest.mark.parametrize("fault", cases(FAILING + MISWRITTEN, "build"))
def test_build_refuses(planted: Planted, fault: Fault) -> None:
    assert_refused(planted.build, fault, fault.line(BUILD))


@pytest.mark.parametrize("fault", cases(FAILING + MISWRITTEN, "evidence"))
def test_nothing_proves_the_block(planted: Planted, fault: Fault) -> None:
    outcomes = [record["outcome"] for record in planted.site.records(fault.page)]
    assert outcomes.count("passed") == fault.sound
    assert "skipped" not in outcomes


@pytest.mark.parametrize("fault", cases(STALE, "build"))
def test_build_refuses_what_is_stale(stale: Planted, fault: Fault) -> None:
    assert stale.run.code == 0, stale.run.output
    assert_refused(stale.build, fault, fault.line(RUN))


@pytest.mark.parametrize("fault", cases(CHANCE, "run"))
def test_second_run_refuses_chance(chance: Planted, fault: Fault) -> None:
    assert chance.run.code == 0, chance.run.output
    assert_refused(chance.build, fault, fault.line(RUN))


def test_healthy_page_beside_them(planted: Planted, stale: Planted) -> None:
    for site, faults in ((planted, FAILING + MISWRITTEN), (stale, STALE)):
        pages = {message.page for message in site.run.messages + site.build.messages}
        assert "docs/healthy.md" not in pages
        assert pages <= {fault.page for fault in faults}
        outcomes = [r["outcome"] for r in site.site.records("docs/healthy.md")]
        assert outcomes == ["passed"] * 4 + ["skipped", "passed"]


@pytest.fixture(scope="session")
def linked(make_site: Callable[[str], Site]) -> Planted:
    """A site where only links are wrong: MkDocs looks at them last."""
    site = make_site("links")
    plant(site, LINKS)
    nav = ["index.md", "healthy.md", *(f"{fault.name}.md" for fault in LINKS[:-1])]
    site.configure(nav=nav)
    return Planted(site, site.run_inside(), site.build())


@pytest.mark.parametrize("fault", LINKS, ids=lambda fault: fault.name)
def test_build_refuses_links(linked: Planted, fault: Fault) -> None:
    assert linked.run.code == 0, linked.run.output
    assert linked.build.code != 0
    said = re.split(r"\n(?=[A-Z]+ +- )", linked.build.output)
    own = [warning for warning in said if f"{fault.name}.md" in warning]
    assert re.search(fault.match, "\n".join(own)), linked.build.output


@pytest.mark.parametrize("fault", cases(LINKS[:-1], "build"))
def test_build_names_the_line_of_links(linked: Planted, fault: Fault) -> None:
    assert_refused(linked.build, fault, fault.line(RUN))


@pytest.mark.parametrize("fault", cases(FATAL, "build"))
def test_build_that_ends_at_once(small_site: Site, fault: Fault) -> None:
    quiz = {"mkdocs_quiz": {"enabled_by_default": True}}
    small_site.configure([quiz], hooks=[str(ROOT / "overrides" / "hooks.py")])
    plant(small_site, [fault])
    small_site.write("docs/healthy.md", "# Nothing { #nothing }\n")
    assert_refused(small_site.build(), fault, fault.line(RUN))


def test_record_of_an_older_engine_proves_nothing(small_site: Site) -> None:
    plant(small_site, [])
    assert small_site.run_inside().code == 0
    for path in (small_site.root / ".proof/docs/healthy.md").iterdir():
        record = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({"claim": record["claim"]}))
    build, run = small_site.build(), small_site.run_inside()
    assert build.code != 0
    assert {message.line for message in build.messages} >= {12, 27, 33, 40}
    assert run.code == 0


def test_healthy_site(make_site: Callable[[str], Site]) -> None:
    site = make_site("healthy")
    plant(site, [])
    run, build = site.run_inside(), site.build()
    assert run.code == 0, run.output
    assert build.code == 0, build.output
    assert not run.messages + build.messages


def test_page_in_another_encoding_is_named_with_its_line(small_site: Site) -> None:
    page = small_site.write("docs/page.md", "# Page { #page }\n")
    page.write_bytes("# Page { #page }\n\nCafé\n".encode("latin-1"))
    messages = small_site.run_inside().messages
    assert ("docs/page.md", 3) in {(found.page, found.line) for found in messages}


def test_build_names_the_line_of_a_shown_output(planted: Planted) -> None:
    page = "docs/wrong_output_in_tab.md"
    found = [message for message in planted.build.messages if message.page == page]
    shown = {message.line for message in found if "output shown" in message.said}
    assert shown <= set(range(9, 15))


def test_faults_are_many() -> None:
    assert len({fault.name for fault in ALL}) == len(ALL) >= 100
