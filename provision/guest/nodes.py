"""The nodes that the guest shows, compared with those that were asked for."""

from __future__ import annotations

from dataclasses import dataclass

from provision.hardware.topology import Topology

COMMAND = (
    "cd /sys/devices/system/node && for n in node[0-9]*; do "
    "echo \"$n|$(cat $n/cpulist)|$(cat $n/distance)|$(awk '/MemTotal/ {print $4}' $n/meminfo)\"; done"
)
"""Prints a line a node: nodeN|CPU list|distances|MemTotal in kB."""

LEAST_SHARE = 0.75
"""Of a node's memory the kernel keeps page structures, its own image and reservations, most of it on node 0."""


@dataclass(frozen=True)
class Shown:
    """One node as sysfs has it. `memory_kb` is MemTotal."""

    id: int
    cpus: tuple[int, ...]
    distances: tuple[int, ...]
    memory_kb: int


def parse_cpus(text: str) -> tuple[int, ...]:
    """A kernel CPU list such as "0-2,5" (cpuset(7), list format)."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)


def parse(text: str) -> list[Shown]:
    """What COMMAND printed."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("node")]
    return sorted(
        (
            Shown(int(n.removeprefix("node")), parse_cpus(cpus), tuple(map(int, distance.split())), int(kb or 0))
            for n, cpus, distance, kb in rows
        ),
        key=lambda shown: shown.id,
    )


def differences(topology: Topology, shown: list[Shown]) -> list[str]:
    """Where the guest's nodes are not those of the topology; empty when they agree."""
    found: list[str] = []
    if [s.id for s in shown] != [n.id for n in topology.nodes]:
        return [f"the guest has nodes {[s.id for s in shown]}, the topology {[n.id for n in topology.nodes]}"]
    for node, seen in zip(topology.nodes, shown, strict=True):
        if seen.cpus != tuple(sorted(node.cpus)):
            found.append(f"node {node.id} has CPUs {list(seen.cpus)}, the topology {list(node.cpus)}")
        if seen.distances != topology.distances[node.id]:
            found.append(f"node {node.id} has distances {seen.distances}, the topology {topology.distances[node.id]}")
        most = node.memory_mb * 1024
        if not LEAST_SHARE * most <= seen.memory_kb <= most:
            found.append(f"node {node.id} has {seen.memory_kb // 1024} MiB, the topology {node.memory_mb}")
    return found
