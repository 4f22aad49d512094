"""Verdict rules, on a recorded run and on what it becomes when evidence is missing, lost or bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.analysis import decode, verdict
from controller.analysis.model import CaseInput, Contents, Evidence, Mechanism, Outcome, PageState
from controller.workloads.memtoy.output import CommandResult, TouchResult
from tests.fakes import recorded_demo as recorded


@pytest.fixture
def evidence() -> Evidence:
    return recorded.demo()


def with_lost(evidence: Evidence, probe: str, count: int) -> Evidence:
    probes = evidence.probes
    assert probes is not None
    return replace(
        evidence,
        probes=replace(
            probes,
            fired={**probes.fired, probe: probes.fired[probe] + count},
            lost={**probes.lost, probe: count},
        ),
    )


def corrupted(case: CaseInput) -> CaseInput:
    def spoil(done: CommandResult) -> CommandResult:
        if isinstance(done.result, TouchResult) and done.result.pattern is not None and not done.result.write:
            return replace(done, ok=False, result=replace(done.result, mismatches=512, bad_pages=1))
        return done

    return replace(case, results=tuple(spoil(done) for done in case.results), status=1)


def test_the_recorded_demo_passes(evidence: Evidence) -> None:
    found = verdict.findings(evidence)
    assert (found.outcome, found.lost, found.fired) == (Outcome.PASS, 0, found.received)
    assert [c.mechanism for c in found.cases] == [
        Mechanism.DIRECT,
        Mechanism.LAZY,
        Mechanism.LAZY,
        Mechanism.MANUAL,
    ]
    for case in found.cases:
        assert (case.pages, case.migrated, case.from_node, case.to_node) == (8, 8, 1, 2)
        assert case.contents is Contents.INTACT


def test_each_page_has_its_frames_and_its_moment(evidence: Evidence) -> None:
    lazy = verdict.findings(evidence).cases[1]
    assert (lazy.table.moves == 1).all()
    assert (lazy.table.pfn_before != lazy.table.pfn_after).all()
    nodes = decode.nodes_of(lazy.table.pfn_after, evidence.machine)
    assert (nodes == 2).all()
    states = {step.state for steps in lazy.steps.values() for step in steps}
    assert states == {PageState.MAPPED, PageState.CACHED}


def test_lost_events_are_undecided_never_a_pass(evidence: Evidence) -> None:
    found = verdict.findings(with_lost(evidence, "do_swap_page", 3))
    assert found.outcome is Outcome.UNDECIDED
    assert "lost" in found.reason


def test_corrupt_contents_fail_also_when_events_were_lost(evidence: Evidence) -> None:
    spoiled = replace(evidence, cases=(corrupted(evidence.cases[0]), *evidence.cases[1:]))
    for one in (spoiled, with_lost(spoiled, "do_swap_page", 3)):
        found = verdict.findings(one)
        assert found.outcome is Outcome.FAIL
        assert found.cases[0].contents is Contents.CORRUPT


def test_a_wrong_topology_is_undecided(evidence: Evidence) -> None:
    found = verdict.findings(replace(evidence, undecided=("node 3 shows 0 MB, not 512",)))
    assert found.outcome is Outcome.UNDECIDED
    assert "node 3" in found.reason


def test_records_that_are_not_there_are_undecided(evidence: Evidence) -> None:
    assert evidence.events is not None
    found = verdict.findings(replace(evidence, events=evidence.events[: len(evidence.events) // 2]))
    assert found.outcome is Outcome.UNDECIDED


def test_another_mechanism_than_expected_is_no_pass(evidence: Evidence) -> None:
    case = evidence.cases[0]
    assert case.expect is not None
    other = replace(case, expect=replace(case.expect, mechanism=Mechanism.LAZY))
    found = verdict.findings(replace(evidence, cases=(other, *evidence.cases[1:])))
    assert found.outcome is not Outcome.PASS
    assert found.cases[0].outcome is Outcome.FAIL


def test_no_case_is_undecided(evidence: Evidence) -> None:
    assert verdict.findings(replace(evidence, cases=())).outcome is Outcome.UNDECIDED


def test_a_lost_guest_is_the_verdict_whatever_was_found(evidence: Evidence) -> None:
    told = verdict.verdict_json(verdict.findings(evidence), lost="guest lost (panic): x")
    assert (told["verdict"], told["reason"]) == ("lost", "guest lost (panic): x")


def test_verdict_json_has_the_fixed_keys(evidence: Evidence) -> None:
    told = verdict.verdict_json(verdict.findings(evidence))
    assert told["schema"] == 1
    assert set(told) >= {
        "run",
        "verdict",
        "reason",
        "kernel",
        "accelerator",
        "clock",
        "qemu",
        "topology",
        "probes",
        "cases",
    }
    assert set(told["cases"][0]) >= {
        "name", "mechanism", "pages", "migrated", "refused", "from_node", "to_node", "contents", "cost_per_page",
    }  # fmt: skip
    assert told["counters"]["pgmigrate_on_fault"] == 16


def test_a_million_records_decode_at_once(evidence: Evidence) -> None:
    assert evidence.events is not None
    many = np.tile(evidence.events, 1_000_000 // len(evidence.events) + 1)
    columns = decode.columns(many, evidence.machine)
    assert len(columns.pfn) == len(many)
