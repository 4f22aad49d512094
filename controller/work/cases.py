"""What to run, as data (controller.work.files reads it), and whether a machine has what it needs. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from provision.hardware.qemu import Clock, Latency
from provision.hardware.topology import Topology
from provision.host.errors import UserError

MAX_MEGABYTES = 1 << 16
MAX_STEPS = 10**12
MAX_ROUNDS = 1000
"""MAX_ROUNDS of controller/workloads/locality/common.h."""
FREE_SHARE = 0.25
"""Of a node's memory: for the kernel and whatever else runs, so that no case ends for want of memory."""


class Kind(StrEnum):
    """The kinds of work that the program has."""

    CHASE = "chase"
    STREAM = "stream"
    UPDATE = "update"
    PARTS = "parts"


class Placement(StrEnum):
    """How pages of `parts` come to where they are worked on: not at all; moved before the first round; moved when they are
    first accessed after that; or each worker initialises its own."""

    FIRST_TOUCH = "first-touch"
    DIRECT = "direct"
    LAZY = "lazy"
    IDEAL = "ideal"

    @property
    def moves(self) -> bool:
        return self in (Placement.DIRECT, Placement.LAZY)


@dataclass(frozen=True)
class Single:
    """Work of one thread on `cpu`, in memory that is bound to `node`. `steps`: loads of a round of chase, updates of a pass
    of update, of which a round has two; 0 for stream."""

    kind: Kind
    megabytes: int
    cpu: int
    node: int
    rounds: int
    steps: int = 0


@dataclass(frozen=True)
class Parts:
    """Memory that a thread on `init_cpu` initialises and one on each of `cpus` works on, a part each, `rounds` times: reads
    of `touched_percent` of the pages, or reads and writes."""

    megabytes: int
    init_cpu: int
    cpus: tuple[int, ...]
    placement: Placement
    rounds: int
    touched_percent: int
    writes: bool

    @property
    def kind(self) -> Kind:
        return Kind.PARTS


@dataclass(frozen=True)
class Case:
    """One run of the program, in a process of its own."""

    name: str
    title: str
    work: Single | Parts


@dataclass(frozen=True)
class Workload:
    """Cases that run one after the other in one guest. `where`: its file, for messages. `latency`: with what cache memory takes
    its time, where it does."""

    name: str
    title: str
    kernel: str
    topology: str
    clock: Clock
    cases: tuple[Case, ...]
    where: str
    latency: Latency | None = None


def check(workload: Workload, topology: Topology) -> None:
    """UserError at the first case that cannot run on that machine."""
    for case in workload.cases:
        _check_case(case.work, topology, f"{workload.where}: case '{case.name}'")


def _check_case(work: Single | Parts, topology: Topology, where: str) -> None:
    nodes = topology.node_of_cpu
    cpus = (work.cpu,) if isinstance(work, Single) else (work.init_cpu, *work.cpus)
    for cpu in cpus:
        if cpu not in nodes:
            raise UserError(f"{topology.name} has no CPU {cpu}", where=where, hint=f"it has 0 to {max(nodes)}")
    memory = {node.id: node.memory_mb for node in topology.nodes}
    if isinstance(work, Single) and not memory.get(work.node):
        raise UserError(
            f"{topology.name} has no node {work.node} with memory",
            where=where,
            hint=f"one of {', '.join(str(node) for node, size in memory.items() if size)}",
        )
    for node, needed in _needed(work, nodes).items():
        size = memory[node]
        if needed and not size and (isinstance(work, Parts) and work.placement.moves):
            raise UserError(
                f"{work.placement} moves pages to node {node}, which has no memory",
                where=where,
                hint="other cpus, or another placement",
            )
        if size and needed > size * (1 - FREE_SHARE):
            raise UserError(
                f"{needed:,.0f} MB do not fit node {node} of {topology.name}",
                where=where,
                hint=f"{size * (1 - FREE_SHARE):,.0f} of its {size:,} MB at most: less of them, or a larger topology",
            )


def _needed(work: Single | Parts, nodes: dict[int, int]) -> dict[int, float]:
    """MB that are on a node at one time or another. `nodes`: of CPUs."""
    if isinstance(work, Single):
        # Beside the lines there is a list of their numbers, a sixteenth, wherever its node has room.
        return {work.node: work.megabytes * (3 if work.kind is Kind.STREAM else 1)}
    needed: Counter[int] = Counter()
    if work.placement is not Placement.FIRST_TOUCH:
        needed.update(nodes[cpu] for cpu in work.cpus)
    found = {node: count * work.megabytes / len(work.cpus) for node, count in needed.items()}
    if work.placement is not Placement.IDEAL:
        found[nodes[work.init_cpu]] = work.megabytes
    return found
