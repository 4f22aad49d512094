"""Whether memory is felt: what is tried, and what is made of it."""

from __future__ import annotations

import pytest

from controller import latency
from controller.analysis.model import Felt, LatencyProof
from controller.report import figures
from provision.hardware import topology

NEAR, FAR = Felt(0, 0, 50, 50.0), Felt(0, 1, 100, 100.0)


def test_a_node_s_own_memory_is_tried_and_the_farthest() -> None:
    slow = topology.load("slow-tier")
    assert slow.performance is not None
    (cpu, home, near), (same, again, far) = latency.pairs(slow)
    assert (cpu, home) == (same, again)
    assert (home, near) == (0, 0)
    assert cpu in slow.nodes[0].cpus
    assert slow.performance.latency(home, far) == max(ns for ns in slow.performance.latency_ns[home] if ns is not None)


def test_without_figures_memory_is_as_far_as_it_is_distant() -> None:
    empty = topology.load("memoryless")
    assert empty.performance is None
    for node, row, distances in zip(empty.nodes, empty.access_ns, empty.distances, strict=True):
        expected = [
            10 * far if node.cpus and to.memory_mb else None for far, to in zip(distances, empty.nodes, strict=True)
        ]
        assert list(row) == expected
    assert topology.load("2node").access_ns == ((100, 210), (210, 100))


def test_what_is_felt_as_it_should_be() -> None:
    proof = latency.judged((NEAR, FAR))
    assert proof == LatencyProof(True, "", (NEAR, FAR))
    assert figures.latency(proof) == "felt: node 0 to 0 50.00 of 50 ns, node 0 to 1 100.00 of 100 ns"


@pytest.mark.parametrize("felt", [4.0, 98.9, 101.1, 200.0])
def test_what_is_not(felt: float) -> None:
    proof = latency.judged((NEAR, Felt(0, 1, 100, felt)))
    assert not proof.felt
    assert proof.why == f"from node 0 to node 1 it felt {felt:g} ns, not 100"
    assert figures.latency(proof) == f"modelled stall time only, not felt: {proof.why}"
