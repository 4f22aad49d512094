"""From a machine as data to QEMU's argument list: a pure function.

Works with QEMU 7.2 and 10. Nothing that a person or a distribution configured goes in (-nodefaults, -no-user-config).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.hardware import cxl
from provision.hardware.topology import HOTPLUG_STEP_MB, Node, Topology
from provision.host.errors import InfraError

CONTROL_PORT = "mof.control"
RECORDS_PORT = "mof.records"
LINES_PORT = "mof.lines"
"""What a workload says when it may not be disturbed by its words being carried away over the network."""
SWAP_SERIAL = "mofswap"
ROOT_SERIAL = "mofroot"

MAX_SLOTS = 256

GUEST_ADDRESS = "10.0.2.15"
"""On QEMU's user network and in a tap's namespace alike; init's default too."""
SSH_PORT = 22

CPU_TCG = "Nehalem"
"""The same in every QEMU, unlike "max", and all of it emulated; no wide vectors, which cost much without hardware."""
CPU_KVM = "host,arch-capabilities=off"
"""Some hosts offer the register IA32_ARCH_CAPABILITIES and then refuse to set it; it tells of mitigations only."""

KERNEL_PARAMETERS = (
    "console=ttyS0",
    "root=/dev/vda",
    "rootfstype=ext4",
    "ro",
    "init=/usr/lib/mof/init",
    # A lost guest ends at once: with -no-reboot, QEMU exits. All that the kernel had to say is on the console by then.
    "panic=-1",
    # A kernel address means the same in every run.
    "nokaslr",
    "mitigations=off",
    # Moves by balancing would be mixed up with the ones under test; a run that wants it turns it on.
    "numa_balancing=disable",
    # A busy host can stop a guest's processors for half a minute, while its clock goes on. To the kernel that is a lockup of
    # its own after twice 10 s (kernel/watchdog.c). For RCU's stalls init does the same.
    "watchdog_thresh=60",
)

TCG_PARAMETERS = (
    # All emulated CPUs read one counter. Linux assumes otherwise of several sockets (unsynchronized_tsc(),
    # arch/x86/kernel/tsc.c) and takes the HPET, whose every reading leaves the translated code.
    "tsc=reliable",
    # At boot Linux waits for some ticks of the timer, and panics if none come while a busy host does not let QEMU run
    # (timer_irq_works(), arch/x86/kernel/apic/io_apic.c). Under KVM it leaves that out by itself (kvm_guest_init()).
    "no_timer_check",
)


class Accelerator(StrEnum):
    """What runs the guest's instructions. AUTO is a wish, resolved before a machine is described."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Clock(StrEnum):
    """What guest time is: the host's clock, or instructions (`-icount shift=0`: one nanosecond each)."""

    WALL = "wall"
    INSN = "insn"


@dataclass(frozen=True)
class RamFiles:
    """The nodes' memory as files ram0, ram1, ... of a folder, so that a guest can be saved and forked.

    `private`: what the guest writes stays its own, and the files are only read. `readable`: this QEMU can open them
    without the right to write (from 9.0 on, memory-backend-file has `rom=off` for that).
    """

    folder: Path
    private: bool
    readable: bool = True

    def of_node(self, node: int) -> Path:
        return self.folder / f"ram{node}"


@dataclass(frozen=True)
class UserNet:
    """QEMU's user networking; `port` on the host's loopback leads to the guest's sshd, 0: QEMU finds a free one."""

    port: int = 0


@dataclass(frozen=True)
class TapNet:
    """A tap that was opened already: its file descriptor, as QEMU inherits it."""

    fd: int


@dataclass(frozen=True)
class Latency:
    """Accesses to memory take as long as the topology says, but those that a model of the node's cache answers: of so many
    KB, in sets of so many ways; each node has one."""

    cache_kb: int = 1024
    ways: int = 8

    def __post_init__(self) -> None:
        """ValueError where there is no such cache: lines have 64 bytes, and there are 1, 2, 4, ... sets."""
        sets, rest = divmod(self.cache_kb * 16, self.ways) if 1 <= self.ways <= 64 else (0, 0)
        if rest or sets < 1 or sets & (sets - 1):
            raise ValueError(f"no cache has {self.cache_kb} KB in {self.ways} ways")


@dataclass(frozen=True)
class MemoryPlugin:
    """The memory-controller plugin (provision/hardware/plugin), and the path of the socket that it is to listen at.
    `latency`: None where it counts only."""

    path: Path
    socket: Path
    latency: Latency | None = None


@dataclass(frozen=True)
class MachineSpec:
    """All that QEMU is told. Descriptors are inherited: `control_fd` and `qmp_fd` are listening unix sockets, `swap_fd`
    is the swap disk's file (None: no swap). `ram`: None for memory that nobody can save. `incoming`: do not boot, wait
    for the state of a guest that was saved. `features`: what the processor has beside those of its model, in QEMU's words
    (`erms`)."""

    name: str
    topology: Topology
    accelerator: Accelerator
    kernel: Path
    root: Path
    console: Path
    records: Path
    lines: Path
    control_fd: int
    qmp_fd: int
    swap_fd: int | None
    net: UserNet | TapNet
    clock: Clock = Clock.WALL
    ram: RamFiles | None = None
    incoming: bool = False
    append: str = ""
    features: tuple[str, ...] = ()
    plugin: MemoryPlugin | None = None


def check_version(topology: Topology, version: tuple[int, ...]) -> None:
    """InfraError when this QEMU cannot make such a machine, or cannot tell of it.

    With an HMAT, QEMU 7.2 tells of memory on nodes that have none, and Linux then ignores the whole table
    (hmat_parse_proximity_domain(), drivers/acpi/numa/hmat.c). 10.0 does not.
    """
    if topology.cxl_nodes and version < cxl.OLDEST_QEMU:
        raise InfraError(
            f"QEMU {'.'.join(map(str, version))} has no CXL memory that a guest can use as its own",
            where=f"topology {topology.name}",
            hint=f"use QEMU {cxl.OLDEST_QEMU[0]}, or make node {topology.cxl_nodes[0].id} one without cxl",
        )
    empty = [node.id for node in topology.nodes if not node.memory_mb]
    if topology.performance is not None and empty and version[0] < 8:
        raise InfraError(
            f"QEMU {'.'.join(map(str, version))} would have memory on node {empty[0]}, where there is none, and the guest's "
            "kernel would ignore how fast memory is",
            where=f"topology {topology.name}",
            hint="use QEMU 10, give the node memory, or leave latency_ns out",
        )


def kernel_command_line(spec: MachineSpec) -> str:
    """What the kernel is booted with; `append` comes last, so that it can overrule."""
    emulated = TCG_PARAMETERS if spec.accelerator is Accelerator.TCG else ()
    return " ".join((*KERNEL_PARAMETERS, *emulated, *spec.append.split()))


def arguments(spec: MachineSpec) -> list[str]:
    """QEMU's arguments, without the program itself.

    ValueError when the accelerator is not decided, or cannot do what is asked for: count instructions or accesses, CXL.
    """
    if spec.plugin is not None and spec.accelerator is not Accelerator.TCG:
        raise ValueError("only TCG has plugins")
    if spec.topology.cxl_nodes and spec.accelerator is not Accelerator.TCG:
        raise ValueError("only TCG runs from CXL memory")
    return [
        *("-name", f"guest={_text(spec.name)}"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *_processor(spec),
        *_memory(spec.topology, spec.ram),
        *cxl.devices([node.id for node in spec.topology.cxl_nodes], timed=spec.topology.performance is not None),
        *("-kernel", str(spec.kernel)),
        *("-append", kernel_command_line(spec)),
        *_disks(spec),
        *_network(spec),
        *_ports(spec),
        # A guest that is forked gets another number, and its kernel reseeds at once (drivers/virt/vmgenid.c).
        *("-device", "vmgenid,guid=auto"),
        *(("-incoming", "defer") if spec.incoming else ()),
        *(_plugin(spec.topology, spec.plugin) if spec.plugin is not None else ()),
    ]


LOW_MEMORY = 0xB0000000
LOW_MEMORY_OF_MORE = 0x80000000
HIGH_MEMORY = 1 << 32
"""A q35 with less than 2.75 GB has all of it below 4 GB; with more, 2 GB there, and the rest from 4 GB on (hw/i386/pc_q35.c)."""
DIRECT_MAP = 0xFFFF888000000000
"""Where Linux maps all physical memory, without randomization (Documentation/arch/x86/x86_64/mm.rst, four levels)."""


def memory_pieces(topology: Topology) -> list[tuple[int, int, int]]:
    """Where the nodes' memory is in the guest's physical addresses: (start, bytes, node), by rising address. CXL memory aside,
    which is where firmware puts its windows."""
    total = topology.boot_memory_mb << 20
    low = total if total < LOW_MEMORY else LOW_MEMORY_OF_MORE
    pieces = []
    begin = 0
    for node in topology.nodes:
        if node.cxl:
            continue
        end = begin + (node.memory_mb << 20)
        if begin < min(end, low):
            pieces.append((begin, min(end, low) - begin, node.id))
        if max(begin, low) < end:
            pieces.append((HIGH_MEMORY + max(begin, low) - low, end - max(begin, low), node.id))
        begin = end
    return pieces


def _plugin(topology: Topology, plugin: MemoryPlugin) -> list[str]:
    home = topology.node_of_cpu
    pieces = memory_pieces(topology)
    last, size, _ = pieces[-1]
    options = [
        f"file={_text(plugin.path)}",
        f"socket={_text(plugin.socket)}",
        *(f"cpu={home[cpu]}" for cpu in sorted(home)),
        *(f"memory={start:x}+{size:x}={node}" for start, size, node in pieces),
        f"direct={DIRECT_MAP:x}+{last + size:x}",
    ]
    if plugin.latency is not None:
        table = topology.access_ns
        prices = [(i, t, ns) for i, row in enumerate(table) for t, ns in enumerate(row) if ns is not None]
        options += [f"price={initiator}:{target}={ns}" for initiator, target, ns in prices]
        options.append(f"cache={plugin.latency.cache_kb}/{plugin.latency.ways}")
    return ["-plugin", ",".join(options)]


def _text(value: str | Path) -> str:
    """A value inside a comma-separated option: QEMU reads a doubled comma as one."""
    return str(value).replace(",", ",,")


def _processor(spec: MachineSpec) -> list[str]:
    if spec.accelerator is Accelerator.TCG:
        # One thread for all CPUs: as fast for what runs here, and one thread a CPU is not safe while PCI devices are
        # set up: in under a hundred boots QEMU 10.0.2 failed the assertion in iotlb_to_section() once, and hung once.
        accelerator, cpu = "tcg,thread=single", CPU_TCG
    elif spec.accelerator is Accelerator.KVM:
        accelerator, cpu = "kvm", CPU_KVM
    else:
        raise ValueError("the accelerator is not decided")
    cpu += "".join(f",+{feature}" for feature in spec.features)
    counted: tuple[str, ...] = ()
    if spec.clock is Clock.INSN:
        if spec.accelerator is not Accelerator.TCG:
            raise ValueError("only TCG counts instructions")
        # One instruction is one nanosecond. A guest that idles does not wait for the host's clock: its next timer is due
        # at once, and nothing of what it measures depends on the host.
        counted = ("-icount", "shift=0,sleep=off")
    hmat = any(node.initiator is not None for node in spec.topology.nodes)
    # Parts that no guest of ours uses cost time in the firmware and in the kernel's probing.
    machine = "q35,usb=off,vmport=off,smbus=off,sata=off" + (",hmat=on" if hmat else "")
    if slow := spec.topology.cxl_nodes:
        machine += cxl.machine([(node.id, node.memory_mb) for node in slow])
    return ["-machine", machine, "-accel", accelerator, *counted, "-cpu", cpu, "-smp", _smp(spec.topology)]


def _smp(topology: Topology) -> str:
    """A socket for each node with CPUs where that comes out even, else one for each CPU.

    Since 6.2 QEMU puts all CPUs into one socket by itself; then nodes share a last-level cache, and the kernel warns
    ("llc-sibling CPU is not on the same node") and drops the dependency.
    """
    count = topology.cpu_count
    groups = [node.cpus for node in topology.nodes if node.cpus]
    even = len({len(group) for group in groups}) == 1
    in_order = [cpu for group in groups for cpu in group] == list(range(count))
    sockets = len(groups) if even and in_order else count
    return f"cpus={count},sockets={sockets},cores={count // sockets},threads=1"


def _backend(node: Node, ram: RamFiles | None) -> str:
    option = f"id=ram{node.id},size={node.memory_mb}M"
    if ram is None:
        return f"memory-backend-ram,{option}"
    option += f",mem-path={_text(ram.of_node(node.id))},share={'off' if ram.private else 'on'}"
    if ram.private and ram.readable:
        option += ",readonly=on,rom=off"
    return f"memory-backend-file,{option}"


def _memory(topology: Topology, ram: RamFiles | None) -> list[str]:
    room = topology.hotplug_mb
    # A slot for each piece of the least size, as many as there can be (ACPI_MAX_RAM_SLOTS, QEMU's include/hw/acpi).
    slots = f",slots={min(MAX_SLOTS, room // HOTPLUG_STEP_MB)},maxmem={topology.boot_memory_mb + room}M" if room else ""
    args = ["-m", f"size={topology.boot_memory_mb}M{slots}"]
    for node in topology.nodes:
        if node.cxl:
            # No part of firmware's tables: only the device's memory.
            args += ["-object", _backend(node, ram)]
            continue
        option = f"node,nodeid={node.id}"
        if node.memory_mb:
            args += ["-object", _backend(node, ram)]
            option += f",memdev=ram{node.id}"
        option += "".join(f",cpus={cpu}" for cpu in node.cpus)
        if node.initiator is not None:
            option += f",initiator={node.initiator}"
        args += ["-numa", option]
    for a, row in enumerate(topology.distances):
        for b, value in enumerate(row):
            if a != b and not topology.nodes[a].cxl and not topology.nodes[b].cxl:
                args += ["-numa", f"dist,src={a},dst={b},val={value}"]
    if topology.performance is not None:
        args += cxl.empty_nodes([node.id for node in topology.cxl_nodes], len(topology.nodes))
        args += _performance(topology)
    return args


def _performance(topology: Topology) -> list[str]:
    """The firmware's HMAT. QEMU wants latency and bandwidth before caches, and a lower level's cache before a higher one's."""
    args: list[str] = []
    for initiator, target, latency, _ in topology.hmat:
        pair = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
        args += ["-numa", f"{pair},data-type=access-latency,latency={latency}"]
    for initiator, target, _, bandwidth in topology.hmat:
        pair = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
        args += ["-numa", f"{pair},data-type=access-bandwidth,bandwidth={bandwidth}M"]
    for node in topology.nodes:
        for cache in node.caches:
            what = f"hmat-cache,node-id={node.id},size={cache.size_kb}K,level={cache.level}"
            args += ["-numa", f"{what},associativity={cache.indexing},policy={cache.writing},line={cache.line}"]
    return args


def _disks(spec: MachineSpec) -> list[str]:
    """The root disk first, so that it is /dev/vda."""
    root = {
        "driver": "raw",
        "node-name": "root",
        "read-only": True,
        "file": {"driver": "file", "filename": str(spec.root), "read-only": True},
    }
    args = [
        *("-blockdev", json.dumps(root)),
        *_virtio(spec, f"virtio-blk-pci,drive=root,serial={ROOT_SERIAL}"),
    ]
    if spec.swap_fd is not None:
        # Nobody reads it after the guest: nothing has to reach the host's disk.
        swap = {
            "driver": "raw",
            "node-name": "swap",
            "discard": "unmap",
            "cache": {"direct": False, "no-flush": True},
            "file": {
                "driver": "file",
                "filename": "/dev/fdset/1",
                "discard": "unmap",
                "cache": {"direct": False, "no-flush": True},
            },
        }
        args += [
            *("-add-fd", f"fd={spec.swap_fd},set=1,opaque=swap"),
            *("-blockdev", json.dumps(swap)),
            *_virtio(spec, f"virtio-blk-pci,drive=swap,serial={SWAP_SERIAL}"),
        ]
    return args


def _virtio(spec: MachineSpec, device: str) -> list[str]:
    return ["-device", device + (cxl.BESIDE if spec.topology.cxl_nodes else "")]


def _network(spec: MachineSpec) -> list[str]:
    net = spec.net
    if isinstance(net, TapNet):
        backend = f"tap,id=net0,fd={net.fd}"
    else:
        backend = f"user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:{net.port}-{GUEST_ADDRESS}:{SSH_PORT}"
    return ["-netdev", backend, *_virtio(spec, "virtio-net-pci,netdev=net0,romfile=")]


def _ports(spec: MachineSpec) -> list[str]:
    return [
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *_virtio(spec, "virtio-rng-pci,rng=rng0"),
        # Appended to: a fork's console goes on where that of its template ended.
        *("-chardev", f"file,id=console,append=on,path={_text(spec.console)}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={spec.qmp_fd},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *_virtio(spec, "virtio-serial-pci"),
        *("-chardev", f"socket,id=control,fd={spec.control_fd},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=control,name={CONTROL_PORT}"),
        *("-chardev", f"file,id=records,path={_text(spec.records)}"),
        *("-device", f"virtserialport,chardev=records,name={RECORDS_PORT}"),
        *("-chardev", f"file,id=lines,path={_text(spec.lines)}"),
        *("-device", f"virtserialport,chardev=lines,name={LINES_PORT}"),
    ]
