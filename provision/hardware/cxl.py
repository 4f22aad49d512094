"""CXL memory (type 3 devices, volatile): what may be said of a node that is some, and QEMU's arguments for it. Pure.

Each such node is a device of its own behind a host bridge of its own, in a window of its own of the guest's physical addresses
(CFMWS: CXL specification 3.0, 9.17.1.3). Firmware does not map it: the guest's kernel does, when it is told to
(provision/guest/cxl.py). For a window of which the SRAT does not tell Linux makes a node, with the next number that is free,
in the order of the windows (acpi_parse_cfmws(), drivers/acpi/numa/srat.c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provision.host.errors import UserError

STEP_MB = 256
"""A device has a multiple of that (CXL_CAPACITY_MULTIPLIER, QEMU's include/hw/cxl/cxl_device.h), and Linux asks for it
(dpa_size_store(), drivers/cxl/core/port.c)."""
MOST = 8
"""Nodes of that kind: as many host bridges find bus numbers, below."""

DISTANCE = 20
"""From and to CXL memory, whatever a SLIT says: Linux makes its table of distances of the nodes in the SRAT, and of others
assumes that (__node_distance(), mm/numa_memblks.c)."""
ADISTANCE_TIMES = 5
"""So many times the abstract distance of DRAM, where Linux does not know how fast it is (MEMTIER_DEFAULT_DAX_ADISTANCE,
drivers/dax/kmem.c)."""

OLDEST_QEMU = (10,)
"""8.0 has volatile devices, 9.1 lets other devices reach them (x-max-bounce-buffer-size); what was tried is 10.0."""

_FIRST_BUS = 0x80
_BUSES = 8
"""Of each host bridge: its own, that of the device behind its port, and some to spare. pcie.0 has those below."""

_BOUNCE_BYTES = 16 << 20
"""To QEMU a window is registers, not memory (cfmws_ops, hw/i386/pc.c): what a device reads or writes there goes through a
buffer, by default of a page in all. With more at once a virtio device says 'bogus descriptor' and is dead. The limit is that
of the PCI function, and a virtio device asks there only when it may not go round an IOMMU."""

BESIDE = f",bus=pcie.0,disable-legacy=on,iommu_platform=on,x-max-bounce-buffer-size={_BOUNCE_BYTES}"
"""What each virtio device of such a machine is told. The bus since there are several, of which QEMU would take the last."""

Bad = Callable[[str, str], UserError]
"""Makes the error of a text and a mend."""


def check_node(
    node: int, memory_mb: int, cpus: Sequence[int], hotplug_mb: int, initiator: int | None, bad: Bad
) -> None:
    """Whether a node can be CXL memory. UserError, made by `bad`."""
    key = f"node {node}"
    if cpus:
        raise bad(f"{key}: cxl: it has CPUs", "CXL memory is a node of its own: give its CPUs to another")
    if hotplug_mb:
        raise bad(f"{key}: hotplug_mb: CXL memory does not grow", "take it away, or add a node")
    if initiator is not None:
        raise bad(f"{key}: initiator: firmware does not tell of CXL memory", "take it away")
    if not memory_mb or memory_mb % STEP_MB:
        more = max(STEP_MB, -(-memory_mb // STEP_MB) * STEP_MB)
        raise bad(f"{key}: memory_mb: {memory_mb} is no multiple of {STEP_MB}, as CXL memory is", f"say {more}")


def check_all(nodes: Sequence[int], *, timed: bool, bad: Bad) -> None:
    """`nodes`: those that are CXL memory. `timed`: the file says how fast memory is. UserError, made by `bad`."""
    if len(nodes) > MOST:
        raise bad(f"node: {len(nodes)} nodes are CXL memory", f"{MOST} at most")
    if nodes and timed:
        # What Linux knows of it comes from the device (CDAT) and from the port that it is behind (drivers/cxl/core/cdat.c).
        raise bad(
            f"latency_ns: node {nodes[0]} is CXL memory, of which the HMAT does not tell",
            "leave latency_ns out, or cxl",
        )


def check_distances(nodes: Sequence[int], distances: Sequence[Sequence[int]], bad: Bad) -> None:
    """Whether a square of distances is what Linux will have for the nodes that are CXL memory. UserError, made by `bad`."""
    for node in nodes:
        for other, value in enumerate(distances[node]):
            if other != node and value != DISTANCE:
                raise bad(
                    f"distances: {value} from node {node} to node {other}, but node {node} is CXL memory",
                    f"say {DISTANCE}, which is what Linux assumes of it",
                )


def machine(nodes: Sequence[tuple[int, int]]) -> str:
    """More of -machine: a window for each (node, MB), in the order of nodes."""
    windows = (
        f",cxl-fmw.{number}.targets.0=cxl{node},cxl-fmw.{number}.size={size}M"
        for number, (node, size) in enumerate(nodes)
    )
    return ",cxl=on" + "".join(windows)


def devices(nodes: Sequence[int]) -> list[str]:
    """A host bridge, a port and a device for each node, whose memory is the backend ram<node>. The device's serial number is
    the node's: by it the guest finds out which is which."""
    args: list[str] = []
    for number, node in enumerate(nodes):
        bus = _FIRST_BUS + _BUSES * number
        args += ["-device", f"pxb-cxl,id=cxl{node},bus=pcie.0,bus_nr={bus}"]
        args += ["-device", f"cxl-rp,id=cxlport{node},bus=cxl{node},chassis={number},slot=0"]
        args += ["-device", f"cxl-type3,id=cxlmem{node},bus=cxlport{node},volatile-memdev=ram{node},sn={node}"]
    return args
