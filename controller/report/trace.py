"""The annotated trace: what memtoy did, what the kernel did about it and why, and the records that show it.

After the log that the author of the original patches published: lines of raw events under headings in plain language.
A run with many pages is told by its first ones, with counts for the others; every record is in events.parquet.
"""

from __future__ import annotations

import errno
import itertools
import textwrap
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from controller.analysis.case import Window, window
from controller.analysis.model import CaseFinding, CaseInput, Evidence, Findings
from controller.analysis.names import error
from controller.report import phrases
from controller.report.rows import HEADER, Rows, line
from controller.report.units import PER_PAGE, Phase, Unit, units
from controller.workloads.memtoy.output import (
    CommandResult,
    MapResult,
    MbindResult,
    MigrateResult,
    SegmentResult,
    TouchResult,
    WhereResult,
)

WIDTH = 110
FULL = 16
"""Up to so many pages, a phase is told in full; of more, only the first FEW are."""
FEW = 3
RULE = "="
COMMAND = "memtoy: "


@dataclass
class _Told:
    """How far the story of one command has come: units told, and units that wait to be counted."""

    mbind: bool = False
    shown: dict[str, int] = field(default_factory=dict)
    phases: set[Phase] = field(default_factory=set)
    skipped: dict[Phase, list[Unit]] = field(default_factory=dict)


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _place(node: int) -> str:
    if node >= 0:
        return f"on node {node}"
    return "not mapped" if node == -errno.ENOENT else error(node)


def runs(nodes: Iterable[int]) -> str:
    """Nodes of pages in words: `8 on node 1`, with runs in their order."""
    counted: list[tuple[int, int]] = []
    for node in nodes:
        if counted and counted[-1][0] == node:
            counted[-1] = (node, counted[-1][1] + 1)
        else:
            counted.append((node, 1))
    words = [f"{count:,} {_place(node)}" for node, count in counted[:8]]
    return ", ".join(words) + (", ..." if len(counted) > 8 else "")


def answer(done: CommandResult) -> str:
    """What came of a command, in a few words."""
    result = done.result
    if isinstance(result, TouchResult) and result.mismatches:
        return f"CORRUPT: {result.mismatches:,} words on {phrases.pages(result.bad_pages)}"
    if not done.ok:
        return f"FAILED: {done.error or error(-done.errno)}"
    match result:
        case TouchResult():
            checked = "" if result.pattern is None or result.write else ", every word as written"
            return f"{phrases.pages(result.pages)} in {result.ns / 1000:,.1f} us{checked}"
        case WhereResult():
            return runs(result.nodes)
        case MbindResult():
            return f"done in {result.ns / 1000:,.1f} us"
        case MigrateResult():
            left = f", {result.not_migrated} pages not migrated" if result.not_migrated else ""
            return f"done in {result.ns / 1000:,.1f} us{left}"
        case MapResult():
            return f"{result.length // 4096:,} pages at {result.address:x}"
        case SegmentResult():
            return f"{result.length:,} bytes"
    return "done"


def _command(done: CommandResult) -> str:
    who = f"memtoy{done.child}: " if done.child else COMMAND
    text = " ".join(done.text.split("#")[0].split())
    return f"{who + text:<56} -> {answer(done)}"


def _quiet(done: CommandResult, first: bool) -> str:
    """Over a touch for which no probe fired."""
    if not isinstance(done.result, TouchResult) or not done.ok:
        return ""
    if first:
        return (
            "The first touch: there is no page yet, so each is allocated, on the node that the policy names. "
            "Nothing moves, and no probe fires."
        )
    return "The pages are mapped: the processor needs no help from the kernel, and no probe fires."


class _Teller:
    """Turns the records of one case into lines."""

    def __init__(self, case: CaseInput, finding: CaseFinding, seen: Window, attached: Collection[str]) -> None:
        self.case = case
        self.rows = Rows.of(seen.own, seen.own_columns)
        self.zero = min((done.start_ns for done in case.results), default=0)
        self.ours = set(finding.table.address.tolist())
        self.queried = False
        self.gathering = "folio_isolate_lru.exit" in attached

    def lines(self) -> Iterator[str]:
        touched = False
        next_index = 0
        results = self.case.results
        for number, done in enumerate(results):
            until = results[number + 1].start_ns if number + 1 < len(results) else None
            end = next_index
            while end < len(self.rows) and (until is None or self.rows.time[end] < until):
                end += 1
            yield ""
            yield _command(done)
            told = list(self.command(list(range(next_index, end))))
            quiet = _quiet(done, not touched) if not told else ""
            touched = touched or isinstance(done.result, TouchResult)
            yield from told
            if quiet:
                yield from _wrapped(quiet)
            next_index = end

    def command(self, indices: list[int]) -> Iterator[str]:
        """The records made during one command."""
        found = units(self.rows, indices)
        told = _Told(any(self.rows.name(i) == "__x64_sys_mbind" for i in indices[:8]))
        count: dict[Phase, int] = {}
        for unit in found:
            count[unit.phase] = count.get(unit.phase, 0) + 1
        for phase, group in itertools.groupby(found, key=lambda unit: unit.phase):
            yield from self.group(list(group), told, count[phase])
        yield from self.counted(told)

    def group(self, group: list[Unit], told: _Told, total: int) -> Iterator[str]:
        """Units of one phase that follow each other. `total`: units of this phase in the whole command."""
        phase = group[0].phase
        if phase in PER_PAGE and phase is not Phase.FAULT and phase in told.phases and total > FULL:
            told.skipped.setdefault(phase, []).extend(group)
            return
        if phase not in PER_PAGE:
            yield from self.counted(told)
        if phase is Phase.FAULT:
            yield from self.faults(group, told)
        else:
            heading = self.heading(phase, group, told)
            if heading:
                yield ""
                yield from _wrapped(heading)
            yield from self.listed(group)
        told.phases.add(phase)

    def heading(self, phase: Phase, group: list[Unit], told: _Told) -> str:
        first, again, many = group[0], phase in told.phases, phrases.pages(len(group))
        match phase:
            case Phase.CALL:
                return "" if again else phrases.call(self.rows, first)
            case Phase.GATHER:
                return f"{many} more are gathered." if again else self.gathered(group, told)
            case Phase.BATCH:
                return phrases.batch(self.rows, first)
            case Phase.UNMAP:
                return f"{many} more are unmapped." if again else phrases.unmap(len(group))
            case Phase.COPY:
                return f"{many} more are copied." if again else phrases.copy(len(group))
            case Phase.LAZY_WALK:
                return phrases.LAZY_WALK
            case Phase.LAZY_BEGIN:
                return phrases.LAZY_REST if Phase.LAZY_WALK in told.phases else phrases.LAZY_BEGIN
            case Phase.DONE:
                return phrases.done(self.rows, group[-1], told.phases, gathering=self.gathering)
            case Phase.QUERY:
                again, self.queried = self.queried, True
                return "" if again else phrases.query(self.rows, first)
            case Phase.OTHER:
                return "Outside of the steps that this trace knows:"
        return ""

    def gathered(self, group: list[Unit], told: _Told) -> str:
        return phrases.gather(self.rows, group[0], len(group), mbind=told.mbind)

    def listed(self, group: list[Unit]) -> Iterator[str]:
        """The records of the units; of many, those of the first of the segment's pages."""
        phase = group[0].phase
        picked = self.picked(group) if phase in PER_PAGE else set(range(min(len(group), FULL)))
        passed: list[Unit] = []
        for place, unit in enumerate(group):
            if place in picked:
                yield from self.more(passed)
                passed = []
                yield from self.unit(unit)
            else:
                passed.append(unit)
        yield from self.more(passed)

    def picked(self, group: list[Unit]) -> set[int]:
        """Which units of a group are shown in full: all of a few, else the first of the segment's pages."""
        if len(group) <= FULL:
            return set(range(len(group)))
        own = [place for place, unit in enumerate(group) if unit.address(self.rows) in self.ours]
        if len(own) <= FULL // 2:
            return set(own) or set(range(FEW))
        return set(own[:FEW])

    def more(self, passed: list[Unit]) -> Iterator[str]:
        if not passed:
            return
        own = sum(unit.address(self.rows) in self.ours for unit in passed)
        others = len(passed) - own
        parts = []
        if own:
            parts.append(f"{phrases.pages(own)} of the segment")
        if others:
            parts.append(f"{phrases.pages(others)} of the process that are not the segment's")
        yield f"{'...':>11} likewise {' and '.join(parts)}, {sum(len(u.indices) for u in passed):,} records"

    def unit(self, unit: Unit, positions: Iterable[int] | None = None) -> Iterator[str]:
        for position in range(len(unit.indices)) if positions is None else positions:
            yield line(self.rows, unit.indices[position], zero=self.zero, depth=unit.depths[position])

    def faults(self, group: list[Unit], told: _Told) -> Iterator[str]:
        """The first fault of each shape step by step, some more as they are, the others by count."""
        sizes: dict[str, int] = {}
        for unit in group:
            sizes[unit.shape] = sizes.get(unit.shape, 0) + 1
        left: dict[str, list[Unit]] = {}
        for unit in group:
            number = told.shown[unit.shape] = told.shown.get(unit.shape, 0) + 1
            if number == 1:
                for heading, positions in phrases.fault_parts(self.rows, unit):
                    yield ""
                    yield from _wrapped(heading)
                    yield from self.unit(unit, positions)
            elif number <= (FULL if sizes[unit.shape] <= FULL else FEW):
                yield ""
                yield from _wrapped(phrases.same_fault(self.rows, unit, number, sizes[unit.shape]))
                yield from self.unit(unit)
            else:
                left.setdefault(unit.shape, []).append(unit)
        for shape, rest in left.items():
            took = sorted(ns / 1000 for unit in rest if (ns := unit.took(self.rows)) is not None)
            yield ""
            text = f"{len(rest):,} faults more went the same way ({shape.replace('_', ' ')})"
            if len(took) == len(rest):
                text += (
                    f", in {took[0]:.1f} us at best, {took[len(took) // 2]:.1f} in the median, {took[-1]:.1f} at worst"
                )
            yield from _wrapped(f"{text}.")

    def counted(self, told: _Told) -> Iterator[str]:
        """What was passed over since the last line, in one sentence."""
        words = {
            Phase.GATHER: "gathered", Phase.UNMAP: "unmapped", Phase.COPY: "copied and mapped",
            Phase.LAZY: "put into the swap cache and unmapped",
        }  # fmt: skip
        parts = [f"{len(rest):,} {words[phase]}" for phase, rest in told.skipped.items() if rest]
        told.skipped.clear()
        if parts:
            yield ""
            yield from _wrapped(f"And so on, batch by batch, for the rest: {', '.join(parts)}.")


def _places(finding: CaseFinding) -> Iterator[str]:
    """The pages before and after."""
    table = finding.table
    if not len(table):
        return
    yield ""
    shown = len(table) if len(table) <= FULL else FEW
    yield "Pages, before and after:"
    yield f"  {'address':<14}{'node':<12}{'frame':<20}moves"
    for i in range(shown):
        node = f"{_node(int(table.node_before[i]))} > {_node(int(table.node_after[i]))}"
        frame = f"{_frame(int(table.pfn_before[i]))} > {_frame(int(table.pfn_after[i]))}"
        yield f"  {int(table.address[i]):<14x}{node:<12}{frame:<20}{int(table.moves[i])}"
    if shown < len(table):
        yield f"  ... and {phrases.pages(len(table) - shown)} more"


def _node(node: int) -> str:
    return str(node) if node >= 0 else "?"


def _frame(pfn: int) -> str:
    return f"{pfn:x}" if pfn else "-"


def _case(case: CaseInput, finding: CaseFinding, evidence: Evidence) -> Iterator[str]:
    title = f"{case.name}: {case.title}" if case.title else case.name
    yield ""
    yield ""
    yield title
    yield RULE * len(title)
    yield from textwrap.wrap(f"{finding.outcome.value}: {finding.why}", WIDTH)
    if finding.refused:
        yield "Refused: " + ", ".join(f"{reason} {count}" for reason, count in finding.refused.items())
    for text in finding.warnings:
        yield from textwrap.wrap(f"Warning: {text}", WIDTH)
    seen = window(case, evidence)
    yield from _places(finding)
    if len(seen.own):
        yield ""
        yield HEADER
    yield from _Teller(case, finding, seen, evidence.probes.attached if evidence.probes else ()).lines()
    others = len(seen.events) - len(seen.own)
    if others:
        yield ""
        yield f"Meanwhile other tasks caused {others:,} records; they are in events.parquet."


def _legend(evidence: Evidence) -> Iterator[str]:
    unit = "thousands of instructions" if evidence.unit == "instructions" else "microseconds"
    yield from textwrap.wrap(
        f"Times are {unit} since the first command of a case. Where two pages are involved, frame and node read "
        "old>new. '>' enters a function, '<' leaves it, a bare name is a function that has just done its work, "
        "'*' a tracepoint. Reference counts and flags are those at that moment.",
        WIDTH,
    )


def render(findings: Findings) -> str:
    """trace.txt."""
    evidence = findings.evidence
    lines = [f"Annotated trace of run {evidence.run}"]
    facts = [
        f"kernel {evidence.kernel_id} ({evidence.release})", f"topology {evidence.topology}",
        f"QEMU {evidence.qemu} ({evidence.accelerator})", f"clock {evidence.clock.value}",
    ]  # fmt: skip
    lines += [", ".join(facts), f"{findings.outcome.value}: {findings.reason}", ""]
    if evidence.events is None:
        lines.append("No events were recorded: what follows is what memtoy did and answered.")
    else:
        lines += _legend(evidence)
        if evidence.probes and "do_swap_page" not in evidence.probes.attached:
            lines.append(
                "Of each page, the events were recorded that decide; every step of it is told with --probes steps."
            )
    for case, finding in zip(evidence.cases, findings.cases, strict=True):
        lines += _case(case, finding, evidence)
    return "\n".join(line.rstrip() for line in lines) + "\n"


@dataclass(frozen=True)
class Section:
    """A part of a rendered trace: a command with what follows it, or what stands before the first of a case."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Chapter:
    """One case of a rendered trace."""

    name: str
    title: str
    sections: tuple[Section, ...]


def chapters(story: str) -> tuple[Chapter, ...]:
    """Cut the text of render() at its cases and memtoy's commands, for the HTML report."""
    lines = story.splitlines()
    heads = [i for i in range(1, len(lines)) if lines[i] and set(lines[i]) == {RULE} and lines[i - 1]]
    found = []
    for place, head in enumerate(heads):
        end = heads[place + 1] - 1 if place + 1 < len(heads) else len(lines)
        title = lines[head - 1]
        sections: list[Section] = []
        current = ""
        body: list[str] = []
        for text in lines[head + 1 : end]:
            if text.startswith("memtoy") and " -> " in text:
                sections.append(Section(current, tuple(body)))
                current, body = text, []
            else:
                body.append(text)
        sections.append(Section(current, tuple(body)))
        found.append(Chapter(title.partition(":")[0], title, tuple(sections)))
    return tuple(found)
