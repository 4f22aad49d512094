"""What a guest shows against what was asked for. The golden files are what real guests printed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from provision.guest import nodes
from provision.guest.nodes import Shown, ShownNode
from provision.hardware import topology
from provision.hardware.topology import Node, Topology
from tests.unit.test_qemu_args import GOLDEN

FOUR = topology.load("4node")


def shown(name: str) -> Shown:
    return nodes.parse((GOLDEN / f"nodes-{name}.txt").read_text())


def test_four_nodes_as_asked() -> None:
    assert nodes.check(FOUR, shown("4node")) == []


def test_nodes_without_cpus_and_without_memory() -> None:
    asked = Topology(
        "odd",
        (Node(0, 512, (0, 2)), Node(1, 0, (1,)), Node(2, 1024, ())),
        ((10, 20, 40), (20, 10, 40), (40, 40, 10)),
        0,
    )
    assert nodes.check(asked, shown("odd")) == []


def altered(**change: object) -> Shown:
    seen = shown("4node")
    first = dataclasses.replace(seen.nodes[1], **change)  # type: ignore[arg-type]
    return dataclasses.replace(seen, nodes=(seen.nodes[0], first, *seen.nodes[2:]))


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (altered(cpus=()), "node 1 shows CPUs none, not 1"),
        (altered(memory_mb=500), "node 1 shows 500 MB, not 512"),
        (altered(memory_mb=513), "node 1 shows 513 MB, not 512"),
        (altered(distances=(20, 10, 20, 20)), "node 1 shows distances 20,10,20,20, not 20,10,20,30"),
        (dataclasses.replace(shown("4node"), swap_mb=0), "the guest shows 0 MB of swap, not 1024"),
        (dataclasses.replace(shown("4node"), nodes=shown("4node").nodes[:1]), "the guest shows nodes 0, not 0,1,2,3"),
        (Shown((ShownNode(0, (), 0, ()),), 0), "the guest shows nodes 0, not 0,1,2,3"),
    ],
)
def test_each_difference_is_a_line(seen: Shown, line: str) -> None:
    assert nodes.check(FOUR, seen) == [line]


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0-2,5\n", (0, 1, 2, 5)), ("", ()), ("\n", ()), ("1,3", (1, 3))]
)
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert nodes.cpu_list(text) == cpus


def test_the_question_is_asked_once() -> None:
    class Answer:
        out = (Path(GOLDEN) / "nodes-4node.txt").read_text()

        def expect(self) -> Answer:
            return self

    asked: list[str] = []

    class Shell:
        def run(self, command: str, deadline: object) -> Answer:
            asked.append(command)
            return Answer()

    assert nodes.shown(Shell()) == shown("4node")
    assert len(asked) == 1
