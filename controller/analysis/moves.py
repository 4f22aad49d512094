"""Which events say that a page moved, and by which mechanism; and which say that one was refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.analysis import names
from controller.analysis.decode import Columns, Events, Mask
from controller.analysis.model import MECHANISMS, Mechanism
from probes.registry import BY_NAME

UNKNOWN_REASON = -1

MOVERS = (
    "move_to_new_folio.exit", "migrate_folio_replace.exit", "migrate_folio_move.exit", "__folio_migrate_mapping.exit",
)  # fmt: skip
"""Each fires once for a page that moves, with the old and the new folio. The first that recorded is used."""


def is_probe(events: Events, *which: str) -> Mask:
    """Where the records are of one of these probes."""
    mask: Mask = np.isin(events["probe"], [BY_NAME[name].id for name in which])
    return mask


def reasons(events: Events) -> npt.NDArray[np.int16]:
    """The migrate reason in force at each record, by its thread; -1 outside of a migration.

    A thread is migrating for a reason from its entry into migrate_pages() or migrate_folio_on_fault() until the
    return from there.
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


def moves(events: Events, columns: Columns) -> Moves:
    """Every successful move in the records, whoever made it."""
    mask = np.zeros(len(events), np.bool_)
    for name in MOVERS:
        mask = is_probe(events, name)
        if mask.any():
            break
    mask = mask & (events["result"] == 0)
    why = reasons(events)[mask]
    mechanism = np.zeros(len(why), np.uint8)
    for reason, how in names.BY_REASON.items():
        mechanism[why == reason] = MECHANISMS.index(how)
    rows = events[mask]
    sized = rows["probe"] == BY_NAME["move_to_new_folio.exit"].id
    order = np.where(sized, rows["aux"] & 0xFFFF, 0).astype(np.int64)
    # A folio in the swap cache of tmpfs, or of a file, has no one address: 0.
    return Moves(
        rows["time"], rows["pid"], rows["address"], columns.pfn[mask], columns.node[mask], columns.dst_pfn[mask],
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
    fault &= (result != names.MOF_MIGRATED) & (result != names.MOF_WELL_PLACED)
    add(fault, np.array([names.mof_result(int(r)) for r in result[fault]], np.str_))
    for probe, failed, word in (
        ("add_to_swap.exit", result == 0, "no_swap"),
        ("try_to_unmap.exit", result > 0, "still_mapped"),
        ("try_to_migrate.exit", result > 0, "still_mapped"),
        ("folio_isolate_lru.exit", result == 0, "off_lru"),
    ):
        mask = is_probe(events, probe) & failed
        add(mask, np.full(int(mask.sum()), word, np.str_))
    copy = is_probe(events, "move_to_new_folio.exit") & (result < 0) & (reasons(events) != names.MR_ON_FAULT)
    add(copy, np.array([names.error(int(r)) for r in result[copy]], np.str_))
    if not parts:
        empty = np.zeros(0, np.uint64)
        return Refusals(empty, empty.astype(np.uint32), empty, np.zeros(0, np.str_))
    rows = np.concatenate([events[mask] for mask, _ in parts])
    return Refusals(rows["time"], rows["pid"], rows["address"], np.concatenate([words for _, words in parts]))
