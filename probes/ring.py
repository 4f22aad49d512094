"""The ring that records go through: one map that the probes and the agent both have in their memory.

The kernel's own ring buffer costs two calls an event; this one costs none. It is an array map of one element
(BPF_F_MMAPABLE), in which each CPU has its part: a header, and slots of the size of a record. A probe counts
itself in the header, takes the next slot of its CPU by adding to `head`, fills the slot in, and stores the probe's
number last: a slot whose probe is 0 is being written, and x86 shows stores to others in their order. The agent copies
slots up to the first that is not written, clears their probes, and then moves `full`, up to which slots may be taken,
and `limit`, from which on it wants to be told that they are.
So records of one CPU are in the order in which they began; those of several CPUs are put in order on the host.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from probes.records import PROBE_OFFSET, RECORD_SIZE
from probes.registry import MAX_PROBES

COUNTS_OFFSET = 64
HEADER_SIZE = COUNTS_OFFSET + 16 * MAX_PROBES
"""struct header of mof.bpf.c, in a cache line of its own, and struct counters for each probe."""
SLACK = 8
"""Slots that stay free. Between looking whether there is room and taking it, interrupts of the same CPU may take
theirs: softirq, interrupt, NMI and machine check at most, since no other task gets the CPU meanwhile (our kernels are
PREEMPT_VOLUNTARY)."""
FEWEST_SLOTS = 16
MOST_SLOTS = 8192
"""Records taken at once, which bounds the agent's memory."""
_MOST_BYTES = 1 << 29
"""Beyond, the verifier takes no offset (BPF_MAX_VAR_OFF)."""


@dataclass(frozen=True)
class Geometry:
    """Where what is. `slots`: of each CPU, a power of two."""

    cpus: int
    slots: int

    @classmethod
    def of(cls, pages: int, cpus: int) -> Geometry:
        """For `pages` pages of 4,096 bytes of records, over all CPUs; ValueError if that is no power of two, or too many.

        Where it does not come out even, fewer are used; each CPU has FEWEST_SLOTS at least.
        """
        if pages < 1 or pages & (pages - 1):
            raise ValueError(f"ring_pages is {pages}, and must be a power of two")
        each = max(FEWEST_SLOTS, pages * 4096 // RECORD_SIZE // cpus)
        found = cls(cpus, 1 << (each.bit_length() - 1))
        if found.size >= _MOST_BYTES:
            raise ValueError(f"ring_pages is {pages}: a ring has less than {_MOST_BYTES >> 20} MB")
        return found

    @property
    def span(self) -> int:
        """Bytes of all slots of one CPU."""
        return self.slots * RECORD_SIZE

    @property
    def stride(self) -> int:
        """Bytes of one CPU's part."""
        return HEADER_SIZE + self.span

    @property
    def size(self) -> int:
        """Bytes of it all, in whole pages."""
        return -(-self.cpus * self.stride // 4096) * 4096


@dataclass(frozen=True)
class Span:
    """What one look at a CPU's slots gave. `probes`: the probe of each record; `blocked`: the slot behind is being written."""

    records: bytes
    probes: bytes
    blocked: bool


NOTHING = Span(b"", b"", False)


def take_span(data: mmap.mmap, start: int, slots: int) -> Span:
    """The records in `slots` slots of `data` from offset `start`, up to the first that is being written; clears them."""
    end = start + slots * RECORD_SIZE
    # The probes first, then the data: what is written now will not change any more. With a step, a mapping's own
    # slices are several times as fast as a view's.
    probes = data[start + PROBE_OFFSET : end : RECORD_SIZE]
    written = probes.find(0)
    if written >= 0:
        probes, end = probes[:written], start + written * RECORD_SIZE
    if not probes:
        return Span(b"", b"", written >= 0)
    records = data[start:end]
    data[start + PROBE_OFFSET : end : RECORD_SIZE] = bytes(len(probes))
    return Span(records, probes, written >= 0)


def count_probes(column: bytes, ids: range | list[int]) -> dict[int, int]:
    """How many of the records whose probes are `column` each of `ids` has made; ValueError if some are of none of them."""
    counts: dict[int, int] = {}
    left = len(column)
    for number in ids:
        if not left:
            break
        if found := column.count(number):
            counts[number] = found
            left -= found
    if left:
        raise ValueError("the ring holds records of unknown probes")
    return counts


class Ring:
    """The consumer's side of the map, and the probes' counters."""

    def __init__(self, fd: int, geometry: Geometry) -> None:
        """Raises OSError if it cannot be mapped."""
        self.geometry = geometry
        self._map = mmap.mmap(fd, geometry.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # Elements of a cast view are loaded and stored as one word, which struct's byte by byte are not.
        self._words = memoryview(self._map).cast("Q")
        self._headers = [cpu * geometry.stride // 8 for cpu in range(geometry.cpus)]
        self._tails = [0] * geometry.cpus
        for cpu in range(geometry.cpus):
            self._allow(cpu)

    def _allow(self, cpu: int) -> None:
        tail, header = self._tails[cpu], self._headers[cpu]
        # The far one first: in between, a probe may take the near one for news of half a ring, but never for a full one.
        self._words[header + 2] = tail + (self.geometry.slots - SLACK) * RECORD_SIZE
        self._words[header + 1] = tail + self.geometry.slots // 2 * RECORD_SIZE

    def waiting(self, cpu: int) -> int:
        """Slots that have been taken and not yet consumed."""
        return (self._words[self._headers[cpu]] - self._tails[cpu]) // RECORD_SIZE

    @property
    def pending(self) -> int:
        """The same, of all CPUs."""
        return sum(self.waiting(cpu) for cpu in range(self.geometry.cpus))

    def take(self, cpu: int) -> Span:
        """Consume what can be had of one CPU at once: at most `MOST_SLOTS` records, and up to the end of its slots."""
        waiting = self.waiting(cpu)
        if not waiting:
            return NOTHING
        span = self.geometry.span
        place = self._tails[cpu] % span
        slots = min(waiting, MOST_SLOTS, (span - place) // RECORD_SIZE)
        taken = take_span(self._map, cpu * self.geometry.stride + HEADER_SIZE + place, slots)
        if taken.probes:
            self._tails[cpu] += len(taken.records)
            self._allow(cpu)
        return taken

    def counters(self, ids: list[int]) -> dict[int, tuple[int, int]]:
        """For each of these probes: how often it fired, and how many of its records were lost."""
        firsts = [header + COUNTS_OFFSET // 8 for header in self._headers]
        words = self._words
        return {
            i: (sum(words[first + 2 * i] for first in firsts), sum(words[first + 2 * i + 1] for first in firsts))
            for i in ids
        }

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._map.close()


class Bell:
    """What a probe rings when half of its CPU's slots are taken, so that the agent can sleep until then.

    A ring buffer map of the kernel's, which can be waited for; nothing is ever in it but empty records.
    """

    def __init__(self, fd: int) -> None:
        """Raises OSError if it cannot be mapped."""
        self.fd = fd
        self._ours = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._consumer = memoryview(self._ours).cast("Q")
        self._producer = memoryview(self._theirs).cast("Q")

    def answer(self) -> None:
        """Have heard it: `fd` is readable again when it next rings."""
        self._consumer[0] = self._producer[0]

    def close(self) -> None:
        """Unmap."""
        self._consumer.release()
        self._producer.release()
        self._ours.close()
        self._theirs.close()
