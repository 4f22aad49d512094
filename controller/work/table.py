"""What a workload came to, as a table for a person. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from controller.analysis.model import LatencyProof
from controller.report import figures
from controller.work.answers import Outcome, Phase, State
from provision.hardware.qemu import Clock

INSTRUCTIONS, NS = "instructions", "ns"
TOTALS = {NS: ("us", 1000), INSTRUCTIONS: ("instructions", 1)}
"""By unit, what a sum is told in, and how many of the unit that has."""


def unit(clock: Clock, latency: LatencyProof | None) -> str:
    """What times are: on the clock of instructions these, one counted as one ns, unless waiting for memory is in them."""
    return INSTRUCTIONS if clock is Clock.INSN and not (latency is not None and latency.felt) else NS


def what_they_are(clock: Clock, latency: LatencyProof | None) -> str:
    """What times show, and what not."""
    if clock is Clock.WALL:
        return (
            "To an emulated CPU all nodes are equally near: times show what the kernel does, not what distance costs."
        )
    shared = "All CPUs share the clock: a phase has the time of all of them"
    beside = (
        "; beside each other: what the CPU spent that spent most, as the model has it" if latency is not None else ""
    )
    return f"{shared}{beside}."


def render(
    head_line: str,
    outcomes: Sequence[Outcome],
    clock: Clock,
    latency: LatencyProof | None,
    facts: Sequence[str],
    warnings: Sequence[str],
    folder: Path,
) -> str:
    """`head_line`: headed()'s. `facts`: the machine, in words."""
    counted = unit(clock, latency)
    rows = [row for outcome in outcomes for row in _rows(outcome, counted)]
    head: tuple[str, ...] = (
        "case",
        "phase",
        "times",
        "accesses",
        "first",
        "median",
        "most",
        f"all, {TOTALS[counted][0]}",
    )
    if latency is not None:
        head = (*head, "beside each other, us")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head_line, ""]
    if rows:
        lines.append(f"  {_line(head, widths)}")
    for outcome in outcomes:
        lines += [f"  {_line(row, widths)}".rstrip() for row in _rows(outcome, counted)]
        lines += [f"    {text}" for text in _notes(outcome)]
    lines.append("")
    if rows:
        lines.append(f"  first, median, most: {counted} an access ({clock.value} clock)")
    lines += [f"  {' | '.join(facts)}", f"  {what_they_are(clock, latency)}"]
    lines += [f"  memory's latency {figures.latency(latency)}"] if latency is not None else []
    lines += [f"  warning: {text}" for text in warnings]
    return "\n".join([*lines, "", f"  {folder}"])


def headed(name: str, result: str, outcomes: Sequence[Outcome], wanted: int) -> str:
    """The result, of which workload, and how many of the `wanted` cases are correct."""
    good = sum(one.state is State.CORRECT for one in outcomes)
    return f"{result.upper()}: {name}, {good} of {wanted} case{'' if wanted == 1 else 's'} correct"


def _rows(outcome: Outcome, counted: str) -> list[tuple[str, ...]]:
    """A row for each of its phases that has a name of its own: rounds of the same are one."""
    by_name: dict[str, list[Phase]] = {}
    for phase in outcome.phases:
        by_name.setdefault(phase.name, []).append(phase)
    return [
        (outcome.case.name if number == 0 else "", *_figures(name, phases, counted))
        for number, (name, phases) in enumerate(by_name.items())
    ]


def _figures(name: str, phases: Sequence[Phase], counted: str) -> tuple[str, ...]:
    _, size = TOTALS[counted]
    each = [one.each for one in phases if one.each is not None]
    told = [f"{value:,.2f}" for value in (each[0], statistics.median(each), max(each))] if each else ["-"] * 3
    total = sum(one.ns for one in phases) / size
    longest = [one.longest_ns for one in phases if one.longest_ns is not None]
    return (
        name,
        f"{len(phases)}",
        f"{phases[0].accesses:,}" if each else "-",
        *told,
        f"{total:,.1f}" if size > 1 else f"{total:,.0f}",
        *([f"{sum(longest) / 1000:,.1f}"] if longest else []),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    words = "  ".join(f"{text:<{width}}" for text, width in zip(row[:2], widths[:2], strict=True))
    return words + "".join(f"  {text:>{width}}" for text, width in zip(row[2:], widths[2:], strict=True))


def _notes(outcome: Outcome) -> Iterator[str]:
    name = outcome.case.name
    if outcome.state is not State.CORRECT:
        yield f"{name}: {outcome.state.value.upper()}: {outcome.why}"
    places = [f"node {node} {count:,}" for node, count in sorted(outcome.pages.items())]
    if outcome.absent:
        places.append(f"not mapped {outcome.absent:,}")
    if places:
        yield f"{name}: pages in the end: {', '.join(places)}"
    if outcome.traffic is not None:
        traffic = outcome.traffic
        lost = f", {traffic.lost:,} not counted" if traffic.lost else ""
        yield f"{name}: accesses seen: {traffic.local:,} to the CPU's own node, {traffic.remote:,} elsewhere{lost}"
