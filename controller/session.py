"""One run: a guest that is ready, its workload, and what comes out of it.

Bad input is found before anything is built or started; building comes before the run folder, and the folder before
the guest. Evidence reaches the folder as it arises, so a run that is cut off has what it came to.
"""

from __future__ import annotations

import json
import platform
import shlex
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controller import forking, latency, machine, undisturbed
from controller.agent import Counts
from controller.analysis.model import LatencyProof
from controller.arming import Standing
from controller.evidence import RunFolder
from controller.experiment import Case, Experiment, ProbeSet
from controller.plan import Plan
from controller.shell import Shell
from provision.guest.memctl import Seen
from provision.hardware.qemu import Clock
from provision.hardware.topology import Topology
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Progress

FLUSH_SECONDS = 120.0
COMMAND_SECONDS = 30.0
SUSPENDED_SECONDS = 1.0


@dataclass
class CaseRecord:
    """What one case left behind: memtoy's lines, its exit status, and the change of /proc/vmstat over it."""

    case: Case
    lines: list[str] = field(default_factory=list)
    status: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    accesses: Seen | None = None


@dataclass
class Recording:
    """Everything that a run has seen so far; filled in as it happens, also for a run that is then lost."""

    folder: RunFolder
    experiment: Experiment
    topology: Topology
    kernel: Mapping[str, Any]
    probe_set: ProbeSet
    cases: list[CaseRecord] = field(default_factory=list)
    hello: Mapping[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    overhead: Mapping[str, float] | None = None
    latency: LatencyProof | None = None
    undecided: list[str] = field(default_factory=list)


def record(plan: Plan, parts: machine.Parts, cache: Cache, recording: Recording, progress: Progress) -> None:
    """Have a guest that is ready, run every case in it, and fill `recording`.

    GuestLost when the guest is lost; what was recorded until then stays.
    """
    folder = recording.folder
    timings: dict[str, float] = {}
    # While QEMU starts and the guest works, this process has nothing to do.
    threading.Thread(target=preload, name="imports", daemon=True).start()
    with ExitStack() as stack:
        try:
            place = forking.Place(folder, recording.warnings, timings)
            standing = stack.enter_context(forking.had(plan, parts, cache, place, progress))
            _note_machine(standing, plan, recording)
            _try_latency(standing, plan, cache, recording, progress)
            suspended = _suspended()
            for case in plan.experiment.cases:
                progress.step(f"{case.name}: {case.title}")
                if (slept := _suspended() - suspended) > SUSPENDED_SECONDS:
                    suspended += slept
                    _wake(standing.shell, slept, recording)
                with forking.timed(timings, f"case {case.name}"):
                    _run_case(case, standing, plan, recording)
            if (slept := _suspended() - suspended) > SUSPENDED_SECONDS:
                _wake(standing.shell, slept, recording)
            guest = standing.guest
            guest.check()
            recording.warnings += [f"the guest's kernel warns: {text}" for text in guest.console.warnings]
            folder.record(first_command_at=standing.shell.first_answer_ns)
            if standing.agent is not None:
                seconds = standing.agent.drain_seconds
                folder.record(probes={**folder.manifest["probes"], "drain_seconds": seconds})
        finally:
            folder.record(timings=timings)


def preload() -> None:
    """Import what a run needs later: together it takes most of a second."""
    from controller import shell

    shell.preload()
    import pyarrow.parquet  # noqa: F401

    import controller.analysis.verdict
    import controller.report.html  # noqa: F401


def _note_machine(standing: Standing, plan: Plan, recording: Recording) -> None:
    armed, folder = standing.armed, recording.folder
    recording.machine = {
        "accelerator": armed.accelerator,
        "qemu": armed.qemu,
        "topology": plan.topology.name,
        "clock": plan.options.clock.value,
    }
    recording.hello = armed.hello
    recording.attached = list(armed.attached)
    recording.unavailable = dict(armed.unavailable)
    recording.undecided += armed.undecided
    folder.record(
        qemu_command=list(standing.guest.argv),
        probes={"set": plan.probes.value, "how": dict(armed.how), "unavailable": recording.unavailable},
        guest=dict(armed.hello),
        **recording.machine,
    )


def _try_latency(standing: Standing, plan: Plan, cache: Cache, recording: Recording, progress: Progress) -> None:
    proof = recording.latency = latency.tried(standing, plan, cache, progress)
    recording.warnings += latency.warnings(proof)
    if proof is not None:
        recording.folder.record(latency=asdict(proof))


def _suspended() -> float:
    """Seconds that this host has slept since it booted (clock_gettime(2): CLOCK_BOOTTIME counts them)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _wake(shell: Shell, seconds: float, recording: Recording) -> None:
    """After the host's sleep: guest and measurements have slept too, but its calendar is behind."""
    shell.run(f"date -s @{time.time():.3f} >/dev/null", Deadline.patient(COMMAND_SECONDS))
    recording.warnings.append(f"the host was suspended for {seconds:.0f} s during this run; the guest slept with it")


def _vmstat(shell: Shell, first: str = "true", stdin: str = "") -> dict[str, int]:
    """/proc/vmstat with the per-CPU parts folded in (Documentation/admin-guide/sysctl/vm.rst, stat_refresh).

    `first` is a command that is run before, with that input: a second request would cost as much again.
    """
    command = f"{first} && echo 1 > /proc/sys/vm/stat_refresh && cat /proc/vmstat"
    text = shell.run(command, Deadline.patient(COMMAND_SECONDS), stdin=stdin.encode()).expect()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.out.splitlines())}


def _run_case(case: Case, standing: Standing, plan: Plan, recording: Recording) -> None:
    shell, agent = standing.shell, standing.agent
    done = CaseRecord(case)
    recording.cases.append(done)
    folder = recording.folder
    (folder.workload / f"{case.name}.memtoy").write_text(case.script)
    remote = f"/run/mof-{case.name}.memtoy"
    before = _vmstat(shell, f"cat >{shlex.quote(remote)}", case.script)
    with folder.lines(f"{case.name}.jsonl") as stream:

        def line(text: str) -> None:
            stream.write(text + "\n")
            done.lines.append(text)

        memory = standing.guest.memory
        if memory is not None:
            memory.clear()
            if plan.options.latency is not None:
                memory.on()  # everything takes its time, not only what memtoy would mark
        deadline = Deadline.patient(plan.options.timeout)
        command = _command(remote, plan)
        result = undisturbed.run(shell, standing.guest, command, plan.options.clock, deadline, line)
    done.status = result.status
    if memory is not None:
        memory.off()  # if memtoy was ended while it was on
        done.accesses = memory.seen()
        (folder.workload / f"{case.name}.accesses.json").write_text(json.dumps(asdict(done.accesses)) + "\n")
    if result.timed_out:
        recording.warnings.append(f"{case.name}: ended after {plan.options.timeout:g} s (--timeout)")
    if result.err.strip():
        (folder.workload / f"{case.name}.err").write_text(result.err)
    if agent is not None:
        recording.counts = agent.flush(Deadline.patient(FLUSH_SECONDS))
    after = _vmstat(shell)
    done.counters = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def _flags(plan: Plan) -> str:
    """memtoy's: it marks what is to be counted where somebody counts, and not everything is counted."""
    return "-j -a" if plan.options.count_accesses and plan.options.latency is None else "-j"


def _command(script: str, plan: Plan) -> str:
    """memtoy's command line. It starts on one CPU, whatever the scheduler would have chosen (`cpus` moves it): where the
    agent keeps to. Where every instruction counts, it waits before each command until what the last one left to be done
    is done.
    """
    settle = f" -s {undisturbed.SETTLE_MS}" if plan.options.clock is Clock.INSN else ""
    return f"taskset -c {plan.topology.last_cpu} memtoy {_flags(plan)}{settle} {shlex.quote(script)}"


def facts_of_host() -> dict[str, str]:
    """What about this host belongs into the manifest."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return "unknown"
