"""From 64-byte records to numpy, and from there to a table with typed, named columns.

What a field means differs by probe; `probes.registry` says it in words, and what is derived here follows those words,
so that a probe added there needs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from controller.analysis import pageflags
from controller.analysis.model import Machine
from probes.records import NUMPY_FIELDS, RECORD_SIZE, Kind
from probes.registry import PROBES, Probe

if TYPE_CHECKING:
    import pyarrow as pa

Events = npt.NDArray[np.void]
"""One-dimensional, of DTYPE."""
Mask = npt.NDArray[np.bool_]

DTYPE = np.dtype(list(NUMPY_FIELDS))

PTE_PRESENT = 1
PTE_FRAME = 0x000F_FFFF_FFFF_F000
"""Bits 12 to 51 of an x86-64 page table entry (PTE_PFN_MASK without encryption)."""
NO_NODE = -1


def state_of_source(probe: Probe) -> bool:
    """Whether flags and refs are those of the record's `folio`."""
    return probe.flags == "flags of folio"


def state_of_destination(probe: Probe) -> bool:
    """Whether flags and refs are those of the folio that `arg` names."""
    return probe.flags.startswith("flags of the ")


def arg_is_folio(probe: Probe) -> bool:
    return "folio" in probe.arg


def arg_is_pte(probe: Probe) -> bool:
    """Whether `arg` is a page table entry that is in place now (not one that was found and replaced)."""
    return probe.arg.startswith("page table entry now")


def load(path: Path) -> Events:
    """The records of a file, sorted by time; empty when there is no such file.

    A last record that a crash cut short is left out. Records of one CPU are in order already, those of several are
    not, as each reserves its place in the ring a moment before it takes the time.
    """
    if not path.is_file():
        return np.zeros(0, DTYPE)
    whole = path.stat().st_size // RECORD_SIZE
    return sort(np.fromfile(path, dtype=DTYPE, count=whole))


def sort(events: Events) -> Events:
    """By time, keeping the order of equal times."""
    time = events["time"]
    if len(time) < 2 or bool((time[1:] >= time[:-1]).all()):
        return events
    ordered: Events = events[np.argsort(time, kind="stable")]
    return ordered


def _lookup(choose: Any) -> Mask:
    """A table of 256 flags by probe id."""
    table = np.zeros(256, np.bool_)
    for probe in PROBES:
        table[probe.id] = choose(probe)
    return table


def frames(folios: npt.NDArray[np.uint64], machine: Machine) -> npt.NDArray[np.uint64]:
    """Page frame numbers of folios by kernel address; 0 where there is none."""
    base = np.uint64(machine.vmemmap)
    inside = folios >= base
    shifted = np.where(inside, folios - base, np.uint64(0))
    result: npt.NDArray[np.uint64] = shifted // np.uint64(machine.struct_page)
    return result


def nodes_of(pfns: npt.NDArray[np.uint64], machine: Machine) -> npt.NDArray[np.int16]:
    """Nodes by page frame, -1 where the frame is 0 or in no zone."""
    if not machine.node_spans:
        return np.full(len(pfns), NO_NODE, np.int16)
    start, end, node = (np.array(column) for column in zip(*machine.node_spans, strict=True))
    place = np.searchsorted(start.astype(np.uint64), pfns, side="right") - 1
    known = (place >= 0) & (pfns > 0) & (pfns < end.astype(np.uint64)[np.maximum(place, 0)])
    return np.where(known, node[np.maximum(place, 0)], NO_NODE).astype(np.int16)


@dataclass(frozen=True)
class Columns:
    """What follows from each record: frames (0: none) and nodes (-1: none) of its folio and of the other one.

    `has_flags` tells where the record's flags are page flags.
    """

    pfn: npt.NDArray[np.uint64]
    node: npt.NDArray[np.int16]
    dst_pfn: npt.NDArray[np.uint64]
    dst_node: npt.NDArray[np.int16]
    has_flags: Mask


def columns(events: Events, machine: Machine) -> Columns:
    """Derive frames and nodes for all records at once."""
    probe = events["probe"]
    is_source, is_destination = _lookup(state_of_source)[probe], _lookup(state_of_destination)[probe]
    pfn = frames(events["folio"], machine)
    arg = events["arg"]
    dst_pfn = np.where(_lookup(arg_is_folio)[probe], frames(arg, machine), np.uint64(0))
    present = _lookup(arg_is_pte)[probe] & ((arg & np.uint64(PTE_PRESENT)) != 0)
    dst_pfn = np.where(present, (arg & np.uint64(PTE_FRAME)) >> np.uint64(12), dst_pfn)
    dst_pfn = np.where(dst_pfn == pfn, np.uint64(0), dst_pfn)
    told = (events["flags"] >> np.uint64(64 - machine.nodes_shift)).astype(np.int16)
    node = nodes_of(pfn, machine)
    node = np.where(is_source & (pfn > 0), told, node).astype(np.int16)
    dst_node = nodes_of(dst_pfn, machine)
    dst_node = np.where(is_destination & (dst_pfn > 0), told, dst_node).astype(np.int16)
    has_flags = (is_source | is_destination) & (events["refs"] >= 0)
    return Columns(pfn, node, dst_pfn, dst_node, has_flags)


def _names(events: Events, has_flags: Mask) -> pa.Array:
    """Decoded flags as a dictionary of strings: few combinations occur."""
    import pyarrow as pa

    low = events["flags"] & np.uint64(pageflags.MASK)
    values, index = np.unique(low, return_inverse=True)
    words = pa.array([pageflags.text(int(value)) for value in values], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32), mask=~has_flags), words)


def table(events: Events, machine: Machine) -> pa.Table:
    """One row an event. Times are ns of the guest's monotonic clock; null where a probe has no such thing."""
    import pyarrow as pa

    derived = columns(events, machine)
    names = [""] * 256
    for probe in PROBES:
        names[probe.id] = probe.name
    used = np.unique(events["probe"])
    place = np.zeros(256, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    words = [names[int(i)] or f"probe {int(i)}" for i in used]
    probe = pa.DictionaryArray.from_arrays(pa.array(place[events["probe"]]), pa.array(words, pa.string()))
    kinds = pa.array([kind.name.lower() for kind in Kind], pa.string())
    kind = pa.DictionaryArray.from_arrays(pa.array(np.minimum(events["kind"], 2).astype(np.int32)), kinds)

    def column(name: str, missing: Mask | None = None) -> pa.Array:
        return pa.array(np.ascontiguousarray(events[name]), mask=missing)

    return pa.table(
        {
            "time_ns": column("time"),
            "cpu": column("cpu"),
            "pid": column("pid"),
            "tid": column("tid"),
            "probe": probe,
            "kind": kind,
            "address": column("address", events["address"] == 0),
            "pfn": pa.array(derived.pfn, mask=derived.pfn == 0),
            "node": pa.array(derived.node, mask=derived.node < 0),
            "dst_pfn": pa.array(derived.dst_pfn, mask=derived.dst_pfn == 0),
            "dst_node": pa.array(derived.dst_node, mask=derived.dst_node < 0),
            "flags": _names(events, derived.has_flags),
            "refs": column("refs", events["refs"] < 0),
            "result": column("result", events["kind"] == int(Kind.ENTER)),
            "aux": column("aux"),
            "raw_flags": column("flags"),
            "raw_folio": column("folio", events["folio"] == 0),
            "raw_arg": column("arg"),
        }
    )


def write_parquet(events: Events, machine: Machine, path: Path) -> None:
    """events.parquet of the run folder, whole or not at all."""
    import pyarrow.parquet as pq

    draft = path.with_name(f".{path.name}.draft")
    try:
        pq.write_table(table(events, machine), draft, compression="zstd")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_parquet(path: Path) -> Events:
    """The records that write_parquet() wrote, as they were recorded."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    events = np.zeros(rows.num_rows, DTYPE)
    same = {"time": "time_ns", "flags": "raw_flags", "folio": "raw_folio", "arg": "raw_arg"}
    for name in ("time", "address", "folio", "arg", "flags", "pid", "tid", "cpu", "aux"):
        column = rows[same.get(name, name)].fill_null(0)
        events[name] = column.to_numpy()
    events["refs"] = rows["refs"].fill_null(-1).to_numpy()
    events["result"] = rows["result"].fill_null(0).to_numpy()
    ids = {probe.name: probe.id for probe in PROBES}
    for name, target, values in (("probe", "probe", ids), ("kind", "kind", {k.name.lower(): int(k) for k in Kind})):
        chunked = rows[name].combine_chunks()
        words = chunked.dictionary.to_pylist()
        by_index = np.array([values.get(w, 0) for w in words] or [0], np.uint8)
        if rows.num_rows:
            events[target] = by_index[chunked.indices.to_numpy(zero_copy_only=False)]
    return events
