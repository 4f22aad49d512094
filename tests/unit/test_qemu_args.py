"""From a machine as data to QEMU's arguments; the golden files hold one argument a line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from provision.hardware import qemu, topology
from provision.hardware.qemu import Accelerator, Clock, MachineSpec, RamFiles, TapNet, UserNet
from provision.hardware.topology import Node, Topology

GOLDEN = Path(__file__).parents[1] / "golden"

SPEC = MachineSpec(
    name="mof-1",
    topology=topology.load("4node"),
    accelerator=Accelerator.TCG,
    kernel=Path("/cache/kernel/bzImage"),
    root=Path("/cache/image/root.img"),
    console=Path("/runs/1/console.log"),
    records=Path("/runs/1/events.raw"),
    lines=Path("/runs/1/lines.raw"),
    control_fd=5,
    qmp_fd=6,
    swap_fd=7,
    net=UserNet(),
)

ODD = Topology(
    "odd",
    (Node(0, 512, (2, 0), initiator=0), Node(1, 0, (1,), initiator=1), Node(2, 1024, (), initiator=0)),
    ((10, 20, 40), (20, 10, 40), (40, 40, 10)),
    0,
)

CASES = {
    "4node-tcg-user": SPEC,
    "2node-kvm-tap": dataclasses.replace(
        SPEC, topology=topology.load("2node"), accelerator=Accelerator.KVM, net=TapNet(9), append="quiet mof.x=1"
    ),
    # Nodes without CPUs and without memory, an HMAT, no swap, a chosen port, and commas in paths.
    "odd": dataclasses.replace(
        SPEC,
        name="a,b",
        topology=ODD,
        swap_fd=None,
        net=UserNet(2222),
        root=Path("/a,b/root.img"),
        console=Path("/a,b/console.log"),
        records=Path("/a,b/events.raw"),
        lines=Path("/a,b/lines.raw"),
    ),
    # A guest that counts instructions, and whose memory can be saved.
    "insn-template": dataclasses.replace(SPEC, clock=Clock.INSN, ram=RamFiles(Path("/cache/a,b"), private=False)),
    # CXL memory beside, for which all other devices are told more.
    "cxl": dataclasses.replace(SPEC, topology=topology.load("cxl")),
    # A fork of one.
    "fork": dataclasses.replace(SPEC, incoming=True, ram=RamFiles(Path("/cache/t"), private=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_arguments(name: str) -> None:
    assert qemu.arguments(CASES[name]) == (GOLDEN / f"qemu-{name}.txt").read_text().splitlines()


def test_the_same_machine_gives_the_same_arguments() -> None:
    assert qemu.arguments(SPEC) == qemu.arguments(dataclasses.replace(SPEC))


def test_what_is_appended_comes_last() -> None:
    line = qemu.kernel_command_line(dataclasses.replace(SPEC, append="  panic=0   x=y "))
    assert line.endswith(" panic=0 x=y")
    assert line.index("panic=-1") < line.index("panic=0")


def test_an_undecided_accelerator_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="not decided"):
        qemu.arguments(dataclasses.replace(SPEC, accelerator=Accelerator.AUTO))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (((0,), (1,)), "cpus=2,sockets=2,cores=1,threads=1"),
        (((0, 1), (2, 3)), "cpus=4,sockets=2,cores=2,threads=1"),
        (((0, 2), (1, 3)), "cpus=4,sockets=4,cores=1,threads=1"),
        (((0, 1, 2), (3,)), "cpus=4,sockets=4,cores=1,threads=1"),
        (((0, 1), ()), "cpus=2,sockets=1,cores=2,threads=1"),
    ],
)
def test_sockets_do_not_cross_nodes(groups: tuple[tuple[int, ...], ...], expected: str) -> None:
    nodes = tuple(Node(i, 512, cpus) for i, cpus in enumerate(groups))
    args = qemu.arguments(dataclasses.replace(SPEC, topology=Topology("t", nodes, ((10, 20), (20, 10)), 0)))
    assert args[args.index("-smp") + 1] == expected


@pytest.mark.parametrize(("accelerator", "model"), [(Accelerator.TCG, qemu.CPU_TCG), (Accelerator.KVM, qemu.CPU_KVM)])
def test_features_are_added_to_the_model(accelerator: Accelerator, model: str) -> None:
    spec = dataclasses.replace(SPEC, accelerator=accelerator, features=("erms", "fsrm"))
    args = qemu.arguments(spec)
    assert args[args.index("-cpu") + 1] == f"{model},+erms,+fsrm"
    without = qemu.arguments(dataclasses.replace(spec, features=()))
    assert [a for a in args if a not in without] == [f"{model},+erms,+fsrm"]


def test_kvm_does_not_count_instructions() -> None:
    with pytest.raises(ValueError, match="only TCG counts"):
        qemu.arguments(dataclasses.replace(SPEC, accelerator=Accelerator.KVM, clock=Clock.INSN))


def test_a_fork_before_qemu_9_opens_memory_for_writing() -> None:
    """It has no `rom` property; the mapping is private all the same."""
    ram = RamFiles(Path("/cache/t"), private=True, readable=False)
    text = " ".join(qemu.arguments(dataclasses.replace(SPEC, incoming=True, ram=ram)))
    assert "share=off" in text
    assert "readonly" not in text


def test_template_and_fork_are_the_same_machine() -> None:
    """Nothing that the saved state depends on may differ: only where memory comes from, and what is waited for."""
    ram = Path("/cache/t")
    template = qemu.arguments(dataclasses.replace(SPEC, ram=RamFiles(ram, private=False)))
    fork = qemu.arguments(dataclasses.replace(SPEC, incoming=True, ram=RamFiles(ram, private=True)))
    differing = {a.replace("share=on", "").replace("share=off,readonly=on,rom=off", "") for a in template + fork}
    assert differing - {a.replace("share=on", "") for a in template} == {"-incoming", "defer"}
