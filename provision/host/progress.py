"""How the rooms tell of long work without printing: they are handed one of these."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a person may want to see. Calls come from one thread and must not raise."""

    def step(self, text: str) -> None:
        """A step has begun; one short line."""

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        """The current step has come so far; called often."""

    def note(self, text: str) -> None:
        """Something that a person should know and that is no step (an accelerator that does not work, say)."""


class Silent:
    """For tests and for library use."""

    def step(self, text: str) -> None:
        pass

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        pass
