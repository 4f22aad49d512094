"""What the doctor makes of a host's facts, and that it looks without disturbing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.host import doctor
from provision.host.doctor import Device, Finding, Host, KvmAnswer, State
from provision.host.packages import Package

QEMU = Package("qemu-system-x86", ("qemu-system-x86_64",), "runs the guests")
GCC = Package("gcc", ("gcc",), "compiles the kernel")

WELL = Host(
    machine="x86_64",
    python=(3, 11, 2),
    packages=(QEMU, GCC),
    missing=(),
    install="",
    memory_mb=8192,
    cache=Path("/cache"),
    cache_writable=True,
    cache_free_mb=100 * 1024,
    kvm=Device.OPEN,
    tun=Device.OPEN,
    root=True,
)


def finding(host: Host, name: str, kvm: KvmAnswer | None = None) -> Finding:
    return next(f for f in doctor.check(host, kvm) if f.name == name)


def test_a_host_that_has_all_has_nothing_to_mend() -> None:
    found = doctor.check(WELL, KvmAnswer(True))
    assert {f.state for f in found} == {State.GOOD}
    assert all(f.ok and not f.mend for f in found)
    assert [f.name for f in found] == ["machine", "host packages", "python", "memory", "cache", "kvm", "--net tap"]


def test_each_missing_package_says_what_it_is_for_and_the_mend() -> None:
    host = replace(WELL, missing=(QEMU, GCC), install="apt-get install it")
    found = [f for f in doctor.check(host) if f.name.startswith("package ")]
    assert [f.name for f in found] == ["package qemu-system-x86", "package gcc"]
    assert found[0].found == "missing; it runs the guests"
    assert all(f.mend == "apt-get install it" and not f.ok for f in found)


@pytest.mark.parametrize(
    ("change", "name", "state"),
    [
        ({"machine": "aarch64"}, "machine", State.BLOCKED),
        ({"python": (3, 10, 12)}, "python", State.BLOCKED),
        ({"python": (3, 13, 0)}, "python", State.GOOD),
        ({"memory_mb": 2559}, "memory", State.LIMITED),
        ({"memory_mb": 2560}, "memory", State.GOOD),
        ({"cache_writable": False}, "cache", State.BLOCKED),
        ({"cache_free_mb": 1023}, "cache", State.BLOCKED),
        ({"cache_free_mb": 1024}, "cache", State.LIMITED),
        ({"cache_free_mb": 8 * 1024}, "cache", State.GOOD),
        ({"kvm": Device.ABSENT}, "kvm", State.LIMITED),
        ({"kvm": Device.CLOSED}, "kvm", State.LIMITED),
        ({"root": False}, "--net tap", State.LIMITED),
        ({"tun": Device.ABSENT}, "--net tap", State.LIMITED),
    ],
)
def test_each_fact_has_its_state(change: dict[str, object], name: str, state: State) -> None:
    assert finding(replace(WELL, **change), name).state is state  # type: ignore[arg-type]


def test_kvm_is_believed_only_after_a_boot() -> None:
    assert "finds out" in finding(WELL, "kvm").found
    assert finding(WELL, "kvm", KvmAnswer(True)).state is State.GOOD
    mute = finding(WELL, "kvm", KvmAnswer(False, "prints nothing"))
    assert mute.state is State.LIMITED
    assert "prints nothing" in mute.found
    assert mute.ok, "TCG does it"


def test_what_blocks_says_what_to_do() -> None:
    host = replace(WELL, machine="riscv64", python=(3, 9, 0), missing=(GCC,), install="get it", cache_free_mb=1)
    assert all(f.mend for f in doctor.check(host) if f.state is State.BLOCKED)


def test_memory_is_read_from_meminfo() -> None:
    assert doctor.memory_available_mb("MemTotal: 9 kB\nMemAvailable:    4194304 kB\n") == 4096
    assert doctor.memory_available_mb("") == 0


def test_looking_makes_no_cache_folder(tmp_path: Path) -> None:
    cache = tmp_path / "not/yet/there"
    host = doctor.observe(cache)
    assert host.cache_writable
    assert host.cache_free_mb > 0
    assert host.memory_mb > 0
    assert not cache.parent.exists()
