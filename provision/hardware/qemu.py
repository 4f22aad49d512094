"""From data to QEMU's command line: pure, so that what is asked for can be read and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provision.hardware.topology import Topology

RECORDS_PORT = "mof.records"
CONTROL_PORT = "mof.control"


@dataclass(frozen=True)
class Machine:
    """Everything on a guest's command line. `netdev` is the whole value of -netdev, with id=net0."""

    name: str
    accelerator: str
    topology: Topology
    kernel: Path
    append: str
    root: Path
    swap: Path | None
    console: Path
    records: Path
    control: Path
    monitor: Path
    netdev: str
    mac: str = "52:54:00:6d:6f:66"


def _escaped(path: Path) -> str:
    """A path inside a QEMU option list, where a comma is written twice (qemu(1))."""
    return str(path).replace(",", ",,")


def numa_arguments(topology: Topology) -> list[str]:
    """Nodes, their memory and CPUs, and the distances between them."""
    arguments: list[str] = []
    for node in topology.nodes:
        cpus = "".join(f",cpus={cpu}" for cpu in node.cpus)
        memory = ""
        if node.memory_mb:
            arguments += ["-object", f"memory-backend-ram,id=mem{node.id},size={node.memory_mb}M"]
            memory = f",memdev=mem{node.id}"
        arguments += ["-numa", f"node,nodeid={node.id}{cpus}{memory}"]
    for i, row in enumerate(topology.distances):
        for j, value in enumerate(row):
            arguments += ["-numa", f"dist,src={i},dst={j},val={value}"]
    return arguments


def accelerator_arguments(accelerator: str) -> list[str]:
    """Under TCG one thread a CPU; the CPU model is the richest that the accelerator has."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def arguments(machine: Machine) -> list[str]:
    """QEMU's arguments, without the program. Works on QEMU 7.2 and newer.

    The root disk is read-only for QEMU as well; the swap disk goes without flushes: nothing on it outlives the run.
    """
    topology = machine.topology
    swap = (
        []
        if machine.swap is None
        else [
            "-drive",
            f"if=none,id=swap,format=raw,cache=unsafe,discard=unmap,file={_escaped(machine.swap)}",
            "-device",
            "virtio-blk-pci,drive=swap,serial=mofswap",
        ]
    )
    return [
        "-name",
        machine.name,
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-M",
        "q35",
        *accelerator_arguments(machine.accelerator),
        "-smp",
        str(topology.cpu_count),
        "-m",
        f"{topology.memory_mb}M",
        *numa_arguments(topology),
        "-kernel",
        str(machine.kernel),
        "-append",
        machine.append,
        "-drive",
        f"if=none,id=root,format=raw,readonly=on,file={_escaped(machine.root)}",
        "-device",
        "virtio-blk-pci,drive=root,serial=mofroot",
        *swap,
        "-chardev",
        f"file,id=console,path={_escaped(machine.console)}",
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=control,server=on,wait=off,path={_escaped(machine.control)}",
        "-device",
        f"virtserialport,chardev=control,name={CONTROL_PORT}",
        "-chardev",
        f"file,id=records,path={_escaped(machine.records)}",
        "-device",
        f"virtserialport,chardev=records,name={RECORDS_PORT}",
        "-device",
        "virtio-rng-pci",
        "-netdev",
        machine.netdev,
        "-device",
        f"virtio-net-pci,netdev=net0,mac={machine.mac},romfile=",
        "-qmp",
        f"unix:{_escaped(machine.monitor)},server=on,wait=off",
    ]
