"""A NUMA machine as data: nodes, what is on each, and how far apart they are.

A topology file::

    swap_mb = 1024                      # size of the swap disk
    distances = [[10, 20], [20, 10]]    # optional: 10 to itself, 20 to any other
    [[node]]                            # in order: node 0, node 1, ...
    memory_mb = 1024                    # 0: a node with CPUs alone
    cpus = [0, 1]                       # []: a node with memory alone
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host.errors import UserError

PRESETS = Path(__file__).parent / "presets"
LOCAL, REMOTE, FARTHEST = 10, 20, 254
"""Distances as ACPI's SLIT has them: 10 is a node's own, 255 means unreachable (ACPI 6.5, section 5.2.17)."""

MOST_NODES = 64
"""What CONFIG_NODES_SHIFT=6 of our kernels holds."""

QEMU_OVERHEAD_MB = 512
"""Beside the guest's memory: QEMU itself and its translated code."""


@dataclass(frozen=True)
class Node:
    """A node: its memory in MiB (0 for none) and the numbers of its CPUs."""

    id: int
    memory_mb: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """A machine. `distances[i][j]` is that from node i to node j."""

    name: str
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...]
    swap_mb: int

    @property
    def memory_mb(self) -> int:
        return sum(node.memory_mb for node in self.nodes)

    @property
    def cpu_count(self) -> int:
        return sum(len(node.cpus) for node in self.nodes)


def names() -> list[str]:
    """The presets."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def load(what: str) -> Topology:
    """The topology that a preset's name or a TOML file gives; UserError says what is wrong, where, and the mend."""
    preset = PRESETS / f"{what}.toml"
    path = preset if what in names() else Path(what)
    try:
        text = path.read_text()
    except OSError as wrong:
        raise UserError(
            f"no topology '{what}'", where="--topology", hint=f"a TOML file, or one of: {', '.join(names())}"
        ) from wrong
    except UnicodeDecodeError as wrong:
        raise UserError("not a text file", where=str(path), hint="a topology is a TOML file") from wrong
    return parse(text, path)


def parse(text: str, path: Path) -> Topology:
    """The topology in a file's text; `path` gives its name and stands in messages."""
    from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

    class NodeText(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        memory_mb: NonNegativeInt
        cpus: list[NonNegativeInt] = Field(default_factory=list)

    class TopologyText(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        swap_mb: int = Field(default=1024, ge=0)
        distances: list[list[int]] | None = None
        node: list[NodeText] = Field(min_length=1, max_length=MOST_NODES)

    try:
        read = TopologyText.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as wrong:
        raise UserError(f"not valid TOML: {wrong}", where=str(path), hint="mend that line") from wrong
    except ValidationError as wrong:
        first = wrong.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{key}: {first['msg']}", where=str(path), hint="see docs/topologies.md") from wrong
    count = len(read.node)
    distances: Sequence[Sequence[int]] = read.distances or [
        [LOCAL if i == j else REMOTE for j in range(count)] for i in range(count)
    ]
    topology = Topology(
        path.stem,
        tuple(Node(i, n.memory_mb, tuple(n.cpus)) for i, n in enumerate(read.node)),
        tuple(tuple(row) for row in distances),
        read.swap_mb,
    )
    if complaint := _complaint(topology):
        message, hint = complaint
        raise UserError(message, where=str(path), hint=hint)
    return topology


def _complaint(topology: Topology) -> tuple[str, str] | None:
    """What a machine cannot be, with the mend; None when it can be."""
    owners: dict[int, int] = {}
    for node in topology.nodes:
        for cpu in node.cpus:
            if cpu in owners:
                return f"CPU {cpu} is on node {owners[cpu]} and on node {node.id}", "name it once"
            owners[cpu] = node.id
        if not node.cpus and not node.memory_mb:
            return f"node {node.id} has neither memory nor CPUs", "give it one or remove it"
        if node.memory_mb % 2:
            return f"node {node.id}: memory_mb = {node.memory_mb} is odd", "memory comes in steps of 2 MiB"
    if not owners:
        return "no node has a CPU", "give one node cpus = [0]"
    for cpu in range(max(owners)):
        if cpu not in owners:
            return f"CPU {cpu} is on no node, though CPU {max(owners)} exists", "number CPUs from 0 without gaps"
    if not topology.nodes[owners[0]].memory_mb:
        return f"node {owners[0]} has the boot CPU and no memory", "give it memory_mb"
    return _distance_complaint(topology)


def _distance_complaint(topology: Topology) -> tuple[str, str] | None:
    count = len(topology.nodes)
    if len(topology.distances) != count or any(len(row) != count for row in topology.distances):
        return "distances is not square", f"{count} rows of {count} numbers, one a node"
    for i, row in enumerate(topology.distances):
        for j, value in enumerate(row):
            if i == j and value != LOCAL:
                return f"distances: node {i} to itself is {value}", f"it is always {LOCAL}"
            if i != j and not LOCAL < value <= FARTHEST:
                return f"distances: node {i} to node {j} is {value}", f"from {LOCAL + 1} to {FARTHEST}"
    return None


def available_memory_mb(meminfo: str) -> int:
    """MemAvailable of a /proc/meminfo text in MiB (proc(5))."""
    fields: dict[str, Any] = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) // 1024


def check_host(topology: Topology, available_mb: int | None = None) -> None:
    """UserError when the guest's memory is more than the host has left."""
    if available_mb is None:
        available_mb = available_memory_mb(Path("/proc/meminfo").read_text())
    need = topology.memory_mb + QEMU_OVERHEAD_MB
    if need > available_mb:
        raise UserError(
            f"the nodes have {topology.memory_mb} MiB, and with QEMU's own {need} MiB are needed;"
            f" this host has {available_mb} MiB available",
            where=f"topology {topology.name}",
            hint="smaller nodes, or end something",
        )
