"""What counters of before and after mean. The texts are made up after the files of /proc."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.leaks import SLAB_SLACK_KB, UNACCOUNTED_SLACK_KB, Counters, lost, misbehaved
from provision.host.errors import InfraError

TEXT = """\
nr_isolated_anon 0
nr_isolated_file 0
nr_writeback 0
MemTotal:        1000000 kB
MemFree:          700000 kB
Active:           100000 kB
Inactive:          50000 kB
Unevictable:       10000 kB
AnonPages:         60000 kB
Slab:              20000 kB
KernelStack:        1000 kB
PageTables:         2000 kB
SecPageTables:         0 kB
VmallocUsed:        3000 kB
Percpu:             4000 kB
Hugetlb:               0 kB
Node 0, zone      DMA
  pages free     2816
  pagesets
    cpu: 0
              count:    10
              high:     28
    cpu: 1
              count:    2490
Filename				Type		Size		Used		Priority
/dev/vdb                                partition	1048572		12		-2
/dev/zram0                              partition	1048572		8		5
nr_descendants 2
nr_dying_descendants 0
"""


def test_counters_are_read() -> None:
    found = Counters.parse(TEXT)
    # 2,500 pages are held back by CPUs: 10,000 KB of what is not free are free all the same.
    assert found == Counters(0, 0, 0, 60000, 20000, 700000, 100000, 20, 0)


def test_a_missing_counter_is_named() -> None:
    with pytest.raises(InfraError, match="nr_isolated_file"):
        Counters.parse(TEXT.replace("nr_isolated_file", "nr_isolated_files"))


BEFORE = Counters.parse(TEXT)


def test_nothing_is_lost_when_nothing_changes_but_what_is_free() -> None:
    assert lost(BEFORE, replace(BEFORE, free_kb=650000, unaccounted_kb=BEFORE.unaccounted_kb + 200)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"isolated_anon": 1}, "1 pages are still counted as isolated anon"),
        ({"isolated_anon": -1}, "isolated anon has sunk to -1"),
        ({"isolated_file": 512}, "512 pages are still counted as isolated file"),
        ({"writeback": 3}, "3 pages are still counted as writeback"),
        ({"swap_used_kb": 24}, "4 KB of swap are still in use"),
        ({"dying_groups": 1}, "still charged"),
        ({"unaccounted_kb": 100000 + UNACCOUNTED_SLACK_KB + 1}, "are unaccounted"),
        ({"slab_kb": 20000 + SLAB_SLACK_KB + 1}, "are slab"),
        ({"anon_kb": 70000}, "10000 KB more than before are anon"),
    ],
)
def test_what_is_lost_is_said(change: dict[str, int], words: str) -> None:
    (line,) = lost(BEFORE, replace(BEFORE, **change))
    assert words in line


LOAD: dict[str, Any] = {
    "seconds": 31.2,
    "enough": True,
    "all_ended": True,
    "migrations": 100_123,
    "crashed": 0,
    "signal": 0,
    "lost": 0,
    "broken": 0,
    "refused": 0,
    "errno": 0,
    "mismatches": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"mismatches": 1, "first": {"area": "huge", "page": 3}},
        {"crashed": 1, "signal": 11},
        {"broken": 1},
        {"lost": 1},
        {"refused": 1, "errno": 22},
        {"all_ended": False},
        {"enough": False},
    ],
)
def test_what_the_load_saw_counts(change: dict[str, Any]) -> None:
    assert misbehaved(LOAD) == []
    assert len(misbehaved({**LOAD, **change})) == 1
