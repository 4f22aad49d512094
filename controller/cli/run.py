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

if TYPE_CHECKING:
    from controller.conclusion import Conclusion

Kernel = Annotated[str | None, typer.Option(metavar="ID", help="Kernel to boot, such as 6.12-base (mof kernel list).")]
TopologyName = Annotated[
    str | None, typer.Option("--topology", metavar="NAME|FILE", help="Preset (4node, 2node) or TOML file.")
]
Probes = Annotated[ProbeSet, typer.Option(help="full: every event; counts: counters only; none: no probes.")]
NetOption = Annotated[Net, typer.Option("--net", help="user: QEMU's own; tap: in a network namespace (root).")]
Port = Annotated[
    int, typer.Option("--ssh-port", min=0, max=65535, help="Loopback port for SSH; 0: a free one.", show_default=False)
]
Timeout = Annotated[float, typer.Option(min=1.0, help="Seconds that one case's workload may take.")]
RingPages = Annotated[
    int,
    typer.Option(min=1, max=1 << 18, help="Pages of the ring that events wait in; a power of two.", show_default=True),
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
    probes: Probes = ProbeSet.FULL,
    net: NetOption = Net.USER,
    ssh_port: Port = 0,
    timeout: Timeout = 300.0,
    ring_pages: RingPages = 4096,
    as_json: Json = False,
) -> int:
    """Move eight pages between nodes, directly and lazily, and show how."""
    return run("demo", kernel, topology, probes, net, ssh_port, timeout, ring_pages, as_json)


def run(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Built-in name, TOML file or memtoy script.")],
    kernel: Kernel = None,
    topology: TopologyName = None,
    probes: Probes = ProbeSet.FULL,
    net: NetOption = Net.USER,
    ssh_port: Port = 0,
    timeout: Timeout = 300.0,
    ring_pages: RingPages = 4096,
    as_json: Json = False,
) -> int:
    """Run an experiment in a guest of its own and keep the evidence."""
    from controller import conclusion, session
    from controller import experiment as experiments
    from provision.host.cache import Cache

    plan = session.plan(
        experiments.load(experiment),
        session.Options(kernel, topology, probes, net, ssh_port, timeout, ring_pages),
    )
    with for_stream() as progress:
        concluded = conclusion.run(plan, Cache(), progress)
    return _tell(concluded, as_json)


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
