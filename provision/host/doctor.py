"""What this host can do for mof, and what mends each thing that it cannot.

Looking (`observe`) and judging (`check`) are apart: the second is a function of data. Nothing here boots or builds;
whether KVM really runs a guest kernel is known from the probe boot, whose remembered answer is handed in.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.host import packages, process
from provision.host.deadline import Deadline
from provision.host.packages import Package

OLDEST_PYTHON = (3, 11)
GUEST_MB = 2048
"""The default topology: four nodes of 512 MB."""
SPARE_MB = 512
"""QEMU's own memory and ours."""
BUILD_MB = 8 * 1024
"""A kernel's build (6 GiB, most of it given back) and the guest's image (2 GiB)."""
RUN_MB = 1024
"""What a run may need when all is built: console, events, swap."""


class State(StrEnum):
    GOOD = "good"
    LIMITED = "limited"  # mof works, slower or without something
    BLOCKED = "blocked"  # mof does not work, or cannot be relied upon to


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what is, and the mend (empty when there is nothing to do about it)."""

    name: str
    state: State
    found: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        """False when mof cannot work until it is mended."""
        return self.state is not State.BLOCKED


class Device(StrEnum):
    """A device file, as this user sees it."""

    ABSENT = "absent"
    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True)
class KvmAnswer:
    """What a probe boot under KVM showed; `why` it does not work, empty when it does."""

    works: bool
    why: str = ""


@dataclass(frozen=True)
class Host:
    """The facts that are judged. Sizes in MB of 2**20 bytes; `install` is the command line for what is missing."""

    machine: str
    python: tuple[int, int, int]
    packages: tuple[Package, ...]
    missing: tuple[Package, ...]
    install: str
    memory_mb: int
    cache: Path
    cache_writable: bool
    cache_free_mb: int
    kvm: Device
    tun: Device
    root: bool


def _device(path: str) -> Device:
    if not Path(path).exists():
        return Device.ABSENT
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return Device.CLOSED
    return Device.OPEN


def memory_available_mb(meminfo: str) -> int:
    """MemAvailable of /proc/meminfo (proc(5)), in MB; 0 when it is not there."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def _install_command(root: bool) -> str:
    """How the missing packages come: the set-up does it for root; others have its one line run by someone who is."""
    if root:
        return f"sh {packages.SETUP} packages"
    told = process.run(["sh", str(packages.SETUP), "command"], deadline=Deadline.after(60), check=False).output.strip()
    return f"as root: {told}" if told else f"as root: sh {packages.SETUP} packages"


def observe(cache: Path) -> Host:
    """Look at this host; `cache` is where artifacts go, and need not exist."""
    place = cache
    while not place.exists() and place != place.parent:
        place = place.parent
    needed = tuple(packages.needed())
    missing = tuple(package for package in needed if not package.there())
    root = os.geteuid() == 0
    return Host(
        machine=platform.machine(),
        python=sys.version_info[:3],
        packages=needed,
        missing=missing,
        install=_install_command(root) if missing else "",
        memory_mb=memory_available_mb(Path("/proc/meminfo").read_text()),
        cache=cache,
        cache_writable=place.is_dir() and os.access(place, os.W_OK | os.X_OK),
        cache_free_mb=shutil.disk_usage(place).free >> 20,
        kvm=_device("/dev/kvm"),
        tun=_device("/dev/net/tun"),
        root=root,
    )


def check(host: Host, kvm: KvmAnswer | None = None) -> list[Finding]:
    """Judge the facts: always the same things in the same order, except that each missing package has a finding."""
    return [
        _machine(host),
        *_packages(host),
        _python(host),
        _memory(host),
        _cache(host),
        _kvm(host, kvm),
        _tap(host),
    ]


def _machine(host: Host) -> Finding:
    if host.machine == "x86_64":
        return Finding("machine", State.GOOD, host.machine)
    return Finding(
        "machine", State.BLOCKED, f"{host.machine}: the guests' kernel is built for and on x86_64", "use an x86_64 host"
    )


def _packages(host: Host) -> list[Finding]:
    if not host.missing:
        return [Finding("host packages", State.GOOD, f"all {len(host.packages)} are there")]
    return [
        Finding(f"package {package.name}", State.BLOCKED, f"missing; it {package.why}", host.install)
        for package in host.missing
    ]


def _python(host: Host) -> Finding:
    version = ".".join(str(part) for part in host.python)
    if host.python[:2] >= OLDEST_PYTHON:
        return Finding("python", State.GOOD, version)
    return Finding("python", State.BLOCKED, f"{version}, older than 3.11", "make PYTHON=/path/to/a/newer/python3 setup")


def _memory(host: Host) -> Finding:
    found = f"{host.memory_mb} MB available"
    if host.memory_mb >= GUEST_MB + SPARE_MB:
        return Finding("memory", State.GOOD, found)
    wanted = f"{found}, the default topology wants {GUEST_MB + SPARE_MB}"
    return Finding("memory", State.LIMITED, wanted, "end other programs, or use a --topology with less memory")


def _cache(host: Host) -> Finding:
    found = f"{host.cache}, {host.cache_free_mb / 1024:.1f} GiB free"
    elsewhere = "set MOF_CACHE to a folder on a larger disk"
    if not host.cache_writable:
        mend = "set MOF_CACHE to a folder that you may write to"
        return Finding("cache", State.BLOCKED, f"{host.cache} cannot be written to", mend)
    if host.cache_free_mb < RUN_MB:
        return Finding("cache", State.BLOCKED, found, elsewhere)
    if host.cache_free_mb < BUILD_MB:
        needs = f"{found}: runs what is built, but building kernel and image takes up to {BUILD_MB // 1024}"
        return Finding("cache", State.LIMITED, needs, elsewhere)
    return Finding("cache", State.GOOD, found)


def _kvm(host: Host, answer: KvmAnswer | None) -> Finding:
    slower = "guests run under TCG, slower"
    if host.kvm is Device.ABSENT:
        mend = "turn on virtualisation in the firmware, or nesting in the hypervisor; nothing needs it"
        return Finding("kvm", State.LIMITED, f"there is no /dev/kvm; {slower}", mend)
    if host.kvm is Device.CLOSED:
        mend = "as root: usermod -aG kvm YOU, then log in again"
        return Finding("kvm", State.LIMITED, f"/dev/kvm is not open to you; {slower}", mend)
    if answer is None:
        return Finding("kvm", State.GOOD, "/dev/kvm opens; the first guest finds out whether a kernel runs on it")
    if answer.works:
        return Finding("kvm", State.GOOD, "a guest kernel runs on it")
    return Finding("kvm", State.LIMITED, f"/dev/kvm opens, but no guest kernel runs on it ({answer.why}); {slower}")


def _tap(host: Host) -> Finding:
    if not host.root:
        return Finding("--net tap", State.LIMITED, "needs root; --net user, the default, does not")
    if host.tun is not Device.OPEN:
        return Finding("--net tap", State.LIMITED, "no /dev/net/tun; --net user, the default, works", "modprobe tun")
    return Finding("--net tap", State.GOOD, "root, and /dev/net/tun opens")


def examine(cache: Path, kvm: KvmAnswer | None = None) -> list[Finding]:
    """Look at this host and judge it."""
    return check(observe(cache), kvm)
