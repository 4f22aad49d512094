"""The memory-controller plugin from outside: how QEMU is told of it, for which QEMU it compiles, and how it is asked."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller import plan as plans
from controller.experiment import load
from provision.guest import memctl
from provision.guest.memctl import (
    Count,
    Fetched,
    KernelCount,
    MemoryController,
    PageCount,
    Sample,
    Series,
    Spent,
    Waited,
)
from provision.hardware import qemu, topology
from provision.hardware.qemu import Accelerator, Latency, MemoryPlugin
from provision.hardware.topology import Node, Topology
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError
from provision.host.progress import Silent
from tests.unit.test_qemu_args import SPEC

MB = 1 << 20
PLUGIN = MemoryPlugin(Path("/c,d/memctl.so"), Path("/run/x/memctl"))


def large(*sizes_mb: int) -> Topology:
    nodes = tuple(Node(i, size, (i,)) for i, size in enumerate(sizes_mb))
    return Topology("large", nodes, (), 0)


def test_memory_below_the_hole_is_in_one_piece_a_node() -> None:
    pieces = qemu.memory_pieces(topology.load("4node"))
    assert pieces == [(i * 512 * MB, 512 * MB, i) for i in range(4)]
    assert qemu.memory_pieces(topology.load("memoryless")) == [(0, 768 * MB, 0), (768 * MB, 768 * MB, 1)]


def test_more_memory_goes_on_above_four_gigabytes() -> None:
    assert qemu.memory_pieces(large(1024, 1792)) == [
        (0, 1024 * MB, 0),
        (1024 * MB, 1024 * MB, 1),
        (4096 * MB, 768 * MB, 1),
    ]
    # 2.75 GB is the first size that is cut, at 2 GB.
    assert qemu.memory_pieces(large(2814)) == [(0, 2814 * MB, 0)]
    assert qemu.memory_pieces(large(2816)) == [(0, 2048 * MB, 0), (4096 * MB, 768 * MB, 0)]


def test_qemu_is_told_where_cpus_and_memory_are() -> None:
    told = qemu.arguments(dataclasses.replace(SPEC, topology=topology.load("2node"), plugin=PLUGIN))
    assert told[told.index("-plugin") + 1] == (
        "file=/c,,d/memctl.so,socket=/run/x/memctl,cpu=0,cpu=0,cpu=1,cpu=1,"
        "memory=0+40000000=0,memory=40000000+40000000=1,direct=ffff888000000000+80000000"
    )
    assert "-plugin" not in qemu.arguments(SPEC)


def test_qemu_is_told_what_each_access_costs() -> None:
    slow = topology.load("slow-tier")
    plugin = dataclasses.replace(PLUGIN, latency=Latency(cache_kb=256, ways=4))
    told = qemu.arguments(dataclasses.replace(SPEC, topology=slow, plugin=plugin))
    options = told[told.index("-plugin") + 1].split(",")
    assert slow.performance is not None
    prices = [one for one in options if one.startswith("price=")]
    assert prices == [
        f"price={initiator}:{target}={ns}"
        for initiator, row in enumerate(slow.performance.latency_ns)
        for target, ns in enumerate(row)
        if ns is not None
    ]
    assert len(prices) == sum(bool(n.cpus) for n in slow.nodes) * sum(bool(n.memory_mb) for n in slow.nodes)
    assert options[-1] == "cache=256/4"
    # Where the topology has no figures, in proportion to distance.
    told = qemu.arguments(dataclasses.replace(SPEC, topology=topology.load("2node"), plugin=plugin))
    assert "price=0:0=100,price=0:1=210,price=1:0=210,price=1:1=100,cache=256/4" in told[told.index("-plugin") + 1]


@pytest.mark.parametrize(("kb", "ways"), [(1024, 7), (3, 8), (0, 1), (1024, 0), (1024, 128), (96, 8)])
def test_a_cache_that_is_none(kb: int, ways: int) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        Latency(kb, ways)


def test_latency_is_felt_on_the_instruction_clock_only() -> None:
    with pytest.raises(UserError) as caught:
        plans.plan(load("demo"), plans.Options(latency=Latency()))
    assert str(caught.value).startswith("--latency: ")
    assert "felt on the instruction clock only (add --clock insn)" in str(caught.value)


def test_only_tcg_has_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="only TCG"):
        qemu.arguments(dataclasses.replace(SPEC, accelerator=Accelerator.KVM, plugin=PLUGIN))
    monkeypatch.setenv("MOF_ACCEL", "kvm")
    with pytest.raises(UserError, match="KVM cannot count accesses") as caught:
        plans.plan(load("demo"), plans.Options(count_accesses=True))
    assert "--memory" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "version"),
    [((7, 2, 22), 1), ((8, 2, 1), 1), ((9, 0), 2), ((9, 1, 0), 3), ((9, 2), 4), ((10, 0, 2), 4), ((11, 0), 4)],
)
def test_the_interface_of_each_qemu(number: tuple[int, ...], version: int) -> None:
    assert memctl.interface(number) == version


@pytest.mark.parametrize("number", [(7, 2), (9, 0), (9, 1), (10, 0)])
def test_it_compiles_for_each_interface_and_says_which(tmp_path: Path, number: tuple[int, ...]) -> None:
    cache = Cache(tmp_path)
    built = memctl.ensure(cache, number, Silent())
    assert memctl.ensure(cache, number, Silent()) == built
    symbols = subprocess.run(["nm", "-D", str(built)], capture_output=True, text=True, check=True).stdout
    defined = {line.split()[2] for line in symbols.splitlines() if len(line.split()) == 3 and line.split()[1] in "TDB"}
    assert defined == {"qemu_plugin_install", "qemu_plugin_version"}
    wanted = {line.split()[1] for line in symbols.splitlines() if line.split()[0] in "Uw" and "qemu" in line}
    assert ("qemu_plugin_mem_is_store" in wanted) == (number < (9, 0)), "asked where there is one call for both kinds"


READ = {
    "version": 4, "periods": 2, "tables": True, "overflow": 0,
    "user": [[4096, 1, 2, 7, 8]], "kernel": [[0, -1, 1, 0]],
    "series": [
        {"table": 4096, "range_bits": 13, "window": 4096, "ranges": [16384, 8192],
         "samples": [[5, [[0, 6, 9]]], [7, [[0, 0, 1], [1, 2, 0]]]]},
    ],
    "prices": None,
}  # fmt: skip
PAGES = {"pages": [[4096, 8192, 2, 7, 8, 1]]}


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A plugin that answers from a table, and notes what it was asked."""
    told: dict[str, Any] = {"path": tmp_path / "s", "asked": [], "read": READ, "pages": PAGES, "on": {}, "clear": {}}
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(told["path"]))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                stream, _ = listening.accept()
            except OSError:
                return
            with stream, stream.makefile("rw") as both:
                word = both.readline().strip()
                told["asked"].append(word)
                both.write(told[word] if isinstance(told[word], str) else json.dumps(told[word]))
                both.write("\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield told
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_what_was_counted(answers: Mapping[str, Any]) -> None:
    controller = MemoryController(answers["path"])
    controller.clear()
    controller.on()
    seen = controller.seen()
    assert answers["asked"] == ["clear", "on", "read", "pages"]
    assert (seen.interface, seen.periods, seen.tables, seen.overflow) == (4, 2, True, 0)
    assert seen.user == (Count(table=4096, cpu=1, node=2, reads=7, writes=8),)
    assert seen.kernel == (KernelCount(cpu=0, node=-1, reads=1, writes=0),)
    samples = Sample(ns=5, local=6, remote=9), Sample(ns=7, local=8, remote=10)
    assert seen.series == {4096: Series(samples, 8192, {8192: ((0, 0), (2, 0)), 16384: ((6, 9), (0, 1))})}
    assert seen.waited is None
    assert seen.pages == (PageCount(4096, 8192, 2, 7, 8, period=1),)


def test_what_was_waited(answers: dict[str, Any]) -> None:
    told = {
        "problem": "", "stall": [[0, 9, 0], [1, 5, 200]], "misses": [[1, 2, 4]],
        "laps_taken": 1, "laps": [[[9, 0], [2, 100]]],
    }  # fmt: skip
    answers["read"] = {**READ, "prices": told}
    assert MemoryController(answers["path"]).seen().waited == Waited(
        problem="",
        spent=(Spent(9, 0), Spent(5, 200)),
        fetched=(Fetched(1, 2, 4),),
        laps=((Spent(9, 0), Spent(2, 100)),),
        laps_taken=1,
    )


def test_a_refusal_silence_and_nonsense_are_the_host_s(answers: dict[str, Any], tmp_path: Path) -> None:
    controller = MemoryController(answers["path"])
    answers["clear"] = {"error": "not while it counts"}
    with pytest.raises(InfraError, match="refuses: not while it counts"):
        controller.clear()
    answers["on"] = "what"
    with pytest.raises(InfraError, match="does not answer"):
        controller.on()
    with pytest.raises(InfraError, match="does not answer"):
        MemoryController(tmp_path / "nobody").on()
