"""From a plan to a finished run folder: make what is needed, record the run, draw the conclusions, write them down.

Also for a run that is lost or interrupted: what was recorded until then is analysed and written all the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller import evidence, machine, overhead, session
from controller.analysis.model import (
    CaseInput,
    Clock,
    Evidence,
    Machine,
    ProbeStatus,
)
from controller.evidence import RunFolder
from controller.experiment import ProbeSet
from controller.plan import Plan
from controller.session import Recording
from controller.workloads.memtoy import output
from provision.host.cache import Cache
from provision.host.errors import GuestLost, UserError
from provision.host.progress import Progress

if TYPE_CHECKING:
    from controller.analysis.decode import Events


@dataclass(frozen=True)
class Conclusion:
    """A finished run: its folder, verdict.json, the terminal summary, and how the guest was lost, if it was."""

    folder: Path
    verdict: dict[str, Any]
    summary: str
    lost: GuestLost | None = None


def run(plan: Plan, cache: Cache, progress: Progress, root: Path | None = None) -> Conclusion:
    """Carry out a plan; the run folder goes to `root`, evidence.default_root() when it is not given.

    A lost guest is part of the conclusion and not raised. UserError and InfraError are raised; once there is a run
    folder, its manifest says so too.
    """
    with machine.ensured(cache, plan.kernel, progress) as parts:
        return _run(plan, parts, cache, progress, root or evidence.default_root())


def _run(plan: Plan, parts: machine.Parts, cache: Cache, progress: Progress, root: Path) -> Conclusion:
    folder = RunFolder(root, plan.experiment.name)
    facts = {"id": parts.kernel.id, "release": parts.kernel.release, "build_id": parts.kernel.build_id}
    recording = Recording(folder, plan.experiment, plan.topology, facts, plan.probes)
    folder.record(
        experiment=plan.experiment.name,
        kernel=dict(parts.kernel.facts),
        image=parts.image.id,
        host=session.facts_of_host(),
        options={"timeout": plan.options.timeout, "net": plan.options.net.value, "ring_pages": plan.options.ring_pages},
        cases=[case.name for case in plan.experiment.cases],
    )
    measured = overhead.of(cache, parts.kernel, plan.probes)
    recording.overhead = asdict(measured) if measured else None
    lost: GuestLost | None = None
    try:
        session.record(plan, parts, cache, recording, progress)
    except GuestLost as error:
        lost = error
    except KeyboardInterrupt:
        _conclude(recording, "interrupted by the person", progress)
        folder.close("interrupted")
        raise
    except BaseException:
        folder.close("failed")
        raise
    concluded = _conclude(recording, str(lost) if lost else "", progress)
    folder.close("lost" if lost else "complete")
    return Conclusion(folder.path, concluded[0], concluded[1], lost)


def gather(recording: Recording, events: Events | None) -> Evidence:
    """The recording as the analysis wants it."""
    cases = tuple(
        CaseInput(
            name=record.case.name,
            script_text=record.case.script,
            results=tuple(output.read(record.lines)),
            expect=record.case.expect,
            counters=record.counters,
            title=record.case.title,
            status=record.status,
            accesses=record.accesses,
        )
        for record in recording.cases
    )
    probes = None
    if recording.probe_set is not ProbeSet.NONE:
        probes = ProbeStatus(
            attached=tuple(recording.attached),
            unavailable=recording.unavailable,
            fired={name: count.fired for name, count in recording.counts.items()},
            received={name: count.received for name, count in recording.counts.items()},
            lost={name: count.lost for name, count in recording.counts.items()},
            missed={name: count.missed for name, count in recording.counts.items()},
            recording=recording.probe_set.records,
        )
    return Evidence(
        run=recording.folder.id,
        cases=cases,
        machine=Machine.from_hello(recording.hello),
        events=events,
        probes=probes,
        kernel_id=recording.kernel["id"],
        release=recording.kernel["release"],
        build_id=recording.kernel["build_id"],
        accelerator=recording.machine.get("accelerator", ""),
        clock=Clock(recording.machine.get("clock", Clock.WALL)),
        qemu=recording.machine.get("qemu", ""),
        topology=recording.topology.name,
        experiment=recording.experiment.name,
        undecided=tuple(recording.undecided),
        warnings=tuple(recording.warnings),
        overhead=recording.overhead,
        latency=recording.latency,
    )


def _conclude(recording: Recording, lost: str, progress: Progress) -> tuple[dict[str, Any], str]:
    """Analyse what there is and write it down; verdict.json's content and the summary."""
    from controller.analysis import decode, verdict
    from controller.report import html, text, trace

    progress.step("analysing the evidence")
    folder = recording.folder
    raw = folder.events_raw
    recorded = recording.probe_set.records
    events = decode.load(raw) if recorded else None
    found = verdict.findings(gather(recording, events))
    result = verdict.verdict_json(found, lost=lost)
    folder.write("verdict.json", json.dumps(result, indent=1) + "\n")
    if events is not None:
        decode.write_parquet(events, found.evidence.machine, folder.path / "events.parquet")
    raw.unlink(missing_ok=True)
    folder.lines_raw.unlink(missing_ok=True)  # under workload/ by now
    story = trace.render(found)
    folder.write("trace.txt", story)
    summary = text.summary(found, folder.path, lost=lost)
    folder.write("summary.txt", summary + "\n")
    folder.write("report.html", html.render(found, story, folder.manifest, lost=lost))
    return result, summary


FILES = {"text": "summary.txt", "html": "report.html", "trace": "trace.txt"}


def rendered(folder: Path, form: str) -> str:
    """What a run's folder, or that of several runs, holds in this form.

    UserError when it is none, or when the run did not come so far.
    """
    path = folder / FILES[form]
    if form == "text" and (folder / "summary.json").is_file():  # of several runs
        return path.read_text()
    if not (folder / "manifest.json").is_file():
        raise UserError("not a run folder: it has no manifest.json", where=str(folder), hint="name one under runs/")
    if not path.is_file():
        raise UserError(f"this run has no {path.name}", where=str(folder), hint="it was cut off before the analysis")
    return path.read_text()
