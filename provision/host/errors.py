"""The families of errors, one exit status each.

    MofError
    ├── UserError    2  the person's input is wrong
    ├── InfraError   3  this host cannot: missing program, no space, no permission
    └── GuestLost    4  the guest never booted, panicked, hung or vanished

Library code raises these, chained to what caused them; only the command line turns one into a line of text
and an exit status. Anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from enum import StrEnum


class MofError(Exception):
    """What went wrong, where, and the mend: all three in one line.

    `message` says what; `where` names a file and line, an option or a path; `hint` says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class UserError(MofError):
    """The person's input is wrong: exit status 2."""

    exit_code = 2


class InfraError(MofError):
    """This host cannot do what was asked: exit status 3.

    `detail` holds more lines (the end of a compiler's output, say), shown below the first.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.detail = detail


class Loss(StrEnum):
    """How a guest was lost."""

    PANIC = "panic"
    OOPS = "oops"
    HANG = "hang"
    NO_BOOT = "no-boot"
    CONNECTION = "connection"
    EXIT = "exit"


class GuestLost(MofError):
    """The guest is gone: exit status 4, with the console's last lines."""

    exit_code = 4

    def __init__(self, loss: Loss, message: str, *, console_tail: str = "", hint: str = "") -> None:
        super().__init__(message, where=f"guest lost ({loss.value})", hint=hint)
        self.loss = loss
        self.console_tail = console_tail
