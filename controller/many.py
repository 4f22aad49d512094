"""Many runs of one plan, side by side: each in a process, a guest and a folder of its own.

How many at once is a matter of what the host has: memory that is free, and processors. The processes are forked from
this one, which has imported what they need, and end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from controller import conclusion, evidence, session
from controller.plan import Plan
from provision.guest import guest as guests
from provision.host import load
from provision.host.cache import Cache
from provision.host.errors import GuestLost, MofError
from provision.host.progress import Progress

FORK_MB = 320
"""What a fork and its controller keep to themselves before the workload asks for anything: 160 MB of guest memory and
translated code, the devices, and a Python with numpy."""
MOVED = 3
"""A page that moves was written on one node, is copied to another, and is read back: so often its size."""
SPARE_MB = 1024
"""Left to the host: among other things the template's pages, which all forks read."""
FORKS_PER_CPU = 8
"""Emulated guests wait for each other's processors; more of them at once would only wait longer."""
POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Budget:
    """How many guests fit this host at once, and what says so."""

    jobs: int
    by_memory: int
    by_cpus: int


def budget(plan: Plan, wanted: int | None, count: int, available_mb: int, cpus: int) -> Budget:
    """`wanted`: the person's --jobs, None to leave it to us: one more than there are CPUs. Pure.

    An emulated guest keeps one CPU busy. More of them at once take longer each, in which every one ticks and idles on.

    A workload whose size only the guest knows may fill its machine.
    """
    whole = plan.topology.total_memory_mb
    each = FORK_MB + (whole if plan.memory is None else min(whole, MOVED * (plan.memory >> 20)))
    by_memory = max(1, (available_mb - SPARE_MB) // each)
    by_cpus = FORKS_PER_CPU * cpus
    jobs = min(count, by_memory, by_cpus, wanted if wanted is not None else cpus + 1)
    return Budget(max(1, jobs), by_memory, by_cpus)


def available_mb() -> int:
    """MemAvailable of this host (proc(5)), in MB."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0


@dataclass(frozen=True)
class Ended:
    """How one of the runs ended: exit status as that of `mof run`, its folder ("" when there is none), verdict.json
    ({} when there is none) and the error that a person is to see."""

    number: int
    status: int
    folder: str
    verdict: Mapping[str, Any]
    error: str


class _Quiet:
    """Progress of one of many: only what a person should know."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def step(self, text: str) -> None:
        pass

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        self._pipe.send(text)


def _interrupt(number: int, frame: object) -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def _child(number: int, plan: Plan, root: Path, jobs: int, parent: int, pipe: Connection) -> None:
    """One run, in a process of its own; tells how it ended through the pipe and exits with its status."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # died in between
        os._exit(130)
    # The terminal's Ctrl-C reaches the parent, which ends us in order.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    load.expect(jobs)
    status, folder, verdict, error = 0, "", {}, ""
    try:
        done = conclusion.run(plan, Cache(), _Quiet(pipe), root)
        folder, verdict = str(done.folder), done.verdict
        status = 0 if verdict["verdict"] == "pass" else 1
        if done.lost is not None:
            status, error = GuestLost.exit_code, str(done.lost)
    except MofError as wrong:
        status, error = wrong.exit_code, str(wrong)
    except KeyboardInterrupt:
        status = 130
    finally:
        with contextlib.suppress(OSError):
            pipe.send(Ended(number, status, folder, verdict, error))
        pipe.close()
    sys.stdout.flush()
    os._exit(status)


def run(plan: Plan, count: int, at_once: Budget, root: Path, progress: Progress) -> Iterator[Ended]:
    """Run the plan `count` times, `at_once.jobs` side by side; each is given out as it ends.

    Leaving the iteration, or an interrupt, ends those that run, and their guests. A process that is killed counts as
    ended with status 1.
    """
    context = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    started = done = 0
    session.preload()  # what every child would import: once, here
    try:
        while done < count:
            while started < count and len(running) < at_once.jobs:
                ours, theirs = context.Pipe(duplex=False)
                child: BaseProcess = context.Process(
                    target=_child, args=(started, plan, root, at_once.jobs, os.getpid(), theirs), name=f"run {started}"
                )
                child.start()
                theirs.close()
                running[ours] = (started, child)
                started += 1
            ready = wait(list(running), POLL_SECONDS)
            for pipe in [one for one in running if one in ready]:
                number, child = running[pipe]
                told = _received(number, pipe, child)
                if isinstance(told, str):
                    progress.note(f"run {number}: {told}")
                    continue
                child.join()
                pipe.close()
                del running[pipe]
                done += 1
                progress.advance(f"{len(running)} running", done, count)
                yield told
    finally:
        _end([child for _, child in running.values()])


def _received(number: int, pipe: Connection, child: BaseProcess) -> Ended | str:
    """What a child says: a note, or how it ended; a child that says nothing any more was killed."""
    try:
        said: Ended | str = pipe.recv()
    except EOFError:
        child.join()
        return Ended(number, 1, "", {}, f"its process ended with status {child.exitcode}")
    return said


def _end(children: Sequence[BaseProcess]) -> None:
    """End children that run: politely, so that they end their guests, then surely."""
    for child in children:
        if child.is_alive():
            child.terminate()
    until = time.monotonic() + 4 * guests.QUIT_SECONDS + guests.ANSWER_SECONDS
    for child in children:
        child.join(max(0.1, until - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()


def folder_for(experiment: str, count: int) -> Path:
    """The folder that the runs' folders go to; made. InfraError when it cannot be."""
    return evidence.group_folder(evidence.default_root(), f"{experiment}-x{count}")


def write(folder: Path, told: Mapping[str, Any], text: str) -> None:
    """summary.json and summary.txt of the group."""
    evidence.write_atomically(folder / "summary.json", json.dumps(told, indent=1) + "\n")
    evidence.write_atomically(folder / "summary.txt", text + "\n")
