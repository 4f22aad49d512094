"""What is to be said of the program's answers: a list of disagreements, empty when the kernel does what it should.

What a policy should do with a page that is touched: nothing, if a fresh page could have been where it is; otherwise move
it to the node from which a fresh page at the same address comes. Where the policy leaves a choice, all of its nodes that
the cpuset allows are fine, and if that is none, all that the cpuset allows: there the allocator turns then (Linux 6.12,
alloc_pages_preferred_many() and policy_nodemask(), mm/mempolicy.c).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from errno import EINVAL
from typing import Any

from controller.workloads.policy.combinations import CHOOSING, Combination, Mode, Nodes, Source, listed

HUGE_ORDER = 9
TRACED_MODES = {
    Mode.DEFAULT: "prefer",
    Mode.PREFERRED: "prefer",
    Mode.BIND: "bind",
    Mode.INTERLEAVE: "interleave",
    Mode.LOCAL: "local",
    Mode.PREFERRED_MANY: "prefer_many",
    Mode.WEIGHTED: "weighted_interleave",
}
"""As the tracepoint has them (include/trace/events/migrate.h). The default policy prefers the local node."""


class About(StrEnum):
    """What a disagreement is about."""

    RUN = "run"
    """The program could not do what it was to do: nothing can be said."""
    REFUSAL = "refusal"
    ORACLE = "oracle"
    """Fresh pages are where the policy does not allow them: the oracle, or what is known of the policy, is wrong."""
    STAY = "stay"
    """A page that was fine has moved."""
    MOVE = "move"
    """A page that was not fine has not moved, or not to where a fresh one comes from."""
    TRACE = "trace"
    CONTENTS = "contents"


@dataclass(frozen=True)
class Disagreement:
    """`unit`: which page of the area, or huge page; None if it is about all of them."""

    about: About
    combination: Combination
    unit: int | None
    words: str

    def __str__(self) -> str:
        where = "" if self.unit is None else f", page {self.unit}"
        return f"{self.combination}{where}: {self.words}"


@dataclass(frozen=True)
class Traced:
    """What the tracepoint said of a page. `to`: -1 if it is well placed."""

    unit: int
    origin_node: int
    to: int
    order: int
    mode: str
    origin: str
    result: str


@dataclass(frozen=True)
class Answer:
    """What the program told of a combination; nodes page by page.

    `refused`, `home`: errno of setting the policy and its home node. `allowed`: by get_mempolicy(2). `effective`: nodes
    of the policy in effect, by numa_maps. `out`: whether the page was unmapped when it was touched.
    """

    refused: int
    home: int = 0
    cpu: int = -1
    allowed: Nodes = frozenset()
    effective: Nodes = frozenset()
    mismatches: int = 0
    start: tuple[int, ...] = ()
    out: tuple[bool, ...] = ()
    final: tuple[int, ...] = ()
    fresh: tuple[int, ...] = ()
    traced: tuple[Traced, ...] = ()


@dataclass(frozen=True)
class Told:
    """All that the program wrote: answers, and what went wrong, by the combination's number (-1: with all of it)."""

    answers: Mapping[int, Answer]
    wrong: Mapping[int, str]


@dataclass(frozen=True)
class Tally:
    """How much was looked at, so that a comparison of nothing is seen. Counts of pages, but for `rebound`.

    `chosen`: they stayed because the policy left a choice. `unexplicit`: because nobody set a policy. `unreachable`: those
    of them all whose policy had no node that is allowed. `rebound`: combinations whose policy got other nodes later.
    """

    moved: int = 0
    stayed: int = 0
    chosen: int = 0
    unreachable: int = 0
    unexplicit: int = 0
    rebound: int = 0


def read(lines: Iterable[str]) -> Told:
    """Parse the program's output. Lines that are not JSON raise json.JSONDecodeError."""
    answers: dict[int, Answer] = {}
    wrong: dict[int, str] = {}
    for line in lines:
        told = json.loads(line)
        if "wrong" in told:
            wrong[told["id"]] = told["wrong"]
        else:
            answers[told["id"]] = _answer(told)
    return Told(answers, wrong)


def _answer(told: Mapping[str, Any]) -> Answer:
    if told["refused"]:
        return Answer(refused=told["refused"])
    return Answer(
        refused=0,
        home=told["home"],
        cpu=told["cpu"],
        allowed=_nodes(told["allowed"]),
        effective=_nodes(told["effective"]),
        mismatches=told["mismatches"],
        start=tuple(told["start"]),
        out=tuple(bool(out) for out in told["out"]),
        final=tuple(told["final"]),
        fresh=tuple(told["fresh"]),
        traced=tuple(Traced(*fields) for fields in told["answers"]),
    )


def _nodes(mask: int) -> Nodes:
    return frozenset(node for node in range(mask.bit_length()) if mask >> node & 1)


def disagreements(combinations: Sequence[Combination], told: Told) -> list[Disagreement]:
    """Everything that is not as it should be, in the order of the combinations."""
    found: list[Disagreement] = []
    for c in combinations:
        if c.id in told.wrong:
            found.append(Disagreement(About.RUN, c, None, told.wrong[c.id]))
        elif c.id not in told.answers:
            found.append(Disagreement(About.RUN, c, None, told.wrong.get(-1, "no answer")))
        else:
            found += _judged(c, told.answers[c.id])
    return found


def _judged(c: Combination, answer: Answer) -> Iterator[Disagreement]:
    expected = EINVAL if c.to_be_refused else 0
    if answer.refused != expected:
        yield Disagreement(About.REFUSAL, c, None, f"setting the policy gave errno {answer.refused}, not {expected}")
    if answer.refused:
        return
    if answer.home:
        yield Disagreement(About.REFUSAL, c, None, f"setting the home node gave errno {answer.home}")
    if answer.cpu != c.cpu:
        yield Disagreement(About.RUN, c, None, f"it ran on CPU {answer.cpu}")
    if answer.allowed != (c.then or c.enter or c.everywhere):
        yield Disagreement(About.RUN, c, None, f"the nodes {listed(answer.allowed)} were allowed")
    if answer.mismatches:
        yield Disagreement(
            About.CONTENTS, c, None, f"contents of {answer.mismatches} pages differ from what was written"
        )
    for unit in range(c.units):
        yield from _page(c, answer, unit)


def _page(c: Combination, answer: Answer, unit: int) -> Iterator[Disagreement]:
    start, final, fresh = answer.start[unit], answer.final[unit], answer.fresh[unit]

    def wrong(about: About, words: str) -> Disagreement:
        return Disagreement(about, c, unit, words)

    within = permitted(c, answer)
    if fresh not in within:
        yield wrong(About.ORACLE, f"a fresh page is on {fresh}, of {listed(within)}")
    if not answer.out[unit]:
        if not left_mapped(c, start):
            yield wrong(About.RUN, f"it was not unmapped, on node {start}")
        elif final != start:
            yield wrong(About.STAY, f"it was mapped on node {start}, and is on {final}")
        return

    fine, to = _should(c, answer, unit)
    traced = [t for t in answer.traced if t.unit == unit]
    said = ", ".join(f"{t.origin_node} -> {t.to} by {t.mode} of {t.origin}: {t.result}" for t in traced) or "nothing"
    seen = f"started on {start}, fresh pages come from {fresh}, is now on {final}; the tracepoint says {said}"
    if final != (start if to is None else to):
        yield wrong(About.STAY if to is None else About.MOVE, seen)
    right = Traced(
        unit=unit,
        origin_node=start,
        to=-1 if fine else fresh,
        order=HUGE_ORDER if c.huge else 0,
        mode=traced_mode(c),
        origin="default" if c.mode is Mode.DEFAULT else "task" if c.source is Source.TASK else "vma",
        result="well_placed" if fine else "migrated" if to is not None else "default_policy",
    )
    if traced != [right]:
        yield wrong(About.TRACE, seen)


def traced_mode(c: Combination) -> str:
    """Preferring no node in particular is another word for the local one (mpol_new(), mm/mempolicy.c)."""
    return "local" if c.mode is Mode.PREFERRED and not c.nodes else TRACED_MODES[c.mode]


def unreachable(c: Combination, answer: Answer) -> bool:
    """The policy leaves a choice, but of nodes that are not allowed: the cpuset has changed since."""
    return c.mode in CHOOSING and not answer.effective & answer.allowed


def permitted(c: Combination, answer: Answer) -> Nodes:
    """All nodes on which a page can be fine; which of them is up to the policy unless it leaves a choice."""
    if c.mode not in CHOOSING or unreachable(c, answer):
        return answer.allowed
    return answer.effective & answer.allowed


def left_mapped(c: Combination, start: int) -> bool:
    """mbind() unmaps only pages that are on none of the nodes that it is given, wherever among them they should be."""
    return c.direct and start in c.nodes


def _should(c: Combination, answer: Answer, unit: int) -> tuple[bool, int | None]:
    """Whether the page is well placed where it starts, and the node to which it is to move, None if it is to stay."""
    start, fresh = answer.start[unit], answer.fresh[unit]
    fine = start in permitted(c, answer) if c.mode in CHOOSING else start == fresh
    stays = fine or (c.mode is Mode.DEFAULT and c.sysctl < 2)
    return fine, None if stays else fresh


def tally(combinations: Sequence[Combination], told: Told) -> Tally:
    """How many pages each kind of expectation was tried on."""
    counts = dict.fromkeys(("moved", "stayed", "chosen", "unreachable", "unexplicit", "rebound"), 0)
    for c in combinations:
        answer = told.answers.get(c.id)
        if answer is None or answer.refused:
            continue
        plain = c.nodes and c.mode is not Mode.PREFERRED
        counts["rebound"] += bool(plain and answer.effective != c.nodes)
        for unit in range(c.units):
            if not answer.out[unit]:
                continue
            fine, to = _should(c, answer, unit)
            counts["unreachable"] += unreachable(c, answer)
            if to is not None:
                counts["moved"] += 1
            elif not fine:
                counts["unexplicit"] += 1
            else:
                counts["chosen" if c.mode in CHOOSING else "stayed"] += 1
    return Tally(**counts)
