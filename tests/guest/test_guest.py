"""The guest itself: its nodes, its disk, its network, and every way of losing it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from provision.guest import nodes
from provision.guest.network import Net
from provision.hardware import topology as topologies
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, Loss
from tests.guest.conftest import Lab, opened
from tests.guest.kernel_log import complaints


def guests(work: Path) -> str:
    """QEMU processes whose command line names the folder."""
    return subprocess.run(["pgrep", "-f", f"qemu-system.*{work}"], capture_output=True, text=True).stdout


def test_the_guest_has_the_nodes_of_its_topology(lab: Lab) -> None:
    assert nodes.check(topologies.load("4node"), nodes.shown(lab.shell)) == []


def test_a_wrong_node_would_be_noticed(lab: Lab) -> None:
    assert nodes.check(topologies.load("2node"), nodes.shown(lab.shell)) != []


def test_the_swap_disk_is_not_rotational(lab: Lab) -> None:
    device = lab.run("awk 'NR == 2 {print $1}' /proc/swaps").expect().out.strip().removeprefix("/dev/")
    assert lab.run(f"cat /sys/block/{device}/queue/rotational").expect().out.strip() == "0"


def test_a_run_never_writes_to_the_root_file_system(lab: Lab) -> None:
    before = hashlib.file_digest(lab.parts.image.root.open("rb"), "sha256").hexdigest()
    lab.run("echo changed > /etc/hostname && dd if=/dev/zero of=/usr/big bs=64k count=64 && sync; rm /usr/big").expect()
    after = hashlib.file_digest(lab.parts.image.root.open("rb"), "sha256").hexdigest()
    assert after == before


def test_a_command_that_takes_too_long_is_ended_in_the_guest(lab: Lab) -> None:
    done = lab.shell.run("sleep 300", Deadline.after(1))
    assert done.timed_out
    assert lab.run("pgrep -x sleep").status == 1


def test_a_command_s_status_and_streams_come_back(lab: Lab) -> None:
    done = lab.run("echo out; echo err >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\n", "err\n")


def test_a_host_that_stops_it_for_a_while_is_no_stall_of_its_kernel(tmp_path: Path) -> None:
    """26 s: RCU's usual patience is 21, and the lockup detector's 20, which a CPU that is busy has to see."""
    with opened(tmp_path) as lab:
        lab.run("setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null & true").expect()
        pid = int(guests(tmp_path))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(26)
        os.kill(pid, signal.SIGCONT)
        # The detectors look every few seconds.
        lab.run("sleep 5").expect()
        assert complaints(lab) == []


def test_two_nodes(tmp_path: Path) -> None:
    with opened(tmp_path, topology="2node") as lab:
        assert nodes.check(topologies.load("2node"), nodes.shown(lab.shell)) == []
    assert guests(tmp_path) == ""


def test_a_tap_in_a_namespace_of_its_own_leaves_nothing_behind(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("a tap needs root: run the tests as root")
    before = set(Path("/run/netns").glob("*"))
    with opened(tmp_path, net=Net.TAP) as lab:
        assert lab.run("uname -r").expect().out.startswith("6.12")
    assert set(Path("/run/netns").glob("*")) == before
    assert guests(tmp_path) == ""


def test_a_panic_is_named_with_the_console_s_last_lines(tmp_path: Path) -> None:
    with pytest.raises(GuestLost) as caught, opened(tmp_path) as lab:
        lab.run("echo c > /proc/sysrq-trigger; sleep 60")
    assert caught.value.loss is Loss.PANIC
    assert caught.value.exit_code == 4
    assert "sysrq triggered crash" in str(caught.value)
    assert "Kernel panic" in caught.value.console_tail
    assert guests(tmp_path) == ""


def test_a_guest_that_powers_off_is_lost_not_finished(tmp_path: Path) -> None:
    with pytest.raises(GuestLost) as caught, opened(tmp_path) as lab:
        lab.run("echo o > /proc/sysrq-trigger; sleep 60")
    assert caught.value.loss in (Loss.EXIT, Loss.CONNECTION)


def test_a_kernel_that_does_not_boot_is_named_within_its_deadline(tmp_path: Path) -> None:
    with pytest.raises(GuestLost) as caught, opened(tmp_path, append="init=/no/such/init") as lab:
        lab.run("true")
    assert caught.value.loss in (Loss.PANIC, Loss.NO_BOOT)
    assert "init" in caught.value.console_tail
