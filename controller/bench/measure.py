"""The measurements, each a function that starts things and hands out samples by the figure's name.

What cannot be measured is Absent with the reason; the others go on. Everything that is measured in seconds and
compared is measured in turn, round by round, so that a host that is busy for a while is so for all of them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.bench import commands
from controller.bench.catalogue import RATIOS, figures
from controller.bench.commands import Done, Lab
from controller.bench.figures import Figure, ratios
from controller.bench.groups import Group
from controller.bench.peer import NoPeer, Peer
from controller.experiment import SCRIPTS
from controller.workloads.memtoy import output
from controller.workloads.memtoy.output import MbindResult, TouchResult
from provision.hardware.qemu import Accelerator
from provision.host.errors import InfraError
from provision.host.progress import Progress

OWN_SCRIPTS = Path(__file__).parent / "scripts"
PAGES = 1024
REPEAT = 3
"""Runs a variant on the instruction clock, which differ by little."""
IMPORT = "import time; t = time.perf_counter(); import controller.cli.main; print(time.perf_counter() - t)"


@dataclass(frozen=True)
class Absent:
    """Why there is no figure; `failed`: not because something optional is missing."""

    reason: str
    failed: bool = True


Samples = dict[str, Sequence[float] | Absent]


def _imports() -> dict[str, float]:
    ran = commands.run([sys.executable, "-c", IMPORT])
    if ran.status != 0:
        raise InfraError("mof cannot be imported", detail=ran.errors)
    return {"start.import": float(ran.output)}


def _demo(lab: Lab, boot: bool) -> dict[str, float]:
    how, prefix = (("--boot",), "boot_") if boot else ((), "")
    with lab.mof("demo", *how) as done:
        return {f"start.{prefix}armed": done.first_command_seconds(), f"start.{prefix}demo": done.ran.seconds}


def start(lab: Lab, peer: Peer | Absent, rounds: int, progress: Progress) -> Samples:
    """Cold commands: fork, boot, the peer and our imports in turn, after one turn that does not count."""
    took: dict[str, list[float]] = {}
    absent: Samples = {}
    steps: dict[str, tuple[tuple[str, ...], Callable[[], dict[str, float]]]] = {
        "import of mof": (("start.import",), _imports),
        "mof demo": (("start.armed", "start.demo"), lambda: _demo(lab, boot=False)),
        "mof demo --boot": (("start.boot_armed", "start.boot_demo"), lambda: _demo(lab, boot=True)),
    }
    if isinstance(peer, Absent):
        absent["start.vng"] = peer
    else:
        steps["vng"] = (("start.vng",), lambda: {"start.vng": peer.seconds()})
    for number in range(rounds + 1):
        turn = f"round {number} of {rounds}" if number else "warming up"
        for what, (names, measure) in steps.items():
            if absent.keys() & set(names):
                continue
            progress.step(f"{turn}: {what}")
            try:
                values = measure()
            except InfraError as wrong:
                absent |= dict.fromkeys(names, Absent(str(wrong)))
            except NoPeer as wrong:
                absent |= dict.fromkeys(names, Absent(str(wrong), failed=False))
            else:
                for name, value in values.items() if number else ():
                    took.setdefault(name, []).append(value)
    return _with_ratios({**took, **absent})


def _with_ratios(samples: Samples) -> Samples:
    """Add RATIOS; one whose side is absent is so too, and failed if that did."""
    found = dict(samples)
    for name, (upper, lower) in RATIOS.items():
        above, below = samples[upper], samples[lower]
        if isinstance(above, Absent):
            found[name] = Absent(f"no {upper}", above.failed)
        elif isinstance(below, Absent):
            found[name] = Absent(f"no {lower}", below.failed)
        else:
            found[name] = ratios(above, below)
    return found


@dataclass(frozen=True)
class Cost:
    """Instructions a page, a sample a run; `mark`: of them in the mbind that unmaps. `events`: a page."""

    page: tuple[float, ...]
    mark: tuple[float, ...]
    events: float

    @property
    def touch(self) -> tuple[float, ...]:
        return tuple(whole - mark for whole, mark in zip(self.page, self.mark, strict=True))

    @property
    def median(self) -> float:
        return statistics.median(self.page)


class Costs:
    """Costs of our scripts on the instruction clock, each measured once and then remembered, a failure too."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress
        self._known: dict[tuple[str, str], Cost | InfraError] = {}

    def of(self, script: str, probes: str) -> Cost:
        """InfraError when a run did not pass, or has no cost."""
        if (script, probes) not in self._known:
            self._progress.step(f"{script}, probes {probes}, {REPEAT} runs on the instruction clock")
            self._known[script, probes] = self._measured(script, probes)
        known = self._known[script, probes]
        if isinstance(known, InfraError):
            raise known
        return known

    def _measured(self, script: str, probes: str) -> Cost | InfraError:
        path = str(OWN_SCRIPTS / f"{script}.memtoy")
        how = ("--clock", "insn", "--probes", probes, "--repeat", str(REPEAT))
        try:
            # Also where KVM runs everything else: only TCG counts.
            with self._lab.mof("run", path, *how, env={"MOF_ACCEL": Accelerator.TCG.value}) as done:
                return _cost(done)
        except InfraError as wrong:
            return wrong


def _cost(done: Done) -> Cost:
    page: list[float] = []
    mark: list[float] = []
    events: list[float] = []
    for verdict in done.told["runs"]:
        (case,) = verdict["cases"]
        if case["cost_per_page"]["value"] is None:
            raise InfraError("the run has no cost", where=verdict["run"])
        moved = case["migrated"]
        page.append(float(case["cost_per_page"]["value"]))
        mark.append(_marking(done.folder / verdict["run"], case["name"]) / moved)
        events.append(verdict["probes"]["fired"] / moved)
    return Cost(tuple(page), tuple(mark), statistics.median(events))


def _results(run: Path, case: str) -> list[output.CommandResult]:
    return list(output.read((run / "workload" / f"{case}.jsonl").read_text().splitlines()))


def _marking(run: Path, case: str) -> float:
    """Instructions of the mbind calls that unmap: how long the thread ran, as the cost of a page is counted."""
    marks = [one for one in _results(run, case) if isinstance(one.result, MbindResult) and "lazy" in one.result.flags]
    return float(sum(one.cpu_ns for one in marks))


def pages(costs: Costs) -> Samples:
    """Lazy against direct, many pages and one. Each that fails leaves the others."""
    found: Samples = {}
    lazy = _taken(found, ("pages.lazy", "pages.lazy_mark", "pages.lazy_touch"), costs, "lazy-1024", "none")
    direct = _taken(found, ("pages.direct",), costs, "direct-1024", "none")
    lazy_one = _taken(found, ("pages.lazy_one",), costs, "lazy-1", "none")
    direct_one = _taken(found, ("pages.direct_one",), costs, "direct-1", "none")
    if lazy:
        found |= {"pages.lazy": lazy.page, "pages.lazy_mark": lazy.mark, "pages.lazy_touch": lazy.touch}
    if direct:
        found["pages.direct"] = direct.page
    if lazy_one:
        found["pages.lazy_one"] = lazy_one.page
    if direct_one:
        found["pages.direct_one"] = direct_one.page
    if lazy and direct:
        found["pages.lazy_of_direct"] = ratios(lazy.page, direct.page)
        found["pages.break_even"] = break_even(direct.page, lazy.mark, lazy.touch)
    else:
        missing = Absent("no pages.direct" if lazy else "no pages.lazy")
        found |= {"pages.lazy_of_direct": missing, "pages.break_even": missing}
    return found


def break_even(direct: Sequence[float], mark: Sequence[float], touch: Sequence[float]) -> tuple[float, ...]:
    """Of the pages that are marked so many may be touched until it would have been cheaper to move them all directly:
    mark + share x touch = direct."""
    return tuple((d - m) / t for d, m, t in zip(direct, mark, touch, strict=True))


def _taken(found: Samples, names: Sequence[str], costs: Costs, script: str, probes: str) -> Cost | None:
    """The cost; None, and these figures absent, when it could not be had."""
    try:
        return costs.of(script, probes)
    except InfraError as wrong:
        found |= dict.fromkeys(names, Absent(str(wrong)))
        return None


def drain(lab: Lab, rounds: int, progress: Progress) -> Samples:
    """Events a second that arrive from a lazy migration of 64 MB with every probe, and none is lost."""
    rates: list[float] = []
    for number in range(1, rounds + 1):
        progress.step(f"round {number} of {rounds}: lazy migration of 64 MB, every step recorded")
        try:
            with lab.mof("run", str(SCRIPTS / "lazy-16384.memtoy"), "--probes", "steps") as done:
                rates.append(_rate(done))
        except InfraError as wrong:
            return {"drain.rate": Absent(str(wrong))}
    return {"drain.rate": rates}


def _rate(done: Done) -> float:
    """By the agent's own count of the seconds that it drained, where the run has it; else by the time of the mbind and
    the touches, which is when events arise."""
    told = done.told["probes"]
    if told["lost"]:
        raise InfraError(f"{told['lost']} of {told['fired']} events lost")
    seconds = float(done.manifest().get("probes", {}).get("drain_seconds") or 0.0)
    seconds = seconds or moving_seconds(_results(done.folder, done.told["cases"][0]["name"]))
    return float(told["received"] / seconds)


def moving_seconds(results: Sequence[output.CommandResult]) -> float:
    """What the mbind calls that unmap took, and the touch after each. InfraError when there was neither."""
    total, waiting = 0, False
    for one in results:
        if isinstance(one.result, MbindResult) and "lazy" in one.result.flags:
            total, waiting = total + one.result.ns, True
        elif isinstance(one.result, TouchResult) and waiting:
            total, waiting = total + one.result.ns, False
    if not total:
        raise InfraError("nothing was moved lazily")
    return total / 1e9


def many(lab: Lab, count: int, rounds: int, progress: Progress) -> Samples:
    """`count` forks side by side, once a round, and `count` boots one after the other, spread over the rounds."""
    small = str(OWN_SCRIPTS / "small.memtoy")
    rounds = min(rounds, count)
    forks: list[float] = []
    boots: list[float] = []
    names = ("many.forks", "many.boots", f"many.{count}_forks_of_boots")
    try:
        progress.step("warming up: a fork")
        with lab.mof("run", small):
            pass
        for number in range(rounds):
            progress.step(f"round {number + 1} of {rounds}: {count} forks side by side")
            with lab.mof("run", small, "--repeat", str(count)) as done:
                forks.append(60 * count / done.ran.seconds)
            share = count * (number + 1) // rounds - count * number // rounds
            took = 0.0
            progress.step(f"round {number + 1} of {rounds}: {share} boots, one after the other")
            for one in range(share):
                progress.advance("booted", one, share)
                with lab.mof("run", small, "--boot") as done:
                    took += done.ran.seconds
            boots.append(60 * share / took)
    except InfraError as wrong:
        return dict.fromkeys(names, Absent(str(wrong)))
    return dict(zip(names, (forks, boots, ratios(forks, boots)), strict=True))


def filled(group: Group, count: int, samples: Samples, facts: Mapping[str, str]) -> tuple[Figure, ...]:
    """The group's figures with their samples; what was not measured is absent."""
    return fill(figures(group, count), samples, facts)


def fill(wanted: Iterable[Figure], samples: Samples, facts: Mapping[str, str]) -> tuple[Figure, ...]:
    """These figures with their samples; what was not measured is absent."""
    found: list[Figure] = []
    for figure in wanted:
        got = samples.get(figure.name, Absent("not measured"))
        if isinstance(got, Absent):
            found.append(figure.absent(got.reason, failed=got.failed))
        elif not got:
            found.append(figure.absent("no sample", failed=True))
        else:
            found.append(figure.measured(got, facts))
    return tuple(found)
