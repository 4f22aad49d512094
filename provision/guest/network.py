"""How the controller reaches the guest's sshd.

USER: QEMU's user networking with a loopback port that the host gives out. TAP (root): a tap device in a network
namespace of the run's own. QEMU gets the tap as an open file and stays outside; our socket is opened inside.

A namespace and all that is in it vanish when its last user does. Ours is named, so that a person can look into it
with ip-netns(8), and therefore has to be removed: at the end of the run, or by the next run when this one was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from provision.host.errors import InfraError, UserError

PREFIX = "mof"
GUEST_SSH_PORT = 22
HOST_ADDRESS, GUEST_ADDRESS, PREFIX_LENGTH = "10.77.0.1", "10.77.0.2", 30
USER_GUEST_ADDRESS, USER_GATEWAY, USER_PREFIX_LENGTH = "10.0.2.15", "10.0.2.2", 24
"""QEMU's defaults for user networking (qemu(1), -netdev user)."""

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
"""linux/sched.h and linux/if_tun.h."""

Connect = Callable[[float], socket.socket]
T = TypeVar("T")


class Net(StrEnum):
    """The two ways."""

    USER = "user"
    TAP = "tap"


@dataclass(frozen=True)
class Link:
    """A prepared network: QEMU's -netdev value, files that QEMU inherits, init's parameter, and how to connect."""

    netdev: str
    pass_fds: tuple[int, ...]
    init_parameter: str
    connect: Connect


def free_port() -> int:
    """A loopback TCP port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """InfraError when somebody has the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as wrong:
            reason = "is taken" if wrong.errno == errno.EADDRINUSE else f"cannot be used: {wrong.strerror}"
            raise InfraError(
                f"port {port} {reason}", where="--ssh-port", hint="choose another, or leave it out for a free one"
            ) from wrong


@contextmanager
def user(port: int | None) -> Iterator[Link]:
    """User networking, sshd on loopback `port`, or on a free one."""
    if port is not None:
        check_port(port)
    chosen = free_port() if port is None else port

    def connect(timeout: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", chosen), timeout)

    yield Link(
        f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{chosen}-:{GUEST_SSH_PORT}",
        (),
        f"mof.ip={USER_GUEST_ADDRESS}/{USER_PREFIX_LENGTH},{USER_GATEWAY}",
        connect,
    )


def _open_tap(name: str) -> int:
    """Attach to the tap device `name` of the calling thread's namespace (Documentation/networking/tuntap.rst)."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _setns(fd: int) -> None:
    """setns(2) for the calling thread. os.setns came with Python 3.12."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def inside(namespace: Path, work: Callable[[], T]) -> T:
    """Call `work` in a thread that has entered the network namespace and ends afterwards.

    Files that it opens, sockets among them, keep belonging to the namespace and can be used from anywhere.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            with namespace.open("rb") as handle:
                _setns(handle.fileno())
            outcome.append(work())
        except BaseException as wrong:
            failure.append(wrong)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


NAMESPACES = Path("/run/netns")


def sweep() -> list[str]:
    """Remove the namespaces of runs whose process is gone; their names. Ours are called mof-PID."""
    from pyroute2 import netns

    left = []
    for path in NAMESPACES.glob(f"{PREFIX}-*") if NAMESPACES.is_dir() else ():
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            netns.remove(path.name)
            left.append(path.name)
    return left


@contextmanager
def tap() -> Iterator[Link]:
    """A tap in a namespace of this process; both are gone when the block is left. UserError without root."""
    if os.geteuid() != 0:
        raise UserError("a tap needs root", where="--net tap", hint="run as root, or use --net user")
    from pyroute2 import NetNS, netns
    from pyroute2.netlink.exceptions import NetlinkError

    sweep()
    name = f"{PREFIX}-{os.getpid()}"
    device = f"{PREFIX}{os.getpid()}"  # 10 characters at most, of the 15 that IFNAMSIZ allows
    path = NAMESPACES / name
    fd = -1
    try:
        try:
            with NetNS(name, flags=os.O_CREAT) as link:
                link.link("add", ifname=device, kind="tuntap", mode="tap")
                index = link.link_lookup(ifname=device)[0]
                link.addr("add", index=index, address=HOST_ADDRESS, prefixlen=PREFIX_LENGTH)
                link.link("set", index=index, state="up")
            fd = inside(path, lambda: _open_tap(device))
        except (OSError, NetlinkError) as wrong:
            raise InfraError(f"the tap cannot be made: {wrong}", where="--net tap", hint="use --net user") from wrong

        def connect(timeout: float) -> socket.socket:
            return inside(path, lambda: socket.create_connection((GUEST_ADDRESS, GUEST_SSH_PORT), timeout))

        yield Link(f"tap,id=net0,fd={fd}", (fd,), f"mof.ip={GUEST_ADDRESS}/{PREFIX_LENGTH},{HOST_ADDRESS}", connect)
    finally:
        if fd >= 0:
            os.close(fd)
        if path.exists():
            netns.remove(name)


@contextmanager
def prepared(net: Net, port: int | None) -> Iterator[Link]:
    """The network that `net` names."""
    with tap() if net is Net.TAP else user(port) as link:
        yield link
