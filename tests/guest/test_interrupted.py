"""Runs that do not come to their end: lost guests, Ctrl-C, SIGKILL, a port that is taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller import machine
from controller.shell import Shell
from guest_kernel import identity
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, Loss
from provision.host.progress import Silent
from tests.guest.conftest import mof

SLEEPER = "anon foo 8p\nmap foo\ntouch foo w=1\necho asleep\nsnooze 120\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A `mof run` whose workload sleeps."""

    child: subprocess.Popen[str]
    runs: Path
    port: int

    @property
    def folder(self) -> Path:
        (found,) = self.runs.iterdir()
        return found

    def asleep(self) -> bool:
        assert self.child.poll() is None, self.child.communicate()[1]
        return any("asleep" in p.read_text() for p in self.runs.glob("*/workload/*.jsonl"))

    def guests(self) -> str:
        return subprocess.run(
            ["pgrep", "-f", f"qemu-system.*{self.runs}"], capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with _running(tmp_path) as found:
        yield found


@contextmanager
def _running(tmp_path: Path) -> Iterator[Running]:
    machine.ensure(Cache(), identity.parse("6.12-mof"), Silent())  # not part of what is timed here
    script = tmp_path / "sleeper.memtoy"
    script.write_text(SLEEPER)
    runs, port = tmp_path / "runs", free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "controller.cli.main", "run", str(script), "--ssh-port", str(port), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MOF_RUNS": str(runs)},
    )
    found = Running(child, runs, port)
    try:
        assert Deadline.after(180).poll(found.asleep, 0.1)
        yield found
    finally:
        child.kill()
        child.communicate()


@dataclass
class Knocker:
    """A way to the guest of another process, through its port."""

    port: int

    def open_socket(self, deadline: Deadline | None = None) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def check(self) -> None:
        pass

    def require_alive(self, doing: str) -> None:
        pass

    def lost(self, loss: Loss, message: str) -> GuestLost:
        return GuestLost(loss, message)


def test_a_guest_that_panics_on_purpose_is_reported_as_lost(running: Running) -> None:
    image = machine.ensure(Cache(), identity.parse("6.12-mof"), Silent()).image
    with Shell(Knocker(running.port), image, Deadline.after(60)) as shell, pytest.raises(GuestLost):
        shell.run("echo c > /proc/sysrq-trigger", Deadline.after(5))
    out, err = running.child.communicate(timeout=60)
    assert running.child.returncode == 4, err
    assert "guest lost (panic)" in err
    assert "Kernel panic - not syncing" in err
    verdict = json.loads(out)
    assert (verdict["verdict"], json.loads((running.folder / "verdict.json").read_text())) == ("lost", verdict)
    assert "panic" in verdict["reason"]
    assert json.loads((running.folder / "manifest.json").read_text())["state"] == "lost"
    assert (running.folder / "trace.txt").exists()
    assert running.guests() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_folder_and_nothing_running(running: Running, number: signal.Signals) -> None:
    running.child.send_signal(number)
    _, err = running.child.communicate(timeout=60)
    assert running.child.returncode == 130, err
    assert json.loads((running.folder / "manifest.json").read_text())["state"] == "interrupted"
    assert "asleep" in (running.folder / "workload" / "sleeper.jsonl").read_text()
    assert running.guests() == ""


def test_a_killed_mof_takes_its_guest_with_it(running: Running) -> None:
    assert running.guests() != ""
    running.child.kill()
    running.child.communicate()
    assert Deadline.after(10).poll(lambda: running.guests() == "")
    assert json.loads((running.folder / "manifest.json").read_text())["state"] == "running"


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = mof("run", "demo", "--ssh-port", str(port), runs=tmp_path)
    assert ran.status == 3
    assert ran.err.strip().splitlines()[-1].startswith("mof: ")
    assert str(port) in ran.err


def test_a_workload_that_takes_too_long_fails_its_case(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.memtoy"
    script.write_text(SLEEPER)
    ran = mof("run", str(script), "--timeout", "3", "--json", runs=tmp_path / "runs")
    assert ran.status == 1, ran.explain()
    assert ran.verdict["verdict"] in ("fail", "undecided")
