"""The controller's end of the agent's control port: a JSON object a line, one request at a time."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss


@dataclass(frozen=True)
class Counts:
    """What one probe counted. The agent holds `fired == received + lost` or the evidence is not whole.

    `missed`: runs of the program that the kernel skipped, so that not even `fired` knows of them.
    """

    fired: int
    received: int
    lost: int
    missed: int = 0


class Agent:
    """Talks to the agent through a connected stream socket.

    `check` is asked while waiting and raises GuestLost when the guest is gone.
    """

    def __init__(self, stream: socket.socket, check: Callable[[], None]) -> None:
        self._stream = stream
        self._check = check
        self._buffer = b""
        self.drain_seconds = 0.0
        """What the agent has spent on taking records out of the ring and writing them on, at its last flush; guest time."""

    def sync(self, deadline: Deadline) -> None:
        """Find the beginning of the conversation, whatever another controller has left in the port."""
        token = secrets.token_hex(8)
        # A line of its own first: it ends whatever stands there half.
        self._stream.sendall(b"\n" + json.dumps({"do": "sync", "token": token}).encode() + b"\n")
        while True:
            try:
                answer = json.loads(self._line("sync", deadline))
            except ValueError:
                continue
            if isinstance(answer, dict) and answer.get("token") == token:
                return

    def ask(self, request: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """One request and its answer.

        InfraError with the agent's own words when it answers that it could not; GuestLost when nothing comes in time.
        """
        self._stream.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._line(request["do"], deadline))
        if not answer.get("ok"):
            first, _, rest = str(answer.get("error", "no reason given")).partition("\n")
            raise InfraError(first, where=f"agent: {request['do']}", detail=rest)
        return answer

    def _line(self, what: str, deadline: Deadline) -> bytes:
        while b"\n" not in self._buffer:
            self._check()
            if deadline.passed:
                raise GuestLost(Loss.HANG, f"the agent did not answer '{what}' within {deadline.seconds:.0f} s")
            self._stream.settimeout(max(0.05, min(0.5, deadline.remaining())))
            try:
                chunk = self._stream.recv(65536)
            except TimeoutError:
                continue
            if not chunk:
                self._check()
                raise GuestLost(Loss.CONNECTION, "the agent's port was closed")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def flush(self, deadline: Deadline) -> dict[str, Counts]:
        """Drain everything that the probes recorded so far; counts per probe."""
        answer = self.ask({"do": "flush"}, deadline)
        self.drain_seconds = float(answer.get("drain_seconds", 0.0))
        missed = answer.get("missed", {})
        return {
            name: Counts(int(c["fired"]), int(c.get("received", 0)), int(c["lost"]), int(missed.get(name, 0)))
            for name, c in answer["probes"].items()
        }
