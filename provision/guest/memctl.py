"""The memory-controller plugin: built for the QEMU in use, and asked what it has counted.

The plugin is provision/hardware/plugin/memctl.c. It counts what the guest's processes and its kernel really read and write,
apart from anything that the guest's kernel says of itself.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from provision.hardware import qemu as command_line
from provision.host import process
from provision.host.cache import Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

SOURCES = Path(command_line.__file__).parent / "plugin"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")
KIND = "plugin"
NAME = "memctl.so"

INTERFACES = (((9, 2), 4), ((9, 1), 3), ((9, 0), 2), ((0, 0), 1))
"""From which QEMU on the plugin's interface has which version (QEMU_PLUGIN_VERSION, include/qemu/qemu-plugin.h). Newer
ones take the last that we know."""
ANSWER_SECONDS = 60.0


def interface(qemu: tuple[int, ...]) -> int:
    """The version of the plugin interface that a QEMU of this number has."""
    return next(version for since, version in INTERFACES if qemu >= since)


def ensure(cache: Cache, qemu: tuple[int, ...], progress: Progress) -> Path:
    """The plugin for this QEMU, compiled if it is not in the cache. InfraError with the compiler's words when that fails."""
    gcc = process.find("gcc")
    version = interface(qemu)
    what = {
        "sources": {source.name: digest_file(source) for source in sorted(SOURCES.glob("*.[ch]"))},
        "flags": list(FLAGS),
        "interface": version,
        "compiler": process.run([gcc, "--version"], deadline=Deadline.after(30)).output.splitlines()[0],
    }

    def maker(draft: Path) -> Mapping[str, Any]:
        progress.step("compiling the memory-controller plugin")
        units = [str(source) for source in sorted(SOURCES.glob("*.c"))]
        argv = [gcc, *FLAGS, f"-DMEMCTL_API={version}", "-o", str(draft / NAME), *units, "-lpthread"]
        try:
            process.run(argv, deadline=Deadline.after(300))
        except InfraError as wrong:
            raise InfraError("the plugin does not compile", hint=wrong.message, detail=wrong.detail) from wrong
        return {}

    return cache.make(KIND, f"memctl-{version}", what, maker, progress=progress).path / NAME


class Count(NamedTuple):
    """Accesses of a process, known by the physical address of its page table (0: unknown), from a CPU to a node's memory;
    node -1: a device, or unknown."""

    table: int
    cpu: int
    node: int
    reads: int
    writes: int


class KernelCount(NamedTuple):
    """Accesses of the guest's kernel."""

    cpu: int
    node: int
    reads: int
    writes: int


class PageCount(NamedTuple):
    """Accesses of a process to a page while it was on a node, in the last of the periods of counting (from 1) in which
    there were any."""

    table: int
    address: int
    node: int
    reads: int
    writes: int
    period: int


class Sample(NamedTuple):
    """Accesses of a process up to this ns of the guest's clock, to memory of the accessing CPU's own node and of others.

    -1 where the clock cannot be read at an access; on the instruction clock it is behind by less than a scheduler's tick."""

    ns: int
    local: int
    remote: int


@dataclass(frozen=True)
class Series:
    """A process's accesses over time. `ranges`: by address, of so many bytes each, the accesses since the last sample for
    every sample, (local, remote)."""

    samples: tuple[Sample, ...]
    range_bytes: int
    ranges: Mapping[int, tuple[tuple[int, int], ...]]


class Spent(NamedTuple):
    """What a CPU has spent on processes and on the kernel for them: instructions, and ns of waiting for memory as the
    model has it."""

    instructions: int
    stall_ns: int


class Fetched(NamedTuple):
    """How often a CPU had to fetch a line from a node's memory."""

    cpu: int
    node: int
    lines: int


@dataclass(frozen=True)
class Waited:
    """What accesses cost. `problem`: why the guest's clock does not feel it; empty where it does. `spent` by CPU; `laps`:
    what each CPU had spent when the guest marked a lap. `laps_taken`: more than there are where there was no room."""

    problem: str
    spent: tuple[Spent, ...]
    fetched: tuple[Fetched, ...]
    laps: tuple[tuple[Spent, ...], ...]
    laps_taken: int


@dataclass(frozen=True)
class Seen:
    """All that was counted. `series` by page table. `tables`: whether processes are told apart. `overflow`: accesses for
    which there was no room. `waited`: None where accesses have no price."""

    interface: int
    periods: int
    tables: bool
    overflow: int
    user: tuple[Count, ...]
    kernel: tuple[KernelCount, ...]
    series: Mapping[int, Series]
    pages: tuple[PageCount, ...]
    waited: Waited | None = None


def _series(told: Mapping[str, Any]) -> Series:
    samples: list[Sample] = []
    ranges: dict[int, list[tuple[int, int]]] = {start: [] for start in told["ranges"]}
    local = remote = 0
    for ns, shares in told["samples"]:
        for row in ranges.values():
            row.append((0, 0))
        for index, here, elsewhere in shares:
            ranges[told["ranges"][index]][-1] = here, elsewhere
            local, remote = local + here, remote + elsewhere
        samples.append(Sample(ns, local, remote))
    return Series(tuple(samples), 1 << told["range_bits"], {start: tuple(row) for start, row in sorted(ranges.items())})


def _waited(told: Mapping[str, Any]) -> Waited:
    return Waited(
        problem=told["problem"],
        spent=tuple(Spent(instructions, stall) for _, instructions, stall in told["stall"]),
        fetched=tuple(Fetched(*one) for one in told["misses"]),
        laps=tuple(tuple(Spent(*one) for one in lap) for lap in told["laps"]),
        laps_taken=told["laps_taken"],
    )


class MemoryController:
    """The plugin of a running guest, over its socket. Each call is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _ask(self, word: str) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(ANSWER_SECONDS)
                stream.connect(str(self._path))
                with stream.makefile("rw", encoding="ascii") as both:
                    both.write(f"{word}\n")
                    both.flush()
                    answer: dict[str, Any] = json.loads(both.readline())
        except (OSError, ValueError) as wrong:
            raise InfraError(f"the memory controller does not answer: {wrong}", where=word) from wrong
        if "error" in answer:
            raise InfraError(f"the memory controller refuses: {answer['error']}", where=word)
        return answer

    def on(self) -> None:
        """Begin to count everything, as a mark in the guest does."""
        self._ask("on")

    def off(self) -> None:
        self._ask("off")

    def model_only(self) -> None:
        """Leave the guest's clock alone: what accesses cost is added up, and not felt. InfraError while it counts."""
        self._ask("model")

    def clear(self) -> None:
        """Forget everything. InfraError while it counts."""
        self._ask("clear")

    def seen(self) -> Seen:
        """What was counted since the last clear(). InfraError while it counts."""
        told, pages = self._ask("read"), self._ask("pages")["pages"]
        return Seen(
            interface=told["version"],
            periods=told["periods"],
            tables=told["tables"],
            overflow=told["overflow"],
            user=tuple(Count(*one) for one in told["user"]),
            kernel=tuple(KernelCount(*one) for one in told["kernel"]),
            series={one["table"]: _series(one) for one in told["series"]},
            pages=tuple(PageCount(*one) for one in pages),
            waited=_waited(told["prices"]) if told["prices"] is not None else None,
        )
