"""How busy this host is, so that whoever waits for emulated machines waits longer when many share its processors."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

LOADAVG = Path("/proc/loadavg")
LOOK_SECONDS = 0.25
"""A look costs some microseconds; what it shows changes slower than waits ask."""
MOST = 64.0


def of_text(text: str, cpus: int) -> float:
    """How much longer than on an idle host things take, from /proc/loadavg (proc(5)): from 1 to MOST.

    Runnable tasks for each CPU, now or in the mean of the last minute, whichever is more: the mean alone hides for half
    a minute that sixteen guests have just been started.
    """
    words = text.split()
    runnable = int(words[3].partition("/")[0])
    return min(MOST, max(1.0, float(words[0]) / cpus, runnable / cpus))


class _Look:
    """The last look, shared by all waits of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._found = 1.0
        self._expected = 1.0

    def expect(self, tasks: int) -> None:
        """Count on so many busy tasks from now on, which may not show yet."""
        self._expected = min(MOST, max(1.0, tasks / len(os.sched_getaffinity(0))))

    def __call__(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now - self._at >= LOOK_SECONDS:
                self._at = now
                try:
                    self._found = of_text(LOADAVG.read_text(), len(os.sched_getaffinity(0)))
                except (OSError, ValueError, IndexError):
                    self._found = 1.0
            return max(self._found, self._expected)


slowness = _Look()
"""`slowness()`: the factor of this moment."""
expect = slowness.expect
