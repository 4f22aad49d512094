"""A guest ready to be worked in: logged into, its switches set, its nodes looked at, the probes loaded.

All of that takes seconds and comes out the same each time. So the first run of its kind saves the guest when it is
ready, as a template in the cache, and every run goes on from there in a fork (provision.guest.snapshot).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controller import machine
from controller.agent import Agent
from controller.experiment import ProbeSet
from controller.plan import Wanted
from controller.shell import Shell
from guest_kernel import build
from provision.guest import accelerator, cxl, nodes, snapshot
from provision.guest.accelerator import Qemu
from provision.guest.guest import Guest, GuestSpec, launched
from provision.guest.snapshot import Saved
from provision.hardware import qemu as command_line
from provision.hardware.qemu import Accelerator, Clock, MachineSpec, RamFiles, UserNet
from provision.hardware.topology import Topology
from provision.host.artifact import remove
from provision.host.cache import Artifact, Cache, digest, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss
from provision.host.progress import Progress

KIND = "template"
UNSAVABLE = "unsavable"
"""Kind of the notes on guests that could not be saved."""
RECIPE = 3
"""Raised when what is done to a guest before it is saved changes in a way that the other inputs do not show."""

CONNECT_SECONDS = 60.0
ATTACH_SECONDS = 120.0
COMMAND_SECONDS = 30.0
SAVE_SECONDS = 60.0
NEED_BYTES = 1 << 30
"""A template takes some 330 MB: what of the guest's memory was ever written to."""

FULL_BYTES = 16 << 20
"""With less than this the disk was full: the guest writes its memory in pieces of 2 MB at most."""

INTERVALS = {Clock.WALL: 0.1, Clock.INSN: 1.0}
"""Seconds of guest time between the agent's looks at a ring that is not filling up. A look costs some 35,000
instructions and those of copying, which on the instruction clock would be counted as the workload's: so it looks at
whole seconds, and memtoy begins between two."""

AGENT_COMMAND = (
    "PYTHONPATH=/usr/lib/mof setsid python3 -m probes.agent"
    " --control /dev/virtio-ports/mof.control --records /dev/virtio-ports/mof.records"
    " </dev/null >/run/mof-agent.log 2>&1 &"
)

WITHDRAW = "taskset -apc 0 $PPID && taskset -apc 0 $(pgrep -o -x sshd)"
"""On the instruction clock what is not the workload keeps to CPU 0: sshd and all that it starts, the agent too. Wherever a
process ran, it leaves split blocks on the free lists of that node: a page from there costs 120 instructions less."""

SETTINGS = {
    # NUMA balancing moves pages too, and the switch's default is not a promise.
    "kernel/numa_balancing": "0",
    "vm/migrate_on_fault": "1",
    # An idle guest on the instruction clock lives through an hour while the host takes a breath: no connection may be
    # given up because its other side did not answer within some minutes of that.
    "net/ipv4/tcp_retries2": "255",
    "net/ipv4/tcp_synack_retries": "255",
}
"""Set in every guest; those that a kernel lacks are left out."""


@dataclass(frozen=True)
class Armed:
    """What is known of a guest that is ready.

    `hello`: the agent's, {} without an agent. `how`: method by probe. `undecided`: why no verdict can rest on it.
    """

    accelerator: str
    qemu: str
    hello: Mapping[str, Any]
    attached: tuple[str, ...]
    unavailable: Mapping[str, str]
    how: Mapping[str, str]
    undecided: tuple[str, ...]


@dataclass
class Standing:
    """A guest that is ready, for as long as the block lasts. `agent`: None when nothing was attached and none runs."""

    guest: Guest
    shell: Shell
    agent: Agent | None
    armed: Armed
    template: str = ""
    """Of which template the guest is a fork; empty for one that booted."""
    timings: Mapping[str, float] = field(default_factory=dict)


def choose(plan: Wanted, kernel: build.Kernel, cache: Cache, progress: Progress) -> Accelerator:
    """What runs the plan's guests: asked once, so that it is told once. UserError, InfraError as accelerator.resolve()."""
    wish, qemu = accelerator.from_environment(), accelerator.find_qemu()
    options = plan.options
    resolved = accelerator.resolve(
        wish,
        qemu,
        kernel.bzimage,
        cache,
        progress,
        options.clock,
        count_accesses=options.count_accesses,
        cxl=bool(plan.topology.cxl_nodes),
    )
    return resolved.accelerator


def _spec(plan: Wanted, parts: machine.Parts, accel: Accelerator, work: Path, name: str, **more: Any) -> GuestSpec:
    return GuestSpec(
        accelerator=accel,
        kernel=parts.kernel.bzimage,
        image=parts.image,
        topology=plan.topology,
        work=work,
        net=plan.options.net,
        port=plan.options.ssh_port,
        name=name,
        clock=plan.options.clock,
        features=plan.options.features,
        # Not what is saved: a plugin is no part of a guest's state, and a fork has its own.
        count_accesses=plan.options.count_accesses and "keep" not in more,
        latency=plan.options.latency if "keep" not in more else None,
        **more,
    )


def settle(shell: Shell, topology: Topology, clock: Clock) -> None:
    """Put the switches where every run has them, CXL memory online, and, where instructions count, everybody out of the
    workload's way."""
    cxl.online(shell, topology)
    commands = [
        f"if [ -e /proc/sys/{name} ]; then echo {value} > /proc/sys/{name}; fi" for name, value in SETTINGS.items()
    ]
    if clock is Clock.INSN:
        commands.append(WITHDRAW)
    shell.run(" && ".join(commands), Deadline.patient(COMMAND_SECONDS)).expect()


def _kept_programs(kernel: build.Kernel, probes: ProbeSet) -> tuple[str, dict[str, Any]]:
    """Under what the compiled probes are kept: they fit one kernel, one set, and one state of the sources."""
    sources = {path: digest_file(file) for path, file in machine.agent_files().items()}
    return f"{kernel.id}-{probes.value}", {"kernel": kernel.build_id, "set": probes.value, "sources": sources}


def attach(agent: Agent, plan: Wanted, kernel: build.Kernel, cache: Cache) -> dict[str, Any]:
    """Attach the plan's probes. Compiling them takes seconds: the result is kept for the next guest."""
    name, inputs = _kept_programs(kernel, plan.probes)
    kept = cache.find("programs", name, inputs)
    request: dict[str, Any] = {
        "do": "attach",
        "set": plan.probes.value,
        "ring_pages": plan.options.ring_pages,
        "interval": INTERVALS[plan.options.clock],
        # By instructions CPUs take turns whatever the host does, and the agent keeps out of the way (WITHDRAW).
        "cpu": plan.topology.last_cpu if plan.options.clock is Clock.WALL else None,
    }
    if kept is not None:
        request["programs"] = json.loads((kept.path / "programs.json").read_text())
    answer = agent.ask(request, Deadline.patient(ATTACH_SECONDS))
    if kept is None:
        told = agent.ask({"do": "programs"}, Deadline.patient(ATTACH_SECONDS))
        programs = {key: value for key, value in told.items() if key != "ok"}

        def keep(draft: Path) -> Mapping[str, Any]:
            (draft / "programs.json").write_text(json.dumps(programs))
            return {}

        cache.make("programs", name, inputs, keep)
    return answer


def _arm(
    guest: Guest,
    shell: Shell,
    agent: Agent | None,
    plan: Wanted,
    kernel: build.Kernel,
    cache: Cache,
    progress: Progress,
) -> Armed:
    undecided = nodes.check(plan.topology, nodes.shown(shell, speeds=plan.topology.tiered))
    hello: Mapping[str, Any] = {}
    answer: Mapping[str, Any] = {}
    if agent is not None:
        try:
            hello = agent.ask({"do": "hello"}, Deadline.patient(ATTACH_SECONDS))
            if plan.probes is not ProbeSet.NONE:
                progress.step("attaching the probes")
                answer = attach(agent, plan, kernel, cache)
        except InfraError as wrong:
            log = shell.run("tail -n 20 /run/mof-agent.log", Deadline.patient(COMMAND_SECONDS)).out
            raise InfraError(wrong.message, where=wrong.where, detail=wrong.detail + log) from wrong
    return Armed(
        accelerator=guest.accelerator.value,
        qemu=guest.qemu.version,
        hello={key: value for key, value in hello.items() if key != "ok"},
        attached=tuple(answer.get("attached", ())),
        unavailable=dict(answer.get("unavailable", {})),
        how=dict(answer.get("how", {})),
        undecided=tuple(undecided),
    )


@contextmanager
def booted(
    plan: Wanted, parts: machine.Parts, accel: Accelerator, cache: Cache, work: Path, name: str, progress: Progress
) -> Iterator[Standing]:
    """A guest that boots and is made ready. GuestLost, InfraError."""
    timings: dict[str, float] = {}
    progress.step(f"booting {parts.kernel.release} on {plan.topology.name}")
    began = time.monotonic()
    with (
        launched(_spec(plan, parts, accel, work, name), cache, progress) as guest,
        Shell(guest, parts.image, Deadline.patient(CONNECT_SECONDS)) as shell,
    ):
        settle(shell, plan.topology, plan.options.clock)
        timings["start_to_ready"] = guest.timings["ready"]
        timings["start_to_first_command"] = round(time.monotonic() - began, 3)
        if plan.probes is ProbeSet.NONE:
            armed = _arm(guest, shell, None, plan, parts.kernel, cache, progress)
            yield Standing(guest, shell, None, armed, timings=timings)
            return
        began = time.monotonic()
        shell.run(AGENT_COMMAND, Deadline.patient(COMMAND_SECONDS)).expect()
        with guest.control_socket() as stream:
            agent = Agent(stream, guest.check)
            armed = _arm(guest, shell, agent, plan, parts.kernel, cache, progress)
            timings["probes_attached"] = round(time.monotonic() - began, 3)
            yield Standing(guest, shell, agent, armed, timings=timings)


def _host_cpu() -> list[str]:
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return [line for line in first if line.startswith(("model name", "flags"))]


def _said(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a topology says, without the key of a node that only CXL memory has: other templates keep their names."""
    return {key: value for key, value in items if key != "cxl" or value}


def inputs(plan: Wanted, parts: machine.Parts, qemu: Qemu, accel: Accelerator) -> dict[str, Any]:
    """Everything that decides what a template is; one that was made otherwise has another name and is not found.

    QEMU counts with its packager's revision, the processor only where its features reach the guest.
    """
    nowhere = Path("x")
    ram = RamFiles(nowhere, private=False)
    arguments = command_line.arguments(
        MachineSpec(
            name="x", topology=plan.topology, accelerator=accel, kernel=nowhere, root=nowhere, console=nowhere,
            records=nowhere, lines=nowhere, control_fd=3, qmp_fd=4, swap_fd=5, net=UserNet(), clock=plan.options.clock,
            ram=ram, features=plan.options.features,
        )
    )  # fmt: skip
    return {
        "recipe": RECIPE,
        "kernel": f"{build.KIND}/{parts.kernel.path.name}",
        "image": f"image/{parts.image.id}",
        "topology": asdict(plan.topology, dict_factory=_said),
        "probes": plan.probes.value,
        "ring_pages": plan.options.ring_pages,
        "net": plan.options.net.value,
        "clock": plan.options.clock.value,
        "accelerator": accel.value,
        "qemu": qemu.build or qemu.version,
        "cpu": digest({"cpu": _host_cpu()}) if accel is Accelerator.KVM else "",
        "arguments": digest({"arguments": arguments}),
        "settings": SETTINGS,
    }


@contextmanager
def _full_disk_named(cache: Cache, draft: Path) -> Iterator[None]:
    """A guest that is lost for want of space as what it is: its memory is a file on the cache's disk, and writing to a
    page that finds no room there kills it (SIGBUS)."""
    try:
        yield
    except GuestLost as lost:
        if lost.loss is Loss.EXIT and shutil.disk_usage(draft).free < FULL_BYTES:
            raise InfraError(
                "no space left in the cache while a template was made",
                where=str(cache.root),
                hint="free some, or set MOF_CACHE to a folder on a larger disk",
            ) from lost
        raise


def _make(
    plan: Wanted,
    parts: machine.Parts,
    accel: Accelerator,
    cache: Cache,
    work: Path,
    draft: Path,
    progress: Progress,
) -> Mapping[str, Any]:
    """Boot, arm, warm up and save. `work` gets the console, so that a guest that is lost meanwhile leaves its words."""
    progress.step(f"making a template: booting {parts.kernel.release} on {plan.topology.name}")
    spec = _spec(plan, parts, accel, work, "mof-template", keep=draft)
    with _full_disk_named(cache, draft), launched(spec, cache, progress) as guest:
        with Shell(guest, parts.image, Deadline.patient(CONNECT_SECONDS)) as shell:
            settle(shell, plan.topology, plan.options.clock)
            shell.run(AGENT_COMMAND, Deadline.patient(COMMAND_SECONDS)).expect()
            with guest.control_socket() as stream:
                agent = Agent(stream, guest.check)
                armed = _arm(guest, shell, agent, plan, parts.kernel, cache, progress)
                progress.step("making a template: warming up and saving it")
                # What the first case would wait for: programs read from the disk, their pages mapped for the first time.
                # On the first CPU's node, by choice and not by chance: a case may move all that is on another.
                warm = "taskset -c 0 memtoy -V; cat /proc/vmstat; uname -r"
                shell.run(f"for i in 1 2; do {warm}; done", Deadline.patient(COMMAND_SECONDS)).expect()
                if plan.probes is not ProbeSet.NONE:
                    agent.ask({"do": "forget"}, Deadline.patient(ATTACH_SECONDS))
            _part(shell)
        snapshot.save(guest, draft, Deadline.patient(SAVE_SECONDS))
    needs = [f"{build.KIND}/{parts.kernel.path.name}", f"image/{parts.image.id}"]
    return {"armed": asdict(armed), "needs": needs}


def _part(shell: Shell) -> None:
    """Let the guest finish what it does by itself after a boot: its swap's and its caches' housekeeping."""
    shell.run("sync; sleep 0.2", Deadline.patient(COMMAND_SECONDS))


def template(
    plan: Wanted, parts: machine.Parts, accel: Accelerator, cache: Cache, work: Path, progress: Progress
) -> tuple[Artifact | None, str]:
    """The template for this plan, made if it is not there; or None, and why this guest cannot be saved.

    GuestLost when the guest is lost before it is ready, with its console in `work`. InfraError when there is no space.
    """
    if why := snapshot.cannot_be_saved(plan.topology):
        return None, why
    name = f"{parts.kernel.id}-{plan.topology.name}-{plan.probes.value}-{plan.options.clock.value}"
    qemu = accelerator.find_qemu()
    what = inputs(plan, parts, qemu, accel)
    if (known := cache.find(UNSAVABLE, name, what)) is not None:
        return None, str(known.facts["why"])
    try:
        made = cache.make(
            KIND,
            name,
            what,
            lambda draft: _make(plan, parts, accel, cache, work, draft, progress),
            need_bytes=NEED_BYTES,
            sealed=True,
            progress=progress,
        )
    except snapshot.Unsavable as wrong:
        facts = {"why": wrong.message}
        # Known from now on, so that the next run boots at once.
        cache.make(UNSAVABLE, name, what, lambda draft: facts)
        return None, wrong.message
    if qemu.number < snapshot.READS_WITHOUT_WRITING:
        _let_open(made.path)
    return made, ""


def _let_open(folder: Path) -> None:
    """For a QEMU that opens memory files for writing even where it maps them privately: let their owner do so."""
    for path in folder.glob("ram*"):
        if not os.access(path, os.W_OK):
            path.chmod(0o644)


@contextmanager
def forked(
    plan: Wanted,
    parts: machine.Parts,
    accel: Accelerator,
    cache: Cache,
    artifact: Artifact,
    work: Path,
    name: str,
    progress: Progress,
) -> Iterator[Standing]:
    """A guest that goes on where the template was saved, under a name, a time and with random numbers of its own.

    snapshot.Unusable when this QEMU cannot; GuestLost.
    """
    timings: dict[str, float] = {}
    progress.step(f"forking {artifact.id}")
    began = time.monotonic()
    told = dict(artifact.facts["armed"])
    spec = _spec(plan, parts, accel, work, name, saved=Saved(artifact.path))
    with cache.using(artifact), launched(spec, cache, progress) as guest, guest.control_socket() as stream:
        timings["start_to_ready"] = guest.timings["forked"]
        agent = Agent(stream, guest.check)
        agent.sync(Deadline.patient(ATTACH_SECONDS))
        become = {
            "do": "become",
            "host": name,
            "realtime_ns": time.time_ns(),
            "entropy": secrets.token_hex(64),
        }
        clocks = agent.ask(become, Deadline.patient(ATTACH_SECONDS))
        timings["probes_attached"] = round(time.monotonic() - began, 3)
        armed = Armed(
            **{
                **told,
                # Of what the agent said to the template's maker, the clocks alone are another guest's.
                "hello": {**told["hello"], **{key: value for key, value in clocks.items() if key != "ok"}},
                "attached": tuple(told["attached"]),
                "undecided": tuple(told["undecided"]),
            }
        )
        with Shell(guest, parts.image, Deadline.patient(CONNECT_SECONDS)) as shell:
            timings["start_to_first_command"] = round(time.monotonic() - began, 3)
            working = agent if plan.probes is not ProbeSet.NONE else None
            yield Standing(guest, shell, working, armed, artifact.id, timings)


def discard(cache: Cache, artifact: Artifact) -> None:
    """Take a template away that cannot be gone on with; the next run makes it anew."""
    remove(artifact.path)
