"""A workload in a guest of its own: from a plan to a finished run folder.

The folder has manifest.json, work.json (the results), summary.txt, console.log, and under workload/ what the program said.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controller import evidence, forking, latency, machine, session, undisturbed
from controller import plan as plans
from controller.analysis.model import LatencyProof
from controller.arming import Armed, Standing
from controller.evidence import RunFolder
from controller.experiment import ProbeSet
from controller.plan import Options
from controller.work import answers, cases, command, table
from controller.work.answers import Outcome, State, Traffic
from controller.work.cases import Case, Workload
from controller.workloads import program
from guest_kernel import identity
from guest_kernel.build import Kernel
from provision.guest.memctl import MemoryController, Seen
from provision.hardware import topology as topologies
from provision.hardware.qemu import Clock
from provision.hardware.topology import Topology
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost
from provision.host.progress import Progress

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """A checked workload: nothing in it is the person's mistake any more. `options`: all that the guest is asked for; of
    them, `kernel`, `topology` and `clock` are what was decided on."""

    workload: Workload
    kernel: identity.KernelId
    topology: Topology
    options: Options

    @property
    def probes(self) -> ProbeSet:
        return ProbeSet.NONE


@dataclass(frozen=True)
class Done:
    """A finished run: its folder, work.json, the table, the cases, and how the guest was lost, if it was."""

    folder: Path
    told: dict[str, Any]
    summary: str
    outcomes: tuple[Outcome, ...] = ()
    lost: GuestLost | None = None

    @property
    def correct(self) -> bool:
        return bool(self.told["result"] == State.CORRECT)


@dataclass
class _Recording:
    """What a run has come to so far."""

    folder: RunFolder
    kernel: Kernel
    outcomes: list[Outcome] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    armed: Armed | None = None
    latency: LatencyProof | None = None


def plan(workload: Workload, options: Options) -> Plan:
    """Check everything that can be checked without building or starting. UserError or InfraError says what is wrong."""
    kernel = identity.parse(options.kernel or workload.kernel)
    topology = topologies.load(options.topology or workload.topology)
    return plan_for(workload, kernel, topology, options)


def plan_for(workload: Workload, kernel: identity.KernelId, topology: Topology, options: Options) -> Plan:
    """The same for a kernel and a machine that are known already. UserError, InfraError."""
    plans.check_guest(kernel, topology, options)
    cases.check(workload, topology)
    topologies.check_host(topology)
    return Plan(workload, kernel, topology, options)


def run(plan: Plan, cache: Cache, progress: Progress, root: Path | None = None) -> Done:
    """Carry out a plan; the run folder goes to `root`, evidence.default_root() when it is not given.

    A lost guest is part of the result and not raised. InfraError is; once there is a run folder, its manifest says so too.
    """
    with machine.ensured(cache, plan.kernel, progress) as parts:
        tool = program.ensure(cache, command.PROGRAM, progress)
        folder = RunFolder(root or evidence.default_root(), plan.workload.name)
        folder.record(
            workload=asdict(plan.workload),
            kernel=dict(parts.kernel.facts),
            image=parts.image.id,
            host=session.facts_of_host(),
            topology=plan.topology.name,
            clock=plan.options.clock.value,
            options={"timeout": plan.options.timeout, "memory": plan.options.count_accesses},
        )
        recording = _Recording(folder, parts.kernel)
        lost: GuestLost | None = None
        try:
            _record(plan, parts, tool, cache, recording, progress)
        except GuestLost as error:
            lost = error
        except KeyboardInterrupt:
            _conclude(plan, recording, "interrupted by the person")
            folder.close("interrupted")
            raise
        except BaseException:
            folder.close("failed")
            raise
        told, summary = _conclude(plan, recording, str(lost) if lost else "")
        folder.close("lost" if lost else "complete")
    return Done(folder.path, told, summary, tuple(recording.outcomes), lost)


def _record(
    plan: Plan, parts: machine.Parts, tool: Path, cache: Cache, recording: _Recording, progress: Progress
) -> None:
    folder = recording.folder
    timings: dict[str, float] = {}
    with ExitStack() as stack:
        try:
            place = forking.Place(folder, recording.warnings, timings)
            standing = stack.enter_context(forking.had(plan, parts, cache, place, progress))
            armed = recording.armed = standing.armed
            recording.undecided += armed.undecided
            folder.record(accelerator=armed.accelerator, qemu=armed.qemu, qemu_command=list(standing.guest.argv))
            recording.latency = latency.tried(standing, plan, cache, progress)
            recording.warnings += latency.warnings(recording.latency)
            standing.shell.put(tool, command.IN_GUEST)
            for case in plan.workload.cases:
                progress.step(f"{case.name}: {case.title}")
                with forking.timed(timings, f"case {case.name}"):
                    recording.outcomes.append(_run_case(case, standing, plan, folder))
            standing.guest.check()
            recording.warnings += [f"the guest's kernel warns: {text}" for text in standing.guest.console.warnings]
        finally:
            folder.record(timings=timings)


def _run_case(case: Case, standing: Standing, plan: Plan, folder: RunFolder) -> Outcome:
    memory = standing.guest.memory
    clock = plan.options.clock
    settle_ms = undisturbed.SETTLE_MS if clock is Clock.INSN else 0
    line = shlex.join(command.argv(case.work, mark=memory is not None, settle_ms=settle_ms))
    lines: list[str] = []
    if memory is not None:
        memory.clear()
    deadline = Deadline.patient(plan.options.timeout)
    with folder.lines(f"{case.name}.jsonl") as stream:

        def heard(text: str) -> None:
            stream.write(text + "\n")
            lines.append(text)

        ended = undisturbed.run(standing.shell, standing.guest, line, clock, deadline, heard)
    if ended.err.strip():
        (folder.workload / f"{case.name}.err").write_text(ended.err)
    seen = _seen(memory, case, folder) if memory is not None else None
    return answers.judged(
        case,
        ended.status,
        lines,
        ended.err,
        timed_out=ended.timed_out,
        traffic=traffic(seen, plan.topology) if seen is not None else None,
        waited=seen.waited if seen is not None else None,
    )


def _seen(memory: MemoryController, case: Case, folder: RunFolder) -> Seen:
    memory.off()  # if the program was ended while it was on
    seen = memory.seen()
    (folder.workload / f"{case.name}.accesses.json").write_text(json.dumps(asdict(seen)) + "\n")
    return seen


def traffic(seen: Seen, topology: Topology) -> Traffic:
    """Of the process that accessed most. Pure."""
    nodes = topology.node_of_cpu
    by: Counter[int] = Counter()
    for one in seen.user:
        by[one.table] += one.reads + one.writes
    own = max(by, key=lambda table: by[table], default=None)
    local = sum(one.reads + one.writes for one in seen.user if one.table == own and one.node == nodes[one.cpu])
    return Traffic(local, by[own] - local if own is not None else 0, seen.overflow)


def _conclude(plan: Plan, recording: _Recording, lost: str) -> tuple[dict[str, Any], str]:
    """Write down what there is: work.json's content, and the table."""
    folder, kernel, armed = recording.folder, recording.kernel, recording.armed
    outcomes, clock = recording.outcomes, plan.options.clock
    warnings = [*recording.undecided, *recording.warnings, *([lost] if lost else [])]
    result = answers.overall(outcomes, undecided=bool(recording.undecided), lost=bool(lost))
    told = {
        "schema": SCHEMA,
        "run": folder.id,
        "workload": plan.workload.name,
        "result": result,
        "kernel": {"id": kernel.id, "release": kernel.release, "build_id": kernel.build_id},
        "accelerator": armed.accelerator if armed else "",
        "clock": clock.value,
        "unit": table.unit(clock, recording.latency),
        "latency": recording.latency.as_data() if recording.latency is not None else None,
        "qemu": armed.qemu if armed else "",
        "topology": plan.topology.name,
        "cases": [answers.as_data(one) for one in outcomes],
        "warnings": warnings,
    }
    facts = [f"kernel {kernel.id} ({kernel.release})", f"topology {plan.topology.name}"]
    facts += [f"QEMU {armed.qemu}, {armed.accelerator}"] if armed else []
    head = table.headed(plan.workload.name, result, outcomes, len(plan.workload.cases))
    summary = table.render(head, outcomes, clock, recording.latency, facts, warnings, folder.path)
    folder.write("work.json", json.dumps(told, indent=1) + "\n")
    folder.write("summary.txt", summary + "\n")
    folder.lines_raw.unlink(missing_ok=True)  # under workload/ by now
    return told, summary
