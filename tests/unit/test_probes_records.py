"""The record format: golden bytes, so that neither side can change it alone."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from probes import records
from probes.records import Kind, Record

GOLDEN = bytes.fromhex(
    "0807060504030201"  # time
    "00c00e1d657f0000"  # address
    "c0f9f50000eaffff"  # folio
    "00fe9f0100eaffff"  # arg
    "0808020000fcff05"  # flags
    "68000000"  # pid
    "69000000"  # tid
    "15"  # probe
    "01"  # kind
    "0100"  # cpu
    "f5ffffff"  # result
    "02000000"  # refs
    "0a000200"  # aux
)
RECORD = Record(
    time=0x0102030405060708,
    address=0x7F651D0EC000,
    folio=0xFFFFEA0000F5F9C0,
    arg=0xFFFFEA00019FFE00,
    flags=0x05FFFC0000020808,
    pid=104,
    tid=105,
    probe=21,
    kind=Kind.EXIT,
    cpu=1,
    result=-11,
    refs=2,
    aux=0x2000A,
)


def test_size_is_fixed() -> None:
    assert records.RECORD.size == records.RECORD_SIZE == 64
    assert struct.calcsize(records.RECORD_FORMAT) == 64
    assert len(GOLDEN) == 64


def test_golden_bytes() -> None:
    assert list(records.decode(GOLDEN)) == [RECORD]
    assert RECORD.pack() == GOLDEN
    assert GOLDEN[records.PROBE_OFFSET] == RECORD.probe


def test_numpy_reads_the_same() -> None:
    dtype = np.dtype(list(records.NUMPY_FIELDS))
    assert dtype.itemsize == 64
    row = np.frombuffer(GOLDEN, dtype)[0]
    assert {name: int(row[name]) for name in dtype.names or ()} == {
        name: int(getattr(RECORD, name)) for name, _ in records.NUMPY_FIELDS
    }


def test_a_cut_record_is_left_out() -> None:
    assert list(records.decode(GOLDEN + GOLDEN[:63])) == [RECORD]
    assert list(records.decode(b"")) == []


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="3"):
        list(records.decode(GOLDEN[:49] + b"\x03" + GOLDEN[50:]))


def test_frames_and_nodes() -> None:
    assert records.frame_of(0xFFFFEA0000F5F9C0) == 0x3D7E7
    assert records.folio_of(0x3D7E7) == 0xFFFFEA0000F5F9C0
    assert records.node_of(0x05FFFC0000020808) == 1
    assert records.node_of(0x09FFFC0000020419) == 2
    with pytest.raises(ValueError, match="struct page"):
        records.frame_of(0x1000)
