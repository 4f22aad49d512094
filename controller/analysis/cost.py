"""What moving one page took, from the times that memtoy measured around its system calls and touches."""

from __future__ import annotations

from controller.analysis.model import CaseInput, Clock, Cost, Mechanism
from controller.analysis.segments import faulting, lazy, moving
from controller.workloads.memtoy.output import MbindResult, MigrateResult, TouchResult

UNITS = {Clock.WALL: "ns", Clock.INSN: "instructions"}


def cost(case: CaseInput, mechanism: Mechanism, moved: int, in_process: int, clock: Clock) -> Cost:
    """Per page moved.

    direct: the mbind calls that move. lazy: the mbind calls that unmap, and for each the first touch (or locating by
    get_mempolicy) after it. manual: the migrate_pages(2) calls, over all pages of the process that moved
    (`in_process`), since that is what the call moves. Only calls that succeeded count.
    """
    unit = UNITS[clock]
    total, parts = 0, []
    waiting = False
    for done in case.results:
        took = done.end_ns - done.start_ns
        result = done.result
        if mechanism is Mechanism.MANUAL and isinstance(result, MigrateResult) and done.ok:
            total += result.ns
            parts.append("migrate_pages")
        elif mechanism is Mechanism.DIRECT and isinstance(result, MbindResult) and moving(done) and not lazy(done):
            total += result.ns
            parts.append("mbind")
        elif mechanism is Mechanism.LAZY and isinstance(result, MbindResult) and lazy(done):
            total += result.ns
            parts.append("mbind")
            waiting = True
        elif mechanism is Mechanism.LAZY and waiting and faulting(done):
            total += result.ns if isinstance(result, TouchResult) else took
            parts.append("touch" if isinstance(result, TouchResult) else "get_mempolicy")
            waiting = False
    pages = in_process if mechanism is Mechanism.MANUAL else moved
    if not pages or not parts:
        return Cost(None, unit)
    return Cost(round(total / pages, 1), unit, " + ".join(dict.fromkeys(parts)))
