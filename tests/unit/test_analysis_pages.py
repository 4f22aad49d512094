"""The page table of a case, from recorded runs and from made-up ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.analysis import decode, moves, pages, segments, verdict
from controller.analysis.model import CaseFinding, CaseInput, Contents, Evidence, Mechanism, PageState
from controller.workloads.memtoy.output import CommandResult, MapResult, Result, TouchResult, WhereMethod, WhereResult
from tests.fakes import recorded_runs as recorded

DEMO = ("anon-8p-direct", "anon-8p-lazy", "anon-8p-lazy-where", "anon-8p-manual")
START = 0x7F0000000000


def finding(run: Evidence, name: str) -> CaseFinding:
    return next(case for case in verdict.findings(run).cases if case.name == name)


def done(at: int, cmd: str, result: Result, *, ok: bool = True) -> CommandResult:
    return CommandResult(1, cmd, f"{cmd} foo", ok, 0, "", 7, "", at, at + 5, result)


def mapped(at: int, count: int = 4) -> CommandResult:
    return done(at, "map", MapResult("foo", START, count * 4096, False))


def where(at: int, *nodes: int, method: WhereMethod = WhereMethod.MOVE_PAGES) -> CommandResult:
    return done(at, "where", WhereResult("foo", START, 4096, nodes, method))


def touch(at: int, count: int = 4, *, pattern: int | None = None, write: bool = False, bad: int = 0) -> CommandResult:
    result = TouchResult("foo", START, count, 4096, 5, write, pattern, bad * 512, bad, None)
    return done(at, "touch", result, ok=not bad)


def case(*results: CommandResult) -> CaseInput:
    return CaseInput("made-up", "", results)


def no_moves() -> moves.Moves:
    empty = np.zeros(0, decode.DTYPE)
    return moves.moves(empty, decode.columns(empty, recorded.evidence("demo").machine))


@pytest.mark.parametrize("name", DEMO)
def test_the_demos_pages_are_on_node_2_with_frames_before_and_after(name: str) -> None:
    found = finding(recorded.evidence("demo"), name)
    table = found.table
    assert len(table) == 8
    assert table.node_before.tolist() == [1] * 8
    assert table.node_after.tolist() == [2] * 8
    assert (np.diff(table.address.astype(np.int64)) == 4096).all()
    assert table.moves.tolist() == [1] * 8
    assert len(set(table.pfn_before.tolist())) == len(set(table.pfn_after.tolist())) == 8
    machine = recorded.evidence("demo").machine
    assert decode.nodes_of(table.pfn_before, machine).tolist() == [1] * 8
    assert decode.nodes_of(table.pfn_after, machine).tolist() == [2] * 8
    assert table.located.all() and table.verified.all()
    assert found.contents is Contents.INTACT


def test_the_mechanism_of_each_case() -> None:
    found = verdict.findings(recorded.evidence("demo")).cases
    assert [c.mechanism for c in found] == [Mechanism.DIRECT, Mechanism.LAZY, Mechanism.LAZY, Mechanism.MANUAL]


def test_the_steps_of_a_lazily_moved_page() -> None:
    found = finding(recorded.evidence("demo"), "anon-8p-lazy")
    for steps in found.steps.values():
        assert [(step.node, step.state) for step in steps] == [
            (1, PageState.MAPPED), (1, PageState.CACHED), (2, PageState.MAPPED),
        ]  # fmt: skip
        assert [step.time for step in steps] == sorted(step.time for step in steps)


def test_on_the_unpatched_kernel_the_lazy_cases_move_nothing() -> None:
    found = finding(recorded.evidence("base"), "anon-8p-lazy")
    assert (found.migrated, found.mechanism, found.contents) == (0, Mechanism.NONE, Contents.INTACT)
    assert (found.from_node, found.to_node) == (1, 1)


def test_steps_are_kept_for_evenly_chosen_pages_of_many() -> None:
    found = finding(recorded.evidence("more"), "direct-640")
    assert found.pages == found.migrated == 640
    assert len(found.steps) == pages.MAX_DRAWN
    assert {0, 639} <= set(found.steps)


def test_a_refusal_is_counted_by_the_kernels_own_word() -> None:
    found = finding(recorded.evidence("more"), "refused")
    assert found.refused == {"will_copy": 8}
    assert (found.migrated, found.mechanism) == (0, Mechanism.NONE)
    assert any("copy on write" in text for text in found.warnings)


def test_without_events_the_mechanism_is_what_the_script_asked_for() -> None:
    run = replace(recorded.evidence("demo"), events=None, probes=None)
    found = verdict.findings(run).cases
    assert [c.mechanism for c in found] == [Mechanism.DIRECT, Mechanism.LAZY, Mechanism.LAZY, Mechanism.MANUAL]
    assert [c.migrated for c in found] == [8] * 4


def test_mapping_anew_starts_a_new_segment() -> None:
    found = segments.segments([mapped(10), touch(20), mapped(30, 2), touch(40, 2)])
    assert [(s.pages, s.since, s.until) for s in found] == [(4, 10, 30), (2, 30, segments.FOREVER)]
    table = pages.page_table(
        case(mapped(10), where(20, 1, 1, 1, 1), mapped(30), where(40, 2, 2, 2, 2)), no_moves(), events=False
    )
    assert len(table) == 8
    assert not pages.changed(table).any()


def test_pages_that_nobody_touched_do_not_count() -> None:
    table = pages.page_table(case(mapped(10, 1000), touch(20, 3)), no_moves(), events=False)
    assert len(table) == 3


def test_a_page_that_is_not_mapped_is_where_it_was() -> None:
    table = pages.page_table(case(mapped(10, 2), where(20, 1, 1), where(30, -2, -2)), no_moves(), events=False)
    assert table.node_after.tolist() == [1, 1]
    assert not pages.changed(table).any()


def test_contents_are_unchecked_when_not_every_page_was_read_back() -> None:
    half = case(mapped(10), touch(20, pattern=1, write=True), touch(30, 2, pattern=1))
    whole = case(*half.results, touch(40, pattern=1))
    broken = case(*half.results, touch(40, pattern=1, bad=1))
    for one, expected in ((half, Contents.UNCHECKED), (whole, Contents.INTACT), (broken, Contents.CORRUPT)):
        assert pages.contents(one, pages.page_table(one, no_moves(), events=False)) is expected
    nothing = case()
    assert pages.contents(nothing, pages.page_table(nothing, no_moves(), events=False)) is Contents.UNCHECKED


def test_a_large_folio_moves_all_its_pages() -> None:
    one = case(mapped(10, 16), touch(20, 16))
    moved = moves.Moves(
        np.array([25], np.uint64), np.array([7], np.uint32), np.array([START + 4 * 4096], np.uint64),
        np.array([100], np.uint64), np.array([1], np.int16), np.array([900], np.uint64), np.array([2], np.int16),
        np.array([8]), np.array([4], np.int16), np.array([1], np.uint8),
    )  # fmt: skip
    table = pages.page_table(one, moved, events=True)
    assert table.moves.tolist() == [0] * 4 + [1] * 8 + [0] * 4
    assert pages.mechanism(table) is Mechanism.DIRECT


def test_reasons_are_kept_apart_by_thread() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    other = run.events.copy()
    other["tid"] += 1000
    both = np.empty(2 * len(other), decode.DTYPE)
    both[0::2], both[1::2] = run.events, other
    why = moves.reasons(both)
    assert (why[0::2] == moves.reasons(run.events)).all()
    assert (why[1::2] == moves.reasons(run.events)).all()
    counted = moves.moves(both, decode.columns(both, run.machine))
    assert counted.count(Mechanism.LAZY) == 32 and counted.count(Mechanism.DIRECT) == 16
