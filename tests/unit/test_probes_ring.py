"""The ring: wrapping, slots that are being written, room that runs out, and what must not be there."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from probes.records import PROBE_OFFSET, RECORD_SIZE, Kind, Record
from probes.ring import (
    COUNTS_OFFSET,
    FEWEST_SLOTS,
    HEADER_SIZE,
    MOST_SLOTS,
    SLACK,
    Bell,
    Geometry,
    Ring,
    count_probes,
    take_span,
)


def record(number: int, probe: int = 1) -> bytes:
    return Record(number, 0, 0, 0, 0, 1, 1, probe, Kind.ENTER, 0, 0, -1, 0).pack()


class Producer:
    """What a probe does, in the steps in which it does it, on a file in place of the map."""

    def __init__(self, pages: int = 1, cpus: int = 2) -> None:
        self.geometry = Geometry.of(pages, cpus)
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, self.geometry.size)
        self.ring = Ring(self.fd, self.geometry)
        self.memory = mmap.mmap(self.fd, self.geometry.size)
        self.rings = 0

    def word(self, cpu: int, offset: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, cpu * self.geometry.stride + offset)[0])

    def add(self, cpu: int, offset: int, what: int) -> int:
        old = self.word(cpu, offset)
        struct.pack_into("<Q", self.memory, cpu * self.geometry.stride + offset, old + what)
        return old

    def reserve(self, cpu: int, probe: int) -> int | None:
        """Count, and take a slot; where it is, or None if there is no room."""
        self.add(cpu, COUNTS_OFFSET + 16 * probe, 1)
        head, limit, full = (self.word(cpu, offset) for offset in (0, 8, 16))
        if head >= limit:
            if head >= full:
                self.add(cpu, COUNTS_OFFSET + 16 * probe + 8, 1)
                return None
            self.add(cpu, 8, full - limit)
            self.rings += 1
        at = self.add(cpu, 0, RECORD_SIZE) & (self.geometry.span - RECORD_SIZE)
        return cpu * self.geometry.stride + HEADER_SIZE + at

    def commit(self, at: int, data: bytes) -> None:
        self.memory[at : at + RECORD_SIZE] = data

    def write(self, cpu: int, *records: bytes) -> None:
        for data in records:
            at = self.reserve(cpu, data[PROBE_OFFSET])
            if at is not None:
                self.commit(at, data)

    def close(self) -> None:
        self.ring.close()
        self.memory.close()
        os.close(self.fd)


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pages", "cpus", "slots"), [(4096, 4, 65536), (4096, 3, 65536), (1, 4, 16), (1, 64, FEWEST_SLOTS), (64, 1, 4096)]
)
def test_slots_are_a_power_of_two_for_each_cpu(pages: int, cpus: int, slots: int) -> None:
    geometry = Geometry.of(pages, cpus)
    assert geometry.slots == slots
    assert geometry.size % 4096 == 0 and geometry.size >= cpus * (HEADER_SIZE + slots * RECORD_SIZE)


@pytest.mark.parametrize("pages", [0, -1, 3, 1 << 30])
def test_a_ring_that_cannot_be(pages: int) -> None:
    with pytest.raises(ValueError, match="ring_pages"):
        Geometry.of(pages, 4)


def test_records_are_taken_as_they_are_cpu_by_cpu(producer: Producer) -> None:
    producer.write(0, record(1, 5), record(2, 6))
    producer.write(1, record(3, 7))
    assert producer.ring.pending == 3
    first, second = producer.ring.take(0), producer.ring.take(1)
    assert (first.records, first.probes, first.blocked) == (record(1, 5) + record(2, 6), b"\5\6", False)
    assert second.records == record(3, 7)
    assert producer.ring.pending == 0 and producer.ring.take(0).records == b""


def test_it_goes_round_and_round(producer: Producer) -> None:
    slots, seen, wanted = producer.geometry.slots, b"", b""
    for number in range(5 * slots):
        producer.write(1, record(number))
        wanted += record(number)
        if number % 7 == 0:
            seen += producer.ring.take(1).records
    while producer.ring.pending:
        seen += producer.ring.take(1).records
    assert seen == wanted


def test_stops_in_front_of_a_record_that_is_being_written(producer: Producer) -> None:
    producer.write(0, record(1))
    at = producer.reserve(0, 1)
    assert at is not None
    producer.write(0, record(3))
    span = producer.ring.take(0)
    assert (span.records, span.blocked) == (record(1), True)
    span = producer.ring.take(0)
    assert (span.records, span.probes, span.blocked) == (b"", b"", True)
    assert producer.ring.pending == 2
    producer.commit(at, record(2))
    assert producer.ring.take(0).records == record(2) + record(3)


def test_a_slot_that_was_consumed_is_clear(producer: Producer) -> None:
    slots = producer.geometry.slots
    for number in range(slots):
        producer.write(0, record(number))
        producer.ring.take(0)
    producer.reserve(0, 1)
    assert producer.ring.take(0).blocked


def test_what_finds_no_room_is_lost_and_counted(producer: Producer) -> None:
    room = producer.geometry.slots - SLACK
    producer.write(0, *(record(n, 9) for n in range(room + 5)))
    assert producer.ring.counters([8, 9]) == {8: (0, 0), 9: (room + 5, 5)}
    assert producer.ring.take(0).records == b"".join(record(n, 9) for n in range(room))
    producer.write(0, record(99, 9))
    assert producer.ring.take(0).records == record(99, 9)


def test_the_bell_rings_once_for_half_a_ring_and_again_when_it_was_answered(producer: Producer) -> None:
    half = producer.geometry.slots // 2
    producer.write(0, *(record(n) for n in range(half)))
    assert producer.rings == 0
    producer.write(0, record(half), record(half + 1))
    assert producer.rings == 1
    while producer.ring.take(0).records:
        pass
    producer.write(0, *(record(n) for n in range(half)))
    assert producer.rings == 1
    producer.write(0, record(0))
    assert producer.rings == 2


def test_a_bell_is_heard_once() -> None:
    """A file with the layout of a ring buffer map: the consumer's position, and the producer's."""
    fd = os.memfd_create("bell")
    os.truncate(fd, 2 * mmap.PAGESIZE)
    bell = Bell(fd)
    with mmap.mmap(fd, 2 * mmap.PAGESIZE) as memory:
        struct.pack_into("<Q", memory, mmap.PAGESIZE, 16)
        bell.answer()
        assert struct.unpack_from("<Q", memory)[0] == 16
    bell.close()
    os.close(fd)


def test_counters_are_summed_over_all_cpus(producer: Producer) -> None:
    producer.write(0, record(1, 63))
    producer.write(1, record(1, 63), record(1, 2))
    assert producer.ring.counters([2, 63]) == {2: (1, 0), 63: (2, 0)}


def test_a_span_is_bounded() -> None:
    producer = Producer(pages=1024, cpus=1)
    producer.write(0, *(record(n) for n in range(MOST_SLOTS + 5)))
    assert len(producer.ring.take(0).records) == MOST_SLOTS * RECORD_SIZE
    assert len(producer.ring.take(0).probes) == 5
    producer.close()


def test_taking_clears_only_the_probes() -> None:
    with mmap.mmap(-1, 2 * RECORD_SIZE) as data:
        data[:] = record(1, 3) + record(2, 4)
        assert take_span(data, 0, 2).probes == b"\3\4"
        assert data[:] == record(1, 0) + record(2, 0)


def test_counting_by_probe() -> None:
    assert count_probes(bytes([3, 7, 3]), range(1, 64)) == {3: 2, 7: 1}
    assert count_probes(b"", [3]) == {}
    with pytest.raises(ValueError, match="unknown"):
        count_probes(bytes([3, 7, 3]), [3])
