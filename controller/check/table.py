"""A check as a table for a person: a row a prefix, a column a step; below it what failed, in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.check.data import Checked, Done, Outcome, Row

SUBJECT = 48
"""Characters of a subject that are shown."""
REMEMBERED = "*"


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `1 h 05`."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 119.5:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02}"


def cell(done: Done | None) -> str:
    """`ok 12 s`, `FAIL 3 min`, `-`; a remembered step is marked."""
    if done is None or done.outcome is Outcome.SKIPPED:
        return Outcome.SKIPPED.value
    return f"{done.outcome.value} {seconds(done.seconds)}{REMEMBERED if done.remembered else ''}"


def _short(subject: str) -> str:
    return subject if len(subject) <= SUBJECT else f"{subject[: SUBJECT - 3].rstrip()}..."


def render(checked: Checked) -> str:
    """The title, the table, the failures and the notes."""
    head = ("", "patch", *(step.value for step in checked.steps))
    rows = [(str(r.number), _short(r.subject), *(cell(r.step(s)) for s in checked.steps)) for r in checked.rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    source = checked.facts.get("source", {}).get("version", "")
    verdict = "something failed" if checked.failed else "all passed"
    lines = [
        f"mof kernel check: {len(checked.rows)} of {checked.patches} prefixes of the series on {checked.base} "
        f"({source}), {seconds(checked.seconds)}: {verdict}",
        "",
        _line(head, widths),
        *(_line(row, widths) for row in rows),
    ]
    if any(d.remembered for row in checked.rows for d in row.done):
        lines += ["", f"{REMEMBERED} passed in an earlier check with the same content (--fresh does it again)"]
    lines += _failures(checked.rows)
    if checked.notes:
        lines += ["", *(f"note: {note}" for note in checked.notes)]
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    number = f"{row[0]:>{widths[0]}}"
    return "  ".join((number, *(f"{text:<{width}}" for text, width in zip(row[1:], widths[1:], strict=True)))).rstrip()


def _failures(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for done in row.done:
            if done.outcome is Outcome.FAILED:
                yield ""
                yield f"FAIL {row.number} {done.step.value}: {row.patch}"
                yield from (f"  | {line}" for line in done.words)
