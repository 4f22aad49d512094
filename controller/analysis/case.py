"""What one case shows, and whether that is a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.analysis import accesses, conservation, cost, pages
from controller.analysis import moves as moving
from controller.analysis.conservation import Issue
from controller.analysis.decode import DTYPE, Columns, Events, columns
from controller.analysis.model import (
    CaseFinding,
    CaseInput,
    Contents,
    Evidence,
    Expectation,
    Mechanism,
    Outcome,
    PageTable,
)
from controller.analysis.moves import Moves
from controller.workloads.memtoy.output import MapResult, TouchResult

SIGNALLED = 128


@dataclass(frozen=True)
class Window:
    """The records from a case's first command to its last: everybody's, and which of them are its own processes'."""

    events: Events
    columns: Columns
    own: Events
    own_columns: Columns


def window(case: CaseInput, evidence: Evidence) -> Window:
    """Cut by time (both ends are on the records' clock) and by process."""
    events = evidence.events if evidence.events is not None else np.zeros(0, DTYPE)
    if case.results:
        begin = min(done.start_ns for done in case.results)
        end = max(done.end_ns for done in case.results)
        first, last = np.searchsorted(events["time"], [begin, end + 1])
        events = events[first:last]
    else:
        events = events[:0]
    pids = np.array(sorted({done.pid for done in case.results}), np.uint32)
    own = events[np.isin(events["pid"], pids)]
    return Window(events, columns(events, evidence.machine), own, columns(own, evidence.machine))


@dataclass(frozen=True)
class _Facts:
    """What the rules look at."""

    case: CaseInput
    table: PageTable
    mechanism: Mechanism
    migrated: int
    from_node: int | None
    to_node: int | None
    contents: Contents

    def moved_words(self) -> str:
        total = len(self.table)
        if not self.migrated:
            return f"0 of {total} pages moved"
        return f"{self.migrated} of {total} pages moved from node {self.from_node} to node {self.to_node}"


def of_one_process(case: CaseInput) -> CaseInput:
    """The case with the results of the process that first maps something, which is memtoy itself as a rule.

    The page table is that process's: pages of several at one address would be taken for one.
    """
    pid = next((done.pid for done in case.results if isinstance(done.result, MapResult)), None)
    if pid is None:
        return case
    return replace(case, results=tuple(done for done in case.results if done.pid == pid))


def failed_command(case: CaseInput) -> str:
    """The first command that failed, in words; empty when none did. Contents that differ are another matter."""
    for done in case.results:
        differs = isinstance(done.result, TouchResult) and done.result.mismatches
        if not done.ok and not differs:
            return f"line {done.line}, '{done.text}' failed: {done.error or 'no reason given'}"
    # memtoy ends with 1 when a command failed or contents differed; both are told by now.
    if case.status is not None and case.status > SIGNALLED:
        return f"memtoy was ended by signal {case.status - SIGNALLED}"
    differed = any(isinstance(d.result, TouchResult) and d.result.mismatches for d in case.results)
    if case.status and not differed:
        return f"memtoy ended with status {case.status}"
    return "" if case.results else "memtoy answered nothing"


def corrupt(case: CaseInput) -> str:
    """What was found to be corrupt, in words; empty when nothing was."""
    for done in case.results:
        touch = done.result
        if isinstance(touch, TouchResult) and touch.mismatches:
            return f"contents corrupt: {touch.bad_pages} of {touch.pages} pages (line {done.line}, '{done.text}')"
    return ""


def _differences(facts: _Facts, expect: Expectation) -> str:
    """What of the places differs from what is expected; these rest on memtoy's own word where it located the pages."""
    if len(facts.table) != expect.pages:
        return f"{len(facts.table)} pages where {expect.pages} are expected"
    if facts.migrated != expect.migrated:
        return f"{facts.migrated} of {expect.pages} pages moved, {expect.migrated} are expected to"
    if (facts.from_node, facts.to_node) != (expect.from_node, expect.to_node) and expect.migrated:
        return (
            f"pages moved from node {facts.from_node} to node {facts.to_node}, "
            f"expected from node {expect.from_node} to node {expect.to_node}"
        )
    return ""


def judge(facts: _Facts, evidence: Evidence, issues: Sequence[Issue]) -> tuple[Outcome, str]:
    """The rules, in their order. A later one never overrides an earlier one.

    1. Corrupt contents: fail, whatever else is wrong, for memtoy read them with its own eyes.
    2. The machine is not the one asked for: undecided, for then nothing below means what it says.
    3. A command failed: fail; needs no event to be seen.
    4. memtoy located every page, and they are not where they are expected: fail; needs no event either.
    5. The evidence is not whole or contradicts itself: undecided.
    6. What the events say differs from what is expected (place of pages not located, mechanism): fail.
    7. Pass.
    """
    if wrong := corrupt(facts.case):
        return Outcome.FAIL, wrong
    if evidence.undecided:
        return Outcome.UNDECIDED, evidence.undecided[0]
    if wrong := failed_command(facts.case):
        return Outcome.FAIL, wrong
    expect = facts.case.expect
    differs = _differences(facts, expect) if expect else ""
    if differs and len(facts.table) and bool(facts.table.located.all()):
        return Outcome.FAIL, differs
    for issue in issues:
        if issue.decisive:
            return Outcome.UNDECIDED, issue.text
    if differs and expect and not (evidence.events is not None or facts.table.located.all()):
        unknown = int((~facts.table.located).sum())
        return Outcome.UNDECIDED, f"{unknown} pages were not located, and no events were recorded: {differs}"
    if differs:
        return Outcome.FAIL, differs
    if expect and expect.migrated and facts.mechanism is not expect.mechanism:
        return Outcome.FAIL, f"pages moved by mechanism '{facts.mechanism}', '{expect.mechanism}' is expected"
    return Outcome.PASS, f"{facts.moved_words()}{_by(facts)}, contents {facts.contents}"


def _by(facts: _Facts) -> str:
    if not facts.migrated or facts.mechanism is Mechanism.NONE:
        return ""
    return {
        Mechanism.DIRECT: " directly", Mechanism.LAZY: " lazily", Mechanism.MANUAL: " by migrate_pages(2)",
        Mechanism.BALANCING: " by NUMA balancing",
    }[facts.mechanism]  # fmt: skip


def _probe_issues(
    case: CaseInput, evidence: Evidence, table: PageTable, moved_by: Mechanism, migrated: int, seen: Window,
    own: Moves, everybody: Moves,
) -> list[Issue]:  # fmt: skip
    if evidence.probes is None:
        return []
    issues: list[Issue] = []
    mechanism = case.expect.mechanism if case.expect and migrated and moved_by is Mechanism.NONE else moved_by
    own_events = seen.own if evidence.events is not None else None
    for name in conservation.silent(case, mechanism, own_events, evidence.probes):
        issues.append(Issue(True, f"the probe {name} is attached and should have fired, but never did"))
    if evidence.events is not None and evidence.probes.recording:
        issues += conservation.agree(case, table, own, everybody, seen.events)
    return issues


def finding(case: CaseInput, evidence: Evidence, run_issues: Sequence[Issue] = ()) -> CaseFinding:
    """Everything about one case. `run_issues`: what is wrong with the evidence of the run as a whole."""
    recorded = evidence.events is not None and evidence.probes is not None and evidence.probes.recording
    seen = window(case, evidence)
    everybody = moving.moves(seen.events, seen.columns)
    own = moving.moves(seen.own, seen.own_columns)
    alone = of_one_process(case)
    pids = np.array(sorted({done.pid for done in alone.results}), np.uint32)
    its_own = own.select(np.isin(own.pid, pids))
    table = pages.page_table(alone, its_own, events=recorded)
    changed = pages.changed(table)
    if recorded and case.expect is None:
        # A page that is elsewhere because it was allocated anew (copied on write, say) has not migrated.
        changed &= table.moves > 0
    migrated = int(changed.sum())
    mechanism = pages.mechanism(table)
    picked = changed if migrated else np.ones(len(table), np.bool_)
    facts = _Facts(
        case, table, mechanism, migrated,
        pages.common_node(table.node_before[picked]), pages.common_node(table.node_after[picked]),
        pages.contents(case, table),
    )  # fmt: skip
    issues = [*run_issues, *_probe_issues(case, evidence, table, mechanism, migrated, seen, own, everybody)]
    accessed = accesses.finding(alone, table)
    if accessed is not None:
        issues += [Issue(decisive, text) for decisive, text in accesses.issues(accessed)]
    outcome, why = judge(facts, evidence, issues)
    warnings = [issue.text for issue in issues if issue not in run_issues and issue.text != why]
    if strays := conservation.strays(seen.events):
        warnings.append(f"{strays} migrations for other reasons (compaction, say) ran meanwhile")
    return CaseFinding(
        name=case.name,
        title=case.title,
        mechanism=mechanism,
        pages=len(table),
        migrated=migrated,
        refused=pages.refused(table, moving.refusals(seen.own)),
        from_node=facts.from_node,
        to_node=facts.to_node,
        contents=facts.contents,
        cost_per_page=cost.cost(alone, mechanism, migrated, its_own, evidence.clock, evidence.unit),
        table=table,
        steps=pages.steps(
            alone, table, its_own, seen.own if recorded else None, seen.own_columns if recorded else None
        ),
        outcome=outcome,
        why=why,
        warnings=tuple(warnings),
        accesses=accessed,
    )
