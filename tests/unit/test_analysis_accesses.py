"""What the memory controller saw beside what the kernel says of pages."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.analysis import accesses
from controller.analysis.model import (
    AccessFinding,
    CaseInput,
    PageAccess,
    PageTable,
    RangeAccess,
)
from controller.report import figures, shares
from controller.workloads.memtoy import output
from provision.guest.memctl import Count, KernelCount, PageCount, Sample, Seen, Series

OWN, OTHER = 0x5000, 0x9000
START = 0x7F0000000000


def line(cmd: str, pid: int = 1, **more: object) -> str:
    told = {"line": 1, "cmd": cmd, "text": cmd, "ok": True, "errno": 0, "error": "", "pid": pid, "child": ""}
    return json.dumps({**told, "start_ns": 0, "end_ns": 9, "cpu_ns": 7, "result": more})


def touch(pid: int = 1) -> str:
    where = {"seg": "a", "start": hex(START), "pages": 2, "page_size": 4096}
    return line("touch", pid, **where, ns=5, write=False, pattern=None, mismatches=0, bad_pages=0, first=None)


MOVE = line(
    "mbind", seg="a", start=hex(START), length=8192, policy="bind", nodes=[2], flags=["move", "lazy"], ns=3
)  # fmt: skip
LAZY = (touch(), MOVE, touch(), touch())
"""Written, given to another node, moved by a touch, read back: three periods of counting."""


def case(seen: Seen | None, lines: tuple[str, ...] = LAZY) -> CaseInput:
    return CaseInput("c", "", tuple(output.read(list(lines))), accesses=seen)


def table(*after: int) -> PageTable:
    count = len(after)
    no, none = np.zeros(count, np.uint64), np.zeros(count, np.bool_)
    address = np.arange(count, dtype=np.uint64) * np.uint64(4096) + np.uint64(START)
    before = np.full(count, 1, np.int16)
    moves, by = np.ones(count, np.int32), np.zeros(count, np.uint8)
    return PageTable(address, before, np.array(after, np.int16), no, no, moves, by, none, none)


def seen(*pages: PageCount, periods: int = 3, overflow: int = 0) -> Seen:
    user = (Count(OWN, 1, 2, 10, 1), Count(OWN, 3, 2, 5, 0), Count(OWN, 1, 1, 0, 4), Count(OTHER, 0, 0, 99, 99))
    kernel = (KernelCount(0, 1, 2, 3), KernelCount(1, 1, 4, 5))
    of = {START - 4096: ((0, 0), (0, 3)), START: ((4, 0), (1, 12))}
    series = {
        OWN: Series((Sample(1, 4, 0), Sample(9, 5, 15)), 4096, of),
        OTHER: Series((Sample(1, 1, 1),), 4096, {0: ((1, 1),)}),
    }
    return Seen(4, periods, True, overflow, user, kernel, series, pages)


def page(index: int, node: int, period: int = 3, table: int = OWN, reads: int = 512) -> PageCount:
    return PageCount(table, START + 4096 * index, node, reads, 0, period)


def found(given: Seen, *after: int, lines: tuple[str, ...] = LAZY) -> AccessFinding:
    result = accesses.finding(case(given, lines), table(*after))
    assert result is not None
    return result


def test_nothing_was_counted() -> None:
    assert accesses.finding(case(None), table(2)) is None


def test_only_the_case_s_own_process_counts() -> None:
    other = page(0, 0, table=OTHER, reads=1)
    got = found(seen(page(0, 2), page(1, 2), other), 2, 2)
    assert got.by_node == {1: (0, 4), 2: (15, 1)}
    assert got.kernel == {1: (6, 8)}
    assert (got.local, got.remote) == (5, 15)
    assert (got.judged, got.agree) == (2, 2)
    assert accesses.issues(got) == []


def test_a_page_that_is_elsewhere_than_the_kernel_says_is_a_finding() -> None:
    got = found(seen(page(0, 2), page(1, 1)), 2, 2)
    assert (got.judged, got.agree) == (2, 1)
    assert got.pages[0] == PageAccess(START + 4096, 1, 2, {1: (512, 0)}), "those that differ come first"
    ((decisive, text),) = accesses.issues(got)
    assert decisive
    assert text.startswith("1 of 2 pages were accessed elsewhere")
    assert text.endswith(f"{START + 4096:#x} on node 1, not 2")


def test_a_page_on_two_nodes_after_it_has_settled_differs() -> None:
    got = found(seen(page(0, 2), page(0, 1)), 2)
    assert (got.judged, got.agree) == (1, 0)
    assert "on node 1, 2, not 2" in accesses.issues(got)[0][1]


def test_what_was_accessed_before_pages_moved_is_not_judged() -> None:
    got = found(seen(page(0, 1, period=1), page(1, 2, period=2)), 2, 2)
    assert [one.address for one in got.pages] == [START + 4096]
    assert got.judged == 1


def test_where_the_kernel_says_nothing_nothing_is_judged() -> None:
    assert found(seen(page(0, 2)), -1).judged == 0


@pytest.mark.parametrize(
    ("lines", "periods"),
    [(LAZY, 2), ((*LAZY[:3], touch(pid=2)), 3)],
    ids=["somebody else counted too", "two processes touch"],
)
def test_periods_that_are_not_the_process_s_touches_judge_nothing(lines: tuple[str, ...], periods: int) -> None:
    got = found(seen(page(0, 1), periods=periods), 2, lines=lines)
    assert (got.judged, got.pages) == (0, ())


def test_accesses_that_were_not_counted_leave_nothing_decided() -> None:
    got = found(seen(page(0, 2), overflow=3), 2)
    assert accesses.issues(got) == [(True, "3 accesses to memory were not counted, for lack of room")]


def test_in_words_and_as_a_picture() -> None:
    got = found(seen(page(0, 2)), 2)
    assert figures.accesses(got) == (
        "25.0 % local; 1 of 1 pages where the kernel says; reads/writes by node 1: 0/4, 2: 15/1"
    )
    drawn = shares.line(got.series)
    assert drawn.startswith("<svg")
    # All local, then one of sixteen.
    assert 'points="72.0,8.0 216.0,8.0 216.0,83.0 792.0,83.0"' in drawn
    assert shares.line(()) == ""


def test_ranges_of_addresses_and_the_segments_they_lie_in() -> None:
    where = line("map", seg="a", address=hex(START), length=8192, shared=False)
    got = found(seen(page(0, 2)), 2, lines=(where, *LAZY))
    assert [(one.segment, one.start, one.shares) for one in got.ranges] == [
        ("", START - 4096, ((0, 0), (0, 3))),
        ("a", START, ((4, 0), (1, 12))),
    ]
    drawn = shares.chart(got.ranges)
    # Below the segment nothing was accessed at first.
    assert drawn.count("<title>") == 4
    assert "100.0 % of 4 local" in drawn
    assert "7.7 % of 13 local" in drawn
    assert f"a {START:x}" in drawn
    assert shares.chart(()) == ""


def test_many_ranges_and_samples_are_drawn_as_fewer() -> None:
    ranges = [RangeAccess("a", START + 4096 * i, 4096, ((1, 1),) * 512) for i in range(128)]
    drawn = shares.chart(ranges)
    assert drawn.count('class="cmd"') == 32
    # 512 samples are six to a column, and the last is smaller.
    assert drawn.count("50.0 % of 48 local") == 32 * 85
    assert drawn.count("50.0 % of 16 local") == 32
