"""One command's life on a channel: when it is ended, whether its guest still answers, and what it said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from provision.host.deadline import Deadline

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL in the guest, and again until the host stops to wait."""
SILENCE_SECONDS = 30.0
ANSWER_SECONDS = 10.0


class Connected(Protocol):
    """What a pulse needs of fabric's connection: paramiko's transport."""

    @property
    def transport(self) -> Any: ...


class End:
    """What ends a command: SIGTERM when its deadline has passed, SIGKILL after a grace, and in the `last` resort us."""

    def __init__(self, deadline: Deadline, note: str) -> None:
        self.note = note
        self.sent = False
        self.last = Deadline.patient(deadline.remaining() + 3 * GRACE_SECONDS)
        self._deadlines = [("TERM", deadline)]

    def due(self) -> str:
        """The signal whose time has come, once; empty before and afterwards."""
        if not self._deadlines or not self._deadlines[0][1].passed:
            return ""
        signal = self._deadlines.pop()[0]
        if not self.sent:
            self._deadlines.append(("KILL", Deadline.patient(GRACE_SECONDS)))
            # Counted from now: the command's deadline may have been patient, and this one has to outlast it.
            self.last = Deadline.patient(2 * GRACE_SECONDS)
        self.sent = True
        return signal


class Pulse:
    """Notices during a long command that the guest no longer answers, before the command's time is over.

    After SILENCE_SECONDS without output it sends a request that sshd answers with a refusal (the same that
    ssh(1) uses for ServerAliveInterval). In a thread: paramiko waits for the answer without a limit.
    """

    def __init__(self, connection: Connected) -> None:
        self._connection = connection
        self._next = Deadline.patient(SILENCE_SECONDS)
        self._thread: threading.Thread | None = None

    def missed(self, heard: bool) -> bool:
        """Whether an answer is overdue; `heard`: something came from the guest since the last call."""
        if heard or (self._thread is not None and not self._thread.is_alive()):
            self._thread = None
            self._next = Deadline.patient(SILENCE_SECONDS)
        if not self._next.passed:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="ssh pulse", daemon=True)
            self._thread.start()
            self._next = Deadline.patient(ANSWER_SECONDS)
            return False
        self._next = Deadline.patient(ANSWER_SECONDS)
        return True

    def _ask(self) -> None:
        with suppress(Exception):  # a connection that breaks is noticed by the command
            self._connection.transport.global_request("keepalive@openssh.com", wait=True)


class Output:
    """Both streams of a command, decoded at the end; standard output also line by line."""

    def __init__(self, line: Callable[[str], None] | None) -> None:
        self._line = line
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        self._out.append(chunk)
        if self._line is not None:
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for raw in whole:
                self._line(raw.decode(errors="replace"))

    def error(self, chunk: bytes) -> None:
        self._err.append(chunk)

    def end(self) -> None:
        if self._line is not None and self._rest:
            self._line(self._rest.decode(errors="replace"))
            self._rest = b""

    def text(self) -> str:
        return b"".join(self._out).decode(errors="replace")

    def errors(self) -> str:
        return b"".join(self._err).decode(errors="replace")
