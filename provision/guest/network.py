"""How the host reaches the guest's sshd: QEMU's user networking, or a tap in a network namespace of the run's own."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Protocol, TypeVar

from provision.guest.qmp import Monitor
from provision.hardware.qemu import GUEST_ADDRESS, SSH_PORT, TapNet, UserNet
from provision.host.deadline import Deadline
from provision.host.errors import InfraError

T = TypeVar("T")

HOST_ADDRESS = "10.0.2.2"
"""The host's end of the tap: where user networking has its gateway, so that the guest need not know which it is."""
PREFIX_LENGTH = 24

TUN_DEVICE = "/dev/net/tun"
# linux/if_tun.h, linux/sched.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
CLONE_NEWNET = 0x40000000

NAMESPACE_SECONDS = 20.0
_NO_TAP_HINT = "run it as root, or without --net tap: user networking needs no privilege"


class Net(StrEnum):
    """What a person may choose."""

    USER = "user"
    TAP = "tap"


class Network(Protocol):
    """A network that is ready for a guest."""

    @property
    def backend(self) -> UserNet | TapNet: ...

    @property
    def fds(self) -> tuple[int, ...]: ...

    def started(self, monitor: Monitor) -> None:
        """QEMU runs: learn what only it knows."""

    def open_socket(self, deadline: Deadline) -> socket.socket:
        """A TCP socket that is connected to the guest's sshd. OSError when there is none."""


class UserNetwork:
    """QEMU binds a port of the host's loopback: one that is free at that moment, unless a port is asked for."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.fds: tuple[int, ...] = ()

    @property
    def backend(self) -> UserNet:
        return UserNet(self.port)

    def started(self, monitor: Monitor) -> None:
        self.port = forwarded_port(monitor.human("info usernet"))

    def open_socket(self, deadline: Deadline) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=max(0.1, deadline.remaining()))


def forwarded_port(text: str) -> int:
    """The host's port of the forward to sshd, from `info usernet`. InfraError when it is not there.

    A line reads "TCP[HOST_FORWARD]  15       127.0.0.1 34043       10.0.2.15    22     0     0".
    """
    for line in text.splitlines():
        if found := re.match(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\s", line):
            return int(found.group(1))
    raise InfraError("QEMU does not say which port leads to the guest", detail=text)


def require_port(port: int) -> None:
    """InfraError when a port that a person asked for is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as wrong:
            raise InfraError(
                f"port {port} is taken" if wrong.errno == errno.EADDRINUSE else f"port {port}: {wrong.strerror}",
                hint="choose another, or leave the choice to us",
            ) from wrong


class TapNetwork:
    """A namespace without a name: descriptors hold it, so nothing stays even when this process is killed."""

    def __init__(self) -> None:
        self.name = f"mof{os.getpid()}"  # at most 10 of the 15 characters that a name may have
        self._namespace = -1
        self._tap = -1

    def make(self) -> None:
        """Make namespace and tap. InfraError without the privilege."""
        try:
            _in_thread(self._make)
        except PermissionError as wrong:
            raise InfraError("a tap needs root", where="--net tap", hint=_NO_TAP_HINT) from wrong
        except OSError as wrong:
            reason = wrong.strerror or str(wrong)
            raise InfraError(f"the tap cannot be made: {reason}", where="--net tap", hint=_NO_TAP_HINT) from wrong

    def _make(self) -> None:
        import ctypes

        from pyroute2 import IPRoute, NetlinkError

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with IPRoute() as links:
                links.link("add", ifname=self.name, kind="tuntap", mode="tap")
                (index,) = links.link_lookup(ifname=self.name)
                links.addr("add", index=index, address=HOST_ADDRESS, prefixlen=PREFIX_LENGTH)
                links.link("set", index=index, state="up")
        except NetlinkError as wrong:
            raise OSError(wrong.code, os.strerror(wrong.code)) from wrong
        self._tap = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("16sH22x", self.name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(self._tap, TUNSETIFF, request)

    def remove(self) -> None:
        """Remove tap and namespace; safe when they were made in part."""
        if self._tap >= 0:
            os.close(self._tap)
            self._tap = -1
        if self._namespace >= 0:
            with suppress(OSError):
                _in_thread(self._unlink, self._namespace)
            os.close(self._namespace)
            self._namespace = -1

    def _unlink(self) -> None:
        from pyroute2 import IPRoute, NetlinkError

        with suppress(NetlinkError), IPRoute() as links:
            for index in links.link_lookup(ifname=self.name):
                links.link("del", index=index)

    @property
    def backend(self) -> TapNet:
        return TapNet(self._tap)

    @property
    def fds(self) -> tuple[int, ...]:
        return (self._tap,)

    def started(self, monitor: Monitor) -> None:
        pass

    def open_socket(self, deadline: Deadline) -> socket.socket:
        seconds = max(0.1, deadline.remaining())
        return _in_thread(
            lambda: socket.create_connection((GUEST_ADDRESS, SSH_PORT), timeout=seconds), self._namespace, seconds + 1
        )


def _in_thread(work: Callable[[], T], namespace: int = -1, seconds: float = NAMESPACE_SECONDS) -> T:
    """What `work` returns or raises in a thread of its own, which first enters the namespace: only that thread does."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            if namespace >= 0:
                from pyroute2 import netns

                netns.setns(namespace)
            results.append(work())
        except BaseException as wrong:  # handed on below
            failures.append(wrong)

    thread = threading.Thread(target=body, name="namespace", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return results[0]


@contextmanager
def opened(net: Net, port: int = 0) -> Iterator[Network]:
    """A network for one guest. `port`: what a person asked for on the loopback, 0 leaves it to QEMU."""
    if net is Net.USER:
        if port:
            require_port(port)
        yield UserNetwork(port)
        return
    tap = TapNetwork()
    try:
        tap.make()
        yield tap
    finally:
        tap.remove()
