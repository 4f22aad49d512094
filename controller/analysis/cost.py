"""What moving one page took, from the times that memtoy measured around its system calls and touches."""

from __future__ import annotations

from controller.analysis.model import MECHANISMS, CaseInput, Clock, Cost, Mechanism
from controller.analysis.moves import Moves
from controller.analysis.segments import faulting, lazy, moving
from controller.workloads.memtoy.output import CommandResult, MbindResult, MigrateResult, TouchResult


def cost(case: CaseInput, mechanism: Mechanism, moved: int, own: Moves, clock: Clock, unit: str) -> Cost:
    """Per page moved, in the unit of the guest's clock.

    direct: the mbind calls that move. lazy: the mbind calls that unmap, and the touches (or locating by get_mempolicy)
    within which pages moved, or, without events, the first after each such mbind. manual: the migrate_pages(2) calls, over
    all pages of the process that moved, since that is what the call moves. Only calls that succeeded count.

    On the instruction clock what counts is how long the thread ran, one nanosecond an instruction: while it waits (for
    an RCU grace period, say) guest time passes without an instruction of its own.
    """
    total, parts = 0, []
    waiting = False
    for done in case.results:
        result = done.result
        took = done.end_ns - done.start_ns
        if isinstance(result, MigrateResult | MbindResult | TouchResult):
            took = result.ns
        if clock is Clock.INSN and done.cpu_ns:
            took = done.cpu_ns
        if mechanism is Mechanism.MANUAL and isinstance(result, MigrateResult) and done.ok:
            total += took
            parts.append("migrate_pages")
        elif mechanism is Mechanism.DIRECT and isinstance(result, MbindResult) and moving(done) and not lazy(done):
            total += took
            parts.append("mbind")
        elif mechanism is Mechanism.LAZY and isinstance(result, MbindResult) and lazy(done):
            total += took
            parts.append("mbind")
            waiting = True
        elif mechanism is Mechanism.LAZY and faulting(done) and (_within(done, own) if len(own) else waiting):
            total += took
            parts.append("touch" if isinstance(result, TouchResult) else "get_mempolicy")
            waiting = False
    pages = (own.count(Mechanism.MANUAL) or moved) if mechanism is Mechanism.MANUAL else moved
    if not pages or not parts:
        return Cost(None, unit)
    return Cost(round(total / pages, 1), unit, " + ".join(dict.fromkeys(parts)))


def _within(done: CommandResult, own: Moves) -> bool:
    """Whether a fault moved a page during the command."""
    lazily = own.time[own.mechanism == MECHANISMS.index(Mechanism.LAZY)]
    return bool(((lazily >= done.start_ns) & (lazily <= done.end_ns)).any())
