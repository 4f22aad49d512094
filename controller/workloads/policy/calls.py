"""Calls of mbind(2) with MPOL_MF_LAZY that are wrong in one way each, and what they should give.

The program tries each on an area of its own (call.c): 8 pages on node 1, under a policy that prefers that node, while the
call asks for node 0. A call that is refused changes nothing: no policy, not even of the part before a hole, and no page.
Plain MPOL_MF_MOVE behaves so on a kernel without the series: do_mbind() looks at the whole range before it sets a policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from errno import EFAULT, EINVAL, EPERM
from typing import Any

PAGE = 4096
PAGES = 8
STRICT, MOVE, MOVE_ALL, LAZY = 1, 2, 4, 8
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL = range(5)
STATIC_NODES, RELATIVE_NODES, BALANCING = 1 << 15, 1 << 14, 1 << 13
MOST = 1 << 64


@dataclass(frozen=True)
class Call:
    """`errno`: what it should give, by mbind(2) where the manual speaks of it; 0: taken. `start`: bytes from the first page.

    `nodes`: a mask, or "none", or "wild", an address where nothing is. `hole`: first and last page that are not there.
    `nice`: with CAP_SYS_NICE. `like_move`: without MPOL_MF_LAZY it gives the same.
    """

    name: str
    errno: int
    flags: int = MOVE | LAZY
    mode: int = BIND
    start: int = 0
    length: int = PAGES * PAGE
    nodes: int | str = 1
    high: int = 0
    maxnode: int = 65
    hole: tuple[int, int] | None = None
    nice: bool = True
    like_move: bool = True

    def __str__(self) -> str:
        return self.name

    def line(self, number: int) -> str:
        """What the program takes (call.c)."""
        words = [
            f"{number} start={self.start} length={self.length} mode={self.mode} flags={self.flags} nodes={self.nodes}",
            f"high={self.high} maxnode={self.maxnode} nice={int(self.nice)}",
        ]
        if self.hole is not None:
            words.append(f"hole={self.hole[0]}-{self.hole[1]}")
        return " ".join(words)

    def eager(self) -> Call:
        """The same call without MPOL_MF_LAZY."""
        return replace(self, flags=self.flags & ~LAZY)


REFUSED: tuple[Call, ...] = (
    Call("lazy alone", EINVAL, flags=LAZY, like_move=False),
    Call("lazy and strict, no move", EINVAL, flags=LAZY | STRICT, like_move=False),
    Call("lazy and a bit of the kernel's own", EINVAL, flags=MOVE | LAZY | 1 << 4),
    Call("lazy and the next bit", EINVAL, flags=MOVE | LAZY | 1 << 5),
    Call("lazy and the last bit", EINVAL, flags=MOVE | LAZY | 1 << 31),
    Call("lazy and an unknown bit, no move", EINVAL, flags=LAZY | 1 << 6),
    Call("everybody's pages without the capability", EPERM, flags=MOVE_ALL | LAZY, nice=False),
    Call("both moves without the capability", EPERM, flags=MOVE | MOVE_ALL | LAZY, nice=False),
    Call("hole at the start", EFAULT, hole=(0, 1)),
    Call("hole in the middle", EFAULT, hole=(3, 4)),
    Call("hole at the end", EFAULT, hole=(6, 7)),
    Call("nothing but a hole", EFAULT, hole=(0, 7)),
    Call("hole, strict", EFAULT, flags=MOVE | LAZY | STRICT, hole=(3, 4)),
    Call("hole, interleaved", EFAULT, mode=INTERLEAVE, nodes=1, hole=(3, 4)),
    Call("hole, local", EFAULT, mode=LOCAL, nodes="none", hole=(3, 4)),
    Call("default policy, nothing but a hole", EFAULT, mode=DEFAULT, nodes="none", hole=(0, 7)),
    Call("start within a page", EINVAL, start=8),
    Call("start within a page, no length", EINVAL, start=8, length=0),
    Call("end before the start", EINVAL, length=MOST - 2 * PAGE),
    Call("end far before the start", EINVAL, length=MOST - (1 << 40) - 16 * PAGE),
    Call("nodes at a wild address", EFAULT, nodes="wild"),
    Call("no nodes", EINVAL, nodes="none"),
    Call("an empty set of nodes", EINVAL, nodes=0),
    Call("a node that is not there", EINVAL, nodes=1 << 40),
    Call("a node above the most that there can be", EINVAL, high=1 << 6, maxnode=129),
    Call("a mask longer than the kernel takes", EINVAL, maxnode=8 * PAGE + 2),
    Call("default policy, with nodes", EINVAL, mode=DEFAULT),
    Call("local policy, with nodes", EINVAL, mode=LOCAL),
    Call("local policy, static", EINVAL, mode=LOCAL | STATIC_NODES, nodes="none"),
    Call("preferred without nodes, static", EINVAL, mode=PREFERRED | STATIC_NODES, nodes="none"),
    Call("nodes static and relative", EINVAL, mode=BIND | STATIC_NODES | RELATIVE_NODES),
    Call("balanced, but not bound", EINVAL, mode=INTERLEAVE | BALANCING),
    Call("no such mode", EINVAL, mode=99),
    Call("a mode below the first", EINVAL, mode=MOST - 1),
)
"""Nothing may change under any of these."""

TAKEN: tuple[Call, ...] = (
    Call("move and lazy", 0),
    Call("everybody's pages and lazy", 0, flags=MOVE_ALL | LAZY),
    Call("move, lazy and strict", 0, flags=MOVE | LAZY | STRICT),
    Call("two pages of it", 0, start=2 * PAGE, length=2 * PAGE),
    Call("two pages, the last not whole", 0, start=2 * PAGE, length=PAGE + 1),
    Call("default policy around a hole", 0, mode=DEFAULT, nodes="none", hole=(3, 4)),
)
"""Without these a program that sees no changes would pass."""

NO_EFFECT: tuple[Call, ...] = (
    Call("no length", 0, length=0),
    # Rounded up to whole pages, this is nothing (PAGE_ALIGN() in do_mbind()), although mbind(2) speaks of EINVAL.
    Call("a length that is nothing when rounded up", 0, length=MOST - 1),
)
"""Taken, as MPOL_MF_MOVE is, without doing anything."""

UNKNOWN: tuple[Call, ...] = (
    Call("lazy alone", EINVAL, flags=LAZY),
    Call("move and lazy", EINVAL),
    Call("everybody's pages and lazy", EINVAL, flags=MOVE_ALL | LAZY),
    Call("everybody's pages and lazy, without the capability", EINVAL, flags=MOVE_ALL | LAZY, nice=False),
    Call("move, lazy and strict", EINVAL, flags=MOVE | LAZY | STRICT),
    Call("default policy", EINVAL, mode=DEFAULT, nodes="none"),
)
"""For a kernel without the option, which knows no such flag."""


@dataclass(frozen=True)
class Seen:
    """What the program saw of a page: policy's mode and nodes, whether it is in the page table, its node or minus errno.

    A page in a hole has mode and node -1.
    """

    mode: int
    nodes: int
    present: bool
    node: int


@dataclass(frozen=True)
class Outcome:
    """`unmapped`: by how much mpol_lazy_unmapped rose, -1 where there is no such counter."""

    errno: int
    unmapped: int
    before: tuple[Seen, ...]
    after: tuple[Seen, ...]

    @property
    def changed(self) -> bool:
        return self.before != self.after or self.unmapped > 0


def lines(calls: Iterable[Call]) -> str:
    """The program's input; a call's number is its place."""
    return "".join(f"{call.line(number)}\n" for number, call in enumerate(calls))


def read(output: Iterable[str]) -> Iterator[Outcome]:
    """Parse the program's output, in its order. ValueError with the program's words if it could not try a call."""
    for line in output:
        told = json.loads(line)
        if "wrong" in told:
            raise ValueError(f"call {told['id']}: {told['wrong']}")
        yield Outcome(told["errno"], told["unmapped"], _seen(told, "before"), _seen(told, "after"))


def _seen(told: Mapping[str, Any], key: str) -> tuple[Seen, ...]:
    return tuple(Seen(mode, nodes, bool(present), node) for mode, nodes, present, node in told[key])
