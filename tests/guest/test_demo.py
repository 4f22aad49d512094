"""The main promise: eight pages move, directly and lazily, and the evidence shows how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.guest.conftest import Ran

CASES = {
    "anon-8p-direct": "direct",
    "anon-8p-lazy": "lazy",
    "anon-8p-lazy-where": "lazy",
    "anon-8p-manual": "manual",
}


def test_the_demo_passes(demo: Ran) -> None:
    assert demo.status == 0, demo.explain()
    assert demo.verdict["verdict"] == "pass", demo.explain()


def test_json_prints_the_verdict_and_nothing_else(demo: Ran) -> None:
    assert json.loads(demo.out) == demo.verdict


@pytest.mark.parametrize(("name", "mechanism"), CASES.items())
def test_eight_pages_move_from_node_1_to_node_2(demo: Ran, name: str, mechanism: str) -> None:
    case = demo.case(name)
    assert (case["pages"], case["migrated"]) == (8, 8)
    assert (case["from_node"], case["to_node"]) == (1, 2)
    assert case["mechanism"] == mechanism
    assert case["contents"] == "intact"


@pytest.mark.parametrize("name", CASES)
def test_the_workload_itself_saw_the_pages_move(demo: Ran, name: str) -> None:
    """Not from the probes: where memtoy found its pages before and after, by move_pages(2)."""
    seen: list[dict[str, Any]] = [a["result"] for a in demo.answers(name) if a["cmd"] == "where"]
    assert seen[0]["nodes"] == [1] * 8
    assert seen[-1]["nodes"] == [2] * 8


def test_no_event_was_lost(demo: Ran) -> None:
    probes = demo.verdict["probes"]
    assert probes["lost"] == 0
    assert probes["fired"] == probes["received"] > 0


def test_every_probe_that_the_patched_kernel_can_have_is_attached(demo: Ran) -> None:
    assert demo.verdict["probes"]["unavailable"] == {}


def test_the_kernels_own_counters_agree(demo: Ran) -> None:
    counters = demo.verdict["counters"]
    assert counters["pgmigrate_on_fault"] == 16
    assert counters["mpol_lazy_unmapped"] == 16
    assert counters.get("pgmigrate_on_fault_fail", 0) == 0


def test_the_run_folder_is_complete(demo: Ran) -> None:
    assert demo.folder is not None
    for name in ("manifest.json", "verdict.json", "events.parquet", "trace.txt", "report.html", "console.log"):
        assert (demo.folder / name).stat().st_size > 0, name
    manifest = json.loads((demo.folder / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert len(manifest["kernel"]["patches"]) >= 5
    assert "http" not in (demo.folder / "report.html").read_text().split("<body")[0]


def test_the_trace_tells_the_steps_in_their_order(demo: Ran) -> None:
    assert demo.folder is not None
    text = (demo.folder / "trace.txt").read_text()
    lazy = text[text.index("anon-8p-lazy") :]
    order = ["do_mbind", "unmap_range_lazy", "do_swap_page", "migrate_folio_on_fault", "mm_migrate_on_fault"]
    places = [lazy.index(function) for function in order]
    assert places == sorted(places)


def test_the_guest_starts_and_the_probes_attach_in_time(demo: Ran) -> None:
    """Bounds for a machine with other work to do; the aims, for one with none, are ten seconds each."""
    assert demo.folder is not None
    timings = json.loads((demo.folder / "manifest.json").read_text())["timings"]
    assert timings["start_to_first_command"] < 30
    assert timings["probes_attached"] < 30


def test_on_the_unpatched_kernel_lazy_fails_with_einval_and_nothing_else_changes(demo_on_base: Ran) -> None:
    assert demo_on_base.status == 1, demo_on_base.explain()
    assert demo_on_base.verdict["verdict"] == "fail"
    for name in ("anon-8p-direct", "anon-8p-manual"):
        case = demo_on_base.case(name)
        assert (case["migrated"], case["to_node"], case["contents"]) == (8, 2, "intact")
    for name in ("anon-8p-lazy", "anon-8p-lazy-where"):
        answers = demo_on_base.answers(name)
        failed = [a for a in answers if not a["ok"]]
        assert [(a["cmd"], a["errno"]) for a in failed] == [("mbind", 22)]
        assert "lazy" in failed[0]["text"]
        where = [a["result"]["nodes"] for a in answers if a["cmd"] == "where"]
        assert where[-1] == [1] * 8
        assert demo_on_base.case(name)["contents"] == "intact"


def test_on_the_unpatched_kernel_the_series_functions_are_reported_missing(demo_on_base: Ran) -> None:
    missing = demo_on_base.verdict["probes"]["unavailable"]
    assert "migrate_folio_on_fault" in missing
    assert "do_swap_page" not in missing
