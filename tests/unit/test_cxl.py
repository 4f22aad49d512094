"""CXL memory: what may be said of it, what QEMU is told, and what the guest does to use it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from provision.guest import cxl, nodes
from provision.guest.nodes import Shown
from provision.hardware import qemu, topology
from provision.hardware.qemu import Accelerator
from provision.hardware.topology import Topology
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from tests.unit.refusal import refused
from tests.unit.test_qemu_args import GOLDEN, SPEC

FIRST = "[[node]]\nid = 0\nmemory_mb = 512\ncpus = [0]\n"


def slow(number: int = 1, memory_mb: int = 512, more: str = "") -> str:
    return f"[[node]]\nid = {number}\nmemory_mb = {memory_mb}\ncxl = true\n{more}\n"


def parse(text: str) -> Topology:
    return topology.parse(text, "my", "my.toml")


TWO = parse(FIRST + slow() + slow(2, 256))


def test_it_is_memory_that_firmware_does_not_tell_of() -> None:
    assert [node.id for node in TWO.cxl_nodes] == [1, 2]
    assert (TWO.total_memory_mb, TWO.boot_memory_mb) == (1280, 512)
    assert TWO.distances == ((10, 20, 20), (20, 10, 20), (20, 20, 10))
    assert qemu.memory_pieces(TWO) == [(0, 512 << 20, 0)]


def test_it_is_slower_by_what_linux_assumes() -> None:
    # 5 * 576 / 128 = 22.5.
    assert TWO.tiers == {4: (0,), 22: (1, 2)}
    assert TWO.demotion == {0: (1, 2), 1: (), 2: ()}


BAD = {
    "cpus": (
        FIRST + slow(more="cpus = [1]"),
        "node 1: cxl: it has CPUs",
        "a node of its own",
    ),
    "odd size": (FIRST + slow(memory_mb=300), "node 1: memory_mb: 300 is no multiple of 256", "say 512"),
    "no size": (FIRST + slow(memory_mb=0), "node 1: memory_mb: 0 is no multiple of 256", "say 256"),
    "room": (FIRST + slow(more="hotplug_mb = 128"), "node 1: hotplug_mb: CXL memory does not grow", "add a node"),
    "initiator": (FIRST + slow(more="initiator = 0"), "node 1: initiator: that of CXL memory is found", "take it away"),
    "cache": (FIRST + slow(more="cache = [{size_kb = 4}]"), "node 1: cache: firmware has no words", "take it away"),
    "not a boolean": (FIRST + "[[node]]\nid = 1\nmemory_mb = 256\ncxl = 1\n", "node[1].cxl", "correct the value"),
    "not last": (
        FIRST + slow() + "[[node]]\nid = 2\nmemory_mb = 256\n",
        "would call node 2 node 1",
        "CXL memory last",
    ),
    "nothing else": (slow(0, 512) + "[[node]]\nid = 1\ncpus = [0]\n", "memory_mb: 0 MB beside CXL memory", "256 MB"),
    "latencies": (
        "latency_ns = [[100, 152]]\n" + FIRST + slow(),
        "latency_ns: 152 from node 0 to node 1, which is CXL memory of QEMU's",
        "153 at least",
    ),
    "bandwidth": (
        "latency_ns = [[100, 200]]\nbandwidth_mb = [[40000, 16001]]\n" + FIRST + slow(),
        "bandwidth_mb: 16001 from node 0 to node 1, which is CXL memory of QEMU's",
        "16000 at most",
    ),
    "room beside latencies": (
        "latency_ns = [[100, 200]]\n" + FIRST + "hotplug_mb = 128\n" + slow(),
        "hotplug_mb: beside CXL memory and latency_ns",
        "leave one",
    ),
    "distances": (
        "distances = [[10, 30], [30, 10]]\n" + FIRST + slow(),
        "distances: 30 from node 1 to node 0, but node 1 is CXL memory",
        "say 20",
    ),
    "too many": (FIRST + "".join(slow(i, 256) for i in range(1, 10)), "node: 9 nodes are CXL memory", "8 at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_file_key_and_mend(name: str) -> None:
    text, what, mend = BAD[name]
    refused(parse, text, "my.toml", what, mend)


TIMED = parse(
    "latency_ns = [[100, 200, 300, 400], [200, 100, 500, 350]]\n"
    + FIRST
    + "[[node]]\nid = 1\nmemory_mb = 512\ncpus = [1]\n"
    + slow(2)
    + slow(3)
)


def test_distances_do_not_follow_from_latencies() -> None:
    assert TIMED.distances == ((10, 20, 20, 20), (20, 10, 20, 20), (20, 20, 10, 20), (20, 20, 20, 10))
    assert [node.initiator for node in TIMED.nodes] == [0, 1, 0, 1]


def test_firmware_is_told_of_the_way_to_the_port() -> None:
    """152 ns less: that much Linux adds for the link and the device. Node 2's port is domain 4, node 3's is 5."""
    told = [(initiator, target, latency) for initiator, target, latency, _ in TIMED.hmat]
    assert told[:4] == [(0, 0, 100), (0, 1, 200), (0, 4, 148), (0, 5, 248)]
    assert told[4:] == [(1, 0, 200), (1, 1, 100), (1, 4, 348), (1, 5, 198)]
    args = qemu.arguments(dataclasses.replace(SPEC, topology=TIMED))
    assert "acpi-generic-port,id=cxlfirmware3,pci-bus=cxl3,node=5" in args
    assert [one for one in args if one.startswith("node,") and "memdev" not in one] == [
        f"node,nodeid={node}" for node in (2, 3, 4, 5)
    ]
    assert sum(one.startswith("dist,") for one in args) == 6 * 5, "QEMU wants all of them"


def test_tiers_by_latency_to_read_and_to_write() -> None:
    # It takes 100 ns more to write: 576 * 700 / 200 * 20000 / 6666 and 576 * 800 / 200 * 20000 / 5714, each rounded down.
    assert TIMED.tiers == {4: (0, 1), 47: (2,), 63: (3,)}
    uneven = parse(
        "latency_ns = [[100, 200, 300], [200, 150, 300]]\n"
        + FIRST
        + "[[node]]\nid = 1\nmemory_mb = 512\ncpus = [1]\n"
        + slow(2)
    )
    assert uneven.tiers == {4: (0, 1), 22: (2,)}, "Linux compares with nothing, and CXL memory is what kmem assumes"


def test_each_node_is_a_device_with_a_bridge_and_a_window() -> None:
    told = qemu.arguments(dataclasses.replace(SPEC, topology=TWO))
    machine = told[told.index("-machine") + 1]
    assert machine.endswith(
        ",cxl=on,cxl-fmw.0.targets.0=cxl1,cxl-fmw.0.size=512M,cxl-fmw.1.targets.0=cxl2,cxl-fmw.1.size=256M"
    )
    assert "size=512M" in told
    assert "pxb-cxl,id=cxl2,bus=pcie.0,bus_nr=136" in told
    assert "cxl-type3,id=cxlmem2,bus=cxlport2,volatile-memdev=ram2,sn=2" in told
    assert not [one for one in told if one.startswith(("node,nodeid=1", "dist", "acpi"))], (
        "no part of firmware's tables"
    )


def test_other_devices_can_reach_it() -> None:
    """Without, what a disk is to read into CXL memory ends the disk."""
    told = qemu.arguments(dataclasses.replace(SPEC, topology=TWO))
    virtio = [one for one in told if one.startswith("virtio-")]
    assert len(virtio) == 5
    assert all("bus=pcie.0" in one and "x-max-bounce-buffer-size=" in one for one in virtio)
    usual = qemu.arguments(SPEC)
    assert not [one for one in usual if ",bus=" in one or "bounce" in one or "cxl" in one]


def seen() -> Shown:
    """What a real guest of the preset printed."""
    shown = nodes.parse((GOLDEN / "nodes-cxl.txt").read_text())
    return dataclasses.replace(shown, speeds=nodes.parse_speeds((GOLDEN / "speeds-cxl.txt").read_text()))


def test_a_guest_that_sees_what_was_asked_for() -> None:
    assert nodes.check(topology.load("cxl"), seen()) == []


def test_each_difference_is_a_line() -> None:
    preset, shown = topology.load("cxl"), seen()
    assert shown.speeds is not None
    offline = dataclasses.replace(shown, nodes=shown.nodes[:2])
    assert nodes.check(preset, offline) == ["the guest shows nodes 0,1, not 0,1,2"]
    half = dataclasses.replace(shown, nodes=(*shown.nodes[:2], dataclasses.replace(shown.nodes[2], memory_mb=256)))
    assert nodes.check(preset, half) == ["node 2 shows 256 MB, not 512"]
    slower = dataclasses.replace(shown.speeds, access0={**shown.speeds.access0, 2: ((), 296, 4000)})
    assert nodes.check(preset, dataclasses.replace(shown, speeds=slower)) == [
        "node 2 shows its nearest CPUs as ((), 296, 4000), not ((), 295, 4000)"
    ]
    untimed = dataclasses.replace(preset, performance=None)
    assert nodes.check(untimed, shown) == ["the guest shows memory tiers 4: 0,1; 32: 2, not 4: 0,1; 22: 2"]


def test_only_tcg_runs_from_it() -> None:
    with pytest.raises(ValueError, match="CXL"):
        qemu.arguments(dataclasses.replace(SPEC, topology=TWO, accelerator=Accelerator.KVM))


@pytest.mark.parametrize("version", [(7, 2, 22), (9, 2, 0)])
def test_an_older_qemu_is_refused(version: tuple[int, ...]) -> None:
    with pytest.raises(InfraError, match="has no CXL memory that a guest can use as its own") as caught:
        qemu.check_version(TWO, version)
    assert "QEMU 10" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_newer_one_is_not() -> None:
    qemu.check_version(TWO, (10, 0, 2))
    qemu.check_version(TWO, (11, 0))


@dataclass
class Result:
    status: int = 0
    err: str = ""


class Shell:
    def __init__(self, result: Result) -> None:
        self.result = result
        self.asked: list[str] = []

    def run(self, command: str, deadline: Deadline) -> Result:
        self.asked.append(command)
        return self.result


def test_a_guest_brings_each_node_online_in_the_order_of_windows() -> None:
    shell = Shell(Result())
    cxl.online(shell, TWO)
    (asked,) = shell.asked
    assert asked.splitlines()[-2:] == [f"region 1 0 {512 << 20}", f"region 2 1 {256 << 20}"]


def test_a_guest_without_is_asked_nothing() -> None:
    shell = Shell(Result())
    cxl.online(shell, topology.load("4node"))
    assert shell.asked == []


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(1, "sh: I/O error\nnode 1: region0 cannot be switched on\n"), "node 1: region0 cannot be switched on"),
        (Result(143, ""), "it took too long"),
    ],
)
def test_the_step_that_fails_is_named(result: Result, said: str) -> None:
    with pytest.raises(InfraError, match=f"the guest cannot use its CXL memory: {said}") as caught:
        cxl.online(Shell(result), TWO)
    assert "\n" not in str(caught.value)
