"""How fast memory is from where: what is read, what follows from it, what is refused, and what a guest made of it.

The golden files are of a real guest: its topology, and what it printed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from provision.guest import nodes
from provision.guest.nodes import Shown, ShownSpeeds
from provision.hardware import performance, qemu, topology
from provision.hardware.performance import Indexing, SideCache, Writing
from provision.hardware.topology import Topology
from provision.host.errors import InfraError
from tests.unit.refusal import refused
from tests.unit.test_qemu_args import GOLDEN, SPEC

CACHED = topology.load(str(GOLDEN / "topology-cached.toml"))


def parse(text: str) -> Topology:
    return topology.parse(text, "my", "my.toml")


def machine(top: str, *extra: str, cpus: tuple[int, ...] = (1, 1)) -> str:
    """Nodes of 256 MB, the given number of CPUs on each, with more keys each."""
    tables, first = [], 0
    for number, count in enumerate(cpus):
        more = extra[number] if number < len(extra) else ""
        tables.append(f"[[node]]\nid = {number}\nmemory_mb = 256\ncpus = {list(range(first, first + count))}\n{more}")
        first += count
    return top + "\n" + "\n".join(tables)


TWO = "latency_ns = [[100, 250], [250, 100]]"
TIERED = machine("latency_ns = [[100, 150, 300], [150, 100, 300]]", cpus=(1, 1, 0))


def test_what_is_not_said_follows_from_latencies() -> None:
    made = parse(TIERED)
    assert made.distances == ((10, 15, 30), (15, 10, 30), (30, 30, 10))
    assert [node.initiator for node in made.nodes] == [0, 1, 0], "itself, or the lowest of the nearest"
    assert made.performance is not None
    assert made.performance.latency(1, 2) == 300
    assert made.performance.bandwidth(0, 0) == performance.DEFAULT_BANDWIDTH_MB
    assert made.performance.bandwidth(1, 2) == 3333
    with pytest.raises(KeyError):
        made.performance.latency(2, 0)


def test_two_nodes_without_cpus_are_apart_by_the_way_over_one_that_has_some() -> None:
    made = parse(machine("latency_ns = [[100, 200, 300]]", cpus=(1, 0, 0)))
    assert made.distances == ((10, 20, 30), (20, 10, 40), (30, 40, 10))


def test_what_is_said_is_kept() -> None:
    made = parse(machine(f"distances = [[10, 40], [40, 10]]\n{TWO}\nbandwidth_mb = [[900, 30], [40, 800]]"))
    assert made.distances == ((10, 40), (40, 10))
    assert made.performance is not None
    assert made.performance.bandwidth_mb == ((900, 30), (40, 800))


def test_without_latencies_there_is_no_table() -> None:
    made = parse(machine(""))
    assert made.performance is None
    assert made.tiers == {4: (0, 1)}
    assert made.demotion == {0: (), 1: ()}


def test_tiers_and_demotion_as_linux_has_them() -> None:
    made = parse(TIERED)
    # 576 * 600 / 200 * 20000 / 6666, each rounded down: 5184, and 5184 / 128 = 40.5.
    assert made.tiers == {4: (0, 1), 40: (2,)}
    assert made.demotion == {0: (2,), 1: (2,), 2: ()}


def test_nodes_with_cpus_that_differ_by_more_than_a_tenth_make_one_tier() -> None:
    uneven = parse(machine("latency_ns = [[100, 150, 300], [150, 112, 300]]", cpus=(1, 1, 0)))
    assert uneven.tiers == {4: (0, 1, 2)}
    even = parse(
        machine(
            "latency_ns = [[100, 150, 300], [150, 109, 300]]\nbandwidth_mb = [[99, 9, 9], [9, 95, 9]]", cpus=(1, 1, 0)
        )
    )
    assert list(even.tiers) == [4, 5, 148], "alike enough to compare with, not to be one tier"


def test_pages_go_to_all_that_are_equally_near_in_the_next_tier() -> None:
    by_tier = {4: (0, 1), 20: (2, 3), 30: (4,)}
    distances = (
        (10, 20, 30, 30, 50),
        (20, 10, 40, 30, 50),
        (30, 40, 10, 20, 50),
        (30, 30, 20, 10, 50),
        (50, 50, 50, 50, 10),
    )
    found = performance.demotion(by_tier, distances, [True, True, False, False, False])
    assert found == {0: (2, 3), 1: (3,), 2: (4,), 3: (4,), 4: ()}


def test_caches_and_room() -> None:
    assert CACHED.nodes[0].caches == (SideCache(1, 32768, 64, Indexing.DIRECT, Writing.BACK),)
    assert [cache.level for cache in CACHED.nodes[3].caches] == [1, 2]
    assert CACHED.hotplug_mb == 256


BAD = {
    "rows": (machine("latency_ns = [[100, 250]]"), "latency_ns: 1 rows for 2 nodes with CPUs", "node 0, 1"),
    "pair missing": (
        machine("latency_ns = [[100], [250, 100]]"),
        "latency_ns: from node 0 to node 1 there is nothing",
        "2 numbers",
    ),
    "zero": (machine("latency_ns = [[100, 0], [250, 100]]"), "latency_ns: 0 from node 0 to node 1", "from 1 to 65534"),
    "too many": (machine("latency_ns = [[100, 1, 1], [2, 100]]"), "from node 0 there are 3 numbers", "2 nodes"),
    "too much": (machine("latency_ns = [[100, 65535], [250, 100]]"), "65535 from node 0 to node 1", "to 65534"),
    "negative": (machine("latency_ns = [[100, -1], [250, 100]]"), "latency_ns[0][1]", "correct"),
    "no memory there": (
        "latency_ns = [[100, 5], [250, 0]]\n[[node]]\nid = 0\nmemory_mb = 512\ncpus = [0]\n[[node]]\nid = 1\ncpus = [1]\n",
        "latency_ns: 5 from node 0 to node 1, which has no memory",
        "say 0",
    ),
    "own is further": (
        machine("latency_ns = [[300, 250], [250, 100]]"),
        "latency_ns: node 0 has 300 to its own memory and 250 to that of node 1",
        "the lowest",
    ),
    "asymmetric": (
        machine("latency_ns = [[100, 250], [350, 100]]"),
        "latency_ns: 250 from node 0 to node 1, but 350 back",
        "give distances too",
    ),
    "order": (
        machine("distances = [[10, 30, 20], [30, 10, 20], [20, 20, 10]]\n" + TIERED.splitlines()[0], cpus=(1, 1, 0)),
        "distances: from node 0 it is 30 to node 1 and 20 to node 2, but latency_ns says 150 and 300",
        "leave distances out",
    ),
    "bandwidth alone": (machine("bandwidth_mb = [[9, 8], [8, 9]]"), "bandwidth_mb: without latency_ns", "latency_ns"),
    "bandwidth rows": (machine(TWO + "\nbandwidth_mb = [[9, 8]]"), "bandwidth_mb: 1 rows", "a row each"),
    "initiator of a node with CPUs": (
        machine(TWO, "initiator = 1"),
        "node 0: initiator: node 1, but node 0 is nearer",
        "leave it out",
    ),
    "initiator that is not the nearest": (
        machine("latency_ns = [[100, 150, 310], [150, 100, 300]]", "", "", "initiator = 0", cpus=(1, 1, 0)),
        "node 2: initiator: node 0, but node 1 is nearer",
        "leave it out",
    ),
    "cache without speeds": (machine("", "cache = [{size_kb = 4}]"), "node 0: cache: without latency_ns", "firmware"),
    "cache levels": (
        machine(TWO, "cache = [{level = 2, size_kb = 4}]"),
        "node 0: cache: levels 2",
        "number them 1",
    ),
    "cache sizes": (
        machine(TWO, "cache = [{level = 1, size_kb = 4}, {level = 2, size_kb = 4}]"),
        "node 0: cache: [4, 4] KB",
        "larger",
    ),
    "cache key": (machine(TWO, "cache = [{size = 4}]"), "node[0].cache[0].size", "size_kb"),
    "cache indexing": (machine(TWO, 'cache = [{size_kb = 4, indexing = "odd"}]'), "node[0].cache[0].indexing", "'odd'"),
    "room": (machine("", "hotplug_mb = 100"), "node 0: hotplug_mb: 100 is no multiple of 128", "say 128"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_file_key_and_mend(name: str) -> None:
    text, what, mend = BAD[name]
    refused(parse, text, "my.toml", what, mend)


def test_an_initiator_that_is_as_near_as_another_may_be_named() -> None:
    made = parse(machine("latency_ns = [[100, 150, 300], [150, 100, 300]]", "", "", "initiator = 1", cpus=(1, 1, 0)))
    assert made.nodes[2].initiator == 1


def test_qemu_is_told_every_pair_and_every_cache() -> None:
    told = qemu.arguments(dataclasses.replace(SPEC, topology=CACHED))
    assert "q35,usb=off,vmport=off,smbus=off,sata=off,hmat=on" in told
    assert "size=1280M,slots=2,maxmem=1536M" in told
    pair = "hmat-lb,initiator=1,target=3,hierarchy=memory,data-type=access-"
    assert f"{pair}latency,latency=350" in told
    assert f"{pair}bandwidth,bandwidth=4500M" in told
    assert sum(one.startswith("hmat-lb") for one in told) == 18, "three initiators, three targets, both"
    first = told.index("hmat-cache,node-id=3,size=4096K,level=1,associativity=complex,policy=write-through,line=64")
    assert first < told.index("hmat-cache,node-id=3,size=8192K,level=2,associativity=none,policy=none,line=128")


def test_an_old_qemu_and_a_node_without_memory() -> None:
    with pytest.raises(InfraError, match=r"QEMU 7\.2\.22 would have memory on node 2") as caught:
        qemu.check_version(CACHED, (7, 2, 22))
    assert "QEMU 10" in caught.value.hint
    qemu.check_version(CACHED, (10, 0, 2))
    qemu.check_version(topology.load("slow-tier"), (7, 2, 22))
    qemu.check_version(topology.load("memoryless"), (7, 2, 22))


def seen() -> Shown:
    shown = nodes.parse((GOLDEN / "nodes-cached.txt").read_text())
    return dataclasses.replace(shown, speeds=nodes.parse_speeds((GOLDEN / "speeds-cached.txt").read_text()))


def test_a_guest_that_sees_what_was_asked_for() -> None:
    assert nodes.check(CACHED, seen()) == []


def changed(**change: Mapping[Any, Any]) -> Shown:
    shown = seen()
    assert shown.speeds is not None
    merged = {name: {**getattr(shown.speeds, name), **value} for name, value in change.items()}
    return dataclasses.replace(shown, speeds=dataclasses.replace(shown.speeds, **merged))


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (changed(latency_ns={(1, 3): 351}), "from node 1 to node 3 it shows 351 ns of latency, not 350"),
        (changed(bandwidth_mb={(0, 0): 1}), "from node 0 to node 0 it shows 1 MB/s of bandwidth, not 20000"),
        (
            changed(access0={3: ((1,), 300, 5000)}),
            "node 3 shows its nearest CPUs as ((1,), 300, 5000), not ((0,), 300, 5000)",
        ),
        (changed(caches={(3, 2): (1, 2, 3, 4)}), "node 3 shows a side cache 2 of (1, 2, 3, 4), not (8192, 128, 2, 2)"),
        (changed(tiers={54: ()}), "the guest shows memory tiers 4: 0,1; 54: none, not 4: 0,1; 54: 3"),
        (changed(demotion={1: ()}), "the guest demotes 0: 3; 1: none; 3: none, not 0: 3; 1: 3; 3: none"),
        (dataclasses.replace(seen(), speeds=None), "the guest was not asked how fast its memory is"),
    ],
)
def test_each_difference_is_a_line(shown: Shown, line: str) -> None:
    assert nodes.check(CACHED, shown) == [line]


def test_a_guest_without_hmat_shows_nothing_of_all_that() -> None:
    nothing = nodes.parse_speeds("node[0-9]*/access0/initiators/node[0-9]*\n\n/sys/x/memory_tier4/nodelist:0-1\n\n")
    assert nothing == ShownSpeeds({}, {}, {}, {}, {4: (0, 1)}, {})
    assert len(nodes.check(CACHED, dataclasses.replace(seen(), speeds=nothing))) == 18 + 3 + 3 + 2
