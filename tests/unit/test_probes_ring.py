"""Spans out of a ring buffer: wrapping, busy and discarded records, and what must not be there."""

from __future__ import annotations

import os
import struct

import pytest

from probes.records import RECORD_SIZE, Kind, Record
from probes.ring import BUSY, DISCARDED, MOST_SLOTS, SLOT_SIZE, Ring, count_probes, take_span

PAGE = os.sysconf("SC_PAGESIZE")


def record(number: int, probe: int = 1) -> bytes:
    return Record(number, 0, 0, 0, 0, 1, 1, probe, Kind.ENTER, 0, 0, -1, 0).pack()


def slot(data: bytes, state: int = 0) -> bytes:
    return struct.pack("<II", len(data) | state << 24, 0) + data


def ring_data(slots: list[bytes], start: int, size: int) -> memoryview:
    """A ring of `size` bytes with the slots from offset `start` on, mapped twice."""
    ring = bytearray(size)
    for i, byte in enumerate(b"".join(slots)):
        ring[(start + i) % size] = byte
    return memoryview(bytes(ring * 2))


def test_nothing() -> None:
    span = take_span(memoryview(bytes(2 * PAGE)), 0, 0)
    assert (span.slots, span.records, span.blocked) == (0, b"", False)


def test_headers_are_stripped() -> None:
    wanted = [record(i, probe=i) for i in range(1, 6)]
    span = take_span(ring_data([slot(r) for r in wanted], 0, PAGE), 0, 5 * SLOT_SIZE)
    assert (span.slots, span.records, span.blocked) == (5, b"".join(wanted), False)


@pytest.mark.parametrize("short", [1, 8, 36, 71, 72, 100])
def test_a_span_that_wraps_around(short: int) -> None:
    wanted = [record(i) for i in range(10)]
    start = PAGE - short // 8 * 8
    span = take_span(ring_data([slot(r) for r in wanted], start, PAGE), start % PAGE, 10 * SLOT_SIZE)
    assert span.records == b"".join(wanted)


def test_stops_in_front_of_a_busy_record() -> None:
    slots = [slot(record(0)), slot(record(1)), slot(record(2), BUSY), slot(record(3))]
    span = take_span(ring_data(slots, 0, PAGE), 0, 4 * SLOT_SIZE)
    assert (span.slots, span.blocked) == (2, True)
    assert span.records == record(0) + record(1)


def test_busy_first_gives_nothing() -> None:
    span = take_span(ring_data([slot(record(0), BUSY)], 0, PAGE), 0, SLOT_SIZE)
    assert (span.slots, span.records, span.blocked) == (0, b"", True)


def test_discarded_records_are_passed_over() -> None:
    slots = [slot(record(0)), slot(record(1), DISCARDED), slot(record(2)), slot(record(3), BUSY | DISCARDED)]
    span = take_span(ring_data(slots, 0, PAGE), 0, 4 * SLOT_SIZE)
    assert (span.slots, span.blocked) == (3, True)
    assert span.records == record(0) + record(2)


def test_a_record_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="another size"):
        take_span(ring_data([slot(record(0)), slot(bytes(56))], 0, PAGE), 0, 2 * SLOT_SIZE)


def test_a_span_is_bounded() -> None:
    size = 1 << 20
    slots = [slot(record(i)) for i in range(MOST_SLOTS + 5)]
    span = take_span(ring_data(slots, 0, size), 0, len(slots) * SLOT_SIZE)
    assert span.slots == MOST_SLOTS
    assert len(span.records) == MOST_SLOTS * RECORD_SIZE


def test_counting_by_probe() -> None:
    data = record(0, 3) + record(1, 7) + record(2, 3)
    assert count_probes(data, range(1, 64)) == {3: 2, 7: 1}
    with pytest.raises(ValueError, match="unknown"):
        count_probes(data, [3])


def test_a_mapped_ring_advances_the_consumer() -> None:
    """A file with the layout of a ring buffer map; its two copies of the data are written twice by hand."""
    wanted = [record(i) for i in range(3)]
    data = b"".join(slot(r) for r in wanted).ljust(PAGE, b"\0")
    fd = os.memfd_create("ring")
    try:
        os.write(fd, struct.pack("<Q", 0).ljust(PAGE, b"\0"))
        os.write(fd, struct.pack("<Q", 3 * SLOT_SIZE).ljust(PAGE, b"\0") + data * 2)
        ring = Ring(fd, PAGE)
        assert ring.pending == 3 * SLOT_SIZE
        assert ring.take().records == b"".join(wanted)
        assert ring.pending == 0 and ring.take().slots == 0
        ring.close()
        assert os.pread(fd, 8, 0) == struct.pack("<Q", 3 * SLOT_SIZE)
    finally:
        os.close(fd)
