"""Real guests for the tests in this folder. One that cannot be had is a failure, never a skip.

A run costs a boot, so a session makes each of the runs that several tests look at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from controller import complaints, machine
from controller.shell import Result, Shell
from controller.workloads.memtoy import output
from controller.workloads.memtoy.output import CommandResult
from guest_kernel import identity
from guest_kernel.identity import KernelId
from provision.guest import cxl
from provision.guest.guest import Guest, GuestSpec, launched
from provision.guest.network import Net
from provision.hardware import topology as topologies
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Silent

RUN_SECONDS = 3600
"""Covers building the kernel and the image on a machine with an empty cache."""

CONSOLE_LINES = 40

DEBUG_PARAMETERS = "page_owner=on"
DEBUG_TIMES = 8
"""So much more time may a command take on the debug kernel, which checks what it does at every step."""

_debug = False
"""Whether the debug kernel takes the patched kernel's place (--debug-kernel)."""


def pytest_configure(config: pytest.Config) -> None:
    global _debug
    _debug = bool(config.getoption("--debug-kernel"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.guest)
            item.add_marker(pytest.mark.timeout(RUN_SECONDS))


@dataclass(frozen=True)
class Ran:
    """A finished `mof` command: status, what it printed, and the run folder that it left (None if none)."""

    status: int
    out: str
    err: str
    folder: Path | None

    @property
    def verdict(self) -> dict[str, Any]:
        assert self.folder is not None, self.err
        found: dict[str, Any] = json.loads((self.folder / "verdict.json").read_text())
        return found

    def case(self, name: str) -> dict[str, Any]:
        return next(c for c in self.verdict["cases"] if c["name"] == name)

    def answers(self, case: str) -> list[dict[str, Any]]:
        """What memtoy answered in a case, a dictionary a command."""
        assert self.folder is not None
        return [json.loads(line) for line in (self.folder / "workload" / f"{case}.jsonl").read_text().splitlines()]

    def explain(self) -> str:
        """For an assertion's message: everything that a person would look at first."""
        console = ""
        if self.folder is not None and (self.folder / "console.log").exists():
            lines = (self.folder / "console.log").read_text(errors="replace").splitlines()
            console = "\n".join(lines[-CONSOLE_LINES:])
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}\n--- console\n{console}"


def mof(*arguments: str, runs: Path, environment: dict[str, str] | None = None) -> Ran:
    """Run the command line in a process of its own, as a person does."""
    before = set(runs.iterdir()) if runs.is_dir() else set()
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        env={**os.environ, "MOF_RUNS": str(runs), **(environment or {})},
    )
    new = sorted(set(runs.iterdir()) - before) if runs.is_dir() else []
    return Ran(done.returncode, done.stdout, done.stderr, new[-1] if new else None)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def once(runs: Path) -> Iterator[Callable[..., Ran]]:
    """`mof` whose result is kept for the session, so that several tests can look at one run."""

    @cache
    def run(*arguments: str) -> Ran:
        return mof(*arguments, runs=runs)

    yield run
    left = subprocess.run(["pgrep", "-f", f"qemu-system.*{runs}"], capture_output=True, text=True).stdout
    assert not left, f"a guest was left running: {left}"


@pytest.fixture(scope="session")
def demo(once: Callable[..., Ran]) -> Ran:
    """The demo on the patched kernel."""
    return once("demo", "--json")


@pytest.fixture(scope="session")
def demo_on_base(once: Callable[..., Ran]) -> Ran:
    """The same scripts on the unpatched kernel."""
    return once("run", "demo", "--kernel", "6.12-base", "--json")


def soon(seconds: float) -> Deadline:
    """In so many seconds, or in a multiple of them where the kernel is the slow one."""
    return Deadline.after(seconds * (DEBUG_TIMES if _debug else 1))


@dataclass(frozen=True)
class Lab:
    """A guest of the patched kernel to try things in, with a shell. Shared: leave it as it was found."""

    guest: Guest
    shell: Shell
    parts: machine.Parts

    def run(self, command: str, seconds: float = 60) -> Result:
        return self.shell.run(command, soon(seconds))

    def memtoy(self, text: str, seconds: float = 120) -> tuple[int, list[CommandResult]]:
        """Run a script; memtoy's status and what it answered."""
        self.shell.put_text(text, "/run/test.memtoy")
        done = self.run("memtoy -j /run/test.memtoy", seconds)
        return done.status, output.read(done.out.splitlines())


@contextmanager
def opened(
    work: Path,
    *,
    kernel: str | KernelId = "6.12-mof",
    topology: str = "4node",
    net: Net = Net.USER,
    append: str = "",
    count_accesses: bool = False,
) -> Iterator[Lab]:
    """A guest of its own; `append`: more kernel parameters. Its log is to have no complaint when it is done with."""
    wanted = identity.parse(kernel) if isinstance(kernel, str) else kernel
    if _debug and wanted.series and not wanted.debug:
        wanted, append = replace(wanted, debug=True), f"{append} {DEBUG_PARAMETERS}".strip()
    parts = machine.ensure(Cache(), wanted, Silent())
    spec = GuestSpec(
        kernel=parts.kernel.bzimage,
        image=parts.image,
        topology=topologies.load(topology),
        work=work,
        net=net,
        append=append,
        count_accesses=count_accesses,
    )
    with launched(spec, Cache(), Silent()) as guest, Shell(guest, parts.image, Deadline.after(60)) as shell:
        cxl.online(shell, spec.topology)
        yield Lab(guest, shell, parts)
        assert not complaints.found(shell)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path_factory.mktemp("lab")) as found:
        yield found
