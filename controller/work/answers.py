"""What a run of the program comes to: its lines as data, and what is to be thought of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from controller.work.cases import Case
from provision.guest.memctl import Spent, Waited
from provision.host.errors import InfraError


class State(StrEnum):
    """How a case ended. FAILED: a call of the kernel did, the program was killed, or it did not say what it should."""

    CORRECT = "correct"
    WRONG = "wrong"
    FAILED = "failed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Phase:
    """`ns`: of the guest's clock, from the end of the phase before. `accesses`: loads and stores of all its threads together
    to memory that is measured; 0 for one that moves pages. `spent`: by each CPU in this phase, where accesses have a price."""

    name: str
    ns: int
    accesses: int
    spent: tuple[Spent, ...] = ()

    @property
    def each(self) -> float | None:
        """ns an access; None where there is none."""
        return self.ns / self.accesses if self.accesses else None

    @property
    def longest_ns(self) -> int | None:
        """What the CPU spent that spent most: how long it takes where CPUs run beside each other, an instruction a ns. None
        where that was not counted."""
        return max((one.instructions + one.stall_ns for one in self.spent), default=None)


@dataclass(frozen=True)
class Answer:
    """`pages`: by node, after the last phase; `absent`: pages that were not mapped then."""

    phases: tuple[Phase, ...]
    correct: bool
    pages: Mapping[int, int]
    absent: int


@dataclass(frozen=True)
class Traffic:
    """Accesses that the memory controller saw from the first phase's beginning to the last one's end, of the process with the
    most of them: to memory of the accessing CPU's node, and elsewhere. `lost`: for which it had no room."""

    local: int
    remote: int
    lost: int


def apportioned(phases: Sequence[Phase], waited: Waited) -> tuple[Phase, ...]:
    """The phases with what each CPU spent in them: a phase ends with a lap. InfraError when there is not a lap for each."""
    if len(waited.laps) != len(phases):
        raise InfraError(
            f"the memory controller saw {waited.laps_taken} phases, and the program tells of {len(phases)}"
        )
    before = [(Spent(0, 0),) * len(waited.spent), *waited.laps]
    return tuple(
        replace(
            phase,
            spent=tuple(
                Spent(now.instructions - was.instructions, now.stall_ns - was.stall_ns)
                for now, was in zip(ended, began, strict=True)
            ),
        )
        for phase, began, ended in zip(phases, before, waited.laps, strict=False)
    )


@dataclass(frozen=True)
class Outcome:
    """`why`: one line where it is not correct."""

    case: Case
    state: State
    why: str = ""
    phases: tuple[Phase, ...] = ()
    pages: Mapping[int, int] = field(default_factory=dict)
    absent: int = 0
    traffic: Traffic | None = None


def parse(lines: Sequence[str]) -> Answer:
    """InfraError when they are not what the program says when it comes to its end."""
    try:
        *told, last = [json.loads(line) for line in lines]
        return Answer(
            tuple(Phase(str(one["phase"]), int(one["ns"]), int(one["accesses"])) for one in told),
            {"correct": True, "wrong": False}[last["result"]],
            {int(node): int(count) for node, count in last["pages"].items()},
            int(last["absent"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        shown = lines[-1][:80] if lines else "nothing"
        raise InfraError(f"the program did not tell its result; it ended with: {shown}") from wrong


def judged(
    case: Case,
    status: int,
    lines: Sequence[str],
    errors: str,
    *,
    timed_out: bool,
    traffic: Traffic | None = None,
    waited: Waited | None = None,
) -> Outcome:
    """`status`: the program's, as sh(1) has it; `errors`: what it said on standard error. `waited`: where accesses have a
    price."""
    said = errors.strip().splitlines()
    if timed_out:
        return Outcome(case, State.TIMED_OUT, "it did not end in time (--timeout)")
    try:
        answer = parse(lines)
    except InfraError as wrong:
        return Outcome(case, State.FAILED, said[-1] if said else _ended(status) or wrong.message)
    try:
        phases = apportioned(answer.phases, waited) if waited is not None else answer.phases
    except InfraError as wrong:
        return Outcome(case, State.FAILED, wrong.message, answer.phases, answer.pages, answer.absent, traffic)
    rest = (phases, answer.pages, answer.absent, traffic)
    if not answer.correct:
        return Outcome(case, State.WRONG, said[-1] if said else "it did not say what is wrong", *rest)
    if status:
        return Outcome(case, State.FAILED, said[-1] if said else _ended(status), *rest)
    return Outcome(case, State.CORRECT, "", *rest)


def _ended(status: int) -> str:
    if status > 128:
        return f"it was ended by signal {status - 128}"
    return f"it ended with status {status}" if status else ""


def overall(outcomes: Sequence[Outcome], *, undecided: bool, lost: bool) -> str:
    """The worst of the cases; `lost` without a guest; `undecided` where it is not the machine that was asked for, or where
    accesses were not counted."""
    if lost:
        return "lost"
    for state in (State.WRONG, State.FAILED, State.TIMED_OUT):
        if any(one.state is state for one in outcomes):
            return state.value
    uncounted = any(one.traffic is not None and one.traffic.lost for one in outcomes)
    return "undecided" if undecided or uncounted else State.CORRECT.value


def as_data(outcome: Outcome) -> dict[str, Any]:
    """As work.json has it."""
    found: dict[str, Any] = {
        "name": outcome.case.name,
        "work": outcome.case.work.kind.value,
        "result": outcome.state.value,
        "why": outcome.why,
        "phases": [_phase(one) for one in outcome.phases],
        "pages": {str(node): count for node, count in sorted(outcome.pages.items())},
        "absent": outcome.absent,
    }
    if outcome.traffic is not None:
        traffic = outcome.traffic
        found["memory"] = {"local": traffic.local, "remote": traffic.remote, "lost": traffic.lost}
    return found


def _phase(one: Phase) -> dict[str, Any]:
    told: dict[str, Any] = {"phase": one.name, "time": one.ns, "accesses": one.accesses, "each": one.each}
    if one.spent:
        told["longest"] = one.longest_ns
        told["spent"] = [[cpu.instructions, cpu.stall_ns] for cpu in one.spent]
    return told
