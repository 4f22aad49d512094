"""How fast memory is from where: tables of latency and bandwidth, checked, and what follows from them.

Pure. A table has a row for each node with CPUs, in their order, and in it a number for each node; where that has no memory, 0.
It goes into the firmware's HMAT (ACPI 6.5, 5.2.28), of which Linux makes access classes and memory tiers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from provision.host.errors import UserError

MAX_LATENCY_NS = 65_534
"""What 16 bits hold, in the nanoseconds that QEMU makes of what it is told; 65,535 means unreachable (ACPI 6.5, table 5.146)."""
MAX_BANDWIDTH_MB = 65_534
"""The same in MB/s."""
DEFAULT_BANDWIDTH_MB = 10_000
"""Of the fastest memory where no bandwidth is said. What is slower to answer has in proportion less of it."""

Table = tuple[tuple[int | None, ...], ...]
"""[initiator][target], by node; None where the one has no CPUs or the other no memory."""


class Indexing(StrEnum):
    """How a memory-side cache finds a line (`indexing` in sysfs)."""

    NONE = "none"
    DIRECT = "direct"
    COMPLEX = "complex"


class Writing(StrEnum):
    """When a memory-side cache writes to its memory (`write_policy` in sysfs)."""

    NONE = "none"
    BACK = "write-back"
    THROUGH = "write-through"


@dataclass(frozen=True)
class SideCache:
    """A cache on the memory's side of a node: level 1 is the nearest to the CPUs. `line` in bytes."""

    level: int
    size_kb: int
    line: int
    indexing: Indexing
    writing: Writing


@dataclass(frozen=True)
class Performance:
    """Latency in ns and bandwidth in MB/s, for each pair of a node with CPUs and one with memory."""

    latency_ns: Table
    bandwidth_mb: Table

    def latency(self, initiator: int, target: int) -> int:
        """In ns. KeyError where there are no CPUs, or no memory."""
        return _at(self.latency_ns, initiator, target)

    def bandwidth(self, initiator: int, target: int) -> int:
        """In MB/s. KeyError as above."""
        return _at(self.bandwidth_mb, initiator, target)


def _at(table: Table, initiator: int, target: int) -> int:
    value = table[initiator][target]
    if value is None:
        raise KeyError((initiator, target))
    return value


Bad = Callable[[str, str], UserError]
"""Makes the error of a text and a mend."""


def table(
    key: str, rows: Sequence[Sequence[int]], cpus: Sequence[bool], memory: Sequence[bool], most: int, bad: Bad
) -> Table:
    """The rows of a file as a table. `cpus`, `memory`: by node, whether it has any. UserError, made by `bad`."""
    count = len(cpus)
    initiators = [node for node in range(count) if cpus[node]]
    if len(rows) != len(initiators):
        who = ", ".join(map(str, initiators))
        raise bad(
            f"{key}: {len(rows)} rows for {len(initiators)} nodes with CPUs",
            f"a row each for node {who}, in this order",
        )
    found: list[tuple[int | None, ...]] = [(None,) * count for _ in range(count)]
    for initiator, row in zip(initiators, rows, strict=True):
        if len(row) < count:
            raise bad(
                f"{key}: from node {initiator} to node {len(row)} there is nothing", f"a row takes {count} numbers"
            )
        if len(row) > count:
            raise bad(f"{key}: from node {initiator} there are {len(row)} numbers", f"there are {count} nodes")
        for target, value in enumerate(row):
            where = f"{key}: {value} from node {initiator} to node {target}"
            if memory[target] and not 1 <= value <= most:
                raise bad(where, f"from 1 to {most}")
            if not memory[target] and value:
                raise bad(f"{where}, which has no memory", "say 0 there")
        found[initiator] = tuple(value if memory[target] else None for target, value in enumerate(row))
    return tuple(found)


def check_local(latency: Table, bad: Bad) -> None:
    """Of all memory a node's own is the nearest."""
    for initiator, row in enumerate(latency):
        own = row[initiator]
        if own is None:
            continue
        for target, value in enumerate(row):
            if value is not None and value < own:
                what = f"latency_ns: node {initiator} has {own} to its own memory and {value} to that of node {target}"
                raise bad(what, "make its own the lowest")


def check_order(latency: Table, distances: Sequence[Sequence[int]], apart: Collection[int], bad: Bad) -> None:
    """What is further by latency is not nearer by distance; `apart`: nodes whose distance says nothing."""
    for initiator, row in enumerate(latency):
        there = [(value, target) for target, value in enumerate(row) if value is not None and target not in apart]
        for value, target in there:
            for other, further in there:
                if value < other and distances[initiator][target] > distances[initiator][further]:
                    what = (
                        f"distances: from node {initiator} it is {distances[initiator][target]} to node {target} and "
                        f"{distances[initiator][further]} to node {further}, but latency_ns says {value} and {other}"
                    )
                    raise bad(what, "make both say the same is nearer, or leave distances out")


def bandwidth_for(latency: Table) -> Table:
    """Where none is said: the fastest memory has DEFAULT_BANDWIDTH_MB, others in proportion less."""
    least = min(value for row in latency for value in row if value is not None)
    return tuple(
        tuple(None if value is None else max(1, DEFAULT_BANDWIDTH_MB * least // value) for value in row)
        for row in latency
    )


def distances_from(latency: Table, local: int, least_remote: int, most: int, bad: Bad) -> tuple[tuple[int, ...], ...]:
    """A distance matrix in proportion to latencies, the lowest latency being `local`.

    A node without CPUs is as far from one with CPUs as that from it. Between two without, it is the way by the nearest node
    that has CPUs. UserError when both directions do not come to the same.
    """
    count = len(latency)
    base = min(value for row in latency for value in row if value is not None)

    def scaled(value: int) -> int:
        return min(most, max(least_remote, round(local * value / base)))

    known: dict[tuple[int, int], int] = {}
    for a, row in enumerate(latency):
        for b, value in enumerate(row):
            if a == b or value is None:
                continue
            back = latency[b][a]
            if back is not None and scaled(back) != scaled(value):
                what = f"latency_ns: {value} from node {a} to node {b}, but {back} back"
                raise bad(what, "distances are the same both ways: make these so, or give distances too")
            known[a, b] = known[b, a] = scaled(value)
    with_cpus = [a for a in range(count) if any(value is not None for value in latency[a])]
    for a in range(count):
        for b in range(a):
            if (a, b) not in known:
                ways = [known[a, i] + known[i, b] - local for i in with_cpus if (a, i) in known and (i, b) in known]
                known[a, b] = known[b, a] = min(most, min(ways, default=2 * local))
    return tuple(tuple(local if a == b else known[a, b] for b in range(count)) for a in range(count))


def nearest(latency: Table, target: int) -> int | None:
    """The node whose CPUs reach this node's memory soonest, the lowest of several; None where it has no memory."""
    ways = [(row[target], initiator) for initiator, row in enumerate(latency) if row[target] is not None]
    return min(ways, key=lambda way: (way[0] or 0, way[1]))[1] if ways else None


ADISTANCE_DRAM = 576
"""MEMTIER_ADISTANCE_DRAM (include/linux/memory-tiers.h): four chunks and a half."""
CHUNK_BITS = 7
"""MEMTIER_CHUNK_BITS: memory whose abstract distance is in the same 128 is in one tier."""
ALIKE = 10
"""Of nodes with CPUs and memory none may differ from the first by more than a tenth, else Linux puts all into one tier
(mt_set_default_dram_perf(), mm/memory-tiers.c)."""


def tiers(
    performance: Performance | None,
    initiators: Mapping[int, int],
    assumed: Mapping[int, int],
    write_more_ns: Mapping[int, int],
) -> dict[int, tuple[int, ...]]:
    """Nodes by memory tier, the fastest first, as Linux 6.12 makes them of an HMAT (mt_perf_to_adistance()).

    `initiators`: of each node with memory, the nearest node with CPUs, itself where it has some. `assumed`: abstract distances of
    nodes that are not DRAM where nothing is known. `write_more_ns`: of nodes where it takes longer to write than to read.
    """
    found: dict[int, list[int]] = {}
    own = [node for node, initiator in initiators.items() if node == initiator]
    measured = {node: _perf(performance, initiators[node], node) for node in initiators} if performance else {}
    reference = measured.get(own[0]) if own else None
    alike = reference is not None and all(
        abs(value - base) * ALIKE <= base for node in own for value, base in zip(measured[node], reference, strict=True)
    )
    for node in initiators:
        distance = assumed.get(node, ADISTANCE_DRAM)
        if alike and reference is not None:
            # In this order, in whole numbers, read and write counted both.
            latency, bandwidth = measured[node]
            both = 2 * latency + write_more_ns.get(node, 0)
            distance = ADISTANCE_DRAM * both // (2 * reference[0]) * (2 * reference[1]) // (2 * bandwidth)
        found.setdefault(distance >> CHUNK_BITS, []).append(node)
    return {tier: tuple(found[tier]) for tier in sorted(found)}


def _perf(performance: Performance | None, initiator: int, target: int) -> tuple[int, int]:
    assert performance is not None
    return performance.latency(initiator, target), performance.bandwidth(initiator, target)


def demotion(
    by_tier: Mapping[int, Sequence[int]], distances: Sequence[Sequence[int]], with_cpus: Sequence[bool]
) -> dict[int, tuple[int, ...]]:
    """Where pages of a node with memory go when it is reclaimed with demotion on, () where nowhere: of the next tier those
    that are equally near (establish_demotion_targets(), mm/memory-tiers.c; find_next_best_node(), mm/page_alloc.c)."""
    found: dict[int, tuple[int, ...]] = {}
    order = sorted(by_tier)
    for number, tier in enumerate(order):
        below = by_tier[order[number + 1]] if number + 1 < len(order) else ()
        for node in by_tier[tier]:
            # A lower number than one's own counts as a bit further, and so do CPUs.
            ranked = sorted(below, key=lambda to: (distances[node][to] + (to < node) + with_cpus[to], to))
            same = [to for to in ranked if distances[node][to] == distances[node][ranked[0]]]
            prefix = []
            for to in ranked:
                if to not in same:
                    break
                prefix.append(to)
            found[node] = tuple(sorted(prefix))
    return dict(sorted(found.items()))
