"""Bringing CXL memory online, as a distribution does with the program `cxl`: by writing to the guest's sysfs.

For each device a region over its window, as large as the device, with the device as its only target. A DAX device then
appears over the region, and the driver kmem gives that to the page allocator: the guest has a node more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from provision.hardware.topology import Topology
from provision.host.deadline import Deadline
from provision.host.errors import InfraError

SCRIPT = Path(__file__).with_suffix(".sh")
ONLINE_SECONDS = 60.0


class Output(Protocol):
    """What a shell's run() returns, as far as it matters here."""

    @property
    def status(self) -> int: ...

    @property
    def err(self) -> str: ...


class Shell(Protocol):
    """Runs a command in the guest."""

    def run(self, command: str, deadline: Deadline) -> Output: ...


def command(topology: Topology) -> str:
    """A command line of sh(1) that brings every node online that is CXL memory; "" when none is. Windows are in the order of
    nodes, and a device has its node's number as its serial number (provision/hardware/cxl.py)."""
    nodes = topology.cxl_nodes
    if not nodes:
        return ""
    calls = [f"region {node.id} {window} {node.memory_mb << 20}" for window, node in enumerate(nodes)]
    return SCRIPT.read_text(encoding="utf-8") + "\n".join(calls) + "\n"


def online(shell: Shell, topology: Topology) -> None:
    """Bring the topology's CXL memory online; nothing to do without. InfraError names the node and the step that failed."""
    text = command(topology)
    if not text:
        return
    done = shell.run(text, Deadline.patient(ONLINE_SECONDS))
    if done.status != 0:
        said = done.err.strip().splitlines() or ["it took too long"]
        raise InfraError(
            f"the guest cannot use its CXL memory: {said[-1]}",
            where=f"topology {topology.name}",
            hint="its log (dmesg) may say more; a kernel for it has -cxl in its id",
            detail="\n".join(said[:-1]),
        )
