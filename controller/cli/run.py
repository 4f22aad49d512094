"""`mof demo`, `mof run` and `mof report`."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.progress import for_stream
from controller.experiment import ProbeSet
from provision.guest.network import Net
from provision.hardware.qemu import Clock, Latency

if TYPE_CHECKING:
    from controller.conclusion import Conclusion
    from controller.plan import Plan

Kernel = Annotated[str | None, typer.Option(metavar="ID", help="Kernel to boot, such as 6.12-base (mof kernel list).")]
TopologyName = Annotated[
    str | None, typer.Option("--topology", metavar="NAME|FILE", help="Preset (4node, 2node) or TOML file.")
]
Probes = Annotated[
    ProbeSet | None,
    typer.Option(
        help="steps: every step of every page; full: what became of every page; counts: counters only; none. "
        "Default: steps for small scripts, full for large ones.",
        show_default=False,
    ),
]
ClockOption = Annotated[Clock, typer.Option("--clock", help="wall: the host's time; insn: guest instructions (TCG).")]
Boot = Annotated[bool, typer.Option("--boot", help="Boot a guest instead of forking a saved one.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, max=10_000, metavar="N", help="Run it so often.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, max=1024, metavar="J", help="So many side by side at most.", show_default=False),
]
NetOption = Annotated[Net, typer.Option("--net", help="user: QEMU's own; tap: in a network namespace (root).")]
Port = Annotated[
    int, typer.Option("--ssh-port", min=0, max=65535, help="Loopback port for SSH; 0: a free one.", show_default=False)
]
Timeout = Annotated[float, typer.Option(min=1.0, help="Seconds that one case's workload may take.")]
RingPages = Annotated[
    int,
    typer.Option(min=1, max=1 << 18, help="Pages of the ring that events wait in; a power of two.", show_default=True),
]
Memory = Annotated[
    bool, typer.Option("--memory", help="Count what is really read and written, and on which node (TCG).")
]
LatencyOption = Annotated[
    bool,
    typer.Option(
        "--latency", help="Have memory take as long as the topology says; with --clock insn; counts as --memory does."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the verdict as JSON and nothing else.")]


class Format(StrEnum):
    """What `mof report` can print or write."""

    TEXT = "text"
    HTML = "html"
    TRACE = "trace"


def demo(
    kernel: Kernel = None,
    topology: TopologyName = None,
    probes: Probes = None,
    net: NetOption = Net.USER,
    ssh_port: Port = 0,
    timeout: Timeout = 300.0,
    ring_pages: RingPages = 4096,
    clock: ClockOption = Clock.WALL,
    boot: Boot = False,
    repeat: Repeat = 1,
    jobs: Jobs = None,
    memory: Memory = False,
    latency: LatencyOption = False,
    as_json: Json = False,
) -> int:
    """Move eight pages between nodes, directly and lazily, and show how."""
    return run(
        "demo", kernel, topology, probes, net, ssh_port, timeout, ring_pages, clock, boot, repeat, jobs, memory, latency,
        as_json,
    )  # fmt: skip


def run(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Built-in name, TOML file or memtoy script.")],
    kernel: Kernel = None,
    topology: TopologyName = None,
    probes: Probes = None,
    net: NetOption = Net.USER,
    ssh_port: Port = 0,
    timeout: Timeout = 300.0,
    ring_pages: RingPages = 4096,
    clock: ClockOption = Clock.WALL,
    boot: Boot = False,
    repeat: Repeat = 1,
    jobs: Jobs = None,
    memory: Memory = False,
    latency: LatencyOption = False,
    as_json: Json = False,
) -> int:
    """Run an experiment in a guest of its own and keep the evidence."""
    from controller import conclusion
    from controller import experiment as experiments
    from controller import plan as plans
    from provision.host.cache import Cache
    from provision.host.errors import UserError

    plan = plans.plan(
        experiments.load(experiment),
        plans.Options(
            kernel,
            topology,
            probes,
            net,
            ssh_port,
            timeout,
            ring_pages,
            clock,
            boot,
            count_accesses=memory or latency,
            latency=Latency() if latency else None,
        ),
    )
    if repeat > 1:
        return _many(plan, repeat, jobs, as_json)
    if jobs is not None:
        raise UserError("one run has nothing beside it", where="--jobs", hint="add --repeat N")
    with for_stream() as progress:
        concluded = conclusion.run(plan, Cache(), progress)
    return _tell(concluded, as_json)


def _many(plan: Plan, repeat: int, jobs: int | None, as_json: bool) -> int:
    """Several runs, one summary; the worst status of them (4 for a lost guest, then 3, 2, 1)."""
    import os
    import time

    from controller import machine, many
    from controller.report import group
    from provision.host.cache import Cache
    from provision.host.errors import UserError

    if plan.options.ssh_port:
        raise UserError("one port cannot lead to several guests", where="--ssh-port", hint="leave it out")
    at_once = many.budget(plan, jobs, repeat, many.available_mb(), len(os.sched_getaffinity(0)))
    with for_stream() as progress, machine.ensured(Cache(), plan.kernel, progress):
        if jobs is not None and at_once.jobs < min(jobs, repeat):
            progress.note(
                f"{at_once.jobs} at a time, not {jobs}: memory is free for {at_once.by_memory}, "
                f"processors are there for {at_once.by_cpus}"
            )
        folder = many.folder_for(plan.experiment.name, repeat)
        progress.step(f"{plan.experiment.name}: {repeat} runs, {at_once.jobs} at a time")
        began = time.monotonic()
        ended = sorted(many.run(plan, repeat, at_once, folder, progress), key=lambda one: one.number)
        seconds = time.monotonic() - began
    told = group.told(folder.name, [one.verdict for one in ended], repeat, seconds, at_once.jobs)
    text = group.summary(told, folder, [(one.number, one.error) for one in ended if one.error])
    many.write(folder, told, text)
    print(json.dumps(told, indent=1) if as_json else text)
    return max(one.status for one in ended)


def _tell(concluded: Conclusion, as_json: bool) -> int:
    from provision.host.errors import GuestLost

    if as_json:
        print(json.dumps(concluded.verdict, indent=1))
    elif sys.stdout.isatty():
        from rich.console import Console

        from controller.report.text import styled

        Console(highlight=False).print(styled(concluded.summary), soft_wrap=True)
    else:
        print(concluded.summary)
    if concluded.lost is not None:
        error: GuestLost = concluded.lost
        raise error
    return 0 if concluded.verdict["verdict"] == "pass" else 1


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
) -> int:
    """Print a run's summary, its annotated trace or its HTML report."""
    from controller import conclusion

    sys.stdout.write(conclusion.rendered(folder, form.value))
    return 0
