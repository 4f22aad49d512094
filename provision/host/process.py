"""The one place that starts programs: argument lists, never a shell, and nothing outlives us.

Every child leads a process group of its own, so that all its descendants can be ended together, and asks the
kernel to be ended when we die without a chance to clean up (`setpriv --pdeathsig`, util-linux 2.33, prctl(2)
PR_SET_PDEATHSIG). The parent-death signal is tied to the thread that started the child: start from the main
thread whatever must live long.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from provision.host.deadline import Deadline
from provision.host.errors import InfraError

OF_MAKE = frozenset({"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"})
"""GNU make's manual, "Communicating Options to a Sub-make"."""

TAIL_LINES = 30
"""How much of a failed program's output goes into the error."""


@dataclass(frozen=True)
class Completed:
    """A program that ended by itself. `output` is standard output; errors go to `errors`."""

    argv: tuple[str, ...]
    status: int
    output: str
    errors: str


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last `lines` lines."""
    return "\n".join(text.splitlines()[-lines:])


def find(program: str, package: str = "") -> str:
    """The program's path; InfraError with the Debian package that brings it when it is missing."""
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(program, path=f"{path}:/usr/sbin:/sbin")
    if found is None:
        raise InfraError(f"{program} is not installed", hint=f"apt-get install {package or program}")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the C locale for output that is parsed, and `extra` on top; without what a make that we run under tells
    those below it, for who is started here is not one of them: the kernel's selftests build elsewhere with MAKELEVEL set
    (tools/testing/selftests/lib.mk)."""
    ours = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    return {**ours, "LC_ALL": "C.UTF-8", **(extra or {})}


def _bound(argv: Sequence[str]) -> list[str]:
    return [find("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *argv]


def end(child: subprocess.Popen[bytes] | subprocess.Popen[str], grace: float = 2.0) -> None:
    """End a child and all its descendants: politely, then surely. Safe to call twice."""
    for sig, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sig)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=seconds)
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


@contextmanager
def started(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    grace: float = 2.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the block does and is gone, with its descendants, when the block is left."""
    child = subprocess.Popen(
        _bound(argv),
        cwd=cwd,
        env=environment(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        end(child, grace)


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    check: bool = True,
    line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end.

    With `line`, standard error is merged into standard output and every line is handed over as it comes. With
    `check`, a status other than 0 is an InfraError that carries the end of the output; a missed deadline always is.
    """
    name = Path(argv[0]).name
    with started(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if line else subprocess.PIPE,
    ) as child:
        try:
            if line is None:
                out, err = child.communicate(None if stdin is None else stdin.encode(), timeout=deadline.remaining())
                output, errors = out.decode(errors="replace"), err.decode(errors="replace")
            else:
                output, errors = _lines(child, line, deadline, stdin), ""
            status = child.wait(timeout=max(1.0, deadline.remaining()))
        except subprocess.TimeoutExpired as late:
            raise InfraError(f"{name} did not end within {deadline.seconds:.0f} s", where=name) from late
    done = Completed(tuple(argv), status, output, errors)
    if check and status != 0:
        raise InfraError(f"{name} failed with status {status}", where=name, detail=tail(done.errors or done.output))
    return done


def _lines(child: subprocess.Popen[bytes], line: Callable[[str], None], deadline: Deadline, stdin: str | None) -> str:
    """Feed a merged stream to `line` and keep it; the whole group is ended when the deadline passes first."""
    import selectors

    assert child.stdout is not None
    if stdin is not None and child.stdin is not None:
        child.stdin.write(stdin.encode())
        child.stdin.close()
    kept: list[str] = []
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(deadline.remaining()) and deadline.passed:
                raise subprocess.TimeoutExpired(child.args, deadline.seconds)
            chunk = os.read(child.stdout.fileno(), 65536)
            *whole, rest = (rest + chunk).split(b"\n")
            if not chunk and rest:
                whole, rest = [*whole, rest], b""
            for raw in whole:
                text = raw.decode(errors="replace").rstrip("\r")
                kept.append(text)
                line(text)
            if not chunk:
                return "\n".join(kept)
