"""What a reader sees of the evidence: under a block, at a page's foot, in the index."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable

import pygments
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from proof.evidence import Evidence, Record
from proof.rendered import Verdict, executed_code, setup_parts

INDEX = "<!-- proof:index -->"
OPENING = re.compile(
    r'(?P<start><div\b[^>]*\bclass=")(?P<classes>[^"]*)(?P<rest>"[^>]*)>'
)

# Hidden blocks, which Markdown has made ready to be shown, though nobody sees them.
HIDDEN = re.compile(r"<!--(?:(?!-->).)*?<pre\b.*?-->", re.DOTALL)


def stamp(page: str, verdicts: Iterable[Verdict]) -> str:
    """Write under each block what came of it; make copying yield what was executed."""
    pieces, at = [], 0
    setups: dict[str, str] = {}  # the text of each, and where it is to be found
    for verdict in verdicts:
        shown = verdict.shown
        opening = OPENING.match(page, shown.opening)
        if opening:
            pieces += [page[at : shown.opening], _opening(opening, verdict)]
            at = opening.end()
        if verdict.record or verdict.problem:
            pieces += [page[at : shown.end], _line(verdict, setups)]
            at = shown.end
    return HIDDEN.sub("", "".join(pieces) + page[at:])


def _opening(found: re.Match[str], verdict: Verdict) -> str:
    """The opening tag of a block: only what was executed can be copied, all of it."""
    record = verdict.record
    if record and not verdict.problem and record["outcome"] == "passed":
        copied = executed_code(verdict)
        if copied.strip() == verdict.shown.code.strip():
            return found[0]
        lines = html.escape(copied).replace("\n", "&#10;")
        return f'{found["start"]}{found["classes"]}{found["rest"]} data-copy="{lines}">'
    kind = " proof-output" * verdict.shown.is_output
    return f"{found['start']}{found['classes']} no-copy{kind}{found['rest']}>"


def _line(verdict: Verdict, setups: dict[str, str]) -> str:
    record = verdict.record
    if verdict.problem or not record:
        said = f"not proved: {html.escape(verdict.problem)}"
        return f'<div class="proof proof--bad">{said}</div>'
    rest = f'id="{anchor_of(record, verdict.part)}"'
    if record["outcome"] == "skipped":
        said = f"not executed: {html.escape(record['reason'])}"
        return f'<div class="proof proof--not" {rest}>{said}</div>'
    said = f"ran on torch {record['torch']} in {record['seconds']:.2f} s"
    if record["varies"]:
        said += "; its output varies from run to run"
    is_last = verdict.part == len(record["parts"]) - 1
    error = record["error"] if is_last else ""
    if error:
        said += ", and raised, as it must:"
        said += f'<samp class="proof-error">{html.escape(error)}</samp>'
    for code in setup_parts(verdict):
        place = setups.setdefault(code, anchor_of(record, verdict.part))
        if place == anchor_of(record, verdict.part):
            setup = _highlight(code, record["language"])
        else:
            setup = f'<p>the same as under <a href="#{place}">a block above</a></p>'
        said += f"<details><summary>setup</summary>{setup}</details>"
    return f'<div class="proof" {rest}>{said}</div>'


def _highlight(code: str, language: str) -> str:
    shown = pygments.highlight(
        code, get_lexer_by_name(language), HtmlFormatter(nowrap=True)
    )
    return (
        f'<div class="language-{language} highlight">'
        f"<pre><span></span><code>{shown}</code></pre></div>"
    )


def anchor_of(record: Record, part: int) -> str:
    """The id of a block on its page."""
    return f"proof-{record['claim'][:8]}-{part}"


def foot(verdicts: list[Verdict]) -> str:
    """The line at the foot of a page."""
    proved = [v for v in verdicts if v.record and not v.problem]
    executed = [v for v in proved if v.record and v.record["outcome"] == "passed"]
    blocks = sum(v.record is not None or bool(v.problem) for v in verdicts)
    if not executed:
        return ""
    newest = max((v.record for v in executed if v.record), key=lambda r: str(r["date"]))
    said = (
        f"{blocks} {'block' if blocks == 1 else 'blocks'} on this page, "
        f"{len(executed)} executed: torch {newest['torch']}, "
        f"Python {newest['python']}, {newest['date'][:10]}"
    )
    return f'<p class="proof-foot">{said}</p>'


def index(evidence: Evidence, link: Callable[[str], str | None]) -> str:
    """The table of every block of the site; `link` gives the address of a page."""
    totals: Counter[str] = Counter()
    seconds, sections, skipped = 0.0, [], []
    for page in evidence.pages():
        address = link(page)
        if address is None:
            continue
        rows = []
        records = evidence.of_page(page).values()
        for record in sorted(records, key=lambda record: int(record["line"])):
            outcome = record["outcome"] if evidence.holds(record) else "not proved"
            totals[outcome] += 1
            seconds += record["seconds"]
            reason = record.get("reason", "")
            rows.append(_row(record, outcome, address, reason))
            if outcome == "skipped":
                place = f"{html.escape(page)}:{record['line']}: {html.escape(reason)}"
                skipped.append(f"<li>{place}</li>")
        head = "<tr><th>Line</th><th>Block</th><th>Outcome</th><th>Seconds</th></tr>"
        sections.append(
            f"<details><summary>{html.escape(page)}: {len(rows)}</summary>"
            f'<p><a href="{address}">Read the page</a></p>'
            f"<table><thead>{head}</thead>"
            f"<tbody>{''.join(rows)}</tbody></table></details>"
        )
    total = (
        f"<p><strong>{totals['passed']} of {totals.total()} blocks executed</strong> "
        f"in {seconds:.1f} s, on torch {evidence.pinned_torch} and Python "
        f"{evidence.environment['python']}. Not executed: {totals['skipped']}.</p>"
    )
    reasons = f"<ul>{''.join(skipped)}</ul>" if skipped else ""
    body = total + reasons + "".join(sections)
    return f'<div class="proof-index">{body}</div>'


def _row(record: Record, outcome: str, address: str, reason: str) -> str:
    shown = [n for n, part in enumerate(record["parts"]) if not part["hidden"]]
    number = shown[0] if shown else 0
    code = record["parts"][number]["code"].strip()
    lines = [line for line in code.splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(("import ", "from ")))
    first = next(telling, lines[0] if lines else "")
    said = f"{outcome}: {reason}" if reason else outcome
    said = "raised, as it must" if record["error"] and outcome == "passed" else said
    target = f"{address}#{anchor_of(record, number)}" if shown else address
    return (
        f'<tr><td><a href="{target}">{record["line"]}</a></td>'
        f"<td><code>{html.escape(first)}</code></td><td>{html.escape(said)}</td>"
        f"<td>{record['seconds']:.2f}</td></tr>"
    )
