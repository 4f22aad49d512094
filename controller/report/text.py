"""The terminal summary: what a person has to know, in a screenful of 24 lines and 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controller.analysis.model import CaseFinding, Clock, Findings, Outcome
from controller.report import figures

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 100
HEIGHT = 24
MOST_CASES = 9
MOST_WARNINGS = 3
MOST_ACCESSES = 4
INDENT = "  "


def _fitted(text: str, most: int, indent: str = INDENT) -> list[str]:
    """At most so many lines; what does not fit is cut with an ellipsis."""
    lines = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(lines) > most:
        last = lines[most - 1][: WIDTH - 4].rstrip()
        lines = [*lines[: most - 1], f"{last} ..."]
    return lines


def _table(cases: Sequence[CaseFinding], most: int) -> Iterator[str]:
    """At most `most` cases under a header; what is not a pass comes first when there is no room for all."""
    order = sorted(cases, key=lambda case: case.ok) if len(cases) > most else list(cases)
    shown = order[:most]
    width = min(25, max(len("case"), *(len(case.name) for case in shown)))
    yield (
        f"{INDENT}{'case':<{width}}  {'verdict':<9}  {'mechanism':<9}  {'moved':>13}  {'node':<7}  "
        f"{'contents':<9}  {'a page':>14}"
    )
    for case in shown:
        name = case.name if len(case.name) <= width else case.name[: width - 1] + "~"
        moved = f"{case.migrated} of {case.pages}"
        yield (
            f"{INDENT}{name:<{width}}  {case.outcome.value:<9}  {case.mechanism.value:<9}  {moved:>13}  "
            f"{figures.nodes(case):<7}  {case.contents.value:<9}  {figures.cost(case.cost_per_page):>14}"
        )
    if len(order) > len(shown):
        yield f"{INDENT}... and {len(order) - len(shown)} cases more"


def _facts(findings: Findings) -> Iterator[str]:
    evidence = findings.evidence
    machine = [
        f"kernel {evidence.kernel_id} ({evidence.release})", f"topology {evidence.topology}",
        f"QEMU {evidence.qemu}, {evidence.accelerator}", f"{evidence.clock.value} clock",
    ]  # fmt: skip
    yield from _fitted(" | ".join(machine), 1)
    if evidence.latency is not None:
        yield from _fitted(f"memory's latency {figures.latency(evidence.latency)}", 1)
    probes = evidence.probes
    if probes is None:
        yield f"{INDENT}no probes"
    else:
        missing = f", {len(probes.unavailable)} not available" if probes.unavailable else ""
        counted = f"{findings.fired:,} events, {findings.received:,} received, {findings.lost:,} lost"
        counted = counted if probes.recording else f"{findings.fired:,} events counted"
        yield f"{INDENT}{len(probes.attached)} probes{missing}: {counted}"
        if evidence.overhead:
            yield from _fitted(f"they cost {figures.overhead(evidence.overhead)}", 1)
    for case in [case for case in findings.cases if case.accesses is not None][:MOST_ACCESSES]:
        assert case.accesses is not None
        yield from _fitted(f"memory, {case.name}: {figures.accesses(case.accesses)}", 1)
    if findings.counters:
        listed = list(findings.counters.items())
        yield from _fitted(", ".join(f"{name} {count:,}" for name, count in listed), 2)
    if evidence.clock is Clock.WALL and evidence.accelerator == "tcg":
        yield f"{INDENT}Times are of an emulated machine and include the probes: compare them, do not quote them."


def summary(findings: Findings, folder: Path, *, lost: str = "") -> str:
    """Plain text without a final newline. `lost`: how the guest was lost, if it was."""
    outcome = Outcome.LOST if lost else findings.outcome
    reason = lost or findings.reason
    head = _fitted(f"{outcome.value.upper()}: {reason}", 3, "")
    facts = [*_facts(findings), ""]
    foot = [str(folder), "trace.txt tells every step, report.html shows it, verdict.json is for programs"]
    foot = [INDENT + line for line in foot]
    body = [""]
    if findings.cases:
        # Room is kept for the table's head, the line that counts the others, blank lines, and a word of warnings.
        free = HEIGHT - len(head) - len(facts) - len(foot) - 4 - (2 if findings.warnings else 0)
        body += [*_table(findings.cases, min(MOST_CASES, free)), ""]
    body += facts
    room = HEIGHT - len(head) - len(body) - len(foot)
    warnings: list[str] = []
    shown = 0
    for text in findings.warnings[:MOST_WARNINGS]:
        lines = _fitted(f"warning: {text}", 2)
        if len(warnings) + len(lines) > room - 2:
            break
        warnings += lines
        shown += 1
    if findings.warnings[shown:]:
        warnings.append(f"{INDENT}{len(findings.warnings) - shown} more warnings in verdict.json")
    if warnings:
        warnings.append("")
    return "\n".join([*head, *body, *warnings, *foot])


STYLES = {
    Outcome.PASS: "bold green",
    Outcome.FAIL: "bold red",
    Outcome.UNDECIDED: "bold yellow",
    Outcome.LOST: "bold red",
}


def styled(text: str) -> Text:
    """A summary with its verdicts coloured, for rich.Console.print()."""
    from rich.text import Text

    result = Text(text, no_wrap=True)
    for outcome, style in STYLES.items():
        result.highlight_regex(rf"^{outcome.value.upper()}(?=:)", style)
        result.highlight_regex(rf"(?<=  ){outcome.value}(?=  )", style.removeprefix("bold "))
    result.highlight_regex(r"(?<=\s)(corrupt)(?=\s\s)", "red")
    result.highlight_regex(r"warning:", "yellow")
    return result
