"""Nothing may appear or vanish between witnesses: probes, agent, records, the kernel's counters, memtoy.

A contradiction that can change what is concluded makes the run undecided; one that the rest of the machine can
explain (the kernel's counters count for everybody) is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from controller.analysis import names
from controller.analysis.decode import Events, Mask
from controller.analysis.model import CaseInput, Evidence, Mechanism, PageTable, ProbeStatus
from controller.analysis.moves import Moves, is_probe, reasons
from controller.analysis.pages import changed
from controller.analysis.segments import lazy, moving
from controller.workloads.memtoy.output import MbindResult, MigrateResult
from probes.registry import BY_ID


@dataclass(frozen=True)
class Issue:
    """A contradiction, in one line. `decisive`: nothing can be concluded while it stands."""

    decisive: bool
    text: str


def _listed(counts: Iterable[tuple[str, int]], most: int = 3) -> str:
    worst = sorted(counts, key=lambda pair: -pair[1])
    more = f" and {len(worst) - most} more" if len(worst) > most else ""
    return ", ".join(f"{name} {count}" for name, count in worst[:most]) + more


def whole(evidence: Evidence) -> list[Issue]:
    """Of the run: every firing was received or counted as lost, and every record received is there."""
    probes = evidence.probes
    if probes is None:
        return []
    issues: list[Issue] = []
    lost = [(name, n) for name, n in probes.lost.items() if n]
    if lost:
        total, fired = sum(n for _, n in lost), sum(probes.fired.values())
        issues.append(Issue(True, f"{total} of {fired} events lost ({_listed(lost)})"))
    missed = [(name, n) for name, n in probes.missed.items() if n]
    if missed:
        issues.append(Issue(True, f"{sum(n for _, n in missed)} firings missed ({_listed(missed)})"))
    if not probes.recording:
        return issues
    for name, fired in probes.fired.items():
        received, gone = probes.received.get(name, 0), probes.lost.get(name, 0)
        if fired != received + gone:
            issues.append(Issue(True, f"{name} fired {fired} times, but {received} were received and {gone} lost"))
    if evidence.events is not None:
        issues += _recorded(evidence.events, probes)
    return issues


def _recorded(events: Events, probes: ProbeStatus) -> list[Issue]:
    issues: list[Issue] = []
    here = np.bincount(events["probe"], minlength=256)
    foreign = [int(i) for i in np.flatnonzero(here) if int(i) not in BY_ID]
    if foreign:
        issues.append(Issue(True, f"{int(here[foreign].sum())} records of unknown probes ({foreign})"))
    for probe in BY_ID.values():
        received = probes.received.get(probe.name, 0)
        if int(here[probe.id]) < received:
            text = f"{probe.name}: the agent received {received} records, but only {int(here[probe.id])} arrived"
            issues.append(Issue(True, text))
    return issues


def needed(case: CaseInput, mechanism: Mechanism) -> set[str]:
    """Probes that must have fired, given the commands that succeeded and what moved the pages."""
    names_: set[str] = set()
    for done in case.results:
        if not done.ok:
            continue
        if isinstance(done.result, MbindResult):
            names_ |= {"__x64_sys_mbind", "__x64_sys_mbind.exit", "do_mbind", "do_mbind.exit"}
        elif isinstance(done.result, MigrateResult):
            names_ |= {"__x64_sys_migrate_pages", "__x64_sys_migrate_pages.exit"}
    in_batches = {
        "migrate_pages", "migrate_pages.exit", "try_to_migrate.exit", "move_to_new_folio.exit",
        "__folio_migrate_mapping.exit", "remove_migration_pte.exit", "folio_isolate_lru.exit", "migrate_folio_move.exit",
    }  # fmt: skip
    in_faults = {
        "unmap_folios_lazy", "unmap_folios_lazy.exit", "unmap_range_lazy", "unmap_range_lazy.exit", "do_swap_page",
        "do_swap_page.exit",
        "swap_cache_get_folio.exit", "mpol_vma_misplaced.exit", "migrate_folio_on_fault",
        "migrate_folio_on_fault.exit", "check_migrate_misplaced_folio.exit", "migrate:mm_migrate_on_fault",
        "try_to_unmap.exit", "move_to_new_folio.exit",
    }  # fmt: skip
    asked = any(moving(done) for done in case.results)
    if mechanism in (Mechanism.DIRECT, Mechanism.MANUAL, Mechanism.BALANCING):
        names_ |= in_batches
    elif mechanism is Mechanism.LAZY and asked:
        names_ |= in_faults
    return names_


def silent(case: CaseInput, mechanism: Mechanism, events: Events | None, probes: ProbeStatus) -> list[str]:
    """Of the needed probes, those of the set that are attached and yet did not fire: inlined at their callers, say."""
    wanted = needed(case, mechanism) & set(probes.attached)
    if mechanism is Mechanism.LAZY and "unmap_range_lazy" in probes.attached:
        # A kernel that unmaps in place, and maps copies that replace nothing in a cache: both only for some pages
        wanted -= {"try_to_unmap.exit", "move_to_new_folio.exit"}
    if events is None or not probes.recording:
        return sorted(name for name in wanted if not probes.fired.get(name, 0))
    seen = {BY_ID[int(i)].name for i in np.unique(events["probe"]) if int(i) in BY_ID}
    return sorted(wanted - seen)


def agree(case: CaseInput, table: PageTable, own: Moves, all_moves: Moves, window: Events) -> list[Issue]:
    """Of one case: what memtoy saw, what the probes saw, what the kernel counted.

    `own`: moves of the case's processes; `all_moves` and `window`: everybody's, from its first command to its last.
    """
    issues: list[Issue] = []
    seen, told = changed(table) & table.located, table.moves > 0
    unseen = int((seen & ~told).sum())
    if unseen:
        issues.append(_unexplained(case, unseen, own))
    odd = told & table.located & (table.moves == 1) & ~changed(table)
    if odd.any():
        issues.append(Issue(True, f"{int(odd.sum())} pages moved by the events, but memtoy finds them where they were"))
    issues += _counted(case, all_moves, window)
    return issues


def _unexplained(case: CaseInput, pages: int, own: Moves) -> Issue:
    """Pages on another node that no event shows moving.

    Where a migration is expected, or was asked for and no event at all shows one, the probes are to be doubted. A
    script of somebody's own may have had the pages allocated anew: copied on write, or read back from swap.
    """
    forked = any(done.cmd == "child" for done in case.results)
    blind = any(moving(done) for done in case.results) and not len(own) and not forked
    text = f"{pages} pages are on another node, by memtoy's own word, but no event shows them moving"
    if case.expect is not None or blind:
        return Issue(True, text)
    return Issue(False, f"{text}: allocated anew, it seems, as by a copy on write")


def _counted(case: CaseInput, moves: Moves, window: Events) -> list[Issue]:
    """The counters are in pages and everybody's; nothing but the case is meant to move pages meanwhile."""
    point = window[is_probe(window, "migrate:mm_migrate_on_fault")]
    pages = np.int64(1) << (point["aux"] >> 24).astype(np.int64)
    good = np.isin(point["result"], names.MOF_MOVED)
    lazily = moves.count(Mechanism.LAZY)
    in_batches = int(moves.pages[(moves.reason >= 0) & (moves.reason != names.MR_ON_FAULT)].sum())
    unmap = is_probe(window, "try_to_unmap.exit") & (window["result"] == 0) & _within_lazy(window)
    comparisons: list[tuple[str, int, str, bool]] = [("pgmigrate_success", in_batches, "pages migrated", False)]
    if len(point):
        comparisons.append(("pgmigrate_on_fault", int(pages[good].sum()), "pages migrated in faults", True))
    if any(lazy(done) for done in case.results):
        unmapped = int((np.int64(1) << (window["aux"][unmap] >> 24).astype(np.int64)).sum())
        unmapped += int(window["result"][is_probe(window, "unmap_range_lazy.exit")].sum())
        comparisons.append(("mpol_lazy_unmapped", unmapped, "pages unmapped lazily", False))
    issues: list[Issue] = []
    if not case.counters:
        comparisons = []
    for counter, events, what, exact in comparisons:
        counted = case.counters.get(counter, 0)
        if counted == events:
            continue
        # More than the events show may be somebody else's, before the first command or after the last.
        decisive = exact or events > counted
        issues.append(Issue(decisive, f"the kernel counts {counted} {what} ({counter}), the events show {events}"))
    if len(point) and lazily != int(pages[good].sum()):
        text = f"{lazily} pages were moved in faults, but the tracepoint tells of {int(pages[good].sum())}"
        issues.append(Issue(True, text))
    return issues


def _within_lazy(events: Events) -> Mask:
    """Records made while their thread was in unmap_folios_lazy()."""
    inside = np.zeros(len(events), np.bool_)
    begins, ends = is_probe(events, "unmap_folios_lazy"), is_probe(events, "unmap_folios_lazy.exit")
    for tid in np.unique(events["tid"][begins]):
        mine = events["tid"] == tid
        depth = np.cumsum(begins[mine].astype(np.int32) - ends[mine].astype(np.int32))
        inside[mine] = depth > 0
    return inside


def strays(window: Events) -> int:
    """Migrations within a case for other reasons than the known mechanisms: compaction, demotion and the like."""
    why = reasons(window)
    return int((is_probe(window, "migrate_pages") & ~np.isin(why, [*names.BY_REASON, -1])).sum())
