"""`mof work`: workloads that show on which node memory is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
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
    how = workload.latency or (Latency() if latency else None)
    options = Options(
        kernel,
        topology,
        timeout=timeout,
        clock=clock or workload.clock,
        count_accesses=memory or how is not None,
        latency=how,
    )
    plan = runs.plan(workload, options)
    with for_stream() as progress:
        done = runs.run(plan, Cache(), progress)
    print(json.dumps(done.told, indent=1) if as_json else done.summary)
    if done.lost is not None:
        raise done.lost
    return 0 if done.correct else 1


@app.command("break-even")
def break_even(
    kernel: Kernel = None,
    remote: Annotated[
        list[float] | None,
        typer.Option(metavar="TIMES", help="How much farther remote memory is; again for more.  [default: 1.5, 2, 3]"),
    ] = None,
    local: Annotated[int, typer.Option(min=1, max=10_000, metavar="NS", help="Latency of a node's own memory.")] = 100,
    megabytes: Annotated[int, typer.Option(min=1, max=512, help="Of memory that is worked on.")] = 8,
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Of work.")] = 20,
    touched: Annotated[int, typer.Option(min=1, max=100, help="Percent of the pages that are worked on.")] = 100,
    timeout: Timeout = 300.0,
    write: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep a page, a picture and the figures there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")] = False,
) -> int:
    """When moving pays: one thread initialises, three work; pages stay, move at once, or lazily. 1 when a case is not correct."""
    from controller.experiment import DEFAULT_KERNEL
    from controller.work import payoff, payoff_run
    from provision.host.cache import Cache
    from provision.host.errors import UserError

    if write is not None and not write.is_dir():
        raise UserError("there is no such folder", where=str(write), hint="make it first")
    times = tuple(dict.fromkeys(remote or (1.5, 2.0, 3.0)))
    setting = payoff.Setting(megabytes, rounds, local, touched)
    planned = payoff_run.plans(setting, times, kernel or DEFAULT_KERNEL, timeout)
    with for_stream() as progress:
        measured = payoff_run.measure(setting, planned, Cache(), progress)
    panels = measured.panels
    if measured.failed is not None:
        print(json.dumps(measured.failed.told, indent=1) if as_json else measured.failed.summary)
        return 1
    if as_json:
        print(json.dumps(payoff.as_data(setting, panels), indent=1))
    else:
        print(payoff.text(panels))
        print("\n".join(f"  {folder}" for folder in measured.folders))
    if write is not None:
        words = [*(f"--remote {one:g}" for one in times), f"--local {local} --megabytes {megabytes} --rounds {rounds}"]
        words += [f"--touched {touched}"] if touched < 100 else []
        words += [f"--kernel {kernel}"] if kernel else []
        for path in payoff_run.keep(
            write, setting, panels, measured.facts, f"mof work break-even {' '.join(words)} --write docs"
        ):
            print(f"  {path}", file=sys.stderr if as_json else sys.stdout)
    return 0
