"""Whether the guest has the nodes that were asked for: what it shows against the topology."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from provision.hardware.performance import Indexing, Performance, Writing
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

# What firmware said of how fast memory is, and what the kernel made of it. Of initiators a link stands for each.
_COMMAND_OF_SPEEDS = (
    "cd /sys/devices/system/node && grep -rsH . node[0-9]*/access0/initiators node[0-9]*/memory_side_cache;"
    " echo node[0-9]*/access0/initiators/node[0-9]*; echo;"
    " grep -H . /sys/devices/virtual/memory_tiering/memory_tier*/nodelist; echo;"
    " dmesg | grep -E 'Initiator-Target|Demotion targets'"
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
class ShownSpeeds:
    """What the guest's kernel knows of how fast memory is.

    `latency_ns`, `bandwidth_mb`: by (initiator, target), as its log has them. `access0`: by node, what sysfs shows of its
    nearest initiators: their nodes, latency, bandwidth. `caches`: by node and level, size in KB, line, `indexing` and
    `write_policy` as numbers. `tiers`: nodes by tier. `demotion`: by node, the nodes to which its pages go.
    """

    latency_ns: Mapping[tuple[int, int], int]
    bandwidth_mb: Mapping[tuple[int, int], int]
    access0: Mapping[int, tuple[tuple[int, ...], int, int]]
    caches: Mapping[tuple[int, int], tuple[int, int, int, int]]
    tiers: Mapping[int, tuple[int, ...]]
    demotion: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Shown:
    """What the guest has. `swap_mb`: size of all active swap, less a page for its header. `speeds`: where it was asked."""

    nodes: tuple[ShownNode, ...]
    swap_mb: int
    speeds: ShownSpeeds | None = None


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


def parse_speeds(text: str) -> ShownSpeeds:
    """What _COMMAND_OF_SPEEDS printed."""
    attributes, tiers, log = text.replace("\r", "").split("\n\n", 2)
    numbers: dict[tuple[int, str], int] = {}
    caches: dict[tuple[int, int], dict[str, int]] = {}
    initiators: dict[int, list[int]] = {}
    for line in attributes.splitlines():
        if found := re.fullmatch(r"node(\d+)/access0/initiators/(\w+):(\d+)", line):
            numbers[int(found[1]), found[2]] = int(found[3])
        elif found := re.fullmatch(r"node(\d+)/memory_side_cache/index(\d+)/(\w+):(\d+)", line):
            caches.setdefault((int(found[1]), int(found[2])), {})[found[3]] = int(found[4])
        else:
            for found in re.finditer(r"node(\d+)/access0/initiators/node(\d+)", line):
                initiators.setdefault(int(found[1]), []).append(int(found[2]))
    pairs: dict[str, dict[tuple[int, int], int]] = {"nsec": {}, "MB/s": {}}
    for found in re.finditer(r"Initiator-Target\[(\d+)-(\d+)\]:(\d+) (nsec|MB/s)", log):
        pairs[found[4]][int(found[1]), int(found[2])] = int(found[3])
    # Said anew whenever a node gets a tier: the last counts.
    demotion = {
        int(found[1]): cpu_list(found[2] or "")
        for found in re.finditer(r"Demotion targets for Node (\d+): (?:null|preferred: ([\d,-]+),)", log)
    }
    return ShownSpeeds(
        pairs["nsec"],
        pairs["MB/s"],
        {
            node: (
                tuple(sorted(initiators.get(node, ()))),
                numbers.get((node, "read_latency"), 0),
                numbers.get((node, "read_bandwidth"), 0),
            )
            for node in {node for node, _ in numbers} | set(initiators)
        },
        {
            key: (
                one.get("size", 0) // 1024,
                one.get("line_size", 0),
                one.get("indexing", -1),
                one.get("write_policy", -1),
            )
            for key, one in caches.items()
        },
        {int(found[1]): cpu_list(found[2]) for found in re.finditer(r"memory_tier(\d+)/nodelist:([\d,-]+)", tiers)},
        demotion,
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def shown(shell: Shell, *, speeds: bool = False) -> Shown:
    """Ask the guest; with `speeds` also for what firmware said of them."""
    found = parse(shell.run(_COMMAND, Deadline.after(READ_SECONDS)).expect().out)
    if not speeds:
        return found
    return replace(found, speeds=parse_speeds(shell.run(_COMMAND_OF_SPEEDS, Deadline.after(READ_SECONDS)).expect().out))


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
    if topology.tiered:
        wrong += _check_speeds(topology, seen.speeds)
    return wrong


_INDEXING = {Indexing.DIRECT: 0, Indexing.COMPLEX: 1, Indexing.NONE: 2}
_WRITING = {Writing.BACK: 0, Writing.THROUGH: 1, Writing.NONE: 2}
"""Linux' numbers for them in sysfs (enum cache_indexing, cache_write_policy: include/linux/node.h)."""


def _check_speeds(topology: Topology, seen: ShownSpeeds | None) -> list[str]:
    if seen is None:
        return ["the guest was not asked how fast its memory is"]
    wrong = _check_tables(topology, topology.performance, seen) if topology.performance is not None else []
    if dict(seen.tiers) != topology.tiers:
        wrong.append(f"the guest shows memory tiers {_tiers(seen.tiers)}, not {_tiers(topology.tiers)}")
    if dict(seen.demotion) != topology.demotion:
        wrong.append(f"the guest demotes {_tiers(seen.demotion)}, not {_tiers(topology.demotion)}")
    return wrong


def _check_tables(topology: Topology, performance: Performance, seen: ShownSpeeds) -> list[str]:
    wrong = []
    for what, unit, column, got in (("latency", "ns", 2, seen.latency_ns), ("bandwidth", "MB/s", 3, seen.bandwidth_mb)):
        for row in topology.hmat:
            pair, value = (row[0], row[1]), row[column]
            if (told := got.get(pair, "no")) != value:
                wrong.append(f"from node {pair[0]} to node {pair[1]} it shows {told} {unit} of {what}, not {value}")
    for node in topology.nodes:
        if not node.memory_mb or node.initiator is None:
            continue
        best = performance.latency(node.initiator, node.id), performance.bandwidth(node.initiator, node.id)
        # Linux links CXL memory with no CPUs, and has the figures all the same (node_set_perf_attrs(), drivers/base/node.c).
        nearest = () if node.cxl else (node.initiator,)
        if (shown_there := seen.access0.get(node.id)) != (nearest, *best):
            wrong.append(f"node {node.id} shows its nearest CPUs as {shown_there}, not {(nearest, *best)}")
        for cache in node.caches:
            asked = (cache.size_kb, cache.line, _INDEXING[cache.indexing], _WRITING[cache.writing])
            if (there := seen.caches.get((node.id, cache.level))) != asked:
                wrong.append(f"node {node.id} shows a side cache {cache.level} of {there}, not {asked}")
    return wrong


def _tiers(nodes: Mapping[int, Sequence[int]]) -> str:
    return "; ".join(f"{key}: {_numbers(value)}" for key, value in sorted(nodes.items())) or "none"


def _numbers(values: Sequence[int]) -> str:
    return ",".join(map(str, values)) or "none"
