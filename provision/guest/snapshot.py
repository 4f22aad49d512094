"""Saving a guest, and going on with what was saved: as often as wanted, side by side.

The guest's memory is in files of its template's folder, which QEMU maps shared while the template lives and private in
each fork; so what has to be read at a fork is the state of the devices alone, some hundred kilobytes (migration
capability `x-ignore-shared`). Disks: the root disk is never written to, of the swap disk each fork gets a copy.

A folder that save() has filled holds:
    ram0, ram1, ...   memory by node, sparse
    state             the devices' state
    swap              the swap disk, sparse (absent without one)
    console.log       what the guest said until then
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from provision.guest.accelerator import Qemu
from provision.guest.console import Console
from provision.guest.qmp import Monitor, MonitorError, MonitorGone
from provision.hardware.topology import Topology
from provision.host.deadline import Deadline
from provision.host.errors import InfraError

STATE = "state"
SWAP = "swap"
CONSOLE = "console.log"

READS_WITHOUT_WRITING = (9, 0)
"""QEMU from here on maps memory files privately that it may not write to (memory-backend-file, `rom`)."""
FILE_URI = (8, 2)
"""QEMU from here on migrates to and from `file:`; before, a descriptor has to be handed over."""

POLL_SECONDS = 0.01
_CAPABILITIES = [{"capability": "x-ignore-shared", "state": True}]


class Savable(Protocol):
    """What saving needs of a guest (provision.guest.guest.Guest)."""

    @property
    def qmp(self) -> Monitor: ...

    @property
    def qemu(self) -> Qemu: ...

    @property
    def console(self) -> Console: ...

    def check(self) -> None: ...


class Unsavable(InfraError):
    """This guest cannot be saved; the message says what keeps it from being."""


class Unusable(InfraError):
    """What was saved cannot be gone on with; the message says why."""


@dataclass(frozen=True)
class Saved:
    """A saved guest: the folder that save() has filled."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / STATE

    @property
    def swap(self) -> Path:
        return self.folder / SWAP

    @property
    def console(self) -> Path:
        return self.folder / CONSOLE


def _copy_range(source: int, target: int, at: int, length: int) -> int:
    """Copy up to `length` bytes at offset `at` to the same offset; how many it was, 0 at the end. OSError."""
    try:
        return os.copy_file_range(source, target, length, at, at)
    except OSError as error:
        # Since Linux 5.19 not from one file system to another, and some cannot at all (copy_file_range(2)).
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, at, length)


def copy_data(source: Path, target: IO[bytes]) -> int:
    """Copy the parts of a sparse file that are not holes, each to its place; returns how many bytes (lseek(2))."""
    copied = 0
    with source.open("rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(stream.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only holes follow
                break
            until = os.lseek(stream.fileno(), at, os.SEEK_HOLE)
            while at < until:
                count = _copy_range(stream.fileno(), target.fileno(), at, until - at)
                if not count:
                    break
                at, copied = at + count, copied + count
    return copied


def _status(monitor: Monitor) -> Mapping[str, Any]:
    found: Mapping[str, Any] = monitor.execute("query-migrate")
    return found


def _await(monitor: Monitor, deadline: Deadline) -> Mapping[str, Any]:
    """The last status of a migration that has ended, well or not, or has not in time."""
    last: Mapping[str, Any] = {}

    def ended() -> bool:
        nonlocal last
        last = _status(monitor)
        return last.get("status") in ("completed", "failed", "cancelled")

    deadline.poll(ended, POLL_SECONDS)
    return last


def obstacles(monitor: Monitor) -> list[str]:
    """What keeps the guest from being saved, in QEMU's words (query-migrate, blocked-reasons); empty when nothing."""
    return [str(reason) for reason in _status(monitor).get("blocked-reasons", ())]


def cannot_be_saved(topology: Topology) -> str:
    """Why a guest of that topology cannot be saved, "" if nothing speaks against it.

    QEMU 10.0 has no state of CXL ports and devices to save (cxl-rp and cxl-type3 are not in what `-dump-vmstate` lists), and
    does not say so: a fork would have its memory at no address.
    """
    if topology.cxl_nodes:
        return "this guest cannot be saved: QEMU does not save what CXL devices have been set to"
    return ""


def save(guest: Savable, folder: Path, deadline: Deadline) -> None:
    """Stop the guest and write down what is not in `folder` yet: its memory is, as it was launched with `keep`.

    The guest is of no use afterwards. Unsavable with the reason; InfraError when there is no space.
    """
    monitor, qemu = guest.qmp, guest.qemu
    try:
        if blocked := obstacles(monitor):
            raise Unsavable(f"this guest cannot be saved: {blocked[0]}")
        monitor.execute("stop")
        monitor.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
        if qemu.number >= FILE_URI:
            monitor.execute("migrate", {"uri": f"file:{folder / STATE}"})
        else:
            with (folder / STATE).open("wb") as stream:
                monitor.hand_over("state", stream.fileno())
            monitor.execute("migrate", {"uri": "fd:state"})
        last = _await(monitor, deadline)
    except MonitorError as wrong:
        raise Unsavable(f"this guest cannot be saved: {wrong}") from wrong
    except MonitorGone as gone:
        guest.check()
        raise Unsavable(f"QEMU does not answer while the guest is saved: {gone}") from gone
    if last.get("status") != "completed":
        if shutil.disk_usage(folder).free < (folder / STATE).stat().st_size + (1 << 20):
            raise InfraError("no space left while a guest was saved", where=str(folder), hint="free some")
        why = last.get("error-desc") or f"its state was not written within {deadline.seconds:.0f} s"
        raise Unsavable(f"this guest cannot be saved: {why}")
    shutil.copyfile(guest.console.path, folder / CONSOLE)


def restore(monitor: Monitor, saved: Saved, qemu: Qemu, deadline: Deadline) -> None:
    """Read a saved state into a QEMU that waits for one (`-incoming defer`), and let the guest go on. Unusable."""
    try:
        monitor.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
        if qemu.number >= FILE_URI:
            monitor.execute("migrate-incoming", {"uri": f"file:{saved.state}"})
        else:
            with saved.state.open("rb") as stream:
                monitor.hand_over("state", stream.fileno())
            monitor.execute("migrate-incoming", {"uri": "fd:state"})
        last = _await(monitor, deadline)
        if last.get("status") != "completed":
            why = last.get("error-desc") or f"not read within {deadline.seconds:.0f} s"
            raise Unusable(f"QEMU cannot go on with the saved guest: {why}", where=str(saved.folder))
        monitor.execute("cont")
    except MonitorError as wrong:
        raise Unusable(f"QEMU cannot go on with the saved guest: {wrong}", where=str(saved.folder)) from wrong
    except MonitorGone as gone:
        # A state that does not fit ends QEMU: what it said is in its log.
        raise Unusable(f"QEMU gave up on the saved guest: {gone}", where=str(saved.folder)) from gone
