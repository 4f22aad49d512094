"""A page that is not to be moved, or cannot be, stays as it was found: where it is, what is in it, who else has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from controller.workloads import program
from provision.host.cache import Cache
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.files import ext4_image, put_compressed
from tests.guest.kernel_log import complaints

PAGES = 8
HUGE = 512
FROM, TO, OTHER = 1, 2, 3
"""Nodes: where the pages are, where their process wants them, and where another one does (common.h of the program)."""
EIO = 5
NOWHERE = -1
"""What the tracepoint says of the target when none was decided on."""
NOT_MAPPED = -2
PATIENCE = 1200.0
EXT4_MB = 8
EVERY = 4
WRITES = 80_000_000
MIGRATIONS = 1_000
MISPLACED, MOVED, LEFT = "pgmigrate_on_fault_misplaced", "pgmigrate_on_fault", "pgmigrate_on_fault_fail"
UNMAPPED, STILL_MAPPED, AT_ONCE = "mpol_lazy_unmapped", "mpol_lazy_fail", "pgmigrate_success"

LRU, ACTIVE, WRITEBACK, SWAPCACHE, UNEVICTABLE, KSM, THP = 5, 6, 8, 13, 18, 21, 22
UPTODATE, MMAP, ANON, SWAPBACKED = 3, 11, 12, 14
"""Bits of /proc/kpageflags (linux/kernel-page-flags.h)."""
LASTING = sum(1 << bit for bit in (UPTODATE, LRU, ACTIVE, MMAP, ANON, SWAPBACKED, KSM, THP))
"""A refusal changes none of these. That the page is in the swap cache, or dirty, is no harm."""


@dataclass(frozen=True)
class Step:
    """What one step of a case answered, and what it changed; see main.c of the program."""

    found: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.found[key]

    @property
    def counted(self) -> dict[str, int]:
        """What was added to the counters of migration on fault, without those to which nothing was."""
        counters = (MISPLACED, MOVED, LEFT, UNMAPPED, STILL_MAPPED)
        return {name: self.found[name] for name in counters if self.found[name]}

    def moved_at_once(self, pages: int) -> bool:
        """Not less than so many pages were moved in another way. More can be: memory is compacted in the background."""
        return self.counted == {} and int(self.found[AT_ONCE]) >= pages

    @property
    def results(self) -> list[tuple[int, str, int]]:
        """The tracepoint's lines: number of the unit, result, target node."""
        return [(t["unit"], t["result"], t["to"]) for t in self.found["traced"]]

    def traced(self, key: str) -> set[Any]:
        return {t[key] for t in self.found["traced"]}

    def flag(self, bit: int) -> list[bool]:
        """For each unit, whether its page frame has this flag."""
        return [bool(flags >> bit & 1) for flags in self.found["flags"]]

    def lasting(self) -> tuple[Any, ...]:
        """All that a refusal must not change."""
        masked = [flags & LASTING for flags in self.found["flags"]]
        return self.found["nodes"], self.found["frames"], self.found["maps"], masked


def all_units(result: str, to: int, units: int = PAGES) -> list[tuple[int, str, int]]:
    """Each unit once, in the order in which they were touched."""
    return [(unit, result, to) for unit in range(units)]


Seen = dict[str, Step]
Observer = Callable[[str], Seen]


@pytest.fixture(scope="module")
def observe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observer]:
    """Runs a case in the guest that all share, once; the guest must not have complained when the last is done."""
    work = tmp_path_factory.mktemp("refusals")
    with opened(work) as lab:
        lab.shell.put(program.ensure(Cache(), "refusals", Silent()), "/run/refusals")
        # What cases freeze.
        put_compressed(lab, ext4_image(work / "refusals.ext4", EXT4_MB), "/run/refusals.ext4")
        machine = settings(lab)

        @cache
        def run(case: str) -> Seen:
            done = lab.run(f"/run/refusals {case}", PATIENCE)
            assert done.out, f"{done.err}\n{lab.run('dmesg | tail -40').out}"
            found = json.loads(done.out)
            assert found.pop("case") == case
            assert "wrong" not in found, found["wrong"]
            assert settings(lab) == machine, "the case has not put back what it changed"
            return {name: Step(step) for name, step in found.items()}

        yield run
        assert not complaints(lab)


def settings(lab: Lab) -> str:
    """All that a case may change of the machine, as text."""
    return (
        lab.run(
            "cd /sys/kernel/mm; grep -H . /proc/sys/vm/migrate_on_fault /proc/sys/vm/page-cluster"
            " /proc/sys/kernel/numa_balancing ksm/run ksm/pages_to_scan ksm/sleep_millisecs"
            " /sys/kernel/debug/fail_page_alloc/[impt]*"
            " /sys/devices/system/node/node*/hugepages/*/nr_hugepages /sys/block/zram0/disksize"
            " /sys/block/zram0/queue/rotational; cut -d ' ' -f 1 /proc/swaps; ls /sys/kernel/tracing/instances;"
            " cat /sys/fs/cgroup/cgroup.subtree_control; ls -d /sys/fs/cgroup/*/; grep -c loop /proc/mounts"
        )
        .out.replace("\t", " ")
        .strip()
    )


# ---- what holds in each case ----


def contents_are_right(seen: Seen, *steps: str) -> None:
    for step in steps:
        assert seen[step]["mismatches"] == 0, step


def stays(seen: Seen, before: str = "before", after: str = "after") -> None:
    """Node, page frame, map count and lasting flags are what they were; contents too, and what is written later."""
    assert seen[after].lasting() == seen[before].lasting()
    contents_are_right(seen, "check", "rewrite")
    assert seen["check"].counted == seen["rewrite"].counted == {}


def nothing_is_left(seen: Seen) -> None:
    """No page is counted as isolated, no swap slot is used, and the devices could be taken out of use."""
    no_slot_is_lost(seen)
    assert seen["swap_left"]["used_kb"] == 0


def no_slot_is_lost(seen: Seen) -> None:
    """For cases with more swap space, where CPUs keep slots for later and other processes are in swap, too."""
    assert seen["left"].found == {"isolated": 0, "swapped_off": True}


def moves_again(seen: Seen, to: int, units: int = PAGES, pages: int = PAGES) -> None:
    """Once nothing stands in the way, all pages move: so no reference, no lock and no isolation was left behind."""
    assert seen["again_lazy"]["errno"] == 0
    assert seen["again_lazy"].counted == {UNMAPPED: pages}
    assert seen["again_touch"].counted == {MISPLACED: pages, MOVED: pages}
    assert seen["again_touch"].results == all_units("migrated", to, units)
    on_the_right_node(seen, to, units)


def on_the_right_node(seen: Seen, to: int, units: int = PAGES) -> None:
    assert seen["again_look"]["nodes"] == [to] * units
    assert seen["again_look"]["maps"] == [1] * units
    assert all(seen["again_look"].flag(LRU))
    assert not any(seen["again_look"].flag(SWAPCACHE))
    assert seen["again_check"]["mismatches"] == 0


def unmapped_lazily(seen: Seen, pages: int = PAGES) -> None:
    assert seen["lazy"]["errno"] == 0
    assert seen["lazy"].counted == {UNMAPPED: pages}


# ---- refused by the fault ----

REFUSED_BY_FAULT = {
    "spliced": ("extra_refs", TO),
    "mlocked-on-fault": ("mlocked", NOWHERE),
    "mlocked-later": ("mlocked", NOWHERE),
    "cpuset": ("well_placed", NOWHERE),
    "default-policy": ("default_policy", 0),
    "foreign-read": ("foreign", NOWHERE),
    "foreign-mem": ("foreign", NOWHERE),
    "foreign-ptrace": ("foreign", NOWHERE),
    "watermark": ("no_memory", TO),
}
"""What the tracepoint says of each page. Those whose node was decided on, and allowed by the switch, count as misplaced."""


@pytest.mark.parametrize(("case", "result", "to"), [(c, r, n) for c, (r, n) in REFUSED_BY_FAULT.items()])
def test_a_page_that_the_fault_must_not_move_is_mapped_where_it_is(
    observe: Observer, case: str, result: str, to: int
) -> None:
    seen = observe(case)
    unmapped_lazily(seen)
    assert seen["touch"].results == all_units(result, to)
    tried = result in ("extra_refs", "no_memory")
    assert seen["touch"].counted == ({MISPLACED: PAGES, LEFT: PAGES} if tried else {})
    assert seen["before"]["nodes"] == [FROM] * PAGES
    stays(seen)
    moves_again(seen, TO)
    if case == "watermark":
        no_slot_is_lost(seen)
    else:
        nothing_is_left(seen)


def test_a_page_under_writeback_stays(observe: Observer) -> None:
    """Its file system is frozen while it is written to swap: writeback lasts until that is over."""
    seen = observe("writeback")
    assert seen["out"]["nodes"] == [NOT_MAPPED] * PAGES
    assert seen["touch"].results == all_units("writeback", NOWHERE)
    assert seen["touch"].counted == {}
    assert all(seen["after"].flag(WRITEBACK))
    stays(seen)
    assert not any(seen["written"].flag(WRITEBACK))
    stays(seen, after="written")
    assert seen["check_written"]["mismatches"] == 0
    moves_again(seen, TO)
    nothing_is_left(seen)


def test_a_pipe_that_has_the_page_sees_what_is_written_to_it_later(observe: Observer) -> None:
    """Of a page that had been moved, the pipe would have the old one."""
    assert observe("spliced")["pipe"]["mismatches"] == 0


@pytest.mark.parametrize(("case", "result"), [("batch-new", "off_lru"), ("batch-activated", "extra_refs")])
def test_a_page_in_the_batch_of_another_cpu_stays(observe: Observer, case: str, result: str) -> None:
    """On its way to the LRU, which it is not on yet; or on it and to become active, by one reference more."""
    seen = observe(case)
    assert seen["sibling"].results == all_units("well_placed", NOWHERE)
    assert seen["touch"].results == all_units(result, TO), f"after {seen['batch']['tries']} tries"
    assert seen["touch"].counted == {MISPLACED: PAGES, LEFT: PAGES}
    assert seen["touch"].traced("source") == set(seen["after"]["frames"])
    assert seen["after"]["nodes"] == [FROM] * PAGES
    assert seen["after"]["maps"] == [1] * PAGES
    assert seen["after"].flag(LRU) == [result == "extra_refs"] * PAGES
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    # Written to, it was shared with a reference that may have been anybody's, so that the writer got a copy.
    assert seen["again_lazy"]["errno"] == 0
    on_the_right_node(seen, TO)
    nothing_is_left(seen)


def test_a_page_that_another_process_maps_stays(observe: Observer) -> None:
    seen = observe("mapped")
    assert seen["lazy"]["errno"] == 0
    assert seen["lazy"].counted == {UNMAPPED: PAGES}
    assert seen["sibling"]["answer"] == 0
    assert seen["sibling_touch"].results == all_units("well_placed", NOWHERE)
    assert seen["touch"].results == all_units("mapped", NOWHERE)
    assert seen["touch"].counted == {}
    assert seen["before"]["maps"] == [2] * PAGES
    stays(seen)
    nothing_is_left(seen)


def test_what_is_written_to_a_page_of_two_processes_is_seen_by_the_writer_alone(observe: Observer) -> None:
    seen = observe("mapped")
    assert seen["copied"]["nodes"] == [TO] * PAGES
    assert not set(seen["copied"]["frames"]) & set(seen["after"]["frames"])
    assert seen["sibling_after"]["answer"] == 0
    assert seen["sibling_node"]["answer"] == FROM
    assert seen["sibling_write"]["answer"] == 0
    assert seen["check_after"]["mismatches"] == 0
    moves_again(seen, FROM)


def test_move_leaves_shared_pages_alone_and_calls_that_no_failure(observe: Observer) -> None:
    """Neither does MOVE without LAZY, even when it is strict (migrate_folio_add(), mm/mempolicy.c)."""
    seen = observe("mapped")
    assert [seen[step]["errno"] for step in ("shared", "shared_strict", "moved_strict")] == [0, 0, 0]
    assert seen["shared"].counted == seen["shared_strict"].counted == {}
    assert seen["still"].lasting() == seen["before"].lasting()


@pytest.mark.parametrize("case", ["foreign-read", "foreign-mem", "foreign-ptrace"])
def test_it_is_the_other_process_that_had_the_fault(observe: Observer, case: str) -> None:
    """Its policy would have the page on a node of its own, where nobody asked for it to be."""
    seen = observe(case)
    assert seen["looked"]["answer"] == 0
    assert seen["touch"].traced("pid") == {seen["debugger"]["pid"]}


def test_exactly_those_pages_stay_whose_allocation_fails(observe: Observer) -> None:
    seen = observe("failing")
    units = 16 * EVERY
    unmapped_lazily(seen, units)
    refused = [unit for unit, result, _ in seen["touch"].results if result == "no_memory"]
    moved = [unit for unit, result, _ in seen["touch"].results if result == "migrated"]
    assert sorted(refused + moved) == list(range(units))
    assert refused == list(range(refused[0], units, EVERY))
    assert len(refused) == units // EVERY
    assert seen["touch"].counted == {MISPLACED: units, MOVED: len(moved), LEFT: len(refused)}
    for unit in range(units):
        same = seen["before"]["frames"][unit] == seen["after"]["frames"][unit]
        node = FROM if unit in refused else TO
        assert (seen["after"]["nodes"][unit], same) == (node, unit in refused)
    assert seen["after"]["maps"] == [1] * units
    assert all(seen["after"].flag(LRU))
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    moves_again(seen, OTHER, units, units)
    nothing_is_left(seen)


def test_a_node_is_filled_as_far_as_its_watermark_and_no_further(observe: Observer) -> None:
    seen = observe("watermark")
    assert seen["filled"]["huge_pages"] > 0
    counted = seen["rest_touch"].counted
    assert counted[MISPLACED] == counted[MOVED] + counted[LEFT] == seen["rest_lazy"].counted[UNMAPPED]
    assert counted[LEFT] > counted[MOVED] > 0
    assert seen["rest_check"]["mismatches"] == 0


# ---- refused by mbind() ----


@pytest.mark.parametrize("case", ["pinned", "mlocked", "no-swap", "swap-full", "swap-limit"])
def test_a_page_that_cannot_be_unmapped_lazily_stays_mapped(observe: Observer, case: str) -> None:
    """mbind() answers 0 to those who ask, and EIO to those who insist."""
    seen = observe(case)
    assert seen["lazy"]["errno"] == 0
    assert seen["strict"]["errno"] == EIO
    for step in ("lazy", "strict"):
        assert seen[step].counted == {STILL_MAPPED: PAGES}
        assert seen[step].results == []
    assert seen["touch"].results == []
    assert seen["touch"].counted == {}
    assert seen["before"]["nodes"] == [FROM] * PAGES
    stays(seen)
    stays(seen, after="after_strict")
    moves_again(seen, TO)
    nothing_is_left(seen)


def test_io_uring_still_writes_to_the_page_that_is_mapped(observe: Observer) -> None:
    assert observe("pinned")["check_read"]["mismatches"] == 0


def test_swap_was_full(observe: Observer) -> None:
    seen = observe("swap-full")
    assert seen["swap"]["free_kb"] == 0
    assert seen["check_hog"]["mismatches"] == 0


@pytest.mark.parametrize("case", ["mlocked-on-fault", "mlocked-later"])
def test_a_page_locked_after_it_was_unmapped_is_locked_where_it_is(observe: Observer, case: str) -> None:
    seen = observe(case)
    assert seen["strict"]["errno"] == EIO
    assert seen["strict"].counted == {STILL_MAPPED: PAGES}
    assert all(seen["after_strict"].flag(UNEVICTABLE))
    assert seen["after_strict"]["frames"] == seen["before"]["frames"]


# ---- neither refused nor moved by the fault ----


def test_merged_pages_are_not_unmapped_but_moved_at_once_or_left(observe: Observer) -> None:
    """Left as long as others have them, too, except by MOVE_ALL."""
    seen = observe("ksm-shared")
    assert all(seen["before"].flag(KSM))
    assert seen["before"]["maps"] == [2] * PAGES
    assert seen["shared"].counted == {}
    assert seen["still"].lasting() == seen["before"].lasting()
    assert seen["lazy"]["errno"] == 0
    assert seen["lazy"].moved_at_once(PAGES)
    assert seen["after"]["nodes"] == seen["twin"]["nodes"] == [TO] * PAGES
    assert seen["after"]["frames"] == seen["twin"]["frames"]
    assert seen["after"]["maps"] == [2] * PAGES
    assert all(seen["after"].flag(KSM))
    contents_are_right(seen, "check", "check_twin", "rewrite", "check_twin_after")
    moves_again(seen, OTHER)
    nothing_is_left(seen)


def test_a_merged_page_with_one_mapping_left_is_moved_at_once_but_never_by_a_fault(observe: Observer) -> None:
    """It gets into the swap cache by reclaim."""
    seen = observe("ksm-alone")
    assert all(seen["before"].flag(KSM))
    assert seen["before"]["maps"] == [1] * PAGES
    assert seen["lazy"].moved_at_once(PAGES)
    assert seen["moved"]["nodes"] == [TO] * PAGES
    assert all(seen["moved"].flag(KSM))
    assert seen["out"]["nodes"] == [NOT_MAPPED] * PAGES
    assert seen["touch"].results == all_units("ksm", NOWHERE)
    assert seen["touch"].counted == {}
    assert seen["after"]["frames"] == seen["moved"]["frames"]
    assert seen["after"]["nodes"] == [TO] * PAGES
    contents_are_right(seen, "check", "rewrite", "check_twin")
    on_the_right_node(seen, OTHER)
    nothing_is_left(seen)


def test_the_copy_of_a_merged_page_is_not_handed_to_the_check(observe: Observer) -> None:
    """Two areas had it. The first that reads it from swap keeps it; the other's fault copies, to where that one wants it."""
    seen = observe("ksm-copy")
    assert seen["before"]["maps"] == [2] * PAGES
    assert seen["touch"].results == all_units("well_placed", NOWHERE)
    assert seen["after"]["nodes"] == [TO] * PAGES
    assert seen["touch_twin"]["ksm_swpin_copy"] == PAGES
    assert seen["touch_twin"].results == []
    assert seen["touch_twin"].counted == {}
    assert seen["twin"]["nodes"] == [OTHER] * PAGES
    assert not set(seen["twin"]["frames"]) & set(seen["after"]["frames"])
    contents_are_right(seen, "check", "check_twin", "rewrite", "check_twin_after")
    moves_again(seen, FROM)
    no_slot_is_lost(seen)


def test_what_may_be_thrown_away_is_moved_at_once_and_not_thrown_away(observe: Observer) -> None:
    """Clean pages after MADV_FREE: unmapping would discard them. Once they are written to, they still go that way."""
    seen = observe("freed")
    assert seen["lazy"]["errno"] == 0
    assert seen["lazy"].moved_at_once(PAGES)
    assert seen["after"]["nodes"] == [TO] * PAGES
    assert seen["after"]["maps"] == [1] * PAGES
    assert not any(seen["after"].flag(SWAPBACKED))
    assert seen["touch"].results == []
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    assert seen["again_lazy"].moved_at_once(PAGES)
    on_the_right_node(seen, OTHER)
    nothing_is_left(seen)


def test_what_is_unmapped_while_swap_goes_is_mapped_where_it_is(observe: Observer) -> None:
    seen = observe("swapoff")
    unmapped_lazily(seen)
    assert seen["out"]["nodes"] == [NOT_MAPPED] * PAGES
    for step in ("swapoff", "touch"):
        assert seen[step].counted == {}
        assert seen[step].results == []
    stays(seen)
    moves_again(seen, TO)
    nothing_is_left(seen)


# ---- policies ----


def test_switched_off_the_page_comes_back_where_it_was(observe: Observer) -> None:
    seen = observe("switched-off")
    unmapped_lazily(seen)
    assert seen["touch"].counted == {}
    assert seen["touch"].results == []
    stays(seen)
    stays(seen, after="after_on")
    moves_again(seen, TO)
    nothing_is_left(seen)


def test_local_allocation_by_default_moves_pages_only_when_the_switch_says_so(observe: Observer) -> None:
    seen = observe("default-policy")
    assert seen["touch"].traced("origin") == {"default"}
    assert seen["lazy_all"].counted == {UNMAPPED: PAGES}
    assert seen["touch_all"].results == all_units("migrated", 0)
    assert seen["touch_all"].counted == {MISPLACED: PAGES, MOVED: PAGES}
    assert seen["after_all"]["nodes"] == [0] * PAGES
    assert seen["check_all"]["mismatches"] == seen["rewrite_all"]["mismatches"] == 0


def test_a_page_goes_no_further_than_the_cpuset_allows(observe: Observer) -> None:
    """The nearest node that is allowed, of a policy whose own is not."""
    seen = observe("cpuset-nearest")
    unmapped_lazily(seen)
    assert seen["before"]["nodes"] == [0] * PAGES
    assert seen["touch"].results == all_units("migrated", FROM)
    assert seen["after"]["nodes"] == [FROM] * PAGES
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    moves_again(seen, TO)
    nothing_is_left(seen)


# ---- huge pages ----


def test_a_huge_page_goes_through_swap_whole(observe: Observer) -> None:
    seen = observe("huge-whole")
    unmapped_lazily(seen, 2 * HUGE)
    assert seen["out"]["nodes"] == [NOT_MAPPED] * 2
    assert seen["touch"].results == all_units("migrated", TO, 2)
    assert seen["touch"].traced("order") == {9}
    assert seen["touch"].counted == {MISPLACED: 2 * HUGE, MOVED: 2 * HUGE}
    assert seen["after"]["nodes"] == [TO] * 2
    assert all(seen["after"].flag(THP))
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    moves_again(seen, OTHER, 2, 2 * HUGE)
    no_slot_is_lost(seen)


def test_a_huge_page_that_the_swap_device_cannot_take_is_moved_at_once(observe: Observer) -> None:
    seen = observe("huge-rotational")
    assert seen["lazy"]["errno"] == 0
    assert seen["lazy"].moved_at_once(2 * HUGE)
    assert seen["after"]["nodes"] == [TO] * 2
    assert seen["after"]["maps"] == [1] * 2
    assert all(seen["after"].flag(THP))
    assert seen["touch"].results == []
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    assert seen["rewritten"].lasting() == seen["after"].lasting()
    no_slot_is_lost(seen)


def test_a_huge_page_stays_whole_where_it_is_when_there_is_no_place_for_it(observe: Observer) -> None:
    seen = observe("huge-no-memory")
    unmapped_lazily(seen, 2 * HUGE)
    assert seen["touch"].results == all_units("no_memory", TO, 2)
    assert seen["touch"].traced("order") == {9}
    assert seen["touch"].counted == {MISPLACED: 2 * HUGE, LEFT: 2 * HUGE}
    stays(seen)
    assert all(seen["after"].flag(THP))
    moves_again(seen, TO, 2, 2 * HUGE)
    no_slot_is_lost(seen)


# ---- several processes and threads ----


def test_after_a_fork_the_first_that_touches_a_page_says_where_it_goes(observe: Observer) -> None:
    seen = observe("forked")
    unmapped_lazily(seen)
    assert seen["child"]["answer"] == 0
    assert seen["child_touch"].results == all_units("migrated", OTHER)
    assert seen["child_touch"].counted == {MISPLACED: PAGES, MOVED: PAGES}
    assert seen["child_node"]["answer"] == OTHER
    assert seen["touch"].results == all_units("mapped", NOWHERE)
    assert seen["touch"].counted == {}
    assert seen["after"]["nodes"] == [OTHER] * PAGES
    assert seen["after"]["maps"] == [2] * PAGES
    assert seen["check"]["mismatches"] == 0


def test_after_a_fork_what_one_writes_the_other_does_not_see(observe: Observer) -> None:
    seen = observe("forked")
    assert seen["rewrite"]["mismatches"] == 0
    assert seen["copied"]["nodes"] == [TO] * PAGES
    assert seen["copied"]["maps"] == [1] * PAGES
    assert seen["child_after"]["answer"] == seen["child_write"]["answer"] == 0
    assert seen["child_node_after"]["answer"] == OTHER
    assert seen["check_after"]["mismatches"] == 0
    moves_again(seen, FROM)
    nothing_is_left(seen)


def test_writes_are_still_watched_after_the_page_was_moved(observe: Observer) -> None:
    """userfaultfd's write protection, set before the page was unmapped."""
    seen = observe("write-protected")
    unmapped_lazily(seen)
    assert seen["touch"].results == all_units("migrated", TO)
    for step in ("protected_before", "protected_out", "protected_after"):
        assert seen[step]["pages"] == [1] * PAGES, step
    assert (seen["watched"]["writes"], seen["watched"]["others"]) == (PAGES, 0)
    assert seen["protected_written"]["pages"] == [0] * PAGES
    assert seen["check"]["mismatches"] == seen["rewrite"]["mismatches"] == 0
    moves_again(seen, OTHER)
    nothing_is_left(seen)


def test_no_write_is_lost_while_pages_move(observe: Observer) -> None:
    """Four threads, each counting in words of its own on every page; a fifth unmaps them for two nodes in turn."""
    seen = observe("race")
    race = seen["race"]
    assert race["writes"] >= WRITES
    assert race["refused"] == 0
    assert race[MOVED] > MIGRATIONS
    assert race[MISPLACED] == race[MOVED] + race[LEFT]
    assert (race["missing"], race["wrong_words"]) == (0, 0)
    moves_again(seen, OTHER, 32, 32)
    nothing_is_left(seen)
