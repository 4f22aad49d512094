"""What can be claimed of a kernel of the series, each shown by an experiment in a guest.

A claim is a function that returns figures for the report, and raises Broken when what it claims is not so. It sets what
it depends on and puts it back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.check.trial import PROGRAMS, SWITCH, Broken, Trial, where
from controller.experiment import DEFAULT_TOPOLOGY
from controller.workloads.policy import judge
from controller.workloads.policy.combinations import generate
from provision.hardware import topology as topologies

FROM, TO, PAGES = 1, 2, 8
EVERY = 7
"""Of the combinations of policies, one in so many; tests try all. They come as products of lists, with none of whose lengths
this has a factor in common, so that each value of each list is among them."""
POLICY_SECONDS = 900.0
COUNTERS = ("pgmigrate_on_fault_misplaced", "pgmigrate_on_fault", "pgmigrate_on_fault_fail")
EVENT = "/sys/kernel/tracing/events/migrate/mm_migrate_on_fault"
TRACING = "/sys/kernel/tracing/events/migrate"


@dataclass(frozen=True)
class Claim:
    """`name` is what later patches end it by; `title` is for people; `holds` tries it.

    `programs`: folders of controller/workloads whose programs have to be in the guest for it (Trial.program).
    """

    name: str
    title: str
    holds: Callable[[Trial], Mapping[str, Any]]
    programs: tuple[str, ...] = ()


def _require(right: bool, words: str) -> None:
    if not right:
        raise Broken(words)


def _moved(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """The change of the counters of the series, those that are there."""
    return {name: after[name] - before[name] for name in COUNTERS if name in after}


def direct(trial: Trial) -> Mapping[str, Any]:
    with trial.settled():
        before = trial.counters()
        status, results = trial.memtoy("direct")
        after = trial.counters()
    nodes = where(results)
    moved = after["pgmigrate_success"] - before["pgmigrate_success"]
    failed = [f"line {r.line}: {r.error}" for r in results if not r.ok]
    _require(status == 0 and not failed, f"memtoy's direct script ended with status {status}: {failed}")
    _require(nodes == [[FROM] * PAGES, [TO] * PAGES], f"pages were on {nodes}, not on {FROM} and then on {TO}")
    _require(moved >= PAGES, f"pgmigrate_success rose by {moved}, not by {PAGES} at least")
    counted = _moved(after, before)
    _require(not any(counted.values()), f"moving directly is counted as migration on fault: {counted}")
    return {"pgmigrate_success": moved, "nodes": nodes[-1]}


def absent(trial: Trial) -> Mapping[str, Any]:
    counters = trial.counters()
    traces = [name for name in counters if "on_fault" in name or name.startswith("mpol_lazy")]
    _require(not traces, f"/proc/vmstat has {', '.join(traces)}")
    _require(not trial.exists(SWITCH), f"{SWITCH} is there")
    _require(trial.exists(TRACING), f"{TRACING} is not there: nothing can be said of the tracepoint")
    _require(not trial.exists(EVENT), f"{EVENT} is there")
    return {"counters_seen": len(counters)}


def unconfigured(trial: Trial) -> Mapping[str, Any]:
    text = trial.configuration()
    _require("CONFIG_MIGRATION=y" in text, "/proc/config.gz has no CONFIG_MIGRATION=y: it tells nothing")
    _require("MIGRATE_ON_FAULT" not in text, "/proc/config.gz knows CONFIG_MIGRATE_ON_FAULT")
    return {}


def configured(trial: Trial) -> Mapping[str, Any]:
    lines = trial.configuration().splitlines()
    _require("CONFIG_MIGRATE_ON_FAULT=y" in lines, "/proc/config.gz has no CONFIG_MIGRATE_ON_FAULT=y")
    return {}


def lazy_refused(trial: Trial) -> Mapping[str, Any]:
    told = trial.program("promise", "flag")
    _require(told["move"] == 0, f"mbind with MPOL_MF_MOVE alone fails: errno {told['move']}")
    for name, flags in (("lazy", "MPOL_MF_LAZY"), ("move_lazy", "MPOL_MF_MOVE | MPOL_MF_LAZY")):
        _require(told[name] == errno.EINVAL, f"mbind with {flags} gives errno {told[name]}, not EINVAL")
    return dict(told)


def lazy_taken(trial: Trial) -> Mapping[str, Any]:
    told = trial.program("promise", "flag")
    _require(told["move_lazy"] == 0, f"mbind with MPOL_MF_MOVE | MPOL_MF_LAZY gives errno {told['move_lazy']}")
    _require(told["lazy"] == errno.EINVAL, f"mbind with MPOL_MF_LAZY alone gives errno {told['lazy']}, not EINVAL")
    return dict(told)


def _cached(trial: Trial, switch: str) -> tuple[Mapping[str, Any], dict[str, int]]:
    """Pages in the swap cache on one node, touched under a policy for another: what became of them, and counts."""
    with trial.settled(switch):
        before = trial.counters()
        told = trial.program("promise", "cached", str(FROM), str(TO), str(PAGES))
        counted = _moved(trial.counters(), before)
    _require(told["before"] == [FROM] * PAGES, f"pages were first on {told['before']}, not on {FROM}")
    _require(told["swapped"] == PAGES, f"{told['swapped']} of {PAGES} pages were out when they were touched")
    _require(told["read_from_swap"] == 0, f"{told['read_from_swap']} pages were not in the swap cache any more")
    _require(told["intact"], "contents differ from what was written")
    return told, counted


def _stay(trial: Trial, switch: str, when: str = "") -> Mapping[str, Any]:
    told, counted = _cached(trial, switch)
    _require(told["after"] == [FROM] * PAGES, f"{when}touching them put them on {told['after']}, not back on {FROM}")
    _require(not any(counted.values()), f"{when}counters rose: {counted}")
    return {"nodes": told["after"], **counted}


def cached_stay(trial: Trial) -> Mapping[str, Any]:
    return _stay(trial, "1")


def cached_move(trial: Trial) -> Mapping[str, Any]:
    told, counted = _cached(trial, "1")
    _require(told["after"] == [TO] * PAGES, f"touching them put them on {told['after']}, not on {TO}")
    expected = dict(zip(COUNTERS, (PAGES, PAGES, 0), strict=True))
    _require(counted == expected, f"counters rose by {counted}, not by {expected}")
    return {"nodes": told["after"], **counted}


def cached_stay_when_off(trial: Trial) -> Mapping[str, Any]:
    return _stay(trial, "0", "off, ")


def switch(trial: Trial) -> Mapping[str, Any]:
    counters = trial.counters()
    missing = [name for name in COUNTERS if name not in counters]
    _require(not missing, f"/proc/vmstat has no {', '.join(missing)}")
    _require(trial.exists(EVENT), f"{EVENT} is not there")
    _require(trial.exists(SWITCH), f"{SWITCH} is not there")
    before = trial.read(SWITCH)
    try:
        for value in ("0", "1", "2"):
            taken = trial.write(SWITCH, value) and trial.read(SWITCH) == value
            _require(taken, f"{SWITCH} does not take {value}")
        for value in ("3", "-1", "on"):
            _require(not trial.write(SWITCH, value), f"{SWITCH} takes {value}")
    finally:
        trial.write(SWITCH, before)
    return {"found": int(before)}


def switch_default(trial: Trial) -> Mapping[str, Any]:
    found = trial.read(SWITCH)
    _require(found == "1", f"{SWITCH} was {found} after the boot, not 1")
    return {}


def lazy(trial: Trial) -> Mapping[str, Any]:
    with trial.settled():
        before = trial.counters()
        status, results = trial.memtoy("lazy-touch")
        counted = _moved(trial.counters(), before)
    nodes = where(results)
    failed = [f"line {r.line}: {r.error}" for r in results if not r.ok]
    _require(status == 0 and not failed, f"memtoy's lazy script ended with status {status}: {failed}")
    steps = [[FROM] * PAGES, [-errno.ENOENT] * PAGES, [TO] * PAGES]
    _require(nodes == steps, f"pages were on {nodes}, not on {steps} (-2: not mapped)")
    moved = counted["pgmigrate_on_fault"]
    _require(moved == PAGES, f"pgmigrate_on_fault rose by {moved}, not by {PAGES}")
    _require(counted["pgmigrate_on_fault_fail"] == 0, f"counters rose by {counted}: some failed")
    return {"nodes": nodes[-1], **counted}


def policy(trial: Trial) -> Mapping[str, Any]:
    """Of every kind of policy, where it comes from and what narrows it, some: fresh pages are the oracle."""
    nodes = topologies.load(DEFAULT_TOPOLOGY).nodes
    combinations = generate({node.id: node.cpus for node in nodes})[::EVERY]
    text = "".join(f"{one.line()}\n" for one in combinations)
    trial.shell.put_text(text, "/run/combinations")
    done = trial.run(f"{PROGRAMS}/policy </run/combinations", POLICY_SECONDS).expect()
    told = judge.read(done.out.splitlines())
    found = judge.disagreements(combinations, told)
    _require(not found, f"{len(found)} of {len(combinations)} combinations are not as they should: {found[:1]}")
    _require(set(told.answers) == {one.id for one in combinations}, f"only {len(told.answers)} combinations were tried")
    seen = judge.tally(combinations, told)
    _require(min(seen.moved, seen.stayed, seen.chosen) > 0, f"too little was compared: {seen}")
    return {"combinations": len(combinations), "moved": seen.moved, "stayed": seen.stayed}


PROMISE = ("promise",)

DIRECT = Claim("direct", "memtoy's direct script moves 8 of 8 pages, and none on fault", direct)
ABSENT = Claim("absent", "no switch, no counter and no tracepoint of the series is there", absent)
UNCONFIGURED = Claim("unconfigured", "CONFIG_MIGRATE_ON_FAULT is unknown", unconfigured)
LAZY_REFUSED = Claim("lazy-refused", "mbind refuses MPOL_MF_LAZY with EINVAL", lazy_refused, PROMISE)
CACHED_STAY = Claim("cached-stay", "pages in the swap cache are mapped where they are, uncounted", cached_stay, PROMISE)
CONFIGURED = Claim("configured", "CONFIG_MIGRATE_ON_FAULT is y", configured)
SWITCH_DEFAULT = Claim("switch-default", "vm.migrate_on_fault is 1 after the boot", switch_default)
SWITCH_WORKS = Claim("switch", "counters, tracepoint and vm.migrate_on_fault are there; it takes 0 to 2", switch)
CACHED_MOVE = Claim(
    "cached-move", "pages in the swap cache move to their policy's node when touched", cached_move, PROMISE
)
CACHED_OFF = Claim("cached-off", "with vm.migrate_on_fault 0 they stay", cached_stay_when_off, PROMISE)
LAZY_TAKEN = Claim("lazy-taken", "mbind takes MPOL_MF_LAZY along with MPOL_MF_MOVE, and only so", lazy_taken, PROMISE)
POLICY = Claim(
    "policy",
    "pages move to where fresh ones come from, by every policy, and stay where it is content",
    policy,
    ("policy",),
)
LAZY = Claim("lazy", "memtoy's lazy script moves 8 of 8 pages when they are touched", lazy)
