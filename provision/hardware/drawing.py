"""A topology as text for a terminal: a box a node, then how far apart they are. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provision.hardware.topology import Node, Topology

GAP = "  "


def draw(topology: Topology, width: int = 100) -> str:
    """What it is, its nodes as boxes with as many beside each other as go into `width` columns, and its tables."""
    many = "s" if len(topology.nodes) > 1 else ""
    head = (
        f"{topology.name}: {len(topology.nodes)} node{many}, {topology.cpu_count} CPUs, "
        f"{topology.total_memory_mb:,} MB of memory, {topology.swap_mb:,} MB of swap"
    )
    lines = [head]
    if topology.title:
        lines.append(topology.title)
    lines += ["", *_boxes(topology, width), "", *_matrix("distances", topology, _distances(topology))]
    performance = topology.performance
    if performance is not None:
        lines += [
            "",
            *_matrix("latency in ns, by the CPUs' node and the memory's", topology, _rows(performance.latency_ns)),
        ]
        lines += ["", *_matrix("bandwidth in MB/s", topology, _rows(performance.bandwidth_mb))]
    if topology.tiered:
        lines += ["", *_tiers(topology)]
    if topology.source:
        lines += ["", f"source: {topology.source}"]
    return "\n".join(lines)


def _boxes(topology: Topology, width: int) -> list[str]:
    boxes = [_box(topology, node) for node in topology.nodes]
    inner = max(len(line) for box in boxes for line in [*box, f" node {topology.nodes[-1].id} "])
    height = max(map(len, boxes))
    drawn = [
        [
            f"┌─{f' node {node.id} ':─<{inner}}─┐",
            *(f"│ {line:<{inner}} │" for line in [*box, *[""] * (height - len(box))]),
            f"└─{'─' * inner}─┘",
        ]
        for node, box in zip(topology.nodes, boxes, strict=True)
    ]
    beside = max(1, (width + len(GAP)) // (inner + 4 + len(GAP)))
    lines: list[str] = []
    for first in range(0, len(drawn), beside):
        lines += [GAP.join(parts) for parts in zip(*drawn[first : first + beside], strict=True)]
    return lines


def _box(topology: Topology, node: Node) -> list[str]:
    lines = [f"CPU {_ranges(node.cpus)}" if node.cpus else "no CPU"]
    lines.append(f"{node.memory_mb:,} MB" if node.memory_mb else "no memory")
    if node.hotplug_mb:
        lines.append(f"room for {node.hotplug_mb:,} MB")
    lines += [f"side cache {cache.level}: {cache.size_kb:,} KB" for cache in node.caches]
    if node.cxl:
        lines.append("CXL")
    if topology.tiered and node.memory_mb:
        lines.append(f"tier {next(tier for tier, nodes in topology.tiers.items() if node.id in nodes)}")
    return lines


def _ranges(numbers: Sequence[int]) -> str:
    """(0, 1, 2, 5) -> "0-2,5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


Rows = Callable[[int, int], str]


def _distances(topology: Topology) -> Rows:
    return lambda a, b: str(topology.distances[a][b])


def _rows(table: Sequence[Sequence[int | None]]) -> Rows:
    return lambda a, b: "-" if table[a][b] is None else f"{table[a][b]:,}"


def _matrix(title: str, topology: Topology, cell: Rows) -> list[str]:
    ids = [node.id for node in topology.nodes]
    rows = [[cell(a, b) for b in ids] for a in ids]
    width = max(len(text) for row in [*rows, [str(i) for i in ids]] for text in row)
    side = len(f"node {ids[-1]}")
    lines = [title, " " * side + "".join(f"  {i:>{width}}" for i in ids)]
    lines += [
        f"{f'node {i}':<{side}}" + "".join(f"  {text:>{width}}" for text in row)
        for i, row in zip(ids, rows, strict=True)
    ]
    return lines


def _tiers(topology: Topology) -> list[str]:
    lines = [
        f"memory tier {tier}: node{'s' if len(nodes) > 1 else ''} {_ranges(nodes)}"
        for tier, nodes in topology.tiers.items()
    ]
    lines += [f"node {node} demotes to {_ranges(to)}" for node, to in topology.demotion.items() if to]
    return lines
