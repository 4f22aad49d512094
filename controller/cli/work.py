"""`mof work`: workloads that show on which node memory is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from controller.cli.progress import for_stream
from controller.cli.run import Kernel, LatencyOption, Memory, Timeout, TopologyName
from provision.hardware.qemu import Clock, Latency

app = typer.Typer(help="Workloads that show on which node memory is.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="NAME|FILE", help="Built-in name (mof work list) or TOML file.")]


@app.command("list")
def list_() -> int:
    """The built-in workloads, one line each."""
    from controller.work import files

    found = [files.load(name) for name in files.names()]
    width = max(len(one.name) for one in found)
    for one in found:
        print(f"{one.name:<{width}}  {', '.join(case.name for case in one.cases)}: {one.title}")
    return 0


@app.command()
def show(which: Which) -> int:
    """What one runs, as JSON."""
    from controller.work import files

    print(json.dumps(asdict(files.load(which)), indent=1))
    return 0


@app.command()
def run(
    which: Which,
    kernel: Kernel = None,
    topology: TopologyName = None,
    clock: Annotated[
        Clock | None,
        typer.Option("--clock", help="wall: the host's time; insn: guest instructions (TCG).", show_default=False),
    ] = None,
    memory: Memory = False,
    latency: LatencyOption = False,
    timeout: Timeout = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")] = False,
) -> int:
    """Run one in a guest of its own; 1 when a case is not correct."""
    from controller.plan import Options
    from controller.work import files
    from controller.work import run as runs
    from provision.host.cache import Cache

    workload = files.load(which)
    options = Options(
        kernel,
        topology,
        timeout=timeout,
        clock=clock or workload.clock,
        count_accesses=memory or latency,
        latency=Latency() if latency else None,
    )
    plan = runs.plan(workload, options)
    with for_stream() as progress:
        done = runs.run(plan, Cache(), progress)
    print(json.dumps(done.told, indent=1) if as_json else done.summary)
    if done.lost is not None:
        raise done.lost
    return 0 if done.correct else 1
