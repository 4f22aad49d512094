"""Reading a BPF ring buffer in bulk: whole spans of fixed-size records, copied without looking at each.

The layout is Documentation/bpf/ringbuf.rst: a page with the consumer's position, a page with the producer's, and
the data, mapped twice in a row so that a span that wraps around is contiguous. A record has a header
of 8 bytes, whose first word is its length with two bits: busy while it is being written, discarded if it
never will be. As all our records have one size, headers stand at a fixed stride, and striding over their top bytes
tells all that is needed.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

from probes.records import PROBE_OFFSET, RECORD_SIZE

HEADER_SIZE = 8
SLOT_SIZE = HEADER_SIZE + RECORD_SIZE
BUSY, DISCARDED = 0x80, 0x40
"""Bits of the top byte of a header's first word."""
MOST_SLOTS = 8192
"""Records taken at once, which bounds the agent's memory."""
_WORDS = RECORD_SIZE // 8


@dataclass(frozen=True)
class Span:
    """What one look at the ring gave: how far to advance, and the records, headers stripped."""

    slots: int
    records: bytes
    blocked: bool
    """A record that is still being written stands behind this span."""


def take_span(data: memoryview, start: int, available: int) -> Span:
    """The records in `available` bytes of the doubly mapped `data` from offset `start`.

    Stops in front of the first busy record; leaves discarded ones out. Raises ValueError if a record has
    another size than ours, since from there on nothing can be told.
    """
    slots = min(available // SLOT_SIZE, MOST_SLOTS)
    if not slots:
        return Span(0, b"", False)
    window = data[start : start + slots * SLOT_SIZE]
    # The states first, then the data: what is not busy now will not change any more.
    states = bytes(window[3::SLOT_SIZE])
    blocked = False
    if states.count(0) != slots:
        busy = next((i for i, state in enumerate(states) if state & BUSY), slots)
        blocked, slots, states = busy < slots, busy, states[:busy]
        window = window[: slots * SLOT_SIZE]
    if bytes(window[0::SLOT_SIZE]).count(RECORD_SIZE) != slots:
        raise ValueError("the ring holds records of another size")
    words = window.cast("Q")
    packed = bytearray(slots * RECORD_SIZE)
    target = memoryview(packed).cast("Q")
    for i in range(_WORDS):
        target[i::_WORDS] = words[i + 1 :: _WORDS + 1]
    records = bytes(packed)
    if any(states):
        records = b"".join(
            records[i * RECORD_SIZE : (i + 1) * RECORD_SIZE] for i, state in enumerate(states) if not state
        )
    return Span(slots, records, blocked)


def count_probes(records: bytes, ids: range | list[int]) -> dict[int, int]:
    """How many of `records` each of the probes `ids` has made; ValueError if some are of none of them."""
    column = records[PROBE_OFFSET::RECORD_SIZE]
    counts = {number: found for number in ids if (found := column.count(number))}
    if sum(counts.values()) != len(column):
        raise ValueError("the ring holds records of unknown probes")
    return counts


class Ring:
    """The consumer's side of a ring buffer map."""

    def __init__(self, fd: int, size: int) -> None:
        """`size` in bytes, as the map was made. Raises OSError if it cannot be mapped."""
        page = os.sysconf("SC_PAGESIZE")
        self._size = size
        self._ours = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # Elements of a cast view are loaded and stored as one word, which struct's byte by byte are not.
        self._consumer = memoryview(self._ours).cast("Q")
        self._producer = memoryview(self._theirs)[:page].cast("Q")
        self._data = memoryview(self._theirs)[page:]

    @property
    def pending(self) -> int:
        """Bytes that have been reserved and not yet consumed."""
        return self._producer[0] - self._consumer[0]

    def take(self) -> Span:
        """Consume what can be had at once, at most `MOST_SLOTS` records."""
        consumer = self._consumer[0]
        span = take_span(self._data, consumer % self._size, self._producer[0] - consumer)
        if span.slots:
            self._consumer[0] = consumer + span.slots * SLOT_SIZE
        return span

    def close(self) -> None:
        """Unmap."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._ours.close()
        self._theirs.close()
