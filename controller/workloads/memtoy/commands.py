"""The commands of a memtoy script as data: who asks what of which segment."""

from __future__ import annotations

from dataclasses import dataclass

from controller.workloads.memtoy.language import Policy, Range


@dataclass(frozen=True, slots=True)
class Define:
    """`anon`, `file`, `shmem`; `size` in bytes, None for a file mapped to its end; `page` in bytes."""

    segment: str
    size: int | None
    shared: bool
    huge: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """A command on a segment: `map`, `unmap`, `lock`, `unlock`, `slock`, `sunlock`, `where`, `mprotect`.

    `words` are those after the range: the sharing, `nofault`, the protections, in full.
    """

    segment: str
    range: Range | None
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Touch:
    """`touch`; `pattern` None is a plain touch of one word a page."""

    segment: str
    range: Range | None
    write: bool
    pattern: int | None


@dataclass(frozen=True, slots=True)
class Mbind:
    """`mbind`."""

    segment: str
    range: Range | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Mpol:
    """`mpol`; None is a question."""

    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Migrate:
    """`migrate`; `from_nodes` None is all allowed."""

    to_nodes: frozenset[int]
    from_nodes: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Affinity:
    """`cpus`, `mems`; None is a question."""

    numbers: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Segments:
    """`remove`, `show`: the names of segments."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """`child`, `kick`, `wait`; None is all children (`wait`), or a list of signals (`kick ?`)."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Words:
    """The rest: words that need no check against anything."""

    words: tuple[str, ...]


Operands = Define | Use | Touch | Mbind | Mpol | Migrate | Affinity | Segments | Child | Words


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its line (from 1), full name ("/" lists children), text, and the child it is sent to."""

    line: int
    name: str
    text: str
    children: tuple[str, ...]
    operands: Operands


@dataclass(frozen=True, slots=True)
class Script:
    """A script that can be understood; `path` is what messages call it."""

    path: str
    text: str
    commands: tuple[Command, ...]
