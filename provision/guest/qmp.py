"""QEMU's monitor: a small synchronous face on the official asynchronous library."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, Loss

T = TypeVar("T")

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what matters is raised; the rest would reach a terminal


class Monitor:
    """A connected monitor. One thread runs the library's loop; calls come from any thread."""

    def __init__(self, client: QMPClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def _wait(self, work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(deadline.remaining())
        except TimeoutError as late:
            future.cancel()
            raise GuestLost(Loss.HANG, "QEMU's monitor does not answer") from late
        except (QMPError, OSError) as gone:
            raise GuestLost(Loss.EXIT, f"QEMU's monitor is gone: {gone}") from gone

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, seconds: float = 10.0) -> Any:
        """One command's answer. GuestLost when QEMU does not answer in time, or not at all any more."""
        return self._wait(self._client.execute(command, arguments), Deadline.after(seconds))


@contextmanager
def connected(path: Path, deadline: Deadline) -> Iterator[Monitor]:
    """Connect to the monitor's socket at `path`, which QEMU may still have to make."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="qmp", daemon=True)
    thread.start()
    client = QMPClient("mof")
    monitor = Monitor(client, loop)
    try:
        deadline.poll(path.exists, 0.01)
        monitor._wait(client.connect(str(path)), deadline)
        yield monitor
    finally:
        with suppress(Exception):  # QEMU may be gone already
            asyncio.run_coroutine_threadsafe(client.disconnect(), loop).result(2.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(2.0)
        if not thread.is_alive():
            loop.close()
