"""The event record: 64 bytes, little endian, without padding; written in the guest, read on the host.

Only the standard library is needed, since the guest has no numpy. The host makes a dtype of `NUMPY_FIELDS`:
`numpy.dtype({"names": ..., "formats": ...})` or `numpy.dtype(list(NUMPY_FIELDS))`.

What `address`, `folio`, `arg`, `flags`, `result`, `refs` and `aux` mean differs by probe: see `probes.registry`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

RECORD_FORMAT = "<QQQQQIIBBHiiI"
RECORD = struct.Struct(RECORD_FORMAT)
RECORD_SIZE = 64
PROBE_OFFSET = 48
"""Where in a record the probe's number is: the agent counts by it without decoding the rest."""

NUMPY_FIELDS: tuple[tuple[str, str], ...] = (
    ("time", "<u8"),
    ("address", "<u8"),
    ("folio", "<u8"),
    ("arg", "<u8"),
    ("flags", "<u8"),
    ("pid", "<u4"),
    ("tid", "<u4"),
    ("probe", "u1"),
    ("kind", "u1"),
    ("cpu", "<u2"),
    ("result", "<i4"),
    ("refs", "<i4"),
    ("aux", "<u4"),
)

_KIND_INDEX = [name for name, _ in NUMPY_FIELDS].index("kind")

NODES_SHIFT = 6
"""CONFIG_NODES_SHIFT of our kernels: the top bits of folio->flags hold the node."""
VMEMMAP = 0xFFFFEA0000000000
"""Where the array of struct page starts: x86-64, 4-level page tables, SPARSEMEM_VMEMMAP, no KASLR."""
PAGE_STRUCT_SIZE = 64
PAGE_SHIFT = 12
REFS_UNREAD = -1


class Kind(IntEnum):
    """At which moment of a function a record was made."""

    ENTER = 0
    EXIT = 1
    POINT = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One event. `time` is CLOCK_MONOTONIC in ns, addresses are bytes, `refs` is -1 where none was read."""

    time: int
    address: int
    folio: int
    arg: int
    flags: int
    pid: int
    tid: int
    probe: int
    kind: Kind
    cpu: int
    result: int
    refs: int
    aux: int

    def pack(self) -> bytes:
        """The record's 64 bytes."""
        return RECORD.pack(
            self.time, self.address, self.folio, self.arg, self.flags, self.pid, self.tid,
            self.probe, self.kind, self.cpu, self.result, self.refs, self.aux,
        )  # fmt: skip


def decode(data: bytes) -> Iterator[Record]:
    """The records of `data`, in the order in which they were reserved.

    A trailing part of a record, as a crash can leave it, is left out. Raises ValueError for an unknown kind.
    """
    whole = len(data) - len(data) % RECORD_SIZE
    for fields in RECORD.iter_unpack(memoryview(data)[:whole]):
        values = list(fields)
        values[_KIND_INDEX] = Kind(values[_KIND_INDEX])
        yield Record(*values)


def frame_of(folio: int) -> int:
    """The page frame number of the folio at kernel address `folio`; ValueError if it lies below vmemmap."""
    if folio < VMEMMAP:
        raise ValueError(f"{folio:#x} is no address of a struct page")
    return (folio - VMEMMAP) // PAGE_STRUCT_SIZE


def folio_of(frame: int) -> int:
    """The kernel address of the struct page of page frame `frame`."""
    return VMEMMAP + frame * PAGE_STRUCT_SIZE


def node_of(flags: int) -> int:
    """The node that folio->flags name (page_to_nid() with the node in the page's flags)."""
    return flags >> (64 - NODES_SHIFT)
