"""Verdict, pages and trace from what the set `full` records: recorded runs without the steps, and made-up records."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from controller.analysis import decode, moves, verdict
from controller.analysis.model import CaseFinding, Evidence, Machine, Mechanism, Outcome, PageState
from controller.report import trace
from controller.report.rows import Rows
from controller.report.units import Phase, units
from probes.records import Record, folio_of
from probes.registry import BY_NAME, ProbeSet
from tests.fakes import recorded_runs as recorded

MACHINE = Machine(((0x1000, 0x2000, 1), (0x3000, 0x4000, 2)))
POINT, MOVED, MAPPED = "migrate:mm_migrate_on_fault", "migrate_folio_move.exit", "do_swap_page.exit"


def full(name: str = "demo") -> Evidence:
    return recorded.of_set(recorded.evidence(name), ProbeSet.FULL)


def findings_by_case(run: Evidence) -> dict[str, CaseFinding]:
    return {case.name: case for case in verdict.findings(run).cases}


def record(probe: str, at: int, *, tid: int = 7, **fields: int) -> Record:
    one = BY_NAME[probe]
    values = {"address": 0, "folio": 0, "arg": 0, "flags": 0, "result": 0, "refs": -1, "aux": 0, **fields}
    return Record(time=at, pid=7, tid=tid, probe=one.id, kind=one.kind, cpu=0, **values)


def events(*records: Record) -> decode.Events:
    return np.frombuffer(b"".join(r.pack() for r in records), decode.DTYPE)


def moved(*records: Record) -> moves.Moves:
    rows = events(*records)
    return moves.moves(rows, decode.columns(rows, MACHINE))


def point(at: int, address: int, *, result: int = 0, order: int = 0, tid: int = 7) -> Record:
    target = folio_of(0x3001) if result == 0 else 0
    aux = 2 | 3 << 16 | order << 24
    where = {"address": address, "folio": folio_of(0x1001), "arg": target, "flags": 1 | 2 << 32}
    return record(POINT, at, tid=tid, result=result, aux=aux, **where)


@pytest.mark.parametrize("name", ["demo", "base", "more"])
def test_every_case_is_judged_as_with_every_step(name: str) -> None:
    fine, coarse = findings_by_case(recorded.evidence(name)), findings_by_case(full(name))
    for case, found in coarse.items():
        other = fine[case]
        assert (found.outcome, found.why, found.mechanism) == (other.outcome, other.why, other.mechanism), case
        assert (found.migrated, found.refused, found.contents) == (other.migrated, other.refused, other.contents), case
        for column in ("address", "node_before", "node_after", "pfn_before", "pfn_after", "moves", "moved_by"):
            assert (getattr(found.table, column) == getattr(other.table, column)).all(), (case, column)
        assert found.cost_per_page == other.cost_per_page


def test_the_steps_of_a_lazily_moved_page_are_seen() -> None:
    for steps in findings_by_case(full())["anon-8p-lazy"].steps.values():
        assert [(step.node, step.state) for step in steps] == [
            (1, PageState.MAPPED), (1, PageState.CACHED), (2, PageState.MAPPED),
        ]  # fmt: skip


def test_no_page_is_counted_twice_when_several_probes_tell() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    for which in (run, full()):
        assert which.events is not None
        found = moves.moves(which.events, decode.columns(which.events, run.machine))
        assert found.count(Mechanism.LAZY) == 16 and found.count(Mechanism.DIRECT) == 8


@pytest.mark.parametrize(
    ("probe", "case"),
    [
        (MOVED, "anon-8p-direct"),
        (MOVED, "anon-8p-manual"),
        (POINT, "anon-8p-lazy"),
        ("try_to_unmap.exit", "anon-8p-lazy"),
        ("unmap_folios_lazy", "anon-8p-lazy"),
    ],
)
def test_a_probe_that_never_fired_is_undecided(probe: str, case: str) -> None:
    found = verdict.findings(recorded.only(recorded.without(full(), probe), case))
    assert found.outcome is Outcome.UNDECIDED
    assert probe in found.reason


def test_one_lost_record_of_the_tracepoint_contradicts_the_kernel() -> None:
    run = recorded.only(full(), "anon-8p-lazy")
    assert run.events is not None and run.probes is not None
    inside = np.flatnonzero(run.events["probe"] == BY_NAME[POINT].id)
    fewer = {**run.probes.received, POINT: run.probes.received[POINT] - 1}
    status = replace(run.probes, fired=fewer, received=fewer)
    found = verdict.findings(replace(run, events=np.delete(run.events, inside[0]), probes=status))
    assert found.outcome is Outcome.UNDECIDED


def test_counting_rests_on_memtoy_and_on_what_counts_are_there() -> None:
    counts = recorded.of_set(recorded.evidence("demo"), ProbeSet.COUNTS)
    assert verdict.findings(counts).outcome is Outcome.PASS
    assert counts.probes is not None
    silent = replace(counts.probes, fired={**counts.probes.fired, POINT: 0})
    assert verdict.findings(replace(counts, probes=silent)).outcome is Outcome.UNDECIDED


def test_reasons_are_those_that_come_with_the_record() -> None:
    rows = events(
        record(MOVED, 1, aux=4 | 2 << 16), record(MOVED, 2, aux=3), record(MOVED, 3, aux=5), record(MOVED, 4, aux=0),
        point(5, 0x7000),
    )  # fmt: skip
    assert moves.reasons(rows).tolist() == [4, 3, 5, 0, 10]


def test_moves_by_mechanism_and_only_those_that_succeeded() -> None:
    where = {"folio": folio_of(0x1001), "arg": folio_of(0x3001), "flags": 2 << 58}
    found = moved(
        record(MOVED, 1, aux=4, address=0x1000, **where), record(MOVED, 2, aux=4, result=-11, **where),
        record(MOVED, 3, aux=3, **where), record(MOVED, 4, aux=5, **where), record(MOVED, 5, aux=0, **where),
        point(6, 0x7000), point(7, 0x8000, result=2),
    )  # fmt: skip
    assert [found.count(m) for m in (Mechanism.DIRECT, Mechanism.MANUAL, Mechanism.BALANCING, Mechanism.LAZY)] == [
        1
    ] * 4
    assert len(found) == 5
    assert found.node.tolist() == [1] * 5 and found.dst_node.tolist() == [2] * 5


def test_a_large_folio_begins_below_the_page_that_was_touched() -> None:
    found = moved(point(1, 0x7F0000005000, order=4), record(MOVED, 2, aux=4 | 2 << 8, address=0x7F0000014000))
    assert found.pages.tolist() == [16, 4]
    assert found.address.tolist() == [0x7F0000000000, 0x7F0000014000]


def test_what_could_not_be_copied_is_a_refusal() -> None:
    rows = events(record(MOVED, 1, aux=4, result=-11, address=0x7000), point(2, 0x8000, result=8))
    assert sorted(moves.refusals(rows).reason.tolist()) == ["EAGAIN", "will_copy"]


def found_units(*records: Record) -> list[tuple[Phase, str, int]]:
    raw = events(*records)
    rows = Rows.of(raw, decode.columns(raw, MACHINE))
    cut = units(rows, range(len(rows)))
    assert sorted(i for unit in cut for i in unit.indices) == list(range(len(rows)))
    assert all(unit.took(rows) is None for unit in cut if unit.phase is Phase.FAULT)
    return [(unit.phase, unit.shape, len(unit.indices)) for unit in cut]


def test_a_fault_is_one_unit_without_its_entry() -> None:
    assert found_units(
        point(1, 0x7000), record(MAPPED, 2, address=0x7000), point(3, 0x8000, result=2), record(MAPPED, 4, address=0x8000),
        record(MAPPED, 5, address=0x9000),
    ) == [(Phase.FAULT, "migrated", 2), (Phase.FAULT, "mapped", 2), (Phase.FAULT, "other", 1)]  # fmt: skip


def test_a_fault_whose_end_was_lost_swallows_nothing() -> None:
    found = found_units(point(1, 0x7000), point(2, 0x8000), record("__x64_sys_migrate_pages", 3), point(4, 0x9000))
    assert [phase for phase, _, _ in found] == [Phase.FAULT, Phase.FAULT, Phase.CALL, Phase.FAULT]


def test_two_threads_that_fault_at_once_are_two_units() -> None:
    found = found_units(
        point(1, 0x7000),
        point(2, 0x8000, tid=8),
        record(MAPPED, 3, tid=8, address=0x8000),
        record(MAPPED, 4, address=0x7000),
    )
    assert found == [(Phase.FAULT, "migrated", 2)] * 2


def flat(run: Evidence) -> str:
    return re.sub(r"\s+", " ", trace.render(verdict.findings(run)))


@pytest.mark.parametrize("name", ["demo", "base", "more"])
def test_nothing_is_outside_of_what_the_trace_knows(name: str) -> None:
    run = full(name)
    assert run.events is not None
    rows = Rows.of(run.events, decode.columns(run.events, run.machine))
    cut = units(rows, range(len(rows)))
    assert sorted(i for unit in cut for i in unit.indices) == list(range(len(rows)))
    assert Phase.OTHER not in {unit.phase for unit in cut}


def test_the_trace_tells_a_fault_by_its_tracepoint_and_claims_no_more() -> None:
    story = flat(recorded.only(full(), "anon-8p-lazy"))
    assert "every step of it is told with --probes steps" in story
    assert "the fault finds it in the swap cache, frame" in story
    assert "its policy says node 2: misplaced" in story
    assert "Touched likewise, 8 of 8" in story
    for claim in (
        "page table entry now names",
        "References:",
        "isolated from the LRU",
        "folio_isolate_lru",
        "in the median",
        "nothing to do",
    ):
        assert claim not in story, claim
    assert not re.search(r"Touched likewise, 8 of 8: \w+, node 1 > 2, [\d.]+ us", story)


def test_the_trace_of_a_direct_move_and_of_a_refusal() -> None:
    assert "The copy, 8 pages" in flat(recorded.only(full(), "anon-8p-direct"))
    assert "The page stays where it is: the write is about to copy it anyway" in flat(full("more"))
    assert "23 faults more" in flat(full("more")) or "faults more went the same way (migrated)." in flat(full("more"))
