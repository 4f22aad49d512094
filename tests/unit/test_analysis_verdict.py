"""The rules of the verdict and their precedence, on recorded runs that are spoilt in one way or another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller.analysis import conservation, verdict
from controller.analysis.model import Clock, Evidence, Findings, Machine, Outcome
from controller.analysis.moves import is_probe
from controller.workloads.memtoy.output import TouchResult, WhereResult
from tests.fakes import recorded_runs as recorded

LAZY = "anon-8p-lazy"


def judged(run: Evidence) -> Findings:
    return verdict.findings(run)


def lossy(run: Evidence) -> Evidence:
    assert run.probes is not None
    name = "do_swap_page"
    probes = run.probes
    return replace(
        run,
        probes=replace(probes, fired={**probes.fired, name: probes.fired[name] + 3}, lost={**probes.lost, name: 3}),
    )


def spoilt(run: Evidence, name: str, change: Callable[[Any], Any]) -> Evidence:
    """The run with every result of one case put through `change`."""
    case = next(case for case in run.cases if case.name == name)
    return recorded.with_case(run, replace(case, results=tuple(change(done) for done in case.results)))


def corrupt(done: Any) -> Any:
    if isinstance(done.result, TouchResult) and done.result.pattern is not None and not done.result.write:
        return replace(done, ok=False, result=replace(done.result, mismatches=512, bad_pages=1))
    return done


def failing(done: Any) -> Any:
    return replace(done, ok=False, errno=12, error="Cannot allocate memory") if done.cmd == "mbind" else done


def unmoved(done: Any) -> Any:
    if isinstance(done.result, WhereResult):
        return replace(done, result=replace(done.result, nodes=(1,) * 8))
    return done


def wrong_machine(run: Evidence) -> Evidence:
    return replace(run, undecided=("node 3 has 100 MB, the topology says 512",))


def test_the_demo_passes() -> None:
    found = judged(recorded.evidence("demo"))
    assert found.outcome is Outcome.PASS
    assert found.warnings == ()
    assert found.reason == "4 cases, 32 of 32 pages moved, contents intact, no event lost"
    assert found.counters["pgmigrate_on_fault"] == found.counters["mpol_lazy_unmapped"] == 16


def test_the_unpatched_kernel_fails_the_lazy_cases_and_says_which_command() -> None:
    found = judged(recorded.evidence("base"))
    assert found.outcome is Outcome.FAIL
    assert [case.outcome for case in found.cases] == [Outcome.PASS, Outcome.FAIL, Outcome.FAIL, Outcome.PASS]
    assert "bind+move+lazy 2" in found.reason
    assert any("this kernel lacks them" in text for text in found.warnings)


def test_lost_events_are_undecided() -> None:
    found = judged(lossy(recorded.evidence("demo")))
    assert found.outcome is Outcome.UNDECIDED
    assert "3 of 1113 events lost" in found.reason
    assert {case.outcome for case in found.cases} == {Outcome.UNDECIDED}


def test_corrupt_contents_fail_even_when_events_were_lost_and_the_machine_is_wrong() -> None:
    found = judged(wrong_machine(lossy(spoilt(recorded.evidence("demo"), LAZY, corrupt))))
    assert found.outcome is Outcome.FAIL
    assert "contents corrupt: 1 of 8 pages" in found.reason
    assert any("lost" in text for text in found.warnings)


def test_a_failed_command_fails_even_when_events_were_lost() -> None:
    found = judged(lossy(spoilt(recorded.evidence("demo"), LAZY, failing)))
    assert found.outcome is Outcome.FAIL
    assert "Cannot allocate memory" in found.reason


def test_a_wrong_machine_is_undecided_before_a_failed_command() -> None:
    found = judged(wrong_machine(spoilt(recorded.evidence("demo"), LAZY, failing)))
    assert found.outcome is Outcome.UNDECIDED
    assert "topology" in found.reason


def test_pages_that_memtoy_finds_unmoved_fail_even_when_events_were_lost() -> None:
    found = judged(lossy(recorded.only(spoilt(recorded.evidence("base"), "anon-8p-direct", unmoved), "anon-8p-direct")))
    assert found.outcome is Outcome.FAIL
    assert "0 of 8 pages moved, 8 are expected to" in found.reason


@pytest.mark.parametrize(
    ("probe", "case"),
    [
        ("move_to_new_folio.exit", "anon-8p-direct"),
        ("do_swap_page", LAZY),
        ("mpol_vma_misplaced.exit", LAZY),
        ("migrate:mm_migrate_on_fault", LAZY),
        ("try_to_migrate.exit", "anon-8p-manual"),
        ("do_mbind", "anon-8p-direct"),
    ],
)
def test_a_probe_that_should_have_fired_and_never_did_is_undecided(probe: str, case: str) -> None:
    found = judged(recorded.only(recorded.without(recorded.evidence("demo"), probe), case))
    assert found.outcome is Outcome.UNDECIDED
    assert probe in found.reason and "never did" in found.reason


def test_all_probes_on_moving_dead_is_undecided() -> None:
    run = recorded.without(
        recorded.evidence("demo"), "move_to_new_folio.exit", "migrate_folio_replace.exit", "migrate_folio_move.exit",
        "__folio_migrate_mapping.exit", "migrate_folio_move",
    )  # fmt: skip
    for name in ("anon-8p-direct", LAZY):
        assert judged(recorded.only(run, name)).outcome is Outcome.UNDECIDED


def test_records_that_did_not_arrive_are_undecided() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    found = judged(replace(run, events=run.events[:-1]))
    assert found.outcome is Outcome.UNDECIDED
    assert "only" in found.reason and "arrived" in found.reason


def test_an_account_that_does_not_add_up_is_undecided() -> None:
    run = recorded.evidence("demo")
    assert run.probes is not None
    probes = replace(run.probes, fired={**run.probes.fired, "do_mbind": 99})
    assert "do_mbind fired 99 times" in judged(replace(run, probes=probes)).reason
    missed = replace(run.probes, missed={"do_swap_page": 2})
    assert "2 firings missed" in judged(replace(run, probes=missed)).reason


def test_a_counter_that_contradicts_the_tracepoint_is_undecided() -> None:
    run = recorded.only(recorded.evidence("demo"), LAZY)
    case = replace(run.cases[0], counters={**run.cases[0].counters, "pgmigrate_on_fault": 7})
    found = judged(recorded.with_case(run, case))
    assert found.outcome is Outcome.UNDECIDED
    assert "the kernel counts 7 pages migrated in faults (pgmigrate_on_fault), the events show 8" in found.reason


def test_a_counter_that_somebody_else_may_have_raised_is_a_warning() -> None:
    run = recorded.only(recorded.evidence("demo"), "anon-8p-direct")
    case = replace(run.cases[0], counters={**run.cases[0].counters, "pgmigrate_success": 11})
    found = judged(recorded.with_case(run, case))
    assert found.outcome is Outcome.PASS
    assert any("pgmigrate_success" in text for text in found.warnings)


def test_the_wrong_mechanism_fails() -> None:
    run = recorded.only(recorded.evidence("demo"), LAZY)
    direct = recorded.evidence("demo").cases[0].expect
    found = judged(recorded.with_case(run, replace(run.cases[0], expect=direct)))
    assert found.outcome is Outcome.FAIL
    assert "mechanism 'lazy', 'direct' is expected" in found.reason


def test_the_wrong_target_or_number_fails() -> None:
    run = recorded.only(recorded.evidence("demo"), LAZY)
    expect = run.cases[0].expect
    assert expect is not None
    for other, words in (
        (replace(expect, to_node=3), "to node 3"),
        (replace(expect, migrated=7), "7 are expected"),
        (replace(expect, pages=9), "where 9"),
    ):
        found = judged(recorded.with_case(run, replace(run.cases[0], expect=other)))
        assert found.outcome is Outcome.FAIL and words in found.reason


def test_a_script_without_expectations_passes_by_its_own_results() -> None:
    run = recorded.only(recorded.evidence("more"), "lazy-40")
    found = judged(run)
    assert found.outcome is Outcome.PASS
    assert found.reason == "40 of 40 pages moved from node 1 to node 2 lazily, contents intact, no event lost"
    assert judged(lossy(run)).outcome is Outcome.UNDECIDED
    assert judged(spoilt(run, "lazy-40", corrupt)).outcome is Outcome.FAIL
    assert judged(spoilt(run, "lazy-40", failing)).outcome is Outcome.FAIL


def test_memtoys_end_counts() -> None:
    run = recorded.only(recorded.evidence("demo"), LAZY)
    for status, words in ((139, "signal 11"), (1, "status 1")):
        found = judged(recorded.with_case(run, replace(run.cases[0], status=status)))
        assert found.outcome is Outcome.FAIL and words in found.reason
    silent = judged(recorded.with_case(run, replace(run.cases[0], results=())))
    assert silent.outcome is Outcome.FAIL and "answered nothing" in silent.reason


def test_without_probes_the_verdict_rests_on_memtoy_and_says_so() -> None:
    run = replace(recorded.evidence("demo"), events=None, probes=None, machine=Machine(()))
    found = judged(run)
    assert found.outcome is Outcome.PASS
    assert any("memtoy's own results" in text for text in found.warnings)
    assert judged(spoilt(run, LAZY, unmoved)).outcome is Outcome.FAIL


def test_with_counting_probes_nothing_is_received_and_that_is_right() -> None:
    run = recorded.evidence("demo")
    assert run.probes is not None
    counting = replace(run.probes, recording=False, received={}, lost={})
    found = judged(replace(run, events=None, probes=counting))
    assert found.outcome is Outcome.PASS
    silent = replace(counting, fired={**counting.fired, "do_swap_page": 0})
    assert judged(replace(run, events=None, probes=silent)).outcome is Outcome.UNDECIDED


def test_pages_that_were_never_located_and_no_events_are_undecided() -> None:
    run = replace(recorded.only(recorded.evidence("demo"), LAZY), events=None, probes=None)
    case = run.cases[0]
    blind = tuple(done for done in case.results if not isinstance(done.result, WhereResult))
    found = judged(recorded.with_case(run, replace(case, results=blind)))
    assert found.outcome is Outcome.UNDECIDED
    assert "8 pages were not located" in found.reason


def test_no_case_is_undecided() -> None:
    assert judged(replace(recorded.evidence("demo"), cases=())).outcome is Outcome.UNDECIDED


def test_costs_are_of_what_was_timed() -> None:
    costs = [case.cost_per_page for case in judged(recorded.evidence("demo")).cases]
    assert [cost.of for cost in costs] == ["mbind", "mbind + touch", "mbind + get_mempolicy", "migrate_pages"]
    assert all(cost.value and cost.unit == "ns" for cost in costs)
    by_insn = judged(replace(recorded.evidence("demo"), clock=Clock.INSN))
    assert {case.cost_per_page.unit for case in by_insn.cases} == {"instructions"}
    assert judged(recorded.evidence("base")).cases[1].cost_per_page.value is None


def test_a_manual_migration_costs_by_all_pages_of_the_process() -> None:
    found = judged(recorded.evidence("demo")).cases[3]
    run = recorded.evidence("demo").cases[3]
    ns = next(int(done.raw["ns"]) for done in run.results if done.cmd == "migrate")
    assert found.cost_per_page.value == pytest.approx(ns / run.counters["pgmigrate_success"], rel=0.01)


def test_lazy_costs_hold_every_touch_that_moved_pages() -> None:
    run = recorded.only(recorded.evidence("more"), "lazy-40")
    timed = [
        d for d in run.cases[0].results if "lazy" in d.text or d.text in ("touch foo 0 20p read", "touch foo read=1")
    ]
    assert len(timed) == 3
    total = sum(int(done.raw.get("ns", done.end_ns - done.start_ns)) for done in timed)
    assert judged(run).cases[0].cost_per_page.value == pytest.approx(total / 40, rel=0.01)


def test_verdict_json_has_the_keys_that_stay() -> None:
    result = verdict.verdict_json(judged(recorded.evidence("demo")))
    assert json.loads(json.dumps(result)) == result
    assert {
        "schema", "run", "verdict", "reason", "kernel", "accelerator", "clock", "qemu", "topology", "probes", "cases",
        "counters", "warnings",
    } <= set(result)  # fmt: skip
    assert result["schema"] == 1 and result["verdict"] == "pass"
    assert set(result["kernel"]) == {"id", "release", "build_id"}
    assert {"attached", "unavailable", "fired", "received", "lost", "overhead"} == set(result["probes"])
    assert result["probes"]["fired"] == result["probes"]["received"] == 1110
    lazy = result["cases"][1]
    assert {key: lazy[key] for key in ("name", "mechanism", "pages", "migrated", "refused", "contents")} == {
        "name": LAZY, "mechanism": "lazy", "pages": 8, "migrated": 8, "refused": {}, "contents": "intact",
    }  # fmt: skip
    assert (lazy["from_node"], lazy["to_node"], lazy["cost_per_page"]["unit"]) == (1, 2, "ns")


def test_a_lost_guest_is_lost_whatever_the_cases_say() -> None:
    result = verdict.verdict_json(judged(recorded.evidence("demo")), lost="guest lost (panic): sysrq")
    assert (result["verdict"], result["reason"]) == ("lost", "guest lost (panic): sysrq")


def test_a_run_that_was_cut_off_anywhere_can_be_judged() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    for results in range(len(run.cases[1].results)):
        for events in (0, 7, 300):
            cut = replace(run.cases[1], results=run.cases[1].results[:results], status=None)
            part = replace(run, cases=(cut,), events=run.events[:events])
            assert judged(part).outcome is not Outcome.PASS
    nothing = replace(run, machine=Machine.from_hello({}), events=run.events[:0], probes=None)
    assert judged(nothing)


def test_compaction_meanwhile_is_mentioned() -> None:
    run = recorded.writable(recorded.only(recorded.evidence("demo"), "anon-8p-direct"))
    assert run.events is not None
    begins = is_probe(run.events, "migrate_pages")
    run.events["aux"][begins] &= ~np.uint32(0xFFFF)
    assert conservation.strays(run.events[run.events["pid"] == run.cases[0].results[0].pid]) >= 1


def test_three_hundred_thousand_records_take_seconds() -> None:
    run = recorded.only(recorded.evidence("more"), "direct-640")
    assert run.events is not None
    many = np.tile(run.events, 300_000 // len(run.events) + 1)
    many.sort(order="time", kind="stable")
    began = time.perf_counter()
    judged(replace(run, events=many, probes=None))
    assert time.perf_counter() - began < 5
