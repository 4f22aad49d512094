"""The `mof` command: arguments in, exit status out.

Heavy libraries are imported by the commands that use them, so that `mof --help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from controller.cli import bench, cache, doctor, kernel, run, soundness, topology, work
from provision.host.errors import GuestLost, InfraError, MofError

app = typer.Typer(
    name="mof",
    help="The migrate-on-fault lab: NUMA machines that do not exist, kernels with the series under test, "
    "and evidence of what the kernel did, page by page.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(run.demo)
app.command("run")(run.run)
app.command("report")(run.report)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
kernel.app.command("selftest")(soundness.selftest)
kernel.app.command("leaks")(soundness.leaks)
app.add_typer(kernel.app, name="kernel")
app.add_typer(topology.app, name="topology")
app.add_typer(work.app, name="work")
app.add_typer(cache.app, name="cache")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal unwinds; more of them do not disturb the cleaning up, whose every wait is bounded."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def explain(error: MofError) -> str:
    """The one line, and under it what there is to show: a program's last output, the console's last words."""
    lines = [f"mof: {error}"]
    if isinstance(error, InfraError) and error.detail:
        lines += [f"  | {line}" for line in error.detail.splitlines()]
    if isinstance(error, GuestLost) and error.console_tail:
        lines += ["  console, last lines:", *(f"  | {line}" for line in error.console_tail.splitlines())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status (0 pass, 1 fail or undecided, 2 input, 3 host, 4 guest lost, 130)."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _interrupt)
    try:
        status = app(args=arguments, prog_name="mof", standalone_mode=False)
    except MofError as error:
        print(explain(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        # A usage error of the command line library, whichever of its copies raised it.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        print(f"mof: {message()} (see mof --help)", file=sys.stderr)
        return 2
    if status == 130:
        print("mof: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else 0


def entry() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    entry()
