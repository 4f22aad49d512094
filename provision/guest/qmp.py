"""QEMU's monitor, with a small synchronous face: one thread, one loop, and every call has a deadline."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from provision.host.deadline import Deadline

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

T = TypeVar("T")

CLOSE_SECONDS = 5.0


class MonitorError(Exception):
    """QEMU's answer was an error."""


class MonitorGone(Exception):
    """There was no answer: QEMU has ended, hung, or never greeted."""


@dataclass(frozen=True)
class Event:
    """Something QEMU told unasked: SHUTDOWN with data {"guest": true, "reason": "guest-reset"}, say."""

    name: str
    data: Mapping[str, Any]


class Monitor:
    """A connected monitor. Made by connected(); may be used from any thread."""

    def __init__(self) -> None:
        # The library reports a vanished QEMU through logging, which would reach the terminal for want of a handler.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._events: list[Event] = []
        self._client: QMPClient | None = None
        self._thread.start()

    def _wait(self, work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout=deadline.remaining())
        except (Late, CancelledError) as late:
            raise MonitorGone(f"QEMU's monitor did not answer within {deadline.seconds:.0f} s") from late
        finally:
            future.cancel()

    async def _connect(self, stream: socket.socket) -> None:
        from qemu.qmp import EventListener, Message, QMPClient

        client = QMPClient("guest")

        def keep(message: Message) -> bool:
            name, data = message.get("event"), message.get("data")
            self._events.append(Event(str(name), data if isinstance(data, dict) else {}))
            return False  # kept here; the listener's own queue stays empty

        # Before the connection, so that no event is missed.
        client.register_listener(EventListener(event_filter=keep))
        await client.connect(stream)
        self._client = client

    def connect(self, path: str, deadline: Deadline) -> None:
        """Connect to a unix socket; MonitorGone when no greeting comes in time."""
        from qemu.qmp import QMPError

        with socket.socket(socket.AF_UNIX) as stream:
            try:
                stream.settimeout(max(0.1, deadline.remaining()))
                stream.connect(path)
                # A copy: the library closes its own. Shutting ours down ends a wait for a greeting in good order,
                # which a cancellation does not (0.0.6 leaves tasks behind that are reported as errors).
                future = asyncio.run_coroutine_threadsafe(self._connect(stream.dup()), self._loop)
                try:
                    future.result(timeout=deadline.remaining())
                except Late:
                    stream.shutdown(socket.SHUT_RDWR)
                    future.result(timeout=CLOSE_SECONDS)
            except (QMPError, OSError, EOFError, Late) as wrong:
                raise MonitorGone("QEMU's monitor gave no greeting") from wrong

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline | None = None
    ) -> Any:
        """The command's return value. MonitorError when QEMU refuses it; MonitorGone when there is no QEMU to ask."""
        from qemu.qmp import ExecuteError, QMPError

        if self._client is None:
            raise MonitorGone("QEMU's monitor is not connected")
        try:
            return self._wait(self._client.execute(command, arguments), deadline or Deadline.after(CLOSE_SECONDS))
        except ExecuteError as refused:
            raise MonitorError(f"{command}: {refused}") from refused
        except (QMPError, OSError, EOFError) as wrong:
            raise MonitorGone(f"{command}: QEMU's monitor is gone") from wrong

    def hand_over(self, name: str, fd: int, *, deadline: Deadline | None = None) -> None:
        """Give QEMU a descriptor, known to its commands by `name` (QMP getfd). Errors as execute()."""
        if self._client is None:
            raise MonitorGone("QEMU's monitor is not connected")
        # The library sends it along with whatever is written next.
        self._client.send_fd_scm(fd)
        self.execute("getfd", {"fdname": name}, deadline=deadline)

    def human(self, command: str, *, deadline: Deadline | None = None) -> str:
        """The output of a command of the human monitor, for what QMP has no command for."""
        return str(self.execute("human-monitor-command", {"command-line": command}, deadline=deadline))

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, oldest first."""
        return tuple(self._events)

    def close(self) -> None:
        """Disconnect and end the thread. Safe after QEMU's end."""
        if self._client is not None:
            with suppress(Exception):  # whatever QEMU's end left behind in the connection
                self._wait(self._client.disconnect(), Deadline.after(CLOSE_SECONDS))
            self._client = None
        with suppress(MonitorGone):
            self._wait(_cancel_others(), Deadline.after(CLOSE_SECONDS))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_others() -> None:
    """End what is still under way (a connection without a greeting, say), so that the loop stops with nothing left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def connected(path: str, deadline: Deadline) -> Iterator[Monitor]:
    """A monitor for the time of the block."""
    monitor = Monitor()
    try:
        monitor.connect(path, deadline)
        yield monitor
    finally:
        monitor.close()
