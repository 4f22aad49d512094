"""A guest in which claims are tried: what they may ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.shell import Result, Shell
from controller.workloads.memtoy import SCRIPTS, output
from controller.workloads.memtoy.output import CommandResult, WhereResult
from provision.host.deadline import Deadline

PROGRAMS = "/run"
"""Where the programs that claims need are put, by the name of their workload folder."""

SWITCH = "/proc/sys/vm/migrate_on_fault"
BALANCING = "/proc/sys/kernel/numa_balancing"

COMMAND_SECONDS = 60.0
MEMTOY_SECONDS = 300.0


class Broken(Exception):
    """A claim does not hold; the message says what was seen instead."""


@dataclass(frozen=True)
class Trial:
    """A guest that has booted; the programs that a claim names are in it when the claim is tried."""

    shell: Shell

    def run(self, command: str, seconds: float = COMMAND_SECONDS) -> Result:
        return self.shell.run(command, Deadline.patient(seconds))

    def exists(self, path: str) -> bool:
        return self.run(f"test -e {path}").status == 0

    def read(self, path: str) -> str:
        """A file's text, without the end of its last line. InfraError when it cannot be read."""
        return self.run(f"cat {path}").expect().out.strip()

    def write(self, path: str, text: str) -> bool:
        """Whether the kernel took it."""
        return self.run(f"echo {text} 2>/dev/null >{path}").status == 0

    def counters(self) -> dict[str, int]:
        """/proc/vmstat, with what the CPUs had kept for themselves (Documentation/admin-guide/sysctl/vm.rst)."""
        text = self.run("echo 1 >/proc/sys/vm/stat_refresh && cat /proc/vmstat").expect().out
        return {name: int(value) for name, value in (line.split() for line in text.splitlines())}

    def configuration(self) -> str:
        """The kernel's own, from /proc/config.gz."""
        return self.run("zcat /proc/config.gz").expect().out

    def program(self, name: str, *arguments: str, seconds: float = 120.0) -> Mapping[str, Any]:
        """The one JSON object that a program of controller/workloads prints. InfraError when its status is not 0."""
        text = self.run(" ".join((f"{PROGRAMS}/{name}", *arguments)), seconds).expect().out
        told: Mapping[str, Any] = json.loads(text)
        return told

    def memtoy(self, script: str) -> tuple[int, list[CommandResult]]:
        """Run one of the demo's scripts; memtoy's status, and what it answered."""
        self.shell.put_text((SCRIPTS / f"{script}.memtoy").read_text(), "/run/claim.memtoy")
        done = self.run("memtoy -j /run/claim.memtoy", MEMTOY_SECONDS)
        return done.status, output.read(done.out.splitlines())

    @contextmanager
    def settled(self, switch: str = "1") -> Iterator[None]:
        """NUMA balancing off and the series' switch, where there is one, as told; afterwards as it was."""
        files = {BALANCING: "0", SWITCH: switch}
        before = {path: self.read(path) for path in files if self.exists(path)}
        try:
            for path in before:
                self.run(f"echo {files[path]} >{path}").expect()
            yield
        finally:
            for path, text in before.items():
                self.run(f"echo {text} >{path}").expect()


def where(results: list[CommandResult]) -> list[list[int]]:
    """What every `where` of a memtoy script answered: nodes, or minus the errno."""
    return [list(r.result.nodes) for r in results if isinstance(r.result, WhereResult)]


def put(shell: Shell, name: str, program: Path) -> None:
    """Put a program into the guest."""
    shell.put(program, f"{PROGRAMS}/{name}")
    shell.run(f"chmod 755 {PROGRAMS}/{name}", Deadline.patient(COMMAND_SECONDS)).expect()
