"""Whether a memtoy script can work on a given machine: its segments, its children, its nodes, its sizes.

Walks the script as memtoy would, with the segments of every process (a child starts with its parent's).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.workloads.memtoy.commands import (
    Affinity,
    Child,
    Command,
    Define,
    Mbind,
    Migrate,
    Mpol,
    Script,
    Segments,
    Touch,
    Use,
)
from controller.workloads.memtoy.language import PAGE, Policy, PolicyMode, Range, Unclear
from provision.host.errors import UserError

_HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class TopologyFacts:
    """What a script can run into: bytes of memory by node id, and the CPU numbers."""

    nodes: Mapping[int, int]
    cpus: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Segment:
    """Bytes defined and mapped, None when a file's size decides (and `mapped` 0 when it is not mapped)."""

    size: int | None
    mapped: int | None = 0


@dataclass(slots=True)
class _Process:
    segments: dict[str, _Segment] = field(default_factory=dict)
    children: dict[str, _Process] = field(default_factory=dict)


def _size(count: int) -> str:
    """Bytes for people: exact when they are whole units, else one decimal."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if count >= unit:
            return f"{count // unit} {name}" if count % unit == 0 else f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _round_up(count: int, page: int) -> int:
    return -(-count // page) * page


def _known(numbers: frozenset[int] | None, there: Iterable[int], what: str) -> None:
    present = frozenset(there)
    missing = (numbers or frozenset()) - present
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise Unclear(f"the topology has no {what}{plural} {_list(missing)}", f"it has {what}s {_list(present)}")


def _segment(process: _Process, name: str) -> _Segment:
    found = process.segments.get(name)
    if found is None:
        names = ", ".join(process.segments) or "none"
        raise Unclear(f"unknown segment '{name}'", f"defined so far: {names}")
    return found


def _part(name: str, whole: int | None, part: Range | None) -> int | None:
    """Bytes of `part` of a segment of `whole` bytes; None when a file's size decides."""
    if part is None:
        return whole
    if whole is None:
        return part.length
    end = part.offset + (part.length if part.length is not None else 1)
    if end > whole:
        raise Unclear(f"the range passes the end of segment '{name}'", f"it has {whole // PAGE} pages, {_size(whole)}")
    return part.length if part.length is not None else whole - part.offset


def _mapped(process: _Process, name: str, part: Range | None) -> int | None:
    """Bytes that a command on mapped memory is about."""
    segment = _segment(process, name)
    if segment.mapped == 0:
        raise Unclear(f"segment '{name}' is not mapped", f"map {name} first")
    return _part(name, segment.mapped, part)


def _define(process: _Process, operands: Define, facts: TopologyFacts) -> None:
    name, size = operands.segment, operands.size
    total = sum(facts.nodes.values())
    if name in process.segments:
        raise Unclear(f"segment '{name}' is defined already", "choose another name, or remove it first")
    if size is not None:
        size = _round_up(size, _HUGE_PAGE if operands.huge else PAGE)
        if size > total:
            raise Unclear(
                f"segment '{name}' of {_size(size)} does not fit the guest's memory",
                f"all its nodes together have {_size(total)}; a smaller segment or a larger topology",
            )
    process.segments[name] = _Segment(size)


def _map(process: _Process, operands: Use) -> None:
    segment = _segment(process, operands.segment)
    if segment.mapped != 0:
        raise Unclear(f"segment '{operands.segment}' is mapped already", f"unmap {operands.segment} first")
    if operands.range and operands.range.offset % PAGE:
        raise Unclear("the offset is not whole pages", "use p for pages")
    length = _part(operands.segment, segment.size, operands.range)
    mapped = None if length is None else _round_up(length, PAGE)
    process.segments[operands.segment] = replace(segment, mapped=mapped)


def _policy(policy: Policy, facts: TopologyFacts) -> None:
    _known(policy.nodes, facts.nodes, "node")


def _mbind(process: _Process, operands: Mbind, facts: TopologyFacts) -> None:
    length = _mapped(process, operands.segment, operands.range)
    policy = operands.policy
    _policy(policy, facts)
    if policy.mode is not PolicyMode.BIND or policy.nodes is None or length is None:
        return
    # Preferred and interleaved spill over to other nodes; what is bound has nowhere else to go.
    room = sum(facts.nodes[node] for node in policy.nodes)
    if length > room:
        plural = "s" if len(policy.nodes) > 1 else ""
        raise Unclear(
            f"{_size(length)} of segment '{operands.segment}' do not fit node{plural} {_list(policy.nodes)}",
            f"bound there, with {_size(room)} of memory; a smaller segment, more nodes or a larger topology",
        )


def _child(process: _Process, command: Command, operands: Child) -> None:
    name = operands.name
    if name is None:
        return
    if command.name != "child":
        _descend(process, (name,))
        return
    if name in process.children:
        raise Unclear(f"child '{name}' is there already", "choose another name")
    process.children[name] = _Process(dict(process.segments))


def _descend(process: _Process, names: tuple[str, ...]) -> _Process:
    for name in names:
        found = process.children.get(name)
        if found is None:
            there = ", ".join(process.children) or "none"
            raise Unclear(f"unknown child '{name}'", f"there so far: {there}")
        process = found
    return process


def _run(process: _Process, command: Command, facts: TopologyFacts) -> None:
    match command.operands:
        case Define() as operands:
            _define(process, operands, facts)
        case Use() as operands if command.name == "map":
            _map(process, operands)
        case Use(segment=name) if command.name in ("slock", "sunlock"):
            _segment(process, name)
        case Use(segment=name, range=part) | Touch(segment=name, range=part):
            _mapped(process, name, part)
            if command.name == "unmap":
                process.segments[name] = replace(process.segments[name], mapped=0)
        case Mbind() as operands:
            _mbind(process, operands, facts)
        case Mpol(policy=policy) if policy is not None:
            _policy(policy, facts)
        case Migrate(to_nodes=to_nodes, from_nodes=from_nodes):
            _known(to_nodes, facts.nodes, "node")
            _known(from_nodes, facts.nodes, "node")
        case Affinity(numbers=numbers) if command.name == "cpus":
            _known(numbers, facts.cpus, "CPU")
        case Affinity(numbers=numbers):
            _known(numbers, facts.nodes, "node")
        case Segments(names=names):
            for name in names:
                _segment(process, name)
                if command.name == "remove":
                    del process.segments[name]
        case Child() as operands:
            _child(process, command, operands)
        case _:
            pass


def check(script: Script, topology_facts: TopologyFacts) -> None:
    """Raise UserError, with `path:line` and the mend, at the first command that cannot work on that machine.

    What only the guest knows is not found here: whether a file exists, how long it is, what its kernel can.
    """
    if not script.commands:
        raise UserError("no command in it", where=script.path, hint="a memtoy script has one command a line")
    memtoy = _Process()
    for command in script.commands:
        try:
            _run(_descend(memtoy, command.children), command, topology_facts)
        except Unclear as error:
            raise UserError(error.message, where=f"{script.path}:{command.line}", hint=error.hint) from error
