"""What the guest says on its console, and what that means.

QEMU writes the console to a file from the first byte. It is read when someone asks, so there is no thread; the detector
is a function of the text alone.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from provision.host.deadline import Deadline
from provision.host.errors import Loss

READY = "mof: ready"
"""Said once by the image's init, when logins are accepted."""
COMPLAINT = "mof: failed: "

TAIL_LINES = 40
"""How much of the console goes into an error: a panic with its call trace."""
KEPT_LINES = 400

SETTLE_SECONDS = 1.0
"""An oops becomes a panic, and a panic prints its trace, within this time after the first line."""
QUIET_SECONDS = 0.3

_STAMP = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
"""What printk puts before every line (CONFIG_PRINTK_TIME, CONFIG_PRINTK_CALLER)."""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

_FATAL = (
    # kernel/panic.c, panic()
    (Loss.PANIC, re.compile(r"Kernel panic - not syncing.*")),
    # kernel/hung_task.c, check_hung_task(): a task that waited in the kernel for 120 s
    (Loss.HANG, re.compile(r"INFO: task \S+ blocked (?:in I/O wait )?for more than \d+ seconds.*")),
    # arch/x86/kernel/dumpstack.c, __die_header(); arch/x86/mm/fault.c; lib/bug.c; mm/page_alloc.c, bad_page()
    (
        Loss.OOPS,
        re.compile(r"(?:BUG: (?!\S+ lockup)|kernel BUG at |Oops: |general protection fault|Unable to handle ).*"),
    ),
)

# A stall may be the host's doing: an emulated CPU that gets no time. It is told, and it explains a guest that no longer
# answers.
_STALLS = (
    re.compile(r"BUG: (?:soft|workqueue) lockup.*"),  # kernel/watchdog.c, kernel/workqueue.c
    re.compile(r"rcu: INFO: .*(?:self-detected stall|detected (?:expedited )?stalls?).*"),  # kernel/rcu/tree_stall.h
    re.compile(r"rcu: .* kthread starved for .*"),
)
_KERNEL_CODE = re.compile(r"RIP: 0010:(\S+)")
"""Where in the kernel it happened: 0x10 is the kernel's code segment."""
_WARNING = re.compile(r"WARNING: .*")  # kernel/panic.c, __warn()


@dataclass(frozen=True)
class Fault:
    """The first thing on the console after which the guest cannot be believed, and the line that said so."""

    loss: Loss
    line: str


@dataclass
class Detector:
    """Reads a console line by line. The first fault counts: what follows it is its consequence.

    `at`: the kernel function and offset of an oops, "" when none was said. `warnings`: kernel WARNINGs and failed steps
    of init; they do not end a run. `stalls`: see _STALLS.
    """

    ready: bool = False
    fault: Fault | None = None
    at: str = ""
    warnings: list[str] = field(default_factory=list)
    stalls: list[str] = field(default_factory=list)
    _fragment: str = ""

    def line(self, text: str) -> None:
        """One line without its end."""
        stamp = _STAMP.search(text)
        if stamp is None:
            said, self._fragment = self._fragment + text, ""
            self._user(said)
        else:
            # The kernel's line may have cut a user's in two: its rest comes on a later line.
            self._fragment += text[: stamp.start()]
            text = text[stamp.end() :]
        # Lines without a stamp count too: they may be a kernel's whose stamp was torn.
        self._kernel(text)

    def _user(self, text: str) -> None:
        if text.rstrip().endswith(READY):
            self.ready = True
        elif COMPLAINT in text:
            self.warnings.append(text[text.index(COMPLAINT) :].strip())

    def _kernel(self, text: str) -> None:
        for pattern in _STALLS:
            if found := pattern.search(text):
                self.stalls.append(found.group().strip())
                return
        if found := _WARNING.search(text):
            self.warnings.append(found.group().strip())
            return
        if self.fault is not None:
            if self.fault.loss is Loss.OOPS and not self.at and (found := _KERNEL_CODE.search(text)):
                self.at = found.group(1)
        else:
            for loss, pattern in _FATAL:
                if found := pattern.search(text):
                    self.fault = Fault(loss, found.group().strip())
                    return


class Console:
    """The console's file, followed. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._detector = Detector()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        self._offset = 0
        self._lock = threading.Lock()

    def poll(self) -> Detector:
        """Read what has come since the last time."""
        with self._lock:
            try:
                with self.path.open("rb") as stream:
                    stream.seek(self._offset)
                    new = stream.read()
            except FileNotFoundError:
                new = b""
            self._offset += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for raw in lines:
                text = _plain(raw)
                self._lines.append(text)
                self._detector.line(text)
            return self._detector

    def settle(self) -> Detector:
        """After a fault, for the rest of the story: wait until QUIET_SECONDS without a word, SETTLE_SECONDS at most."""
        seen = -1
        quiet = Deadline.after(QUIET_SECONDS)
        whole = Deadline.after(SETTLE_SECONDS)

        def over() -> bool:
            nonlocal seen, quiet
            self.poll()
            if self._offset != seen:
                seen, quiet = self._offset, Deadline.after(QUIET_SECONDS)
            return quiet.passed

        whole.poll(over)
        return self.poll()

    @property
    def ready(self) -> bool:
        return self.poll().ready

    @property
    def warnings(self) -> list[str]:
        """WARNINGs, failed steps of init and stalls so far."""
        found = self.poll()
        return [*found.warnings, *found.stalls]

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, an unfinished one included."""
        self.poll()
        with self._lock:
            kept = [*self._lines, _plain(self._rest)] if self._rest else list(self._lines)
        return "\n".join(kept[-lines:])

    def last_line(self) -> str:
        """The last line that is not empty, without printk's time; "" when nothing was said."""
        for text in reversed(self.tail().splitlines()):
            if text.strip():
                return _STAMP.sub("", text, count=1).strip()
        return ""


def _plain(raw: bytes) -> str:
    return _ESCAPE.sub("", raw.decode(errors="replace")).rstrip("\r")
