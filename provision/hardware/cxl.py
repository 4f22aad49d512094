"""CXL memory (type 3 devices, volatile): what may be said of a node that is some, and QEMU's arguments for it. Pure.

Each such node is a device of its own behind a host bridge of its own, in a window of its own of the guest's physical addresses
(CFMWS: CXL specification 3.0, 9.17.1.3). Firmware does not map it: the guest's kernel does, when it is told to
(provision/guest/cxl.py). For a window of which the SRAT does not tell Linux makes a node, with the next number that is free,
in the order of the windows (acpi_parse_cfmws(), drivers/acpi/numa/srat.c).

How fast it is Linux adds up (drivers/cxl/core/cdat.c): what the HMAT says of the port behind which the device is, the link, and
what the device says of itself. So firmware is told of less than that. A port has a proximity domain of its own, above those of
the windows, which are not in the SRAT either: were it one of theirs, Linux would take its latency for the memory's
(hmat_calculate_adistance(), drivers/acpi/numa/hmat.c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provision.hardware.performance import ADISTANCE_DRAM, Performance
from provision.host.errors import UserError

STEP_MB = 256
"""A device has a multiple of that (CXL_CAPACITY_MULTIPLIER, QEMU's include/hw/cxl/cxl_device.h), and Linux asks for it
(dpa_size_store(), drivers/cxl/core/port.c)."""
MOST = 8
"""Nodes of that kind: as many host bridges find bus numbers, below."""

DISTANCE = 20
"""From and to CXL memory, whatever a SLIT says: Linux makes its table of distances of the nodes in the SRAT, and of others
assumes that (__node_distance(), mm/numa_memblks.c)."""
ADISTANCE = 5 * ADISTANCE_DRAM
"""Its abstract distance where Linux does not know how fast it is (MEMTIER_DEFAULT_DAX_ADISTANCE, drivers/dax/kmem.c)."""

DEVICE_NS = 150
WRITE_MORE_NS = 100
MOST_MB = 16_000
"""What QEMU's device says of itself: so long to read, so much longer to write, at so many MB/s
(ct3_build_cdat_entries_for_mr(), hw/mem/cxl_type3.c)."""
LINK_NS = 2
"""What Linux computes for QEMU's link, rounded up (cxl_pci_get_latency(), drivers/cxl/core/pci.c)."""
LEAST_NS = DEVICE_NS + LINK_NS + 1

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
    node: int,
    memory_mb: int,
    cpus: Sequence[int],
    hotplug_mb: int,
    initiator: int | None,
    *,
    cached: bool,
    bad: Bad,
) -> None:
    """Whether a node can be CXL memory. UserError, made by `bad`."""
    key = f"node {node}"
    if cpus:
        raise bad(f"{key}: cxl: it has CPUs", "CXL memory is a node of its own: give its CPUs to another")
    if hotplug_mb:
        raise bad(f"{key}: hotplug_mb: CXL memory does not grow", "take it away, or add a node")
    if initiator is not None:
        raise bad(f"{key}: initiator: that of CXL memory is found in latency_ns", "take it away")
    if cached:
        raise bad(f"{key}: cache: firmware has no words for one beside CXL memory", "take it away")
    if not memory_mb or memory_mb % STEP_MB:
        more = max(STEP_MB, -(-memory_mb // STEP_MB) * STEP_MB)
        raise bad(f"{key}: memory_mb: {memory_mb} is no multiple of {STEP_MB}, as CXL memory is", f"say {more}")


def check_all(nodes: Sequence[int], performance: Performance | None, *, room: bool, bad: Bad) -> None:
    """`nodes`: those that are CXL memory. `room`: there is some for more memory, anywhere. UserError, made by `bad`."""
    if len(nodes) > MOST:
        raise bad(f"node: {len(nodes)} nodes are CXL memory", f"{MOST} at most")
    if performance is None:
        return
    if nodes and room:
        # QEMU's SRAT has the room on the last of its nodes (build_srat(), hw/i386/acpi-build.c): that is a port here, and Linux
        # would make a node of it.
        raise bad(
            "hotplug_mb: beside CXL memory and latency_ns QEMU has the room elsewhere", "leave one of the three out"
        )
    for key, table in (("latency_ns", performance.latency_ns), ("bandwidth_mb", performance.bandwidth_mb)):
        for initiator, row in enumerate(table):
            for node in nodes:
                value = row[node]
                if value is None or (value >= LEAST_NS if key == "latency_ns" else value <= MOST_MB):
                    continue
                mend = f"{LEAST_NS} at least" if key == "latency_ns" else f"{MOST_MB} at most"
                raise bad(f"{key}: {value} from node {initiator} to node {node}, which is CXL memory of QEMU's", mend)


def check_distances(nodes: Sequence[int], distances: Sequence[Sequence[int]], bad: Bad) -> None:
    """Whether a square of distances is what Linux will have for the nodes that are CXL memory. UserError, made by `bad`."""
    for node in nodes:
        for other, value in enumerate(distances[node]):
            if other != node and value != DISTANCE:
                raise bad(
                    f"distances: {value} from node {node} to node {other}, but node {node} is CXL memory",
                    f"say {DISTANCE}, which is what Linux assumes of it",
                )


def assumed(nodes: Sequence[int], distances: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The square with what Linux takes for the distances of those nodes."""
    return tuple(
        tuple(DISTANCE if a != b and (a in nodes or b in nodes) else value for b, value in enumerate(row))
        for a, row in enumerate(distances)
    )


def machine(nodes: Sequence[tuple[int, int]]) -> str:
    """More of -machine: a window for each (node, MB), in the order of nodes."""
    windows = (
        f",cxl-fmw.{number}.targets.0=cxl{node},cxl-fmw.{number}.size={size}M"
        for number, (node, size) in enumerate(nodes)
    )
    return ",cxl=on" + "".join(windows)


def port(node: int, count: int) -> int:
    """The proximity domain of the port behind which the node's memory is, of so many nodes with CXL memory."""
    return node + count


def empty_nodes(nodes: Sequence[int], count: int) -> list[str]:
    """Nodes of QEMU's with nothing on them, beside an HMAT; `count`: how many the topology has. Their numbers are the proximity
    domains of the ports, and below those the ones that Linux gives to the windows. QEMU wants all distances or none."""
    empty = [*nodes, *(port(node, len(nodes)) for node in nodes)]
    args = [part for node in empty for part in ("-numa", f"node,nodeid={node}")]
    everybody = range(count + len(nodes))
    for a in everybody:
        for b in everybody:
            if a != b and (a in empty or b in empty):
                args += ["-numa", f"dist,src={a},dst={b},val={DISTANCE}"]
    return args


def devices(nodes: Sequence[int], *, timed: bool) -> list[str]:
    """A host bridge, a port and a device for each node, whose memory is the backend ram<node>; `timed`: the HMAT tells of the
    ports. The device's serial number is the node's: by it the guest finds out which is which."""
    args: list[str] = []
    for number, node in enumerate(nodes):
        bus = _FIRST_BUS + _BUSES * number
        args += ["-device", f"pxb-cxl,id=cxl{node},bus=pcie.0,bus_nr={bus}"]
        args += ["-device", f"cxl-rp,id=cxlport{node},bus=cxl{node},chassis={number},slot=0"]
        args += ["-device", f"cxl-type3,id=cxlmem{node},bus=cxlport{node},volatile-memdev=ram{node},sn={node}"]
        if timed:
            domain = port(node, len(nodes))
            args += ["-object", f"acpi-generic-port,id=cxlfirmware{node},pci-bus=cxl{node},node={domain}"]
    return args
