"""Whether the guest has the nodes that were asked for: what it shows against the topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from provision.hardware.topology import Topology
from provision.host.deadline import Deadline

READ_SECONDS = 30.0

HOLES_MB = 4
"""What firmware keeps of a node: the legacy hole below 1 MB, ACPI tables, and rounding."""

# grep, since the read of a shell takes a byte at a time, and cpulist gives such a reader nothing.
_COMMAND = (
    "cd /sys/devices/system/node && grep -H . node[0-9]*/cpulist node[0-9]*/distance; echo;"
    " grep -E '^Node|^ +present' /proc/zoneinfo; echo; cat /proc/swaps"
)


class Output(Protocol):
    """What a shell's run() returns, as far as it matters here."""

    def expect(self) -> Output: ...

    @property
    def out(self) -> str: ...


class Shell(Protocol):
    """Runs a command in the guest."""

    def run(self, command: str, deadline: Deadline) -> Output: ...


@dataclass(frozen=True)
class ShownNode:
    """A node as the guest's kernel shows it. `memory_mb`: pages present, in MB, kernel's own included."""

    id: int
    cpus: tuple[int, ...]
    memory_mb: int
    distances: tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """What the guest has. `swap_mb`: size of all active swap, less a page for its header."""

    nodes: tuple[ShownNode, ...]
    swap_mb: int


def cpu_list(text: str) -> tuple[int, ...]:
    """ "0-2,5" -> (0, 1, 2, 5); the format of cpulist in sysfs."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)


def parse(text: str) -> Shown:
    """What _COMMAND printed."""
    listed, zones, swaps = text.replace("\r", "").split("\n\n", 2)
    present: dict[int, int] = {}
    node = -1
    for line in zones.splitlines():
        if line.startswith("Node"):
            node = int(line.split()[1].rstrip(","))
        else:
            present[node] = present.get(node, 0) + int(line.split()[1])
    files: dict[str, dict[int, str]] = {"cpulist": {}, "distance": {}}
    for line in listed.splitlines():
        path, _, content = line.partition(":")
        folder, _, name = path.partition("/")
        files[name][int(folder.removeprefix("node"))] = content
    nodes = tuple(
        ShownNode(i, cpu_list(files["cpulist"].get(i, "")), present.get(i, 0) * 4 // 1024, _integers(distances))
        for i, distances in sorted(files["distance"].items())
    )
    swap = sum(int(line.split()[2]) for line in swaps.splitlines() if line.startswith("/"))
    return Shown(nodes, round(swap / 1024))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def shown(shell: Shell) -> Shown:
    """Ask the guest."""
    return parse(shell.run(_COMMAND, Deadline.after(READ_SECONDS)).expect().out)


def check(topology: Topology, seen: Shown) -> list[str]:
    """Every difference, one line each; empty when the guest has what was asked for."""
    ids = [node.id for node in seen.nodes]
    if ids != [node.id for node in topology.nodes]:
        return [f"the guest shows nodes {_numbers(ids)}, not {_numbers([node.id for node in topology.nodes])}"]
    wrong = []
    for asked, got in zip(topology.nodes, seen.nodes, strict=True):
        if tuple(sorted(asked.cpus)) != got.cpus:
            wrong.append(f"node {asked.id} shows CPUs {_numbers(got.cpus)}, not {_numbers(asked.cpus)}")
        if not asked.memory_mb - HOLES_MB <= got.memory_mb <= asked.memory_mb:
            wrong.append(f"node {asked.id} shows {got.memory_mb} MB, not {asked.memory_mb}")
        if topology.distances[asked.id] != got.distances:
            distances = _numbers(topology.distances[asked.id])
            wrong.append(f"node {asked.id} shows distances {_numbers(got.distances)}, not {distances}")
    if abs(seen.swap_mb - topology.swap_mb) > 1:
        wrong.append(f"the guest shows {seen.swap_mb} MB of swap, not {topology.swap_mb}")
    return wrong


def _numbers(values: Sequence[int]) -> str:
    return ",".join(map(str, values)) or "none"
