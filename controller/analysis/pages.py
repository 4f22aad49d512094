"""The page table of a case: where each page was, where it is now, and what moved it.

Two witnesses: memtoy, which locates its pages, and the events. Each page's first and last known place count,
whoever told it; conservation.py compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from controller.analysis import moves as moving
from controller.analysis.decode import Columns, Events, Mask
from controller.analysis.model import MECHANISMS, CaseInput, Contents, Mechanism, PageState, PageTable, Step
from controller.analysis.moves import Moves, Refusals
from controller.analysis.segments import PAGE, Segment, faulting, lazy, segments, used
from controller.analysis.segments import moving as may_move
from controller.workloads.memtoy.output import CommandResult, MigrateResult, TouchResult, WhereResult

MAX_DRAWN = 32
"""Pages for which the single steps are kept."""


def inferred(results: tuple[CommandResult, ...]) -> Mechanism:
    """By which mechanism pages moved, if they did, when no event tells: the last command that asks for moves."""
    for done in reversed(results):
        if may_move(done):
            if isinstance(done.result, MigrateResult):
                return Mechanism.MANUAL
            return Mechanism.LAZY if lazy(done) else Mechanism.DIRECT
    return Mechanism.NONE


def _one(segment: Segment, case: CaseInput, moves: Moves) -> tuple[PageTable, Mask]:
    """The table of all pages of one segment, and which of them count."""
    count = segment.pages
    base = np.arange(count, dtype=np.uint64) * np.uint64(segment.page_size) + np.uint64(segment.start)
    before, after = np.full(count, -1, np.int16), np.full(count, -1, np.int16)
    first = np.full(count, np.iinfo(np.int64).max)
    last, told = np.full(count, -1), np.full(count, -1)
    pfn_before, pfn_after = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    number, moved_by = np.zeros(count, np.int32), np.zeros(count, np.uint8)

    for done in case.results:
        where = done.result
        if not isinstance(where, WhereResult) or not segment.since <= done.end_ns < segment.until:
            continue
        if not segment.start <= where.start < segment.start + segment.length:
            continue
        span = segment.span(where.start, len(where.nodes))
        index = np.arange(span.start, span.stop)
        nodes = np.array(where.nodes, np.int16)[: len(index)]
        index, nodes = index[nodes >= 0], nodes[nodes >= 0]
        # Locating by get_mempolicy() faults in: a page that it moves was elsewhere at its beginning.
        new = first[index] > done.end_ns
        before[index[new]], first[index[new]] = nodes[new], done.end_ns
        after[index], last[index], told[index] = nodes, done.end_ns, done.end_ns

    place = segment.places(moves.address, moves.time)
    for scale in _spread(moves, place, segment):
        at, row = scale
        time = moves.time[row].astype(np.int64)
        np.add.at(number, at, 1)
        # In the order of time: assigning backwards leaves the first, forwards the last.
        early = np.zeros(count, np.int64) - 1
        early[at[::-1]] = row[::-1]
        late = np.zeros(count, np.int64) - 1
        late[at] = row
        moved = np.flatnonzero(early >= 0)
        started, ended = early[moved], late[moved]
        sooner = moves.time[started].astype(np.int64) < first[moved]
        before[moved[sooner]] = moves.node[started[sooner]]
        later = moves.time[ended].astype(np.int64) > last[moved]
        after[moved[later]] = moves.dst_node[ended[later]]
        pfn_before[moved], pfn_after[moved] = moves.pfn[started], moves.dst_pfn[ended]
        moved_by[moved] = moves.mechanism[ended]
        last[at] = np.maximum(last[at], time)

    # Told after the last move, or as part of the command within which the page moved.
    located = (told >= 0) & (told >= last)
    verified = _verified(segment, case)
    table = PageTable(base, before, after, pfn_before, pfn_after, number, moved_by, located, verified)
    return table, used(segment, case.results)


def _spread(
    moves: Moves, place: npt.NDArray[np.int64], segment: Segment
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs of (page index in the segment, index into moves), with large folios spread over all their pages."""
    row = np.flatnonzero(place >= 0)
    if not len(row):
        return []
    at = place[row]
    small = np.maximum(1, moves.pages[row] * PAGE // segment.page_size)
    if int(small.max()) > 1:
        offset = np.arange(int(small.sum())) - np.repeat(np.cumsum(small) - small, small)
        at, row = np.repeat(at, small) + offset, np.repeat(row, small)
        at, row = at[at < segment.pages], row[at < segment.pages]
    return [(at, row)]


def _verified(segment: Segment, case: CaseInput) -> Mask:
    mask = np.zeros(segment.pages, np.bool_)
    for done in case.results:
        if may_move(done):
            mask[:] = False
        touch = done.result
        if not isinstance(touch, TouchResult) or touch.pattern is None or touch.write or touch.mismatches:
            continue
        in_time = done.ok and segment.since <= done.end_ns < segment.until
        if in_time and segment.start <= touch.address < segment.start + segment.length:
            mask[segment.span(touch.address, touch.pages)] = True
    return mask


def page_table(case: CaseInput, moves: Moves, *, events: bool) -> PageTable:
    """All pages that the case touched or located. `moves`: those of its processes; `events`: whether any were recorded.

    Without events, pages that changed their node are taken to have moved by what the script asked for.
    """
    parts = [_one(segment, case, moves) for segment in segments(case.results)]
    names = tuple(PageTable.__dataclass_fields__)
    if not parts:
        empty = np.zeros(0)
        kinds = (np.uint64, np.int16, np.int16, np.uint64, np.uint64, np.int32, np.uint8, np.bool_, np.bool_)
        return PageTable(*(empty.astype(kind) for kind in kinds))  # type: ignore[arg-type]
    table = PageTable(*(np.concatenate([getattr(t, name)[mask] for t, mask in parts]) for name in names))
    if not events:
        table.moved_by[changed(table)] = MECHANISMS.index(inferred(case.results))
    return table


def changed(table: PageTable) -> Mask:
    """Pages that are known to be on another node than at first."""
    mask: Mask = (table.node_before >= 0) & (table.node_after >= 0) & (table.node_before != table.node_after)
    return mask


def mechanism(table: PageTable) -> Mechanism:
    """The one that moved most pages; the last move of a page counts."""
    by = table.moved_by[(table.moves > 0) | changed(table)]
    if not len(by):
        return Mechanism.NONE
    return MECHANISMS[int(np.bincount(by, minlength=len(MECHANISMS)).argmax())]


def common_node(nodes: npt.NDArray[np.int16]) -> int | None:
    """The node on which most of the pages are; None when none is known."""
    known = nodes[nodes >= 0]
    return int(np.bincount(known).argmax()) if len(known) else None


def contents(case: CaseInput, table: PageTable) -> Contents:
    """Corrupt when any reading back found something else; intact when every page was read back after the last move."""
    for done in case.results:
        if isinstance(done.result, TouchResult) and done.result.mismatches:
            return Contents.CORRUPT
    whole = len(table) > 0 and bool(table.verified.all())
    return Contents.INTACT if whole else Contents.UNCHECKED


def refused(table: PageTable, refusals: Refusals) -> Mapping[str, int]:
    """Pages of the case by reason. A failed attempt that was repeated with success is none, but one in a fault is."""
    counts: dict[str, int] = {}
    stayed = table.address[table.moves == 0]
    for reason in np.unique(refusals.reason):
        addresses = np.unique(refusals.address[refusals.reason == reason])
        addresses = addresses & ~np.uint64(PAGE - 1)
        count = int(np.isin(addresses, stayed).sum())
        if count:
            counts[str(reason)] = count
    return counts


def drawn(table: PageTable) -> list[int]:
    """Indices of the pages whose steps are kept: all, or evenly chosen ones."""
    if len(table) <= MAX_DRAWN:
        return list(range(len(table)))
    return [int(i) for i in np.linspace(0, len(table) - 1, MAX_DRAWN)]


def steps(
    case: CaseInput, table: PageTable, moves: Moves, events: Events | None, columns: Columns | None
) -> dict[int, tuple[Step, ...]]:
    """What happened to single pages, in the order of time, for the picture."""
    raw: dict[int, list[tuple[int, int | None, PageState, str]]] = {i: [] for i in drawn(table)}
    at = {int(table.address[i]): i for i in raw}
    for done in case.results:
        result = done.result
        if isinstance(result, TouchResult) and faulting(done):
            for address, i in at.items():
                if result.address <= address < result.address + result.pages * result.page_size and not raw[i]:
                    raw[i].append((done.end_ns, int(table.node_before[i]), PageState.MAPPED, "first touched"))
        elif isinstance(result, WhereResult):
            for address, i in at.items():
                place = (address - result.start) // result.page_size
                if 0 <= place < len(result.nodes):
                    node = result.nodes[place]
                    state = PageState.MAPPED if node >= 0 else PageState.CACHED
                    raw[i].append((done.end_ns, node if node >= 0 else None, state, "located"))
    wanted = np.array(sorted(at), np.uint64)
    for k in np.flatnonzero(np.isin(moves.address, wanted)):
        i = at[int(moves.address[k])]
        how = MECHANISMS[int(moves.mechanism[k])].value
        raw[i].append((int(moves.time[k]), int(moves.dst_node[k]), PageState.MAPPED, f"moved, {how}"))
    if events is not None and columns is not None and len(events):
        pids = np.unique(np.array([done.pid for done in case.results] or [0], np.uint32))
        ours = np.isin(events["address"], wanted) & np.isin(events["pid"], pids)
        unmapped = ours & moving.is_probe(events, "try_to_unmap.exit") & (events["result"] == 0)
        for k in np.flatnonzero(unmapped):
            i = at[int(events["address"][k])]
            raw[i].append((int(events["time"][k]), int(columns.node[k]), PageState.CACHED, "unmapped"))
        mapped = ours & moving.is_probe(events, "do_swap_page.exit") & (columns.dst_pfn > 0)
        for k in np.flatnonzero(mapped):
            i = at[int(events["address"][k])]
            raw[i].append((int(events["time"][k]), int(columns.dst_node[k]), PageState.MAPPED, "mapped"))
    return {i: _merged(sorted(list_, key=lambda s: s[0])) for i, list_ in raw.items()}


def _merged(raw: list[tuple[int, int | None, PageState, str]]) -> tuple[Step, ...]:
    """Drop what changes nothing; a page that is unmapped is where it was."""
    found: list[Step] = []
    for time, where, state, how in raw:
        node = where if where is not None and where >= 0 else (found[-1].node if found else -1)
        if node < 0 or (found and (found[-1].node, found[-1].state) == (node, state)):
            continue
        found.append(Step(time, node, state, how))
    return tuple(found)
