"""`mof topology`: the machines that there are, what one looks like, and whether a guest sees it so."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import Annotated

import typer

from controller.cli.progress import for_stream

app = typer.Typer(help="Machines: nodes, CPUs, distances, how fast memory is.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="NAME|FILE", help="Preset (mof topology list) or TOML file.")]


@app.command("list")
def list_() -> int:
    """The presets, one line each."""
    from provision.hardware import topology

    found = [topology.load(name) for name in topology.presets()]
    width = max(len(one.name) for one in found)
    for one in found:
        size = f"{len(one.nodes)} nodes, {one.cpu_count} CPUs, {one.total_memory_mb:,} MB"
        print(f"{one.name:<{width}}  {size:<28}  {one.title}")
    return 0


@app.command()
def show(
    which: Which,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with what was derived.")] = False,
) -> int:
    """Draw one: its nodes, how far apart they are, and how fast memory is from where."""
    from provision.hardware import drawing, topology

    one = topology.load(which)
    if as_json:
        told = {**asdict(one), "tiers": one.tiers, "demotion": one.demotion}
        print(json.dumps(told, indent=1))
    else:
        print(drawing.draw(one, shutil.get_terminal_size((100, 24)).columns))
    return 0


@app.command()
def check(
    which: Which,
    kernel: Annotated[str | None, typer.Option(metavar="ID", help="Kernel that is asked (mof kernel list).")] = None,
) -> int:
    """Boot a guest with it and ask what its kernel sees; 1 when that is something else."""
    from controller.bare import opened
    from controller.experiment import DEFAULT_KERNEL
    from provision.guest import nodes
    from provision.hardware import topology

    one = topology.load(which)
    topology.check_host(one)
    with for_stream() as progress, opened(kernel or DEFAULT_KERNEL, progress, topology=one) as shell:
        wrong = nodes.check(one, nodes.shown(shell, speeds=one.tiered))
    for line in wrong:
        print(line)
    if not wrong:
        print(f"{one.name}: the guest sees what was asked for")
    return 1 if wrong else 0
