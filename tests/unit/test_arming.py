"""What a template's name depends on: nothing that was made otherwise may ever be found under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller import arming, experiment, machine
from controller import plan as plans
from controller.experiment import ProbeSet
from controller.plan import Options, Plan
from guest_kernel.build import Kernel
from provision.guest.accelerator import Qemu
from provision.guest.network import Net
from provision.hardware import topology
from provision.hardware.qemu import Accelerator, Clock
from provision.host.cache import Cache, digest
from provision.host.progress import Silent
from provision.image.image import Image

QEMU = Qemu("/usr/bin/qemu-system-x86_64", "10.0.2", "QEMU emulator version 10.0.2 (Debian 1)")
KERNEL = Kernel("6.12-mof", Path("/cache/kernel/6.12-mof-0123456789abcdef"), "6.12-mof", "aa", {})
IMAGE = Image(Path("/cache/image/x/root.img"), Path("/cache/image/x/key"), "ssh-ed25519 A", "trixie-1")
PARTS = machine.Parts(KERNEL, IMAGE)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "a.memtoy"
    path.write_text("anon foo 8p\nmap foo\n")
    return plans.plan(experiment.load(str(path)), Options())


def name(plan: Plan, parts: machine.Parts = PARTS, qemu: Qemu = QEMU, accel: Accelerator = Accelerator.TCG) -> str:
    return digest(arming.inputs(plan, parts, qemu, accel))


def with_options(**options: Any) -> Callable[[Plan], Plan]:
    return lambda plan: dataclasses.replace(plan, options=dataclasses.replace(plan.options, **options))


@pytest.mark.parametrize(
    "change",
    [
        with_options(clock=Clock.INSN),
        with_options(net=Net.TAP),
        with_options(ring_pages=1024),
        with_options(features=("erms",)),
        lambda plan: dataclasses.replace(plan, probes=ProbeSet.COUNTS),
        lambda plan: dataclasses.replace(plan, topology=topology.load("2node")),
        lambda plan: dataclasses.replace(plan, topology=dataclasses.replace(plan.topology, swap_mb=512)),
    ],
)
def test_what_makes_another_guest_makes_another_template(plan: Plan, change: Callable[[Plan], Plan]) -> None:
    assert name(change(plan)) != name(plan)


@pytest.mark.parametrize("change", [with_options(timeout=5.0), with_options(ssh_port=2222), with_options(boot=True)])
def test_what_a_fork_may_choose_does_not(plan: Plan, change: Callable[[Plan], Plan]) -> None:
    assert name(change(plan)) == name(plan)


def test_another_kernel_image_or_qemu_makes_another(plan: Plan) -> None:
    other = dataclasses.replace(KERNEL, path=KERNEL.path.with_name("6.12-mof-fedcba9876543210"))
    names = [
        name(plan),
        name(plan, machine.Parts(other, IMAGE)),
        name(plan, machine.Parts(KERNEL, dataclasses.replace(IMAGE, id="trixie-2"))),
        name(plan, qemu=dataclasses.replace(QEMU, version="7.2.0", build="QEMU emulator version 7.2.0")),
        # A packager's revision may change what is saved.
        name(plan, qemu=dataclasses.replace(QEMU, build="QEMU emulator version 10.0.2 (Debian 2)")),
        name(plan, accel=Accelerator.KVM),
    ]
    assert len(set(names)) == len(names)


def test_the_host_s_processor_counts_where_it_reaches_the_guest(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated, virtual = name(plan), name(plan, accel=Accelerator.KVM)
    monkeypatch.setattr(arming, "_host_cpu", lambda: ["model name: another"])
    assert name(plan) == emulated
    assert name(plan, accel=Accelerator.KVM) != virtual


def test_a_topology_without_cxl_memory_is_told_without_it(plan: Plan) -> None:
    """A key that only CXL memory has would give every template that there is another name."""
    told = arming.inputs(plan, PARTS, QEMU, Accelerator.TCG)["topology"]
    assert set(told["nodes"][0]) == {"id", "memory_mb", "cpus", "initiator", "hotplug_mb", "caches"}


def test_a_guest_with_cxl_memory_is_not_saved(plan: Plan, tmp_path: Path) -> None:
    slow = dataclasses.replace(plan, topology=topology.load("cxl"))
    found = arming.template(slow, PARTS, Accelerator.TCG, Cache(tmp_path / "cache"), tmp_path, Silent())
    assert found == (None, "this guest cannot be saved: QEMU does not save what CXL devices have been set to")


def test_a_template_keeps_what_it_stands_on(plan: Plan) -> None:
    what = arming.inputs(plan, PARTS, QEMU, Accelerator.TCG)
    assert what["kernel"] == "kernel/6.12-mof-0123456789abcdef"
    assert what["image"] == "image/trixie-1"
