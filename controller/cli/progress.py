"""Progress for a person: a live line on a terminal, one line a step elsewhere. Both on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.status import Status


class Lines:
    """One line a step, with the seconds since the start; counts at most every ten seconds."""

    EVERY_SECONDS = 10.0

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._counted = self._began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f}] {text}", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        self._counted = time.monotonic()
        self._print(text)

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        if time.monotonic() - self._counted >= self.EVERY_SECONDS:
            self._counted = time.monotonic()
            self._print(f"  {done}{f' of about {total}' if total else ''}  {text}")

    def note(self, text: str) -> None:
        self._print(text)


class Live:
    """A spinner with the current step; finished steps stay above it with what they took."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._status: Status = self._console.status("")
        self._step = ""
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._status.stop()

    def _finish(self) -> None:
        if self._step:
            took = time.monotonic() - self._since
            self._console.print(f"[dim]{took:6.1f} s[/dim]  {self._step}")
        self._step = ""

    def step(self, text: str) -> None:
        from rich.markup import escape

        self._finish()
        self._step = escape(text)
        self._since = time.monotonic()
        self._status.update(self._step)

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        from rich.markup import escape

        share = f"{min(99, 100 * done // total)} %" if total else str(done)
        took = int(time.monotonic() - self._since)
        self._status.update(f"{self._step}  {share}  [dim]{escape(text[-50:])}  {took // 60}:{took % 60:02}[/dim]")

    def note(self, text: str) -> None:
        from rich.markup import escape

        self._console.print(f"          {escape(text)}")


def for_stream() -> Lines | Live:
    """Live when standard error is a terminal."""
    return Live() if sys.stderr.isatty() else Lines()
