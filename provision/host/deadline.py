"""A time that a wait may take: of the clock, or of what this host can do meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from provision.host import load

MOST_AT_ONCE = 5.0
"""Of the time between two looks of a patient deadline, so much counts at most: in a longer one we did not run either."""


def _steady() -> float:
    return 1.0


class Deadline:
    """So many seconds from its making; made once, handed down to every wait that serves the same purpose.

    A patient one counts in seconds of an idle host: while its processors are shared by many, or while we are stopped,
    its time passes slower. That holds for load that comes after it was made, too.
    """

    def __init__(self, seconds: float, slowness: Callable[[], float] = _steady, at_once: float = float("inf")) -> None:
        self.seconds = seconds
        self._slowness = slowness
        self._at_once = at_once
        self._left = seconds
        self._looked = time.monotonic()

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(seconds)

    @classmethod
    def patient(cls, seconds: float) -> Deadline:
        """The moment at which an idle host would have had `seconds`."""
        return cls(seconds, load.slowness, MOST_AT_ONCE)

    def _look(self) -> float:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        factor = self._slowness()
        self._left -= min(passed, self._at_once) / factor
        return factor

    def remaining(self) -> float:
        """Seconds left, as things are; 0.0 when passed."""
        factor = self._look()
        return max(0.0, self._left * factor)

    @property
    def passed(self) -> bool:
        self._look()
        return self._left <= 0

    def poll(self, ready: Callable[[], bool], interval: float = 0.05) -> bool:
        """Ask `ready` every `interval` seconds until it says yes (True) or the moment has passed (False).

        Asked once more after the moment, so that a slow host is not blamed for what did happen.
        """
        while not ready():
            if self.passed:
                return ready()
            time.sleep(min(interval, self.remaining()))
        return True
