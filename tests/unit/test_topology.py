"""Topologies: what is read, what is refused, and whether the line that says so names file, key and mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.hardware import topology
from provision.hardware.topology import Node, Topology
from provision.host.errors import InfraError, UserError
from tests.unit.refusal import refused

WHERE = "my.toml"


def parse(text: str) -> Topology:
    return topology.parse(text, "my", WHERE)


def nodes(*tables: str) -> str:
    return "\n".join(f"[[node]]\n{table}" for table in tables)


GOOD = nodes("id = 0\nmemory_mb = 256\ncpus = [0]", "id = 1\nmemory_mb = 256\ncpus = [1]")


def test_the_presets_are_these() -> None:
    assert topology.presets() == [
        "1node",
        "2node",
        "4node",
        "8node",
        "cxl",
        "ia64-2006",
        "memoryless",
        "slow-tier",
        "snc",
    ]


def test_four_nodes_hold_a_256_mb_segment_each() -> None:
    four = topology.load("4node")
    assert [n.id for n in four.nodes] == [0, 1, 2, 3]
    assert [n.cpus for n in four.nodes] == [(0,), (1,), (2,), (3,)]
    assert all(n.memory_mb >= 512 for n in four.nodes)
    assert (four.total_memory_mb, four.cpu_count, four.swap_mb, four.name) == (2048, 4, 1024, "4node")
    assert four.last_cpu == 3


def test_two_nodes() -> None:
    two = topology.load("2node")
    assert [(n.memory_mb, n.cpus) for n in two.nodes] == [(1024, (0, 1)), (1024, (2, 3))]
    assert two.distances == ((10, 21), (21, 10))


def test_what_is_not_said_has_a_default() -> None:
    made = parse(GOOD)
    assert made.distances == ((10, 20), (20, 10))
    assert made.swap_mb == 1024


def test_nodes_come_in_any_order() -> None:
    swapped = nodes("id = 1\nmemory_mb = 256\ncpus = [1]", "id = 0\nmemory_mb = 256\ncpus = [0]")
    assert [n.id for n in parse(swapped).nodes] == [0, 1]


def test_a_node_may_lack_cpus_or_memory() -> None:
    made = parse(nodes("id = 0\nmemory_mb = 512\ncpus = [0]", "id = 1\ncpus = [1]", "id = 2\nmemory_mb = 256"))
    assert made.nodes == (Node(0, 512, (0,)), Node(1, 0, (1,)), Node(2, 256, ()))


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    assert topology.load(str(file)).name == "mine"


BAD = {
    "not toml": ("node = ", "not TOML", "mend the syntax"),
    "no nodes": ("swap_mb = 1", "node: it is missing", "[[node]]"),
    "empty nodes": ("node = []", "node: there is none", "[[node]]"),
    "unknown key": (GOOD + "\nmemory = 3", "node[1].memory", "memory_mb"),
    "unknown top key": ("swap = 3\n" + GOOD, "swap: there is no such key", "swap_mb"),
    "no id": (nodes("memory_mb = 512\ncpus = [0]"), "node[0].id: it is missing", "add id"),
    "text for a number": (nodes('id = 0\nmemory_mb = "1G"\ncpus = [0]'), "node[0].memory_mb", "'1G'"),
    "negative": (nodes("id = 0\nmemory_mb = -2\ncpus = [0]"), "node[0].memory_mb", "greater than or equal to 0"),
    "true": (nodes("id = 0\nmemory_mb = true\ncpus = [0]"), "node[0].memory_mb", "valid integer"),
    "cpu on no node": ("cpus = 3\n" + GOOD, "CPU 2 is on no node", "put it on a node"),
    "gap in cpus": (nodes("id = 0\nmemory_mb = 512\ncpus = [0, 2]"), "CPU 1 is on no node", "gaps"),
    "cpu on two nodes": (
        nodes("id = 0\nmemory_mb = 256\ncpus = [0]", "id = 1\nmemory_mb = 256\ncpus = [0]"),
        "CPU 0 is on node 0 and on node 1",
        "one node",
    ),
    "cpu twice": (nodes("id = 0\nmemory_mb = 512\ncpus = [0, 0]"), "CPU 0 is there twice", "one node"),
    "cpu beyond": ("cpus = 1\n" + GOOD, "no CPU 1 among 1", "count from 0"),
    "no cpu at all": (nodes("id = 0\nmemory_mb = 512"), "no node has a CPU", "cpus = [0]"),
    "gap in nodes": (
        nodes("id = 0\nmemory_mb = 256\ncpus = [0]", "id = 2\nmemory_mb = 256"),
        "no node 1, but a node 2",
        "without gaps",
    ),
    "node twice": (nodes("id = 0\nmemory_mb = 512\ncpus = [0]", "id = 0\nmemory_mb = 512"), "twice", "number"),
    "empty node": (nodes("id = 0\nmemory_mb = 512\ncpus = [0]", "id = 1"), "neither memory nor CPUs", "memory_mb"),
    "odd memory": (nodes("id = 0\nmemory_mb = 511\ncpus = [0]"), "511 is no multiple of 2", "say 512"),
    "too little": (nodes("id = 0\nmemory_mb = 64\ncpus = [0]"), "64 MB", "256 MB at least"),
    "initiator": (
        nodes("id = 0\nmemory_mb = 512\ncpus = [0]", "id = 1\nmemory_mb = 256\ninitiator = 1"),
        "node 1 has no CPUs",
        "has CPUs",
    ),
    "not square": ("distances = [[10, 20], [20]]\n" + GOOD, "2 rows of 1/2 for 2 nodes", "2 rows of 2"),
    "too few rows": ("distances = [[10, 20]]\n" + GOOD, "1 rows of 2 for 2 nodes", "2 rows of 2"),
    "self distance": ("distances = [[11, 20], [20, 10]]\n" + GOOD, "11 from node 0 to itself", "10"),
    "below ten": ("distances = [[10, 9], [9, 10]]\n" + GOOD, "9 from node 0 to node 1", "11 to 254"),
    "local remote": ("distances = [[10, 10], [10, 10]]\n" + GOOD, "10 from node 0 to node 1", "11 to 254"),
    "unreachable": ("distances = [[10, 255], [255, 10]]\n" + GOOD, "255 from node 0 to node 1", "11 to 254"),
    "asymmetric": ("distances = [[10, 20], [30, 10]]\n" + GOOD, "20 from node 0 to node 1, but 30 back", "the same"),
    "memory before cpus": (
        nodes("id = 0\nmemory_mb = 512", "id = 1\nmemory_mb = 512\ncpus = [0]"),
        "would call node 1 node 0",
        "first the nodes with CPUs",
    ),
    "cpus out of order": (
        nodes("id = 0\nmemory_mb = 512\ncpus = [1]", "id = 1\nmemory_mb = 512\ncpus = [0]"),
        "would call node 1 node 0",
        "in the order of their lowest CPU",
    ),
    "too many cpus": (nodes(f"id = 0\nmemory_mb = 512\ncpus = {list(range(65))}"), "65 CPUs", "64 at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_file_key_and_mend(name: str) -> None:
    text, what, mend = BAD[name]
    refused(parse, text, WHERE, what, mend)


def test_an_unknown_preset_lists_the_known() -> None:
    with pytest.raises(UserError, match="1node, 2node, 4node"):
        topology.load("3node")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"/nowhere/x\.toml.*No such file"):
        topology.load("/nowhere/x.toml")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        topology.load(str(file))


def test_more_memory_than_the_host_has() -> None:
    four = topology.load("4node")
    topology.check_memory(four, available_mb=2304, total_mb=4096)
    with pytest.raises(InfraError, match=r"2304 MB of memory.*this host has 2048 MB"):
        topology.check_memory(four, available_mb=2048, total_mb=2048)
    with pytest.raises(InfraError, match="2000 MB of 4096 MB are available"):
        topology.check_memory(four, available_mb=2000, total_mb=4096)


def host(root: Path, limit: str = "max") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n")
    (root / "proc/self/cgroup").write_text("0::/box\n")
    group = root / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{600 << 20}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {100 << 20}\nactive_file {100 << 20}\n")
    return root


def test_the_hosts_memory_is_read(tmp_path: Path) -> None:
    topology.check_host(topology.load("4node"), host(tmp_path))


def test_a_control_groups_limit_counts(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"2304 MB.*2102 MB of 2502 MB are available"):
        topology.check_host(topology.load("4node"), host(tmp_path, str(2502 << 20)))
