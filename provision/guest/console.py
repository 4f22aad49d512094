"""The guest's console: a file that QEMU writes from the first byte, and what its lines say about the guest's health."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from provision.host.errors import Loss

READY = "mof: ready"
TAIL_LINES = 25

_STAMP = r"^(?:\[ *\d+\.\d+\](?:\[[^]]*\])? )?"
_SIGNS: tuple[tuple[Loss, re.Pattern[str]], ...] = (
    (Loss.PANIC, re.compile(_STAMP + r"Kernel panic - not syncing: (.*)", re.MULTILINE)),
    (
        Loss.OOPS,
        re.compile(
            _STAMP + r"((?:Oops|general protection fault|BUG: (?!soft lockup|workqueue)|kernel BUG at |"
            r"Unable to handle kernel|double fault).*)",
            re.MULTILINE,
        ),
    ),
    (
        Loss.HANG,
        re.compile(
            _STAMP + r"((?:watchdog: )?BUG: soft lockup.*|INFO: task .* blocked for more than .*|"
            r"rcu: INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?.*)",
            re.MULTILINE,
        ),
    ),
)
"""How 6.12 words them: kernel/panic.c, arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, kernel/watchdog.c,
kernel/hung_task.c, kernel/rcu/tree_stall.h. A panic that follows an oops is the one reported."""

_WARNING = re.compile(_STAMP + r"(WARNING: .*)", re.MULTILINE)


@dataclass(frozen=True)
class Sign:
    """A line that says that the guest is lost, and how."""

    loss: Loss
    text: str


def diagnose(text: str) -> Sign | None:
    """The gravest sign in a console's text; None when it looks healthy."""
    for loss, pattern in _SIGNS:
        if found := pattern.search(text):
            return Sign(loss, found[1].strip())
    return None


def warnings(text: str) -> list[str]:
    """The kernel's own warnings: not fatal, and worth telling."""
    return [found.strip() for found in _WARNING.findall(text)]


class Console:
    """Reads the console's file as it grows; each byte is looked at once, with some overlap."""

    OVERLAP = 512

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = ""
        self._sign: Sign | None = None
        self._ready = False

    def _advance(self) -> None:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                new = stream.read()
        except FileNotFoundError:
            return
        if not new:
            return
        self._offset += len(new)
        text = self._rest + new.decode(errors="replace").replace("\r", "")
        self._ready = self._ready or READY in text
        found = diagnose(text)
        if found is not None and (self._sign is None or found.loss is Loss.PANIC):
            self._sign = found
        self._rest = text[-self.OVERLAP :]

    @property
    def ready(self) -> bool:
        """Init has said that the guest is up."""
        self._advance()
        return self._ready

    @property
    def sign(self) -> Sign | None:
        """Why the guest is lost, as far as the console tells."""
        self._advance()
        return self._sign

    @property
    def silent(self) -> bool:
        """Nothing at all has been printed."""
        self._advance()
        return self._offset == 0

    def text(self) -> str:
        """All of it."""
        return self.path.read_text(errors="replace").replace("\r", "") if self.path.exists() else ""

    def tail(self) -> str:
        """The last lines, for a message."""
        return "\n".join(self.text().splitlines()[-TAIL_LINES:])
