"""When moving pages pays: time to solution of work on memory that another thread has initialised, round by round. Pure.

Times are those of CPUs beside each other: a phase takes as long as the CPU that spends most on it (docs/workloads.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from controller.work.answers import Outcome, State
from controller.work.cases import Case, Parts, Placement, Workload
from provision.hardware.qemu import Clock, Latency
from provision.host.errors import InfraError

WAYS = (Placement.FIRST_TOUCH, Placement.DIRECT, Placement.LAZY)
NODES = 4
NODE_MB = 256
NAME = "init-then-work"


@dataclass(frozen=True)
class Setting:
    """What is measured: so much memory, worked on for so many rounds, that many ns from the node's own memory, and how many
    times as far elsewhere. `touched_percent`: of the pages of each part."""

    megabytes: int
    rounds: int
    local_ns: int
    touched_percent: int

    def remote_ns(self, times: float) -> int:
        return round(self.local_ns * times)


@dataclass(frozen=True)
class Curve:
    """ns from the beginning: `totals[r]` after r rounds, `totals[0]` when memory is initialised, and given its place."""

    totals: tuple[int, ...]

    @property
    def last_round(self) -> int:
        """ns of the last one, when all pages are where they stay."""
        return self.totals[-1] - self.totals[-2]


@dataclass(frozen=True)
class Panel:
    """One machine: remote memory is so many `times` as far as local."""

    times: float
    local_ns: int
    remote_ns: int
    curves: Mapping[Placement, Curve]

    def pays_after(self, way: Placement) -> int | None:
        """The first round at whose end everything together took less than with pages that stay; None: not in these."""
        stayed, moved = self.curves[Placement.FIRST_TOUCH].totals, self.curves[way].totals
        return next((n for n, (a, b) in enumerate(zip(stayed, moved, strict=True)) if n and b < a), None)


def topology(setting: Setting, times: float) -> str:
    """Four nodes with a CPU each, as a topology file."""
    far = setting.remote_ns(times)
    rows = [[setting.local_ns if a == b else far for b in range(NODES)] for a in range(NODES)]
    nodes = [f"[[node]]\nid = {n}\nmemory_mb = {NODE_MB}\ncpus = [{n}]\n" for n in range(NODES)]
    return f"title = 'remote memory {times:g} times as far as local'\nlatency_ns = {rows}\n{''.join(nodes)}"


def workload(setting: Setting, kernel: str) -> Workload:
    """A case for each way: CPU 0 initialises, the others work on a part each."""
    cases = tuple(
        Case(
            way.value,
            f"{way.value}, {setting.megabytes} MB",
            Parts(
                setting.megabytes, 0, tuple(range(1, NODES)), way, setting.rounds, setting.touched_percent, writes=False
            ),
        )
        for way in WAYS
    )
    return Workload(NAME, "one thread initialises, three work", kernel, NAME, Clock.INSN, cases, NAME)


def curve(outcome: Outcome) -> Curve:
    """InfraError when the case is not correct, or what its CPUs spent was not counted."""
    if outcome.state is not State.CORRECT:
        raise InfraError(f"{outcome.case.name}: {outcome.state}: {outcome.why}")
    took = [(one.name, one.longest_ns) for one in outcome.phases]
    if any(ns is None for _, ns in took):
        raise InfraError(f"{outcome.case.name}: what its CPUs spent is not known")
    before = sum(ns or 0 for name, ns in took if name != "round")
    return Curve(tuple(itertools.accumulate((ns or 0 for name, ns in took if name == "round"), initial=before)))


def panel(setting: Setting, times: float, outcomes: Sequence[Outcome]) -> Panel:
    """`outcomes`: in the order of WAYS."""
    curves = {way: curve(one) for way, one in zip(WAYS, outcomes, strict=True)}
    return Panel(times, setting.local_ns, setting.remote_ns(times), curves)


def shown(rounds: int) -> list[int]:
    """After which rounds the table has totals."""
    return sorted({n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n < rounds} | {rounds})


def rows(one: Panel) -> list[tuple[str, ...]]:
    """A table of one panel, in ms: what, and a cell for each of WAYS."""
    curves = [one.curves[way] for way in WAYS]
    found = [("initialised and placed", *(_ms(c.totals[0]) for c in curves))]
    found += [
        (f"after {n} round{'' if n == 1 else 's'}", *(_ms(c.totals[n]) for c in curves))
        for n in shown(len(curves[0].totals) - 1)
    ]
    found.append(("each round in the end", *(_ms(c.last_round) for c in curves)))
    found.append(("pays after round", "-", *(_pays(one, way) for way in WAYS[1:])))
    return found


def _pays(one: Panel, way: Placement) -> str:
    after = one.pays_after(way)
    return "not in these" if after is None else str(after)


def _ms(ns: int) -> str:
    return f"{ns / 1e6:,.3f}"


def as_data(setting: Setting, panels: Sequence[Panel]) -> list[dict[str, object]]:
    """For programs: totals in ns by way, after 0, 1, 2, ... rounds."""
    return [
        {
            "times": one.times,
            "local_ns": one.local_ns,
            "remote_ns": one.remote_ns,
            "megabytes": setting.megabytes,
            "touched_percent": setting.touched_percent,
            "totals": {way.value: list(one.curves[way].totals) for way in WAYS},
            "pays_after": {way.value: one.pays_after(way) for way in WAYS[1:]},
        }
        for one in panels
    ]


def heading(one: Panel) -> str:
    return f"Remote memory {one.times:g} times as far: {one.remote_ns} ns, local {one.local_ns} ns"


def text(panels: Sequence[Panel]) -> str:
    """The tables for a terminal."""
    lines: list[str] = []
    for one in panels:
        table = [("total, ms", *(way.value for way in WAYS)), *rows(one)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines += [heading(one), ""]
        lines += [
            f"  {row[0]:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
            for row in table
        ]
        lines.append("")
    return "\n".join(lines)


def markdown(setting: Setting, panels: Sequence[Panel], facts: str, command: str, picture: str) -> str:
    """A page with the tables and the picture. `facts`: of the machine, `command`: which gave them."""
    import jinja2

    source = resources.files("controller.work").joinpath(f"{NAME}.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=False, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source).render(
        setting=setting,
        last_cpu=NODES - 1,
        command=command,
        facts=facts,
        cache_kb=Latency().cache_kb,
        picture=picture,
        ways=[way.value for way in WAYS],
        panels=[{"heading": heading(one), "rows": rows(one)} for one in panels],
    )
