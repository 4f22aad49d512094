"""Commands in the guest over SSH: one connection, kept open. The only place that knows Fabric and Paramiko.

A handshake under emulation costs a second, a command on an open connection some 0.07 s. The guest's host key is
known beforehand and no other is accepted; nothing of the person's own SSH configuration, agent or keys is looked at,
so that it cannot change a result.
"""

from __future__ import annotations

import base64
import logging
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko
from fabric import Config, Connection
from invoke.exceptions import UnexpectedExit

from provision.guest.guest import Guest
from provision.host.deadline import Deadline
from provision.host.errors import InfraError, Loss
from provision.image.image import Image

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what matters is raised

HOST = "guest"
WATCH_SECONDS = 0.05
"""How often the console is looked at while a command runs."""

GRACE_SECONDS = 10.0
"""Beyond a command's own deadline, for timeout(1) in the guest to end it and for the status to arrive."""

TIMED_OUT = 124
"""timeout(1)'s status when it had to end the command."""

KEEPALIVE_SECONDS = 15


@dataclass(frozen=True)
class Result:
    """A command that ended. `out` and `err` are its streams."""

    command: str
    status: int
    out: str
    err: str

    @property
    def timed_out(self) -> bool:
        return self.status == TIMED_OUT

    def expect(self) -> Self:
        """Itself when the status is 0; InfraError with the command's words otherwise."""
        if self.status != 0:
            raise InfraError(
                f"a command in the guest failed with status {self.status}",
                where=self.command[:80],
                detail=(self.err or self.out).strip(),
            )
        return self


class _LineSplitter:
    """A stream that hands over whole lines; given to Fabric as standard output."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._rest = ""

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for one in whole:
            self._line(one.rstrip("\r"))
        return len(text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """What came last without a line's end."""
        if self._rest:
            self._line(self._rest)
            self._rest = ""


def _lenient_connection(host_key: str, key: Path, sock: Any) -> Connection:
    kind, text = host_key.split()[:2]
    connection = Connection(
        HOST,
        user="root",
        config=Config(overrides={"load_ssh_configs": False}, lazy=True),
        connect_kwargs={
            "sock": sock,
            "pkey": paramiko.Ed25519Key.from_private_key_file(str(key)),
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": 60,
            "auth_timeout": 60,
        },
    )
    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.get_host_keys().add(HOST, kind, paramiko.Ed25519Key(data=base64.b64decode(text)))
    return connection


class Shell:
    """The open connection. Not to be shared between threads."""

    def __init__(self, guest: Guest, image: Image, deadline: Deadline) -> None:
        """Connect within `deadline`. GuestLost when the guest is gone or sshd never answers."""
        self._guest = guest
        self._connection = self._connect(image, deadline)

    def _connect(self, image: Image, deadline: Deadline) -> Connection:
        while True:
            self._guest.check()
            try:
                sock = self._guest.open_socket(max(1.0, min(10.0, deadline.remaining())))
                connection = _lenient_connection(image.host_key, image.key, sock)
                connection.open()
                connection.transport.set_keepalive(KEEPALIVE_SECONDS)
                return connection
            except paramiko.BadHostKeyException as wrong:
                raise InfraError("another machine answers in place of the guest", hint="try again") from wrong
            except (OSError, EOFError, paramiko.SSHException) as wrong:
                if deadline.passed:
                    raise self._guest.explain(
                        Loss.CONNECTION, f"no SSH connection within {deadline.seconds:.0f} s: {wrong}"
                    ) from wrong
                time.sleep(min(0.1, deadline.remaining()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection up; safe to call twice and on a dead one."""
        with suppress(Exception):
            self._connection.transport.close()
        with suppress(Exception):
            self._connection.close()

    def run(self, command: str, deadline: Deadline, line: Callable[[str], None] | None = None) -> Result:
        """Run a shell command in the guest; with `line`, each line of its output is handed over as it comes.

        The guest's own timeout(1) ends a command that takes longer than `deadline`: status 124. GuestLost when the
        console shows that the guest is gone (noticed while the command runs), or when no status arrives.
        """
        seconds = max(1.0, deadline.remaining())
        bounded = f"timeout -k 2 {seconds:.0f} sh -c {shlex.quote(command)}"
        last = Deadline.after(seconds + GRACE_SECONDS)
        splitter = _LineSplitter(line) if line is not None else None
        try:
            promise = self._connection.run(
                bounded,
                hide=True,
                warn=True,
                in_stream=False,
                out_stream=splitter,
                asynchronous=True,
                encoding="utf-8",
            )
            while not promise.runner.process_is_finished:
                self._guest.check()
                if last.passed or not self._connection.is_connected:
                    raise EOFError("no exit status arrived")
                time.sleep(WATCH_SECONDS / 5 if last.remaining() > seconds + GRACE_SECONDS - 1 else WATCH_SECONDS)
            done = promise.join()
        except UnexpectedExit as wrong:
            done = wrong.result
        except (OSError, EOFError, paramiko.SSHException) as wrong:
            self.close()
            raise self._guest.explain(
                Loss.HANG if last.passed else Loss.CONNECTION, f"the connection broke during '{command[:60]}': {wrong}"
            ) from wrong
        except BaseException:
            self.close()
            raise
        if splitter is not None:
            splitter.close()
        if done.exited == -1:
            raise self._guest.explain(Loss.CONNECTION, f"no exit status arrived for '{command[:60]}'")
        return Result(command, int(done.exited), done.stdout, done.stderr)

    def put_text(self, text: str, path: str) -> None:
        """Write a small text file (100 kB at most, as one argument) in the guest; its folder must exist."""
        coded = base64.b64encode(text.encode()).decode()
        self.run(f"printf %s {coded} | base64 -d > {shlex.quote(path)}", Deadline.after(30.0)).expect()
