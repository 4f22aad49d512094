"""Which events say that a page moved, and by which mechanism; and which say that one was refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.analysis import names
from controller.analysis.decode import Columns, Events, Mask
from controller.analysis.model import MECHANISMS, Mechanism
from controller.analysis.segments import PAGE
from probes.registry import BY_NAME

UNKNOWN_REASON = -1
REASON_MASK = 0xFF

MOVER = "move_to_new_folio.exit"
"""Fires once for each page that moves, by whatever mechanism: of the set `steps`. Where it recorded, it alone is used."""
FAULT_MOVER, BATCH_MOVER = "migrate:mm_migrate_on_fault", "migrate_folio_move.exit"
"""Else these two, of which no page that moves fires both: one tells of moves in faults, the other of all others."""


def is_probe(events: Events, *which: str) -> Mask:
    """Where the records are of one of these probes."""
    mask: Mask = np.isin(events["probe"], [BY_NAME[name].id for name in which])
    return mask


def reasons(events: Events) -> npt.NDArray[np.int16]:
    """The migrate reason in force at each record, by its thread; -1 outside of a migration.

    A thread is migrating for a reason from its entry into migrate_pages() or migrate_folio_on_fault() until the
    return from there. What the kernel tells with the record itself needs no entry to be seen.
    """
    count = len(events)
    result = np.full(count, UNKNOWN_REASON, np.int16)
    if not count:
        return result
    entered = is_probe(events, "migrate_pages")
    faulting = is_probe(events, "migrate_folio_on_fault")
    left = is_probe(events, "migrate_pages.exit", "migrate_folio_on_fault.exit")
    state = np.full(count, UNKNOWN_REASON, np.int16)
    state[entered] = (events["aux"][entered] & 0xFFFF).astype(np.int16)
    state[faulting] = names.MR_ON_FAULT
    marker = entered | faulting | left
    # Thread by thread, each in the order of time: then carry the place of the last marker forward.
    order = np.argsort(events["tid"], kind="stable")
    tid = events["tid"][order]
    begins = np.concatenate(([True], tid[1:] != tid[:-1]))
    place = np.arange(count)
    first_of_thread = np.maximum.accumulate(np.where(begins, place, 0))
    last = np.maximum.accumulate(np.where(marker[order] | begins, place, 0))
    known = marker[order][last] & (last >= first_of_thread)
    result[order] = np.where(known, state[order][last], UNKNOWN_REASON)
    told = is_probe(events, BATCH_MOVER)
    result[told] = (events["aux"][told] & REASON_MASK).astype(np.int16)
    result[is_probe(events, FAULT_MOVER)] = names.MR_ON_FAULT
    return result


@dataclass(frozen=True)
class Moves:
    """One element a folio that moved, by time. `pages`: its size; `mechanism`: index into MECHANISMS."""

    time: npt.NDArray[np.uint64]
    pid: npt.NDArray[np.uint32]
    address: npt.NDArray[np.uint64]
    pfn: npt.NDArray[np.uint64]
    node: npt.NDArray[np.int16]
    dst_pfn: npt.NDArray[np.uint64]
    dst_node: npt.NDArray[np.int16]
    pages: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int16]
    mechanism: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.time)

    def select(self, mask: Mask) -> Moves:
        return Moves(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def count(self, *mechanisms: Mechanism) -> int:
        """Base pages that moved by one of these."""
        wanted = np.isin(self.mechanism, [MECHANISMS.index(m) for m in mechanisms])
        return int(self.pages[wanted].sum())


def _orders(rows: Events) -> npt.NDArray[np.int64]:
    """Of each mover's record, the order of the folio that moved."""
    probe, aux = rows["probe"], rows["aux"].astype(np.int64)
    shifts = ((MOVER, 0, 0xFFFF), (FAULT_MOVER, 24, 0xFF), (BATCH_MOVER, 8, 0xFF))
    result = np.zeros(len(rows), np.int64)
    for name, shift, mask in shifts:
        mine = probe == BY_NAME[name].id
        result[mine] = aux[mine] >> shift & mask
    return result


def moves(events: Events, columns: Columns) -> Moves:
    """Every successful move in the records, whoever made it."""
    why = reasons(events)
    # A fault may map a copy that replaces nothing in any cache: there the tracepoint alone tells of each page.
    in_faults = is_probe(events, FAULT_MOVER)
    if in_faults.any():
        in_faults &= np.isin(events["result"], names.MOF_MOVED)
        mask = is_probe(events, MOVER) & (why != names.MR_ON_FAULT) & (events["result"] == 0)
    else:
        mask = is_probe(events, MOVER) & (events["result"] == 0)
    if not is_probe(events, MOVER).any():
        mask = is_probe(events, BATCH_MOVER) & (events["result"] == 0)
    mask |= in_faults
    why = why[mask]
    mechanism = np.zeros(len(why), np.uint8)
    for reason, how in names.BY_REASON.items():
        mechanism[why == reason] = MECHANISMS.index(how)
    rows = events[mask]
    order = _orders(rows)
    # Of a large folio, the tracepoint names the page that was touched; the others tell where the folio begins.
    touched = rows["probe"] == BY_NAME[FAULT_MOVER].id
    size = np.uint64(PAGE) << order.astype(np.uint64)
    address = np.where(touched, rows["address"] & ~(size - np.uint64(1)), rows["address"])
    # A folio in the swap cache of tmpfs, or of a file, has no one address: 0.
    return Moves(
        rows["time"], rows["pid"], address, columns.pfn[mask], columns.node[mask], columns.dst_pfn[mask],
        columns.dst_node[mask], np.int64(1) << order, why, mechanism,
    )  # fmt: skip


@dataclass(frozen=True)
class Refusals:
    """One element a refusal: when, of which address, and `reason`, in the words of the tracepoint where it told."""

    time: npt.NDArray[np.uint64]
    pid: npt.NDArray[np.uint32]
    address: npt.NDArray[np.uint64]
    reason: npt.NDArray[np.str_]


def refusals(events: Events) -> Refusals:
    """Where the kernel could have moved a page and did not, except that it is well placed.

    In a fault: by the tracepoint's result. In mbind with MPOL_MF_LAZY: `no_swap` or `still_mapped`. In a direct or
    manual migration: `still_mapped`, or the error of the copy (`EAGAIN`: somebody holds a reference); such an attempt
    is repeated, so only pages that did not move after all should be counted.
    """
    result = events["result"]
    parts: list[tuple[Mask, npt.NDArray[np.str_]]] = []

    def add(mask: Mask, words: npt.NDArray[np.str_]) -> None:
        if mask.any():
            parts.append((mask, words))

    fault = is_probe(events, "migrate:mm_migrate_on_fault")
    fault &= ~np.isin(result, names.MOF_MOVED) & (result != names.MOF_WELL_PLACED)
    add(fault, np.array([names.mof_result(int(r)) for r in result[fault]], np.str_))
    for probe, failed, word in (
        ("add_to_swap.exit", result == 0, "no_swap"),
        ("try_to_unmap.exit", result > 0, "still_mapped"),
        ("try_to_migrate.exit", result > 0, "still_mapped"),
        ("folio_isolate_lru.exit", result == 0, "off_lru"),
    ):
        mask = is_probe(events, probe) & failed
        add(mask, np.full(int(mask.sum()), word, np.str_))
    copy = is_probe(events, MOVER) & (result < 0) & (reasons(events) != names.MR_ON_FAULT)
    if not is_probe(events, MOVER).any():
        copy = is_probe(events, BATCH_MOVER) & (result < 0)
    add(copy, np.array([names.error(int(r)) for r in result[copy]], np.str_))
    if not parts:
        empty = np.zeros(0, np.uint64)
        return Refusals(empty, empty.astype(np.uint32), empty, np.zeros(0, np.str_))
    rows = np.concatenate([events[mask] for mask, _ in parts])
    return Refusals(rows["time"], rows["pid"], rows["address"], np.concatenate([words for _, words in parts]))
