"""Whole runs as they were recorded in real guests, with the agent's counts and the kernel's counters.

demo, base   the demo's four cases, on 6.12-mof and on 6.12-base
more         on 6.12-mof: 640 pages directly; 40 lazily, touched in two goes; 8 that a write fault refuses to move,
             since it is about to copy them (shared with a child)
"""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from controller.analysis.decode import DTYPE, sort
from controller.analysis.model import CaseInput, Evidence, Expectation, Machine, Mechanism, ProbeStatus
from controller.workloads.memtoy import output
from probes.registry import BY_NAME, ProbeSet, probes_of

GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def evidence(name: str) -> Evidence:
    """`demo`, `base` or `more`. Its arrays are not to be written to: take `writable()` for that."""
    told = json.loads((GOLDEN / f"recorded-{name}.json").read_text())
    raw = lzma.decompress((GOLDEN / f"recorded-{name}.bin.xz").read_bytes())
    counts: dict[str, list[int]] = told["counts"]
    return Evidence(
        run=told["run"],
        cases=tuple(_case(case) for case in told["cases"]),
        machine=Machine.from_hello(told["hello"]),
        events=sort(np.frombuffer(raw, DTYPE)),
        probes=ProbeStatus(
            attached=tuple(told["attached"]),
            unavailable=told["unavailable"],
            fired={name: count[0] for name, count in counts.items()},
            received={name: count[1] for name, count in counts.items()},
            lost={name: count[2] for name, count in counts.items()},
        ),
        kernel_id=told["kernel"]["id"],
        release=told["kernel"]["release"],
        accelerator=told["machine"]["accelerator"],
        qemu=told["machine"]["qemu"],
        topology=told["machine"]["topology"],
        experiment="demo",
    )


def _case(told: dict[str, Any]) -> CaseInput:
    expect = told["expect"]
    return CaseInput(
        name=told["name"],
        script_text=told["script"],
        results=tuple(output.read(told["lines"])),
        expect=Expectation(**{**expect, "mechanism": Mechanism(expect["mechanism"])}) if expect else None,
        counters=told["counters"],
        title=told["title"],
        status=told["status"],
    )


def only(whole: Evidence, name: str) -> Evidence:
    """The same run with one case."""
    return replace(whole, cases=tuple(case for case in whole.cases if case.name == name))


def with_case(whole: Evidence, case: CaseInput) -> Evidence:
    """The same run with this case instead of the one of its name."""
    return replace(whole, cases=tuple(case if old.name == case.name else old for old in whole.cases))


def writable(whole: Evidence) -> Evidence:
    """With a copy of the events that a test may change."""
    assert whole.events is not None
    return replace(whole, events=whole.events.copy())


def of_set(whole: Evidence, which: ProbeSet) -> Evidence:
    """What a smaller set would have recorded of the same run; the recordings are of the set `steps`."""
    assert whole.events is not None and whole.probes is not None
    of = {probe.name: probe.id for probe in probes_of(which)}
    events = whole.events[np.isin(whole.events["probe"], list(of.values()))]
    attached = tuple(name for name in whole.probes.attached if name in of)
    fired, received, lost = (
        {name: count for name, count in counts.items() if name in of}
        for counts in (whole.probes.fired, whole.probes.received, whole.probes.lost)
    )
    unavailable = {name: why for name, why in whole.probes.unavailable.items() if name in of}
    recording = which is not ProbeSet.COUNTS
    status = ProbeStatus(attached, unavailable, fired, received if recording else {}, lost, recording=recording)
    return replace(whole, events=events if recording else None, probes=status)


def without(whole: Evidence, *probes: str) -> Evidence:
    """As if these probes were attached and had never fired, and nobody had noticed."""
    assert whole.events is not None and whole.probes is not None
    ids = [BY_NAME[name].id for name in probes]
    fired = {**whole.probes.fired, **dict.fromkeys(probes, 0)}
    received = {**whole.probes.received, **dict.fromkeys(probes, 0)}
    status = replace(whole.probes, fired=fired, received=received)
    return replace(whole, events=whole.events[~np.isin(whole.events["probe"], ids)], probes=status)
