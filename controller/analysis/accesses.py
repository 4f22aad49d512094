"""What memory a case really read and wrote, as the memory controller saw it, beside what the kernel says of its pages. Pure.

The controller (provision/hardware/plugin/memctl.c) knows nothing of what the kernel decides, and the kernel nothing of it: where
both speak of a page they have to say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from controller.analysis.model import AccessFinding, CaseInput, PageAccess, PageTable, RangeAccess, Waiting
from controller.analysis.segments import moving
from controller.workloads.memtoy.output import MapResult, TouchResult

if TYPE_CHECKING:
    from provision.guest.memctl import Seen, Series

MAX_PAGES = 64
"""Pages for which the report has both sides; those that disagree come first."""


def _own(seen: Seen, table: PageTable) -> int | None:
    """The page table of the process whose pages the case is about; None when it accessed none of them."""
    ours = {int(address) for address in table.address}
    by: Counter[int] = Counter()
    for page in seen.pages:
        if page.address in ours:
            by[page.table] += page.reads + page.writes
    return by.most_common(1)[0][0] if by else None


def _settled(case: CaseInput) -> int | None:
    """From which period of counting on pages are where the kernel leaves them in the end: after the last command that may
    move some. None when periods are not this process's touches."""
    touches = 0
    after = 0
    pids = {done.pid for done in case.results if isinstance(done.result, TouchResult)}
    if len(pids) != 1:
        return None
    for done in case.results:
        if isinstance(done.result, TouchResult):
            touches += 1
        elif moving(done):
            after = touches
    return after + 1


def finding(case: CaseInput, table: PageTable) -> AccessFinding | None:
    """None when nothing was counted. `case` is that of one process, to which the table belongs."""
    seen = case.accesses
    if seen is None:
        return None
    own = _own(seen, table)
    mine = [one for one in seen.user if one.table == own]
    by_node: dict[int, tuple[int, int]] = {}
    for one in mine:
        reads, writes = by_node.get(one.node, (0, 0))
        by_node[one.node] = reads + one.reads, writes + one.writes
    kernel: dict[int, tuple[int, int]] = {}
    for entry in seen.kernel:
        reads, writes = kernel.get(entry.node, (0, 0))
        kernel[entry.node] = reads + entry.reads, writes + entry.writes
    touches = sum(isinstance(done.result, TouchResult) for done in case.results)
    settled = _settled(case) if seen.periods == touches else None
    pages = _pages(seen, own, table, settled) if settled is not None else []
    series = seen.series.get(own) if own is not None else None
    samples = series.samples if series is not None else ()
    return AccessFinding(
        by_node=dict(sorted(by_node.items())),
        kernel=dict(sorted(kernel.items())),
        local=samples[-1].local if samples else 0,
        remote=samples[-1].remote if samples else 0,
        judged=len(pages),
        agree=sum(page.agrees for page in pages),
        pages=tuple(sorted(pages, key=lambda page: (page.agrees, page.address))[:MAX_PAGES]),
        series=samples,
        ranges=_ranges(case, series) if series is not None else (),
        waiting=_waiting(seen),
        lost=seen.overflow,
        told_apart=seen.tables,
    )


def _ranges(case: CaseInput, series: Series) -> tuple[RangeAccess, ...]:
    """Ranges of addresses, with the segment in which the whole of one lies."""
    segments = [done.result for done in case.results if isinstance(done.result, MapResult)]
    size = series.range_bytes

    def segment(start: int) -> str:
        inside = (s.segment for s in segments if s.address <= start and start + size <= s.address + s.length)
        return next(inside, "")

    return tuple(RangeAccess(segment(start), start, size, shares) for start, shares in sorted(series.ranges.items()))


def _waiting(seen: Seen) -> Waiting | None:
    if seen.waited is None:
        return None
    spent = seen.waited.spent
    lines: Counter[int] = Counter()
    for one in seen.waited.fetched:
        lines[one.node] += one.lines
    return Waiting(
        sum(one.stall_ns for one in spent), sum(one.instructions for one in spent), dict(sorted(lines.items()))
    )


def _pages(seen: Seen, own: int | None, table: PageTable, settled: int) -> list[PageAccess]:
    """Both sides of each page that the kernel is known to have left somewhere, and that was accessed after that."""
    counted: dict[int, dict[int, tuple[int, int]]] = {}
    for page in seen.pages:
        if page.table == own and page.period >= settled:
            counted.setdefault(page.address, {})[page.node] = page.reads, page.writes
    found = []
    for address, before, after in zip(table.address, table.node_before, table.node_after, strict=True):
        nodes: Mapping[int, tuple[int, int]] | None = counted.get(int(address))
        if nodes and after >= 0:
            found.append(PageAccess(int(address), int(before), int(after), dict(sorted(nodes.items()))))
    return found


def issues(found: AccessFinding) -> list[tuple[bool, str]]:
    """What contradicts the evidence, in one line each, and whether nothing can be concluded while it stands."""
    told = []
    if wrong := found.judged - found.agree:
        worst = found.pages[0]
        where = ", ".join(map(str, worst.counted)) or "none"
        told.append(
            (
                True,
                f"{wrong} of {found.judged} pages were accessed elsewhere than where the kernel says they are: "
                f"{worst.address:#x} on node {where}, not {worst.after}",
            )
        )
    if found.lost:
        told.append((True, f"{found.lost} accesses to memory were not counted, for lack of room"))
    return told
