"""A point in time that a wait may not pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock; made once, handed down to every wait that serves the same purpose."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(seconds, time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; 0.0 when passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def poll(self, ready: Callable[[], bool], interval: float = 0.05) -> bool:
        """Ask `ready` every `interval` seconds until it says yes (True) or the moment has passed (False).

        Asked once more after the moment, so that a slow host is not blamed for what did happen.
        """
        while not ready():
            if self.passed:
                return ready()
            time.sleep(min(interval, self.remaining()))
        return True
