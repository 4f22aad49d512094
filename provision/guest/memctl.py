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

    -1 on the instruction clock, which cannot be read at an access."""

    ns: int
    local: int
    remote: int


@dataclass(frozen=True)
class Seen:
    """All that was counted. `tables`: whether processes are told apart. `overflow`: accesses for which there was no room."""

    interface: int
    periods: int
    tables: bool
    overflow: int
    user: tuple[Count, ...]
    kernel: tuple[KernelCount, ...]
    series: Mapping[int, tuple[Sample, ...]]
    pages: tuple[PageCount, ...]


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
            series={one["table"]: tuple(Sample(*s) for s in one["samples"]) for one in told["series"]},
            pages=tuple(PageCount(*one) for one in pages),
        )
