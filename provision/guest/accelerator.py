"""Which accelerator works here: found out by booting a guest kernel, since nothing less proves it.

A /dev/kvm that opens, and makes a VM and a CPU, is no proof: under some nested or paravirtual KVM the firmware runs
and the guest kernel never prints a line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.host import process
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError, UserError
from provision.host.progress import Progress

QEMU = "qemu-system-x86_64"
OLDEST_QEMU = (7, 2)
PROBE_SECONDS = 10.0
KVM_DEVICE = Path("/dev/kvm")
BOOTED = "Linux version"


class Accelerator(StrEnum):
    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class Qemu:
    """The installed QEMU. `version` as it names itself, such as 10.0.2."""

    path: str
    version: str


def wanted() -> Accelerator:
    """What `MOF_ACCEL` asks for; UserError when it is none of the three."""
    text = os.environ.get("MOF_ACCEL") or Accelerator.AUTO
    try:
        return Accelerator(text)
    except ValueError as wrong:
        known = ", ".join(Accelerator)
        raise UserError(f"'{text}' is no accelerator", where="MOF_ACCEL", hint=f"one of: {known}") from wrong


def parse_version(text: str) -> str:
    """The version in the first line of `qemu-system-x86_64 --version`."""
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", text)
    if found is None:
        raise InfraError("QEMU does not tell its version", where=QEMU, detail=text)
    return found[1]


def qemu() -> Qemu:
    """The installed QEMU; InfraError when it is missing or older than 7.2."""
    path = process.find(QEMU, "qemu-system-x86")
    version = parse_version(process.run([path, "--version"], deadline=Deadline.after(30)).output)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_QEMU:
        raise InfraError(f"QEMU {version} is too old", where=path, hint="7.2 or newer: apt-get install qemu-system-x86")
    return Qemu(path, version)


def _host_key(program: Qemu) -> str:
    """What the answer depends on: this boot of this host, and the QEMU."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(f"{boot} {program.path} {program.version}".encode()).hexdigest()[:16]


def remembered(cache: Cache, program: Qemu) -> tuple[bool, str] | None:
    """What an earlier probe found: whether KVM works, and why not; None when none has been made since boot."""
    try:
        answer = json.loads((cache.root / "kvm" / f"{_host_key(program)}.json").read_text())
        return bool(answer["works"]), str(answer["why"])
    except (OSError, ValueError, KeyError):
        return None


def _remember(cache: Cache, program: Qemu, works: bool, why: str) -> None:
    folder = cache.root / "kvm"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_host_key(program)}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"works": works, "why": why}))
    draft.replace(path)


def probe_arguments(kernel: Path) -> list[str]:
    """The smallest guest that shows a living kernel: no disk, so it panics after its first lines and QEMU ends."""
    return [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        *("-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M"),
        *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", "stdio"),
    ]


def probe(program: Qemu, kernel: Path, seconds: float = PROBE_SECONDS) -> tuple[bool, str]:
    """Boot `kernel` under KVM for at most `seconds`; whether it printed its first line, and if not, why not."""
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        there = KVM_DEVICE.exists()
        return False, f"{KVM_DEVICE} is not accessible" if there else f"there is no {KVM_DEVICE}"
    booted = False

    def line(text: str) -> None:
        nonlocal booted
        booted = booted or BOOTED in text

    try:
        done = process.run(
            [program.path, *probe_arguments(kernel)], deadline=Deadline.after(seconds), check=False, line=line
        )
    except InfraError:
        return booted, "" if booted else f"a guest kernel prints nothing on it within {seconds:.0f} s"
    if booted:
        return True, ""
    last = done.output.strip().splitlines()
    return False, last[-1] if last else f"QEMU ended with status {done.status} and said nothing"


def choose(cache: Cache, program: Qemu, kernel: Path, progress: Progress) -> Accelerator:
    """KVM when a guest kernel runs on it, else TCG, with a line that says why.

    InfraError when `MOF_ACCEL=kvm` and it does not work.
    """
    asked = wanted()
    if asked is Accelerator.TCG:
        return asked
    answer = remembered(cache, program)
    if answer is None:
        progress.step("finding out whether a guest kernel runs on KVM (10 s at most, once)")
        answer = probe(program, kernel)
        _remember(cache, program, *answer)
    works, why = answer
    if works:
        return Accelerator.KVM
    if asked is Accelerator.KVM:
        raise InfraError(f"KVM does not work here: {why}", where="MOF_ACCEL", hint="MOF_ACCEL=tcg")
    progress.note(f"KVM does not work here ({why}); using TCG, which is slower")
    return Accelerator.TCG
