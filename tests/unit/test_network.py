"""The two networks, as far as they go without a guest."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest

from provision.guest import network
from provision.guest.network import Net, opened
from provision.hardware.qemu import TapNet, UserNet
from provision.host.deadline import Deadline
from provision.host.errors import InfraError

USERNET = (
    "Hub -1 (net0):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[ESTABLISHED]   17       127.0.0.1 40000       10.0.2.15    22     0     0\r\n"
    "  TCP[HOST_FORWARD]  15       127.0.0.1 34043       10.0.2.15    22     0     0\r\n"
)


def test_the_port_that_qemu_took() -> None:
    assert network.forwarded_port(USERNET) == 34043
    with pytest.raises(InfraError, match="which port"):
        network.forwarded_port("Hub -1 (net0):\r\n")


def test_user_networking_leaves_the_port_to_qemu() -> None:
    with opened(Net.USER) as net:
        assert (net.backend, net.fds) == (UserNet(0), ())


def test_a_port_that_is_taken() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(InfraError, match=f"port {port} is taken.*choose another"), opened(Net.USER, port):
            pass
    with opened(Net.USER, port) as net:
        assert net.backend == UserNet(port)


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def open_files() -> int:
    gc.collect()  # what an earlier test left to the collector
    return len(list(Path("/proc/self/fd").iterdir()))


def can_make_taps() -> bool:
    """Whether this process may: root, with CAP_NET_ADMIN (12) and CAP_SYS_ADMIN (21), and the device is there."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return os.access(network.TUN_DEVICE, os.R_OK | os.W_OK) and all(effective >> bit & 1 for bit in (12, 21))


@pytest.mark.skipif(not can_make_taps(), reason="needs root and /dev/net/tun")
def test_a_tap_lives_in_a_namespace_of_its_own() -> None:
    before, descriptors = interfaces(), open_files()
    with opened(Net.TAP) as net:
        assert isinstance(net.backend, TapNet)
        assert net.fds == (net.backend.fd,)
        assert interfaces() == before  # nothing of it is to be seen from here
        with pytest.raises(OSError):
            net.open_socket(Deadline.after(0.5))  # nobody at the other end
    assert interfaces() == before
    assert open_files() <= descriptors


@pytest.mark.skipif(not can_make_taps(), reason="needs root and /dev/net/tun")
def test_a_half_made_tap_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TUN_DEVICE", "/nowhere")
    descriptors = open_files()
    with pytest.raises(InfraError, match="the tap cannot be made"), opened(Net.TAP):
        pass
    assert open_files() <= descriptors


def test_a_tap_without_the_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(network, "_in_thread", refused)
    with pytest.raises(InfraError, match=r"a tap needs root.*without --net tap"), opened(Net.TAP):
        pass
