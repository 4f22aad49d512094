"""The monitor's synchronous face, against a stand-in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.guest.qmp import Event, MonitorError, MonitorGone, connected
from provision.host.deadline import Deadline
from tests.fakes.monitor import serving

SOON = 5.0
STOPPED = {
    "event": "SHUTDOWN",
    "data": {"guest": True, "reason": "guest-reset"},
    "timestamp": {"seconds": 1, "microseconds": 0},
}


def answer(command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if command == "query-status":
        return {"return": {"status": "running"}}
    if command == "human-monitor-command":
        return {"return": f"said {arguments['command-line']}"}
    if command == "quit":
        return None
    return {"error": {"class": "CommandNotFound", "desc": f"The command {command} has not been found"}}


def test_execute_and_refusal(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with serving(path, answer), connected(str(path), Deadline.after(SOON)) as monitor:
        assert monitor.execute("query-status") == {"status": "running"}
        assert monitor.human("info usernet") == "said info usernet"
        with pytest.raises(MonitorError, match="has not been found"):
            monitor.execute("nonsense")
        assert monitor.execute("query-status") == {"status": "running"}


def test_events_from_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with serving(path, answer, [STOPPED]), connected(str(path), Deadline.after(SOON)) as monitor:
        assert Deadline.after(SOON).poll(lambda: bool(monitor.events))
        assert monitor.events == (Event("SHUTDOWN", {"guest": True, "reason": "guest-reset"}),)


def test_a_monitor_that_hangs_up_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with serving(path, answer), connected(str(path), Deadline.after(SOON)) as monitor:
        with pytest.raises(MonitorGone):
            monitor.execute("quit")
        with pytest.raises(MonitorGone):
            monitor.execute("query-status")


def test_no_greeting_and_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        began = time.monotonic()
        with pytest.raises(MonitorGone), connected(str(path), Deadline.after(0.3)):
            pass
        assert time.monotonic() - began < SOON
    with pytest.raises(MonitorGone), connected(str(tmp_path / "none"), Deadline.after(SOON)):
        pass


def test_no_thread_is_left(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    before = set(threading.enumerate())  # guests that other tests of this process have open
    with serving(path, answer), connected(str(path), Deadline.after(SOON)):
        assert "qmp" in {thread.name for thread in set(threading.enumerate()) - before}
    # The interpreter takes a thread off its list a moment after it has ended.
    assert Deadline.after(SOON).poll(lambda: not {t for t in threading.enumerate() if t.name == "qmp"} - before)
