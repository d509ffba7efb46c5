"""What a run keeps, what it drops, and what it does not run again."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from proof.evidence import Evidence
from proof.settings import Settings

if TYPE_CHECKING:
    from tests.proof.conftest import Ran, Site

OUTPUT = "\n<!--pytest-codeblocks:expected-output-->\n```text\n{}\n```\n"


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"


def prove(site: Site) -> None:
    """Give the site two proved pages, beside one without blocks."""
    one = block("x = 1\nprint(x)") + OUTPUT.format(1)
    site.write("docs/one.md", f"# One\n\n{one}\n{block('y = 2')}")
    included = '--8<-- "snippets/part.py:double"\nassert double(2) == 4'
    site.write("docs/two.md", f"# Two\n\n{block(included)}")
    assert summary(site.run_inside()) == {"executed": 3}
    assert [record["line"] for record in site.records()] == [3, 13, 3]


@pytest.fixture
def proved(small_site: Site) -> Site:
    """A site with three proved blocks."""
    prove(small_site)
    return small_site


def summary(ran: Ran) -> dict[str, int]:
    """How many blocks were executed, unchanged, not executed; all must be well."""
    assert ran.code == 0, ran.output
    return counted(ran)


def counted(ran: Ran) -> dict[str, int]:
    found = re.search(r"^proof: \d+ blocks: (.*)$", ran.output, re.MULTILINE)
    said = [part.split(" ", 1) for part in found[1].split(", ")] if found else []
    return {kind: int(number) for number, kind in said}


def stored(site: Site) -> dict[str, bytes]:
    folder = site.root / ".proof"
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_fields_of_a_record(small_site: Site) -> None:
    text = """\
        <!--
        ```python
        import torch
        ```
        -->
        <!--pytest-codeblocks:cont-->
        ```python
        print(torch.ones(1))
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        tensor([1.])
        ```

        <!--pytest.mark.raises(KeyError, match="x")-->
        ```python
        raise KeyError("x")
        ```

        <!--pytest.mark.skip(reason="needs a GPU")-->
        ```python
        x
        ```
        """
    small_site.write("docs/page.md", dedent(text))
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    assert summary(small_site.run_inside()) == {"executed": 2, "not executed": 1}
    passed, raised, skipped = small_site.records("docs/page.md")
    code = "import torch\nprint(torch.ones(1))\n"
    assert passed["page"] == "docs/page.md"
    assert passed["line"] == 7
    assert passed["code"] == hashlib.sha256(code.encode()).hexdigest()
    assert passed["language"] == "python"
    assert passed["outcome"] == "passed"
    assert passed["error"] == passed["failure"] == ""
    assert [part["hidden"] for part in passed["parts"]] == [True, False]
    assert [part["output"] for part in passed["parts"]] == ["", "tensor([1.])\n"]
    assert "".join(part["code"] for part in passed["parts"]) == code
    assert [part["line"] for part in passed["parts"]] == [2, 7]
    assert 0 < passed["seconds"] < 30
    assert passed["torch"] == "2.13.0"
    assert passed["build"].startswith("2.13.0")
    assert passed["python"] == platform.python_version()
    assert passed["platform"] == platform.platform()
    date = datetime.datetime.fromisoformat(passed["date"])
    assert before <= date <= datetime.datetime.now(datetime.timezone.utc)
    assert raised["outcome"] == "passed"
    assert raised["error"] == "KeyError: 'x'"
    assert skipped["outcome"] == "skipped"
    assert skipped["reason"] == "needs a GPU"


def test_failed_block_says_why(small_site: Site) -> None:
    small_site.write("docs/page.md", block("x = 1\n\nraise KeyError(x)"))
    assert small_site.run_inside().code == 1
    (record,) = small_site.records("docs/page.md")
    assert record["outcome"] == "failed"
    assert record["error"] == "KeyError: 1"
    assert record["failure"].startswith("docs/page.md:4: KeyError: 1")
    assert small_site.run_inside().code == 1, "a failure is no evidence"
    small_site.edit("docs/page.md", "raise KeyError", "y = ")
    assert summary(small_site.run_inside()) == {"executed": 1}
    (record,) = small_site.records("docs/page.md")
    assert record["outcome"] == "passed"


def test_unchanged_blocks_are_not_run_again(proved: Site) -> None:
    before = stored(proved)
    assert summary(proved.run_inside()) == {"unchanged": 3}
    proved.edit("docs/one.md", "# One\n", "# One, moved\n\nMore text.\n")
    assert summary(proved.run_inside()) == {"unchanged": 3}
    assert stored(proved) == before
    assert summary(proved.run_inside("--reprove")) == {"executed": 3}
    assert stored(proved).keys() == before.keys()


def test_changed_block_is_run_again_alone(proved: Site) -> None:
    proved.edit("docs/one.md", "y = 2", "y = 3")
    assert summary(proved.run_inside()) == {"executed": 1, "unchanged": 2}
    codes = [record["parts"][0]["code"] for record in proved.records("docs/one.md")]
    assert codes == ["x = 1\nprint(x)\n", "y = 3\n"], "the old code's record is gone"


def test_changed_snippet_is_run_again_where_it_is_included(proved: Site) -> None:
    proved.edit("snippets/part.py", "from the snippet", "not included")
    assert summary(proved.run_inside()) == {"unchanged": 3}
    proved.edit("snippets/part.py", "2 * number", "number * 2")
    assert summary(proved.run_inside()) == {"executed": 1, "unchanged": 2}
    (record,) = proved.records("docs/two.md")
    assert "number * 2" in record["parts"][0]["code"]


def test_changed_lock_file_runs_everything_again(proved: Site) -> None:
    proved.edit("constraints.txt", "numpy==2.4.6", "numpy==2.4.5")
    assert summary(proved.run_inside()) == {"executed": 3}
    assert summary(proved.run_inside()) == {"unchanged": 3}


def test_other_torch_than_the_pinned_one_runs_nothing(proved: Site) -> None:
    before = stored(proved)
    proved.edit("constraints.txt", "torch==2.13.0", "torch==2.12.0")
    ran = proved.run_inside()
    assert ran.code == pytest.ExitCode.USAGE_ERROR
    assert "is installed, but constraints.txt pins torch 2.12.0" in ran.output
    assert stored(proved) == before


def test_run_of_one_page_leaves_the_others(proved: Site) -> None:
    before = stored(proved)
    proved.edit("docs/two.md", "double(2) == 4", "double(3) == 6")
    assert summary(proved.run_inside("docs/two.md")) == {"executed": 1}
    others = {name: text for name, text in before.items() if "one.md" in name}
    assert others.items() <= stored(proved).items()
    assert len(stored(proved)) == 3


def test_run_of_one_block_leaves_the_others(proved: Site) -> None:
    before = stored(proved)
    ran = proved.run_inside("--reprove", "docs/one.md::line 13")
    assert summary(ran) == {"executed": 1}
    assert stored(proved).keys() == before.keys()


def test_collecting_runs_and_writes_nothing(proved: Site) -> None:
    before = stored(proved)
    proved.edit("docs/one.md", "y = 2", "y = 3")
    ran = proved.run_inside("--collect-only")
    assert ran.code == 0
    assert "docs/one.md::line 13" in ran.output
    assert stored(proved) == before


def test_records_of_lost_code_and_pages_are_dropped(proved: Site) -> None:
    proved.edit("docs/one.md", block("y = 2"), "")
    (proved.root / "docs/two.md").unlink()
    assert summary(proved.run_inside()) == {"unchanged": 1}
    (record,) = proved.records()
    assert record["page"] == "docs/one.md"
    assert [path.name for path in (proved.root / ".proof/docs").iterdir()] == ["one.md"]


def test_moved_page_is_proved_again(proved: Site) -> None:
    (proved.root / "docs/two.md").rename(proved.root / "docs/three.md")
    assert summary(proved.run_inside()) == {"executed": 1, "unchanged": 2}
    assert {record["page"] for record in proved.records()} == {
        "docs/one.md",
        "docs/three.md",
    }


def test_second_seed_writes_nothing(proved: Site) -> None:
    before = stored(proved)
    assert summary(proved.run_inside("--seed", "1")) == {"executed": 3}
    proved.edit("docs/one.md", "print(x)", "print(2)")
    assert proved.run_inside("--seed", "1").code == 1
    kept = {name: before[name] for name in stored(proved)}
    assert stored(proved) == kept


def test_damaged_record_is_proved_again(proved: Site) -> None:
    first, second, third = sorted((proved.root / ".proof").rglob("*.json"))
    first.write_text("{")
    second.write_text("[1]")
    third.write_bytes(b"\xff\x00")
    assert summary(proved.run_inside()) == {"executed": 3}
    assert len(proved.records()) == 3
    assert summary(proved.run_inside()) == {"unchanged": 3}


@dataclass
class Beside:
    """A proved site, what it had, and a run of it in a process of its own."""

    site: Site
    before: dict[str, bytes]
    process: subprocess.Popen[str]
    output: str = ""
    seconds: float = 0.0

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for something that the run does."""
        end = time.monotonic() + 60
        while not until():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self, how: signal.Signals) -> None:
        """Stop the run while one block waits and another is proved."""
        flag = self.site.root / "waits"
        self.wait(lambda: flag.exists() and len(stored(self.site)) == 4)
        family = psutil.Process(self.process.pid).children(recursive=True)
        started = time.monotonic()
        os.kill(self.process.pid, how)
        self.process.wait(30)
        self.seconds = time.monotonic() - started
        for member in family:  # Nobody else stops them after SIGKILL.
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.output = self.process.communicate()[0]


STOPS = [signal.SIGINT, signal.SIGKILL]


@pytest.fixture(scope="module")
def beside(make_site: Callable[[str], Site]) -> dict[str, Beside]:
    """Runs that cannot be inside this process, all at once: each imports torch."""
    runs = {}
    for name in ("workers", *STOPS):
        site = make_site("beside")
        prove(site)
        before, options = stored(site), ["-n", "2", "--reprove"]
        if name in STOPS:
            flag = str(site.root / "waits")
            waits = f"import time\n\nopen({flag!r}, 'w').close()\ntime.sleep(60)"
            site.write("docs/new.md", block("z = 0") + "\n" + block(waits))
            options = []
        command = ["pytest", "-p", "no:sugar", "-p", "no:cacheprovider", *options]
        runs[str(name)] = Beside(site, before, site.start(*command))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda how: runs[str(how)].stop(how), STOPS))
    runs["workers"].output = runs["workers"].process.communicate(timeout=60)[0]
    return runs


def test_workers_write_the_same_records(beside: dict[str, Beside]) -> None:
    def kept(texts: dict[str, bytes]) -> dict[str, dict[str, Any]]:
        records = {name: json.loads(text) for name, text in texts.items()}
        for record in records.values():
            del record["seconds"], record["date"]
        return records

    run = beside["workers"]
    assert run.process.returncode == 0, run.output
    assert "3 executed" in run.output
    assert kept(stored(run.site)) == kept(run.before)
    assert stored(run.site) != run.before


@pytest.mark.parametrize("how", STOPS)
def test_stopped_run_loses_nothing(
    beside: dict[str, Beside], how: signal.Signals
) -> None:
    run = beside[str(how)]
    assert run.process.returncode != 0
    after = stored(run.site)
    assert run.before.items() <= after.items()
    assert len(after) == len(run.before) + 1
    for text in after.values():
        assert json.loads(text)["outcome"] == "passed"
    run.site.edit("docs/new.md", "time.sleep(60)", "time.sleep(0)")
    assert summary(run.site.run_inside()) == {"executed": 1, "unchanged": 4}


def test_interrupt_does_not_wait_for_the_time_limit(beside: dict[str, Beside]) -> None:
    assert beside[str(signal.SIGINT)].seconds < 20  # The block sleeps for 60.


def test_draft_of_a_killed_run_is_no_record(proved: Site) -> None:
    draft = proved.root / ".proof/docs/one.md/0123456789abcdef.99.draft"
    draft.write_text('{"claim": ')
    assert summary(proved.run_inside()) == {"unchanged": 3}
    evidence = Evidence(Settings.load(proved.root))
    assert len(evidence.of_page("docs/one.md")) == 2
    assert evidence.pages() == ["docs/one.md", "docs/two.md"]


def test_drafts_are_dropped(proved: Site) -> None:
    draft = proved.root / ".proof/docs/one.md/0123456789abcdef.99.draft"
    draft.write_text('{"claim": ')
    proved.run_inside()
    assert not draft.exists()


def test_writing_is_whole_or_not_at_all(
    proved: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(Settings.load(proved.root))
    before = stored(proved)
    (record,) = proved.records("docs/two.md")

    def fails(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        evidence.write(record | {"outcome": "failed"})
    assert before.items() <= stored(proved).items()


PAGE = """\
# Page { #page }

```python
print("missing")
```

Some text.

=== "Tab"

    ```python
    print("in a tab")
    print()
    print("  indented")
    ```

    More text.

> ```python
> print("in a quote")
> ```
>
> <!--pytest-codeblocks:expected-output-->
> ```text
> wrong
> and too long
> ```

* item

    * nested

        ```python
        print("x" * 3)
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        ```

```bash
printf 'shell\\n'
```

<!--pytest-codeblocks:expected-output-->
```text
right once
```

```python
print("one")
```

<!--pytest-codeblocks:cont-->
```python
print("two")
```

```python
print("```")
```
"""
WRITTEN = """\
# Page { #page }

```python
print("missing")
```
<!--pytest-codeblocks:expected-output-->
```text
missing
```

Some text.

=== "Tab"

    ```python
    print("in a tab")
    print()
    print("  indented")
    ```
    <!--pytest-codeblocks:expected-output-->
    ```text
    in a tab

      indented
    ```

    More text.

> ```python
> print("in a quote")
> ```
>
> <!--pytest-codeblocks:expected-output-->
> ```text
> in a quote
> ```

* item

    * nested

        ```python
        print("x" * 3)
        ```

        <!--pytest-codeblocks:expected-output-->
        ```text
        xxx
        ```

```bash
printf 'shell\\n'
```

<!--pytest-codeblocks:expected-output-->
```text
shell
```

```python
print("one")
```

<!--pytest-codeblocks:cont-->
```python
print("two")
```
<!--pytest-codeblocks:expected-output-->
```text
one
two
```
"""


def test_output_is_written_into_the_page(small_site: Site) -> None:
    page = PAGE.rpartition("\n```python\n")[0]
    small_site.write("docs/page.md", page)
    assert small_site.run_inside().code == 1
    assert small_site.read("docs/page.md") == page, "not written unless asked to"
    ran = small_site.run_inside("--update-output")
    assert summary(ran) == {"executed": 6}
    assert "proof: wrote output into docs/page.md" in ran.output
    assert small_site.read("docs/page.md") == WRITTEN
    assert summary(small_site.run_inside()) == {"executed": 6}
    ran = small_site.run_inside("--update-output")
    assert summary(ran) == {"unchanged": 6}
    assert small_site.read("docs/page.md") == WRITTEN
    built = small_site.build()
    assert built.code == 0, built.output


def test_written_output_that_holds_a_fence(small_site: Site) -> None:
    small_site.write("docs/page.md", block('print("```")'))
    small_site.run_inside("--update-output")
    assert summary(small_site.run_inside()) == {"executed": 1}


def test_written_output_of_hidden_setup_and_of_included_pages(small_site: Site) -> None:
    small_site.write("part.md", block("print(1)"))
    hidden = "<!--\n" + block("print(2)") + "-->\n"
    page = f'--8<-- "part.md"\n\n{hidden}'
    small_site.write("docs/page.md", page)
    ran = small_site.run_inside("--update-output")
    assert ran.code == 1, "there is no place to write it"
    assert small_site.read("docs/page.md") == page


def test_output_in_windows_line_ends(small_site: Site) -> None:
    path = small_site.root / "docs/page.md"
    path.write_bytes(block("print(1)").replace("\n", "\r\n").encode())
    small_site.run_inside("--update-output")
    assert path.read_bytes().count(b"\r\n") in {0, 7}
    assert summary(small_site.run_inside()) == {"executed": 1}


def test_update_does_not_hide_an_error(small_site: Site) -> None:
    page = block("print(1)\nraise KeyError")
    small_site.write("docs/page.md", page)
    assert small_site.run_inside("--update-output").code == 1
    assert small_site.read("docs/page.md") == page


def test_output_that_varies_is_not_compared(small_site: Site) -> None:
    mark = '<!--pytest.mark.chance(reason="prints a time")-->\n'
    timed = block("import time\n\nprint(time.time_ns())") + OUTPUT.format("170")
    small_site.write("docs/page.md", mark + timed)
    assert summary(small_site.run_inside()) == {"executed": 1}
    assert summary(small_site.run_inside("--seed", "1")) == {"executed": 1}
    (record,) = small_site.records("docs/page.md")
    assert record["varies"]
    assert small_site.build().code == 0


def test_missing_module_is_a_reason(small_site: Site) -> None:
    skip = "<!--pytest-codeblocks:importorskip(no_such_module)-->\n"
    small_site.write("docs/page.md", skip + block("import no_such_module"))
    assert summary(small_site.run_inside()) == {"not executed": 1}
    (record,) = small_site.records("docs/page.md")
    assert record["reason"] == "needs no_such_module, which is not installed"
    assert summary(small_site.run_inside()) == {"unchanged": 1}


def test_pages_outside_docs_and_blocks_in_a_clone(small_site: Site) -> None:
    pages = 'pages = ["README.md"]\nin-clone = ["README.md"]\n'
    small_site.edit("pyproject.toml", "[tool.proof]\n", f"[tool.proof]\n{pages}")
    small_site.write("README.md", block("test -f README.md\npwd > where", "bash"))
    small_site.write("OTHER.md", block("false", "bash"))
    small_site.write("docs/index.md", block("test ! -f README.md", "bash"))
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-mx"]):
        done = small_site.git(*command)
        assert done.code == 0, done.output
    assert summary(small_site.run_inside("README.md", "docs")) == {"executed": 2}
    assert summary(small_site.run_inside(".")) == {"unchanged": 2}
    assert not (small_site.root / "where").exists()
