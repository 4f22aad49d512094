"""The records of one command, cut into what a reader takes in at a time: a call, a page copied, a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from controller.analysis import names
from controller.report.rows import Rows


class Phase(StrEnum):
    """What the kernel is doing."""

    CALL = "call"
    GATHER = "gather"
    BATCH = "batch"
    UNMAP = "unmap"
    COPY = "copy"
    LAZY_WALK = "lazy walk"
    LAZY_BEGIN = "lazy begin"
    LAZY = "lazy"
    DONE = "done"
    QUERY = "query"
    FAULT = "fault"
    OTHER = "other"


PER_PAGE = frozenset({Phase.GATHER, Phase.UNMAP, Phase.COPY, Phase.LAZY, Phase.FAULT})


@dataclass(frozen=True)
class Unit:
    """Records that belong together: indices into the rows, and how deep each is. Of one `shape`: one story."""

    phase: Phase
    indices: tuple[int, ...]
    depths: tuple[int, ...]
    shape: str = ""

    def address(self, rows: Rows) -> int:
        return next((rows.address[i] for i in self.indices if rows.address[i]), 0)

    def took(self, rows: Rows) -> int | None:
        """ns from its first record to its last; None if it has no record of its beginning."""
        if rows.name(self.indices[0]) in _ENDS:
            return None
        return rows.time[self.indices[-1]] - rows.time[self.indices[0]]


_CALLS = {"__x64_sys_mbind", "do_mbind", "__x64_sys_migrate_pages"}
_RETURNS = {
    "__x64_sys_mbind.exit", "do_mbind.exit", "__x64_sys_migrate_pages.exit", "migrate_pages.exit",
    "unmap_folios_lazy.exit", "unmap_range_lazy.exit",
}  # fmt: skip
_COPIES = {
    "migrate_folio_move", "migrate_folio_move.exit", "__folio_migrate_mapping.exit", "move_to_new_folio.exit",
    "migrate_folio_replace.exit", "remove_migration_pte.exit",
}  # fmt: skip
_LAZILY = {"add_to_swap.exit", "try_to_unmap.exit"}
_OPENS = {
    "__x64_sys_mbind", "__x64_sys_move_pages", "__x64_sys_migrate_pages", "__x64_sys_get_mempolicy", "do_mbind",
    "migrate_pages", "migrate_folio_move", "do_swap_page", "migrate_folio_on_fault", "unmap_folios_lazy",
    "unmap_range_lazy",
}  # fmt: skip
_WHOLE = {
    "__x64_sys_move_pages": Phase.QUERY, "__x64_sys_get_mempolicy": Phase.FAULT, "do_swap_page": Phase.FAULT,
}  # fmt: skip
"""Functions whose records, from entry to return, are one unit."""
_FAULT = "do_swap_page"
_ENDS = {"migrate:mm_migrate_on_fault", f"{_FAULT}.exit"}
"""What is recorded of a fault where its entry is not: the two are one unit, as the second is if it comes alone."""


def _phase(name: str, previous: Phase | None) -> Phase:
    if name in _CALLS:
        return Phase.CALL
    if name in _RETURNS:
        return Phase.DONE
    if name == "folio_isolate_lru.exit":
        return Phase.GATHER
    if name == "migrate_pages":
        return Phase.BATCH
    if name == "try_to_migrate.exit":
        return Phase.UNMAP
    if name in _COPIES:
        return Phase.COPY
    if name == "unmap_folios_lazy":
        return Phase.LAZY_BEGIN
    if name == "unmap_range_lazy":
        return Phase.LAZY_WALK
    if name in _LAZILY:
        return Phase.LAZY
    return previous or Phase.OTHER


@dataclass
class _Thread:
    """Where a thread is: functions entered and not left, and the unit that is being collected."""

    stack: list[str]
    whole: str = ""
    indices: list[int] | None = None
    depths: list[int] | None = None


def _shape(rows: Rows, indices: Sequence[int]) -> str:
    """What became of a fault, in words that its heading uses as well."""
    by_name = {rows.name(i): i for i in indices}
    results = [rows.result[i] for i in indices if rows.name(i) == "migrate:mm_migrate_on_fault"]
    checked = by_name.get("check_migrate_misplaced_folio.exit")
    if results:
        return names.mof_result(names.MOF_MIGRATED if names.MOF_MIGRATED in results else results[-1])
    if checked is not None:
        return "migrated" if rows.result[checked] == 2 else "stays"
    cached = by_name.get("swap_cache_get_folio.exit")
    if cached is not None:
        return "cached" if rows.result[cached] else "read"
    if _FAULT in by_name or f"{_FAULT}.exit" in by_name:
        return "other"
    return "no fault"


def units(rows: Rows, indices: Sequence[int]) -> list[Unit]:
    """Cut records, given by rising index, into units in the order of their beginnings."""
    threads: dict[int, _Thread] = {}
    found: list[Unit] = []
    previous: dict[int, Phase] = {}
    # The page that is being copied or unmapped lazily, by thread: its records are one unit.
    pages: dict[int, tuple[Phase, int, list[int], list[int]]] = {}

    def flush_page(tid: int) -> None:
        page = pages.pop(tid, None)
        if page:
            found.append(Unit(page[0], tuple(page[2]), tuple(page[3])))

    def flush_whole(thread: _Thread) -> None:
        if thread.indices:
            shape = _shape(rows, thread.indices) if _WHOLE[thread.whole] is Phase.FAULT else ""
            found.append(Unit(_WHOLE[thread.whole], tuple(thread.indices), tuple(thread.depths or ()), shape))
        thread.whole, thread.indices, thread.depths = "", None, None

    for i in indices:
        name, tid = rows.name(i), rows.tid[i]
        thread = threads.setdefault(tid, _Thread([]))
        function = name.removesuffix(".exit")
        returns = name.endswith(".exit") and function in thread.stack
        if returns:
            while thread.stack.pop() != function:
                pass
        depth = len(thread.stack)
        if name in _OPENS:
            thread.stack.append(name)
        if thread.indices and rows.name(thread.indices[0]) in _ENDS and name != f"{_FAULT}.exit":
            # The end of that fault is not there: it was lost, say.
            flush_whole(thread)
        if thread.indices is None and (name in _WHOLE or name in _ENDS):
            flush_page(tid)
            thread.whole, thread.indices, thread.depths = name if name in _WHOLE else _FAULT, [], []
        if thread.indices is not None and thread.depths is not None:
            thread.indices.append(i)
            thread.depths.append(depth)
            if function == thread.whole and name.endswith(".exit"):
                flush_whole(thread)
            continue
        phase = _phase(name, previous.get(tid))
        previous[tid] = phase
        if phase in (Phase.COPY, Phase.LAZY):
            page = pages.get(tid)
            if page is None or page[0] is not phase or page[1] != rows.pfn[i]:
                flush_page(tid)
                page = pages[tid] = (phase, rows.pfn[i], [], [])
            page[2].append(i)
            page[3].append(depth)
            continue
        flush_page(tid)
        found.append(Unit(phase, (i,), (depth,)))
    for tid, thread in threads.items():
        flush_page(tid)
        flush_whole(thread)
    found.sort(key=lambda unit: unit.indices[0])
    return found
