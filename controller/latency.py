"""Whether a guest feels how far its memory is: asked of the guest itself, by its own clock, before anything is measured in it.

The memory controller adds to the guest's clock what it has no official way of adding to (provision/hardware/plugin/price.c). So
it is believed only where a walk over far more memory than the modelled cache holds takes as long as the topology says, to the
node's own memory and to the farthest.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from controller.analysis.model import Felt, LatencyProof
from controller.arming import Standing
from controller.plan import Wanted
from controller.shell import Shell
from controller.workloads import program as workload
from provision.guest.memctl import MemoryController
from provision.hardware.qemu import Latency
from provision.hardware.topology import Topology
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Progress

PROGRAM = "felt"
IN_GUEST = "/run/mof-felt"
LOADS = 4096
"""In each walk that the program times."""
SMALL = 4096
"""Bytes that any cache has: what a load costs without waiting."""
TIMES_THE_CACHE = 8
WITHIN = 0.01
"""A felt latency may differ so much from the configured one."""
COMMAND_SECONDS = 120.0


def tried(standing: Standing, wanted: Wanted, cache: Cache, progress: Progress) -> LatencyProof | None:
    """None where memory is to take no time. GuestLost, InfraError."""
    memory, how = standing.guest.memory, wanted.options.latency
    if memory is None or how is None:
        return None
    progress.step("does the guest feel how long memory takes? trying it")
    return prove(standing.shell, memory, wanted.topology, how, workload.ensure(cache, PROGRAM, progress))


def warnings(proof: LatencyProof | None) -> list[str]:
    """What a person has to know of the times that follow."""
    if proof is None or proof.felt:
        return []
    return [f"times are without the memory's latency, which is only modelled: {proof.why}"]


def pairs(topology: Topology) -> tuple[tuple[int, int, int], ...]:
    """(CPU, its node, another node or the same): the first CPU that has memory of its own, that memory, and what is farthest
    from there."""
    table = topology.access_ns
    home = next(node for node in topology.nodes if node.cpus and node.memory_mb)
    row = table[home.id]
    far = max((n for n, ns in enumerate(row) if ns is not None), key=lambda n: (row[n] or 0, -n))
    return tuple((home.cpus[-1], home.id, target) for target in dict.fromkeys((home.id, far)))


def prove(
    shell: Shell, controller: MemoryController, topology: Topology, latency: Latency, program: Path
) -> LatencyProof:
    """Let the guest walk, and compare. Where it does not feel what it should, its clock is left alone from then on, and what
    is waited for memory is only added up. `program`: the workload of that name. GuestLost, InfraError."""
    shell.put(program, IN_GUEST)
    shell.run(f"chmod 755 {IN_GUEST}", Deadline.patient(COMMAND_SECONDS)).expect()

    large = 1 << (latency.cache_kb * 1024 * TIMES_THE_CACHE - 1).bit_length()
    tried = pairs(topology)
    cpu, home, _ = tried[0]
    places = [f"{home}:{SMALL}", *(f"{target}:{large}" for _, _, target in tried)]
    controller.clear()
    command = f"taskset -c {cpu} {IN_GUEST} {' '.join(places)}"
    said = shell.run(command, Deadline.patient(COMMAND_SECONDS)).expect().out
    waited = controller.seen().waited
    assert waited is not None
    if waited.problem:
        return LatencyProof(False, waited.problem, ())
    near, *far = (statistics.median(map(int, line.split())) / LOADS for line in said.splitlines())
    found = tuple(
        Felt(home, target, topology.access_ns[home][target] or 0, round(took - near, 3))
        for (_, _, target), took in zip(tried, far, strict=True)
    )
    controller.clear()
    proof = judged(found)
    if not proof.felt:
        controller.model_only()
    return proof


def judged(found: tuple[Felt, ...]) -> LatencyProof:
    """Pure."""
    for one in found:
        if abs(one.felt_ns / one.configured_ns - 1) > WITHIN:
            what = (
                f"from node {one.initiator} to node {one.target} it felt {one.felt_ns:g} ns, not {one.configured_ns:g}"
            )
            return LatencyProof(False, what, found)
    return LatencyProof(True, "", found)
