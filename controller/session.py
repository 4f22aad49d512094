"""One run: guest, shell, probes and workload, composed on an ExitStack, and what comes out of it.

Bad input is found before anything is built or started; building comes before the run folder, and the folder before
the guest. Evidence reaches the folder as it arises, so a run that is cut off has what it came to.
"""

from __future__ import annotations

import json
import platform
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller import machine
from controller.agent import Agent, Counts
from controller.evidence import RunFolder
from controller.experiment import Case, Experiment, ProbeSet
from controller.shell import Shell
from controller.workloads.memtoy import script as memtoy_script
from guest_kernel import build, identity
from provision.guest import nodes
from provision.guest.guest import Guest, GuestSpec, launched
from provision.guest.network import Net
from provision.hardware import topology as topologies
from provision.hardware.topology import Topology
from provision.host.cache import Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError, UserError
from provision.host.progress import Progress

CONNECT_SECONDS = 60.0
ATTACH_SECONDS = 120.0
FLUSH_SECONDS = 120.0
COMMAND_SECONDS = 30.0
RING_PAGES = 4096
"""16 MB: room for 233,016 records between two looks, ten times what a lazy migration of 16,384 pages makes in one."""

AGENT_COMMAND = (
    "PYTHONPATH=/usr/lib/mof setsid python3 -m probes.agent"
    " --control /dev/virtio-ports/mof.control --records /dev/virtio-ports/mof.records"
    " </dev/null >/run/mof-agent.log 2>&1 &"
)

SETTINGS = {"kernel/numa_balancing": "0", "vm/migrate_on_fault": "1"}
"""Set in every run: NUMA balancing moves pages too, and the switch's default is not a promise."""


@dataclass(frozen=True)
class Options:
    """What a person may choose for a run. `timeout` bounds each case's workload, in seconds."""

    kernel: str | None = None
    topology: str | None = None
    probes: ProbeSet = ProbeSet.FULL
    net: Net = Net.USER
    ssh_port: int = 0
    timeout: float = 300.0
    ring_pages: int = RING_PAGES


@dataclass
class CaseRecord:
    """What one case left behind: memtoy's lines, its exit status, and the change of /proc/vmstat over it."""

    case: Case
    lines: list[str] = field(default_factory=list)
    status: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


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
    undecided: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A checked experiment: nothing in it is the person's mistake any more."""

    experiment: Experiment
    kernel: identity.KernelId
    topology: Topology
    options: Options


def plan(experiment: Experiment, options: Options) -> Plan:
    """Check everything that can be checked without building or starting. UserError or InfraError says what is wrong."""
    if options.ring_pages & (options.ring_pages - 1):
        raise UserError(
            f"{options.ring_pages} is not a power of two", where="--ring-pages", hint="a ring has 1, 2, 4, ... pages"
        )
    kernel = identity.parse(options.kernel or experiment.kernel)
    topology = topologies.load(options.topology or experiment.topology)
    facts = memtoy_script.TopologyFacts(
        nodes={n.id: n.memory_mb * 2**20 for n in topology.nodes},
        cpus=frozenset(cpu for n in topology.nodes for cpu in n.cpus),
    )
    for case in experiment.cases:
        memtoy_script.check(memtoy_script.parse(case.script, str(case.path)), facts)
    topologies.check_host(topology)
    return Plan(experiment, kernel, topology, options)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = round(time.monotonic() - began, 3)


def record(plan: Plan, parts: machine.Parts, cache: Cache, recording: Recording, progress: Progress) -> None:
    """Start the guest, run every case in it, and fill `recording`.

    GuestLost when the guest is lost; what was recorded until then stays.
    """
    folder = recording.folder
    timings: dict[str, float] = {}
    spec = GuestSpec(
        kernel=parts.kernel.bzimage,
        image=parts.image,
        topology=plan.topology,
        work=folder.path,
        net=plan.options.net,
        port=plan.options.ssh_port,
        name=f"mof-{folder.id[-6:]}",
    )
    with ExitStack() as stack:
        try:
            progress.step(f"booting {parts.kernel.release} on {plan.topology.name}")
            with _timed(timings, "start_to_first_command"):
                with _timed(timings, "start_to_ready"):
                    guest = stack.enter_context(launched(spec, cache, progress))
                recording.machine = {
                    "accelerator": guest.accelerator.value,
                    "qemu": guest.qemu_version,
                    "topology": plan.topology.name,
                    "clock": "wall",
                }
                folder.record(qemu_command=list(guest.argv), **recording.machine)
                shell = stack.enter_context(Shell(guest, parts.image, Deadline.after(CONNECT_SECONDS)))
                _settle(shell)
            recording.undecided += nodes.check(plan.topology, nodes.shown(shell))
            agent = None
            if plan.options.probes is not ProbeSet.NONE:
                progress.step("attaching the probes")
                with _timed(timings, "probes_attached"):
                    agent = stack.enter_context(_agent(guest, shell, plan, parts.kernel, cache, recording))
            for case in plan.experiment.cases:
                progress.step(f"{case.name}: {case.title}")
                with _timed(timings, f"case {case.name}"):
                    _run_case(case, shell, agent, plan.options, recording)
            guest.check()
            recording.warnings += [f"the guest's kernel warns: {text}" for text in guest.console.warnings]
        finally:
            folder.record(timings=timings)


def _settle(shell: Shell) -> None:
    """Put the switches where every run has them; those that this kernel lacks are left out."""
    commands = [
        f"if [ -e /proc/sys/{name} ]; then echo {value} > /proc/sys/{name}; fi" for name, value in SETTINGS.items()
    ]
    shell.run(" && ".join(commands), Deadline.after(COMMAND_SECONDS)).expect()


def _kept_programs(cache: Cache, kernel: build.Kernel, probes: ProbeSet) -> tuple[str, dict[str, Any]]:
    """Under what the compiled probes are kept: they fit one kernel, one set, and one state of the sources."""
    sources = {path: digest_file(file) for path, file in machine.agent_files().items()}
    return f"{kernel.id}-{probes.value}", {"kernel": kernel.build_id, "set": probes.value, "sources": sources}


@contextmanager
def _agent(
    guest: Guest, shell: Shell, plan: Plan, kernel: build.Kernel, cache: Cache, recording: Recording
) -> Iterator[Agent]:
    """A started agent with its probes attached. Compiling them takes seconds: the result is kept for the next run."""
    options = plan.options
    shell.run(AGENT_COMMAND, Deadline.after(COMMAND_SECONDS)).expect()
    name, inputs = _kept_programs(cache, kernel, options.probes)
    kept = cache.find("programs", name, inputs)
    request = {"do": "attach", "set": options.probes.value, "ring_pages": options.ring_pages}
    if kept is not None:
        request["programs"] = json.loads((kept.path / "programs.json").read_text())
    with guest.control_socket() as stream:
        agent = Agent(stream, guest.check)
        try:
            recording.hello = agent.ask({"do": "hello"}, Deadline.after(ATTACH_SECONDS))
            answer = agent.ask(request, Deadline.after(ATTACH_SECONDS))
            if kept is None:
                programs = {
                    k: v for k, v in agent.ask({"do": "programs"}, Deadline.after(ATTACH_SECONDS)).items() if k != "ok"
                }

                def keep(draft: Path) -> Mapping[str, Any]:
                    (draft / "programs.json").write_text(json.dumps(programs))
                    return {}

                cache.make("programs", name, inputs, keep)
        except InfraError as wrong:
            log = shell.run("tail -n 20 /run/mof-agent.log", Deadline.after(COMMAND_SECONDS)).out
            raise InfraError(wrong.message, where=wrong.where, detail=wrong.detail + log) from wrong
        recording.attached = list(answer["attached"])
        recording.unavailable = dict(answer["unavailable"])
        recording.folder.record(
            probes={"set": options.probes.value, "how": answer.get("how", {}), "unavailable": recording.unavailable},
            guest={name: value for name, value in recording.hello.items() if name != "ok"},
        )
        yield agent


def _vmstat(shell: Shell) -> dict[str, int]:
    """/proc/vmstat with the per-CPU parts folded in (Documentation/admin-guide/sysctl/vm.rst, stat_refresh)."""
    text = shell.run("echo 1 > /proc/sys/vm/stat_refresh; cat /proc/vmstat", Deadline.after(COMMAND_SECONDS)).expect()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.out.splitlines())}


def _run_case(case: Case, shell: Shell, agent: Agent | None, options: Options, recording: Recording) -> None:
    done = CaseRecord(case)
    recording.cases.append(done)
    folder = recording.folder
    (folder.workload / f"{case.name}.memtoy").write_text(case.script)
    remote = f"/run/mof-{case.name}.memtoy"
    shell.put_text(case.script, remote)
    before = _vmstat(shell)
    with folder.lines(f"{case.name}.jsonl") as stream:

        def line(text: str) -> None:
            stream.write(text + "\n")
            done.lines.append(text)

        result = shell.run(f"memtoy -j {shlex.quote(remote)}", Deadline.after(options.timeout), line=line)
    done.status = result.status
    if result.err.strip():
        (folder.workload / f"{case.name}.err").write_text(result.err)
    if agent is not None:
        recording.counts = agent.flush(Deadline.after(FLUSH_SECONDS))
    after = _vmstat(shell)
    done.counters = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


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
