"""The short ways of lazy migration: marking in place, copying out of the swap cache, around a fault, by hinting."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.guest.conftest import Lab

PROGRAM = Path(__file__).parent / "programs" / "lazy_ways.py"
EINVAL, ENOENT, EIO = 22, 2, 5

Case = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def case(lab: Lab) -> Case:
    lab.shell.put(PROGRAM, "/run/lazy_ways.py")

    @cache
    def run(name: str) -> dict[str, Any]:
        done = lab.run(f"python3 /run/lazy_ways.py {name}", 180)
        assert done.status == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    return run


def test_what_the_kernel_knows_of_a_page_goes_with_it(case: Case) -> None:
    seen = case("state")
    assert (seen["answer"], seen["nodes"]) == (0, [2] * 8)
    assert seen["contents"] == list(range(1, 9))
    assert seen["active_before"] == [True] * 4 + [False] * 4
    assert seen["active"] == seen["active_before"]
    assert seen["idle"] == [True] * 2 + [False] * 6
    assert seen["soft_dirty"] == [False] * 7 + [True], "only the page that was written to after the reset"


def test_the_charge_stays_with_the_cgroup_even_near_its_limit(case: Case) -> None:
    seen = case("memcg")
    assert (seen["answer"], seen["intact"], seen["nodes"]) == (0, True, [2])
    assert seen["swap_marked"] == 256 * 4096
    assert 0 <= seen["swap"] <= 64 * 4096, "a CPU gives slots back, and their charge, 64 at a time (mm/swap_slots.c)"
    assert abs(seen["memory"]) <= 64 * 4096, "batches of charges are kept back for each CPU"
    assert seen["counters"]["pgmigrate_on_fault"] == 256
    assert seen["counters"]["pgmigrate_on_fault_fail"] == 0


@pytest.mark.parametrize("way", ["swap", "hinting"])
def test_pages_in_another_cpu_s_batch_move_all_the_same(case: Case, way: str) -> None:
    seen = case("batches")[way]
    assert all(seen["waiting"]), "somebody has emptied the batch before"
    assert (seen["answer"], seen["nodes"], seen["contents"]) == (0, [2] * 8, list(range(1, 9)))
    assert seen["written"] == 77
    assert seen["counters"]["mpol_lazy_unmapped"] == 8
    assert seen["counters"]["pgmigrate_on_fault"] == 8
    assert seen["counters"]["pgmigrate_on_fault_fail"] == 0


def test_a_fault_moves_its_page_alone_unless_told_otherwise(case: Case) -> None:
    seen = case("around")["off"]
    assert seen["value"] and seen["intact"]
    assert seen["inside"] == [-ENOENT] * 5 + [2] + [-ENOENT] * 10
    assert set(seen["outside"]) == {-ENOENT}
    assert seen["counters"]["pgmigrate_on_fault"] == 1


def test_a_fault_moves_what_lies_around_when_told_to(case: Case) -> None:
    seen = case("around")["on"]
    assert seen["value"] and seen["intact"]
    assert seen["inside"] == [2] * 16
    assert set(seen["outside"]) == {-ENOENT}
    assert seen["counters"]["pgmigrate_on_fault"] == 16
    assert seen["counters"]["pgmigrate_on_fault_fail"] == 0


def test_each_neighbour_goes_where_its_own_policy_wants_it(case: Case) -> None:
    seen = case("around")["interleaved"]
    assert seen["nodes"] == [seen["turn"][(seen["at"] + i) % 2] for i in range(16)]


def test_hinting_entries_need_no_swap_and_leave_pages_resident(case: Case) -> None:
    seen = case("hinting")
    assert abs(seen["resident"]) <= 32, "of 64 kB that would be gone by swap; Python's own memory comes and goes"
    assert seen["plain"]["answer"] == 0
    assert not any(seen["swapped"])
    assert not any(seen["plain"]["swapped"])
    assert seen["counters"]["mpol_lazy_unmapped"] == 16
    assert seen["counters"]["pgmigrate_on_fault"] == 16
    assert seen["counters"]["pswpout"] == 0


def test_hinted_pages_move_when_asked_for_written_and_read(case: Case) -> None:
    seen = case("hinting")
    assert seen["asked"] == 2
    assert seen["after_asking"] == [1] * 3 + [2] + [1] * 12
    assert seen["after_writing"] == [1] * 3 + [2, 1, 2] + [1] * 10
    assert seen["plain"]["nodes"] == [2] * 16
    assert seen["plain"]["contents"] == [1, 2, 3, 4, 5, 55, *range(7, 17)]
    assert seen["plain"]["written"] == 77


def test_hinted_pages_survive_a_fork(case: Case) -> None:
    seen = case("hinting")
    assert seen["child"] == 0
    assert seen["after_fork"]["contents"] == [1, 2, 3, 4]


def test_hinting_leaves_locked_pages_alone(case: Case) -> None:
    seen = case("hinting")
    assert seen["locked"]["answer"] == 0
    assert seen["locked"]["nodes"] == [1] * 4
    assert seen["strict"] == -EIO


def test_hinted_pages_stay_where_they_are_with_the_switch_off(case: Case) -> None:
    seen = case("hinting")["off"]
    assert (seen["answer"], seen["nodes"], seen["written"]) == (0, [1] * 4, 77)


def test_hinting_keeps_out_of_the_way_of_numa_balancing(case: Case) -> None:
    assert case("hinting")["balancing"] == [True] * 4, "by swap, as if hinting were off"


def test_the_switches_refuse_what_they_do_not_know(case: Case) -> None:
    seen = case("switches")
    defaults = {n: v for n, v in seen.items() if n.endswith("default")}
    assert defaults == {
        "migrate_on_fault default": 1,
        "migrate_on_fault_around default": 0,
        "migrate_on_fault_hinting default": 0,
    }
    accepted = {n for n, v in seen.items() if v == 0 and "=" in n}
    assert accepted == {
        *(f"migrate_on_fault={v}" for v in (0, 1, 2)),
        *(f"migrate_on_fault_around={v}" for v in (0, 16)),
        *(f"migrate_on_fault_hinting={v}" for v in (0, 1)),
    }
    assert {v for n, v in seen.items() if "=" in n and n not in accepted} == {EINVAL}
