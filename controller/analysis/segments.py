"""The pages that a case is about: what memtoy mapped, and touched or located, as its own results say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.analysis.decode import Mask
from controller.workloads.memtoy.output import (
    CommandResult,
    MapResult,
    MbindResult,
    MigrateResult,
    TouchResult,
    WhereMethod,
    WhereResult,
)

PAGE = 4096
FOREVER = 2**63


@dataclass(frozen=True)
class Segment:
    """A mapping, from the time it was made until it was unmapped or made anew (ns); addresses and lengths in bytes."""

    name: str
    start: int
    length: int
    page_size: int
    since: int
    until: int

    @property
    def pages(self) -> int:
        return -(-self.length // self.page_size)

    def places(self, address: npt.NDArray[np.uint64], time: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """For each event its page's index within the segment, -1 where it is not about the segment."""
        inside = (address >= self.start) & (address < self.start + self.length)
        inside &= (time >= self.since) & (time < self.until)
        index = (np.where(inside, address - np.uint64(self.start), 0) // np.uint64(self.page_size)).astype(np.int64)
        return np.where(inside, index, -1)

    def span(self, address: int, pages: int) -> slice:
        """The indices of a range of pages, cut to the segment."""
        first = (address - self.start) // self.page_size
        return slice(max(0, first), max(0, min(self.pages, first + pages)))


def _range(result: CommandResult) -> tuple[int, int, int] | None:
    """Address, length and page size of what a command touched or located."""
    match result.result:
        case TouchResult(address=address, pages=pages, page_size=size):
            return address, pages * size, size
        case WhereResult(start=start, nodes=nodes, page_size=size):
            return start, len(nodes) * size, size
    return None


def segments(results: Iterable[CommandResult]) -> tuple[Segment, ...]:
    """The mappings in the order in which they were made.

    Mapping something anew, or at addresses that were in use, starts a new segment: its pages are other pages.
    """
    found: list[Segment] = []
    live: list[int] = []

    def close(index: int, time: int) -> None:
        old = found[index]
        found[index] = Segment(old.name, old.start, old.length, old.page_size, old.since, time)
        live.remove(index)

    for done in results:
        if not done.ok and not isinstance(done.result, TouchResult):
            continue
        if isinstance(done.result, MapResult) or done.cmd in ("unmap", "remove"):
            if isinstance(done.result, MapResult):
                start, length = done.result.address, done.result.length
                gone = [i for i in live if found[i].start < start + length and start < found[i].start + found[i].length]
            else:
                words = done.text.split()
                gone = [i for i in live if found[i].name in words[1:]]
            for index in gone:
                close(index, done.start_ns)
        if isinstance(done.result, MapResult):
            live.append(len(found))
            mapped = done.result
            found.append(Segment(mapped.segment, mapped.address, mapped.length, PAGE, done.start_ns, FOREVER))
        if used := _range(done):
            address, length, size = used
            for index in live:
                old = found[index]
                if old.start <= address < old.start + old.length and size != old.page_size:
                    found[index] = Segment(old.name, old.start, old.length, size, old.since, old.until)
    return tuple(found)


def used(segment: Segment, results: Iterable[CommandResult]) -> Mask:
    """Which pages of the segment were touched or located."""
    mask = np.zeros(segment.pages, np.bool_)
    for done in results:
        ranged = _range(done)
        if ranged and segment.since <= done.end_ns < segment.until:
            address, length, size = ranged
            if segment.start <= address < segment.start + segment.length:
                mask[segment.span(address, length // size)] = True
    return mask


def moving(done: CommandResult) -> bool:
    """Whether the command asked the kernel to move pages, now or when they are touched."""
    match done.result:
        case MbindResult(flags=flags):
            return done.ok and "move" in flags
        case MigrateResult():
            return done.ok
    return False


def lazy(done: CommandResult) -> bool:
    return isinstance(done.result, MbindResult) and done.ok and "lazy" in done.result.flags


def faulting(done: CommandResult) -> bool:
    """Whether the command faults pages in: a touch, or locating by get_mempolicy(2)."""
    match done.result:
        case TouchResult():
            return True
        case WhereResult(method=WhereMethod.GET_MEMPOLICY):
            return True
    return False
