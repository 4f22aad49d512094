"""Commands in the guest, over one SSH connection that is kept open. The only user of fabric and paramiko.

Nothing of the person's own goes in: no ~/.ssh, no agent, no fabric configuration; one known host key and one login key.
"""

from __future__ import annotations

import logging
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from controller.command import GRACE_SECONDS, SILENCE_SECONDS, End, Output, Pulse
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss
from provision.host.process import tail

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel

T = TypeVar("T")

HOST = "guest"
"""The name under which the host key is known; nothing resolves it."""

ENDED = 143
"""The status of a command that was ended by SIGTERM, as sh(1) has it; none arrives when its shell is ended too."""
POLL_SECONDS = 0.1
"""How often a running command's channel, and the guest's state, are looked at."""
VANISH_SECONDS = 0.5
"""A connection may break a moment before the console says why."""
CONNECT_TRIES_SECONDS = 15.0
RETRY_SECONDS = 0.2
SIGNAL_SECONDS = 30.0
TRANSFER_SECONDS = 120.0
STDIN_CHUNK = 32768


def preload() -> None:
    """Import what a connection needs: half a second that can be spent while a guest starts."""
    import fabric  # noqa: F401


class Reachable(Protocol):
    """What a shell needs of a guest (provision.guest.guest.Guest)."""

    def open_socket(self, deadline: Deadline | None = None) -> socket.socket: ...

    def check(self) -> None: ...

    def require_alive(self, doing: str) -> None: ...

    def lost(self, loss: Loss, message: str) -> GuestLost: ...


class Keys(Protocol):
    """What a shell needs of an image: how to log in, and whom to expect."""

    @property
    def key(self) -> Path: ...

    @property
    def host_key(self) -> str: ...


@dataclass(frozen=True)
class Result:
    """A command that has ended. `timed_out`: it was ended in the guest because its time was over."""

    command: str
    status: int
    out: str
    err: str
    timed_out: bool = False

    def expect(self) -> Result:
        """Itself; InfraError when the status is not 0."""
        if self.status != 0:
            how = "did not end in time" if self.timed_out else f"ended with status {self.status}"
            raise InfraError(
                f"a command in the guest {how}: {shlex.quote(self.command[:80])}", detail=tail(self.err or self.out)
            )
        return self


class Shell:
    """One connection; use it as a context manager, from one thread."""

    def __init__(self, guest: Reachable, image: Keys, deadline: Deadline) -> None:
        self._guest = guest
        self._image = image
        self._deadline = deadline
        self._connection: Connection | None = None
        self._name = secrets.token_hex(4)
        self.first_answer_ns: int | None = None
        """When the first command had ended, in ns of this host's CLOCK_MONOTONIC."""

    def __enter__(self) -> Shell:
        self._connection = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        """Connect until the deadline. A wrong host key or a refused login is no matter of time: InfraError at once."""
        import paramiko

        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else a lost guest writes to the terminal
        while True:
            self._guest.check()
            try:
                return self._try_connect()
            except paramiko.BadHostKeyException as wrong:
                raise InfraError("another than our guest answers: its host key differs", where="ssh") from wrong
            except paramiko.AuthenticationException as wrong:
                raise InfraError("the guest refuses our login key", where=str(self._image.key)) from wrong
            except (paramiko.SSHException, OSError, EOFError) as wrong:
                if self._deadline.passed:
                    self._guest.require_alive("no SSH connection came about")
                    raise self._guest.lost(
                        Loss.CONNECTION, f"no SSH connection within {self._deadline.seconds:.0f} s: {wrong}"
                    ) from wrong
                # A refusal comes back at once: ask again, but not in a tight loop.
                Deadline.after(RETRY_SECONDS).poll(self._checked)

    def _try_connect(self) -> Connection:
        import fabric
        import paramiko

        seconds = max(1.0, min(CONNECT_TRIES_SECONDS, self._deadline.remaining()))
        stream = self._guest.open_socket(Deadline.after(seconds))
        try:
            connection = fabric.Connection(
                HOST,
                user="root",
                port=22,
                config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
                connect_kwargs={
                    "sock": stream,
                    "pkey": paramiko.Ed25519Key.from_private_key_file(str(self._image.key)),
                    "allow_agent": False,
                    "look_for_keys": False,
                    "banner_timeout": seconds,
                    "auth_timeout": seconds,
                },
            )
            connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
            kind, text = self._image.host_key.split()[:2]
            known = paramiko.hostkeys.HostKeyEntry.from_line(f"{HOST} {kind} {text}")
            connection.client.get_host_keys().add(HOST, kind, known.key)
            connection.open()
        except BaseException:
            stream.close()
            raise
        return connection

    @property
    def connection(self) -> Connection:
        """Fabric's connection, for what this class does not cover."""
        assert self._connection is not None, "the shell is not open"
        return self._connection

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        line: Callable[[str], None] | None = None,
        stdin: bytes = b"",
    ) -> Result:
        """Run a command line of sh(1) in the guest, to its end or to the deadline.

        It is ended when its time is over: then `timed_out` is set. `line` gets each line of standard output as it comes.
        GuestLost as soon as the guest is lost, within a second, not when the deadline passes; and when a command cannot
        be ended even by SIGKILL.
        """
        import paramiko

        note = f"/run/mof-{self._name}"
        # sshd starts each command in a session of its own: whose number is noted, so that all of it can be ended. The
        # guest's own timeout(1) will not do: its clock may be one of instructions, not of the host's time.
        whole = f"echo $$ >{note}\n{command}"
        end = End(deadline, note)
        try:
            channel = self._watched(lambda: self._started(whole), end.last, command)
            output = Output(line)
            status = self._follow(channel, stdin, output, end, command)
        except (OSError, EOFError, paramiko.SSHException) as wrong:
            raise self._broken(command) from wrong
        if status == -1:
            if not end.sent:
                raise self._broken(command)
            self._guest.check()
            status = ENDED
        if self.first_answer_ns is None:
            self.first_answer_ns = time.monotonic_ns()
        return Result(command, status, output.text(), output.errors(), end.sent)

    def _started(self, command: str) -> Channel:
        channel = self.connection.create_session()
        channel.exec_command(command)
        return channel

    def _watched(self, work: Callable[[], T], last: Deadline, doing: str) -> T:
        """What `work` returns or raises. GuestLost when the guest is lost meanwhile, or when `last` passes.

        paramiko waits for some answers without a limit (Channel.exec_command) or for an hour (Transport.open_session):
        those waits are in a thread, which ends with the connection.
        """
        results: list[T] = []
        failures: list[BaseException] = []

        def body() -> None:
            try:
                results.append(work())
            except BaseException as wrong:  # handed on below
                failures.append(wrong)

        thread = threading.Thread(target=body, name="ssh request", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            self._guest.check()
            if last.passed and thread.is_alive():
                self._guest.require_alive(f"no answer to {doing[:60]!r}")
                raise self._guest.lost(Loss.CONNECTION, f"no answer to {doing[:60]!r} in {last.seconds:.0f} s")
        if failures:
            raise failures[0]
        return results[0]

    def _follow(self, channel: Channel, stdin: bytes, output: Output, end: End, command: str) -> int:
        """Feed and drain the channel until the command's end; its status, -1 when none arrived."""
        channel.settimeout(POLL_SECONDS)
        rest = stdin
        ended_input = False
        checked = time.monotonic()
        quiet = Deadline.patient(GRACE_SECONDS)
        pulse = Pulse(self.connection)
        with channel:
            while True:
                moved = False
                if rest and channel.send_ready():
                    chunk = rest[:STDIN_CHUNK]
                    rest = rest[self._watched(partial(channel.send, chunk), end.last, command) :]
                    moved = True
                if not rest and not ended_input:
                    channel.shutdown_write()
                    ended_input = True
                while channel.recv_stderr_ready():
                    output.error(channel.recv_stderr(65536))
                    moved = True
                # recv() waits POLL_SECONDS at most: this is where the loop spends its time.
                try:
                    if chunk := channel.recv(65536):
                        output.feed(chunk)
                        moved = True
                    elif channel.exit_status_ready() or channel.closed:
                        break
                    else:  # standard output is closed, but the command goes on
                        channel.status_event.wait(POLL_SECONDS)
                except TimeoutError:
                    pass
                if time.monotonic() - checked >= POLL_SECONDS:
                    checked = time.monotonic()
                    self._guest.check()
                if pulse.missed(moved):
                    self._guest.require_alive(f"{command[:60]!r} was silent for {SILENCE_SECONDS:.0f} s")
                if moved or not channel.exit_status_ready():
                    quiet = Deadline.patient(GRACE_SECONDS)
                elif quiet.passed:  # the command has ended; something that it left behind holds its output open
                    break
                if signal := end.due():
                    self._signal(signal, end.note)
                if end.last.passed and not moved:
                    self._guest.require_alive(f"{command[:60]!r} did not end")
                    stuck = f"{command[:60]!r} does not end even when killed: it is stuck in the kernel"
                    raise self._guest.lost(Loss.HANG, stuck)
            while chunk := channel.recv_stderr(65536) if channel.recv_stderr_ready() else b"":
                output.error(chunk)
            output.end()
            return channel.recv_exit_status() if channel.exit_status_ready() else -1

    def _signal(self, signal: str, note: str) -> None:
        """End a command and all that it started, by a request of its own on the same connection."""

        def send() -> int:
            with self._started(f"kill -s {signal} -- -$(cat {note})") as channel:
                return int(channel.recv_exit_status())

        self._watched(send, Deadline.patient(SIGNAL_SECONDS), "kill")

    def _broken(self, command: str) -> GuestLost:
        """Why the connection broke: what the console or QEMU say, else that it did."""
        try:
            Deadline.after(VANISH_SECONDS).poll(self._checked)
            self._guest.require_alive("the SSH connection broke")
        except GuestLost as lost:
            return lost
        return self._guest.lost(Loss.CONNECTION, f"the SSH connection broke during {command[:60]!r}")

    def _checked(self) -> bool:
        self._guest.check()
        return False

    def put(self, source: Path, target: str, deadline: Deadline | None = None) -> None:
        """Copy a file into the guest, with its mode."""
        self._transfer(
            f"put {target}", target, deadline, lambda: self.connection.put(str(source), target, preserve_mode=True)
        )

    def get(self, source: str, target: Path, deadline: Deadline | None = None) -> None:
        """Copy a file out of the guest. InfraError, and no file here, when it is not there."""
        try:
            self._transfer(
                f"get {source}", source, deadline, lambda: self.connection.get(source, str(target), preserve_mode=True)
            )
        except InfraError:
            target.unlink(missing_ok=True)
            raise

    def _transfer(self, what: str, path: str, deadline: Deadline | None, work: Callable[[], object]) -> None:
        import paramiko

        self._guest.check()
        try:
            self._watched(work, deadline or Deadline.patient(TRANSFER_SECONDS), what)
        except FileNotFoundError as wrong:
            raise InfraError("no such file or folder in the guest", where=path) from wrong
        except PermissionError as wrong:
            raise InfraError("no permission in the guest", where=path) from wrong
        except (OSError, EOFError, paramiko.SSHException) as wrong:
            self._guest.check()
            if self.connection.is_connected:
                raise InfraError(f"{what} failed: {wrong}", where=path) from wrong
            raise self._broken(what) from wrong

    def put_text(self, text: str, target: str, deadline: Deadline | None = None) -> None:
        """Write a text file in the guest. Cheaper than put(): no subsystem has to start."""
        self.run(f"cat >{shlex.quote(target)}", deadline or Deadline.patient(30), stdin=text.encode()).expect()

    def interactive(self) -> int:
        """A login shell on the person's terminal; its exit status."""
        from invoke.exceptions import UnexpectedExit

        try:
            return int(self.connection.shell().exited)
        except UnexpectedExit as ended:
            status = int(ended.result.exited)
        if status == -1:
            raise self._broken("an interactive shell")
        return status
