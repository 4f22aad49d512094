"""A recorded run of the demo, as evidence: real events and answers of a 6.12-mof guest, from tests/golden/demo."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from controller import experiment
from controller.analysis import decode
from controller.analysis.model import CaseInput, Evidence, Machine, ProbeStatus
from controller.workloads.memtoy import output
from probes.registry import PROBES

FOLDER = Path(__file__).parents[1] / "golden" / "demo"

COUNTERS = {
    "anon-8p-direct": {"pgmigrate_success": 8},
    "anon-8p-lazy": {"pgmigrate_on_fault": 8, "pgmigrate_on_fault_misplaced": 8, "mpol_lazy_unmapped": 8},
    "anon-8p-lazy-where": {"pgmigrate_on_fault": 8, "pgmigrate_on_fault_misplaced": 8, "mpol_lazy_unmapped": 8},
    "anon-8p-manual": {"pgmigrate_success": 8},
}


LATER = {"unmap_range_lazy", "unmap_range_lazy.exit"}
"""Probes of functions that the kernel of the recording did not have."""


def demo() -> Evidence:
    """The evidence of that run."""
    events = decode.read_parquet(FOLDER / "events.parquet")
    seen = Counter(int(i) for i in events["probe"])
    fired = {probe.name: seen.get(probe.id, 0) for probe in PROBES}
    cases = tuple(
        CaseInput(
            name=case.name,
            script_text=case.script,
            results=tuple(output.read((FOLDER / f"{case.name}.jsonl").read_text().splitlines())),
            expect=case.expect,
            counters=COUNTERS[case.name],
            title=case.title,
        )
        for case in experiment.load("demo").cases
    )
    return Evidence(
        run="recorded",
        cases=cases,
        machine=Machine.from_hello(json.loads((FOLDER / "hello.json").read_text())["guest"]),
        events=events,
        probes=ProbeStatus(
            attached=tuple(n for n in fired if n not in LATER),
            fired=fired,
            received=fired,
            lost=dict.fromkeys(fired, 0),
        ),
        kernel_id="6.12-mof",
        release="6.12.117-mof",
        build_id="0" * 40,
        accelerator="tcg",
        qemu="10.0.2",
        topology="4node",
        experiment="demo",
    )
