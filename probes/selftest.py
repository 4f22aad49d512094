"""Making each probe fire a known number of times.

A function that was inlined where it matters attaches, and never fires. So a child of the agent (which itself is not
recorded) does things whose steps in the kernel are known, a prime number of times each, on pages of
its own; the probes have to have fired as often. The child acts when the agent says so, stage by stage.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes import records
from probes.drain import Drain, DrainError
from probes.registry import Probe, Stage, probes_of

TIMES = 23
STAGE_SECONDS = 20.0

_PAGE = 4096
_SYS_MBIND, _SYS_GET_MEMPOLICY, _SYS_MIGRATE_PAGES, _SYS_MOVE_PAGES = 237, 239, 256, 279
_MPOL_BIND = 2
_MPOL_MF_MOVE, _MPOL_MF_LAZY = 1 << 1, 1 << 3
_MPOL_F_NODE, _MPOL_F_ADDR = 1, 2
_MADV_PAGEOUT = 21
_MAX_NODE = 65

_libc = ctypes.CDLL(None, use_errno=True)


class StageError(Exception):
    """The stage could not be acted out; the text says why."""


def _syscall(number: int, *arguments: Any) -> int:
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _mask(node: int) -> Any:
    return ctypes.byref(ctypes.c_uint64(1 << node))


def nodes_with_memory() -> list[int]:
    """Numbers of the nodes that have memory."""
    nodes: list[int] = []
    for part in Path("/sys/devices/system/node/has_memory").read_text().strip().split(","):
        first, _, last = part.partition("-")
        nodes.extend(range(int(first), int(last or first) + 1))
    return nodes


class _Actor:
    """The child's side: an area of TIMES pages, and what is done to it."""

    def __init__(self) -> None:
        # One CPU, so that draining this CPU's LRU batches drains all of ours.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        nodes = nodes_with_memory()
        self.home, self.away = nodes[0], nodes[-1]
        self.area: mmap.mmap | None = None
        self.start = 0
        self.lazy = False

    def fresh_area(self) -> None:
        """Pages on the home node, as nothing has handled them before."""
        self.area = mmap.mmap(-1, TIMES * _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        _syscall(_SYS_MBIND, self.start, TIMES * _PAGE, _MPOL_BIND, _mask(self.home), _MAX_NODE, 0)
        self.write()

    def write(self) -> None:
        assert self.area is not None
        for at in range(0, TIMES * _PAGE, _PAGE):
            self.area[at] = 1

    def read(self) -> None:
        assert self.area is not None
        for at in range(0, TIMES * _PAGE, _PAGE):
            if self.area[at] != 1:
                raise StageError("a page has lost its contents")

    def _each_page(self) -> range:
        return range(self.start, self.start + TIMES * _PAGE, _PAGE)

    def bind_each(self, flags: int) -> None:
        for page in self._each_page():
            _syscall(_SYS_MBIND, page, _PAGE, _MPOL_BIND, _mask(self.away), _MAX_NODE, flags)

    def move_each(self) -> None:
        target, status = ctypes.c_int(self.home), ctypes.c_int()
        for page in self._each_page():
            address = ctypes.c_void_p(page)
            _syscall(
                _SYS_MOVE_PAGES, 0, 1, ctypes.byref(address), ctypes.byref(target), ctypes.byref(status),
                _MPOL_MF_MOVE,
            )  # fmt: skip

    def migrate_in_place(self) -> None:
        # From a node to itself: the whole way in and out, and nothing moves.
        for _ in range(TIMES):
            _syscall(_SYS_MIGRATE_PAGES, 0, _MAX_NODE, _mask(self.home), _mask(self.home))

    def ask_each(self) -> None:
        node = ctypes.c_int()
        for page in self._each_page():
            _syscall(_SYS_GET_MEMPOLICY, ctypes.byref(node), 0, 0, page, _MPOL_F_NODE | _MPOL_F_ADDR)

    def page_out(self) -> None:
        assert self.area is not None
        self.area.madvise(_MADV_PAGEOUT)

    def prepare(self, stage: Stage) -> None:
        """What a stage needs beforehand, which is not counted. Raises StageError if it cannot be had."""
        if stage in (Stage.MBIND, Stage.MOVE_PAGES, Stage.LAZY, Stage.TOUCH) and self.home == self.away:
            raise StageError("only one node has memory")
        uses_swap = stage in (Stage.PAGEOUT, Stage.SWAPIN, Stage.LAZY, Stage.TOUCH)
        if uses_swap and len(Path("/proc/swaps").read_text().splitlines()) < 2:
            raise StageError("no swap device is on")
        if stage in (Stage.MBIND, Stage.PAGEOUT, Stage.LAZY):
            self.fresh_area()
        if stage is Stage.TOUCH and not self.lazy:
            raise StageError("this kernel does not unmap lazily")

    def act(self, stage: Stage) -> None:
        """Do what makes each probe of the stage fire `TIMES` times. Raises StageError."""
        acts: dict[Stage, Callable[[], None]] = {
            Stage.MBIND: lambda: self.bind_each(_MPOL_MF_MOVE),
            Stage.MOVE_PAGES: self.move_each,
            Stage.MIGRATE_PAGES: self.migrate_in_place,
            Stage.GET_MEMPOLICY: self.ask_each,
            Stage.PAGEOUT: self.page_out,
            Stage.SWAPIN: self.read,
            Stage.LAZY: lambda: self.bind_each(_MPOL_MF_MOVE | _MPOL_MF_LAZY),
            Stage.TOUCH: self.read,
        }
        try:
            acts[stage]()
        except OSError as error:
            raise StageError(f"{stage}: {error.strerror}") from error
        if stage is Stage.LAZY:
            self.lazy = True


def _child(orders: int, answers: int) -> None:
    """Follow orders, a line each, until there are none: ["prepare"|"act", stage]; answers with what went wrong."""
    actor = _Actor()
    with os.fdopen(orders) as lines, os.fdopen(answers, "w") as out:
        for line in lines:
            verb, stage = json.loads(line)
            try:
                (actor.prepare if verb == "prepare" else actor.act)(Stage(stage))
                why = ""
            except (StageError, OSError) as error:
                why = str(error)
            out.write(json.dumps(why) + "\n")
            out.flush()


class _Child:
    """The agent's side: a forked child, under orders."""

    def __init__(self) -> None:
        theirs, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._orders)
                os.close(self._answers)
                _child(theirs, answers)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(answers)

    def order(self, verb: str, stage: Stage) -> str:
        """Have it done; returns what went wrong, or nothing. Gives up after STAGE_SECONDS."""
        try:
            os.write(self._orders, (json.dumps([verb, stage]) + "\n").encode())
        except BrokenPipeError:
            return "the child has died"
        ready, _, _ = select.select([self._answers], [], [], STAGE_SECONDS)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            return f"not done after {STAGE_SECONDS:.0f} s"
        answer = os.read(self._answers, 65536)
        return str(json.loads(answer)) if answer else "the child has died"

    def dismiss(self) -> None:
        """Let it end."""
        os.close(self._orders)
        os.close(self._answers)
        os.waitpid(self.pid, 0)


def run(drain: Drain) -> dict[str, dict[str, Any]]:
    """Act out every stage; for each probe of the set: expected, fired, ok, why.

    With records, only what the child made is counted; without, other processes count too, so that more is not a fault.
    What the self-test made is left out of all later counts. Probes that are not attached are not ok.
    """
    results: dict[str, dict[str, Any]] = {}
    attached = {probe.name for probe in drain.attached.probes}
    by_stage: dict[Stage, list[Probe]] = {stage: [] for stage in Stage}
    for probe in probes_of(drain.attached.which):
        if probe.name not in attached:
            why = drain.attached.unavailable.get(probe.name, "nobody knows why")
            results[probe.name] = {"expected": 0, "fired": 0, "ok": False, "why": f"not attached: {why}"}
        elif probe.stage is None:
            results[probe.name] = {"expected": 0, "fired": 0, "ok": True, "why": "cannot be provoked"}
        else:
            by_stage[probe.stage].append(probe)
    child = _Child()
    try:
        for stage, probes in by_stage.items():
            why = child.order("prepare", stage)
            drain.flush(STAGE_SECONDS)
            drain.kept = []
            before = drain.attached.counters()
            why = why or child.order("act", stage)
            drain.flush(STAGE_SECONDS)
            after = drain.attached.counters()
            own = _fired_by(drain.kept, child.pid)
            lost = sum(after[i][1] - before[i][1] for i in after)
            for probe in probes:
                in_all = after[probe.id][0] - before[probe.id][0]
                recording = drain.attached.recording
                results[probe.name] = _judge(probe, own[probe.id] if recording else in_all, why, lost, recording)
    finally:
        child.dismiss()
        settled = drain.flush(STAGE_SECONDS)
        drain.kept = None
        drain.forget()
    if not settled:
        raise DrainError("the counters do not settle: something keeps firing faster than it is read")
    return results


def _fired_by(spans: list[bytes], pid: int) -> Counter[int]:
    return Counter(record.probe for span in spans for record in records.decode(span) if record.pid == pid)


def _judge(probe: Probe, fired: int, why: str, lost: int, own: bool) -> dict[str, Any]:
    ok = not why and (fired == TIMES if probe.exact and own else fired >= TIMES)
    if not ok and not why:
        why = "never fired: inlined where it is called?" if not fired else "fired another number of times"
        if lost:
            why += f" ({lost} events were lost meanwhile)"
    elif ok and fired != TIMES:
        why = "fires at least that often"
    return {"expected": TIMES, "fired": fired, "ok": ok, "why": why}
