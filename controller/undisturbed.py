"""A program in the guest that says something line by line, on either clock, and undisturbed where every instruction counts.

On the clock of instructions (docs/clock.md) all CPUs share one: what others do meanwhile is counted as the program's.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.shell import Result, Shell
from provision.guest.guest import Guest
from provision.hardware.qemu import LINES_PORT, Clock
from provision.host.deadline import Deadline

SETTLE_MS = 1000
"""So long a program lets the guest come to rest before what is counted, which begins half way between two seconds: the
kernel's page allocator and statistics have a second's period. An idle guest's second costs the host a twentieth of one."""


def run(
    shell: Shell, guest: Guest, command: str, clock: Clock, deadline: Deadline, line: Callable[[str], None]
) -> Result:
    """Run one program of the guest; `line` gets what it says: as it comes, or on the clock of instructions at the end.

    There what it says goes into a port, from which nothing comes back, and not over SSH. GuestLost as Shell.run().
    """
    if clock is not Clock.INSN:
        return shell.run(command, deadline, line=line)
    said = _Followed(guest)
    try:
        return shell.run(f"{command} >/dev/virtio-ports/{LINES_PORT}", deadline)
    finally:
        for text in said.lines():
            line(text)


class _Followed:
    """What arrives in the file behind the port of lines, from now on."""

    def __init__(self, guest: Guest) -> None:
        self._path = guest.lines
        self._from = self._size()

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def lines(self) -> list[str]:
        """The whole lines that have come."""
        with self._path.open("rb") as stream:
            stream.seek(self._from)
            return [text.decode(errors="replace") for text in stream.read().split(b"\n")[:-1]]
