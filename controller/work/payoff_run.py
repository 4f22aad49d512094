"""Measures when moving pays: a guest for each distance, on the clock of instructions, in which memory takes its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.plan import Options
from controller.work import payoff
from controller.work import run as runs
from controller.work.payoff import Panel, Setting
from guest_kernel import identity
from provision.hardware import topology as topologies
from provision.hardware.qemu import Clock, Latency
from provision.hardware.topology import Topology
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError
from provision.host.progress import Progress

FARTHEST = 100.0


def plans(setting: Setting, times: Sequence[float], kernel: str, timeout: float) -> list[tuple[float, runs.Plan]]:
    """By distance. UserError when there is no such machine, or no such kernel."""
    wanted = identity.parse(kernel)
    identity.check_series(wanted)
    work = payoff.workload(setting, kernel)
    found = []
    for one in times:
        if not 1 <= one <= FARTHEST:
            raise UserError(
                f"remote memory {one:g} times as far", where="--remote", hint=f"from 1 to {FARTHEST:g} times"
            )
        machine_of = _topology(setting, one)
        options = Options(timeout=timeout, clock=Clock.INSN, count_accesses=True, latency=Latency())
        found.append((one, runs.plan_for(work, wanted, machine_of, options)))
    return found


def _topology(setting: Setting, times: float) -> Topology:
    return topologies.parse(payoff.topology(setting, times), f"remote-{times:g}", "--remote")


@dataclass(frozen=True)
class Measured:
    """The panels, the machine in words, and the run folders; `failed`: the run that was not correct, with which it ended."""

    panels: list[Panel]
    facts: str
    folders: list[Path]
    failed: runs.Done | None = None


def measure(setting: Setting, planned: Sequence[tuple[float, runs.Plan]], cache: Cache, progress: Progress) -> Measured:
    """InfraError when memory is not felt; GuestLost."""
    panels: list[Panel] = []
    folders: list[Path] = []
    facts = ""
    for times, plan in planned:
        progress.note(f"remote memory {times:g} times as far")
        done = runs.run(plan, cache, progress)
        folders.append(done.folder)
        if done.lost is not None:
            raise done.lost
        if not done.correct:
            return Measured(panels, facts, folders, done)
        if done.told["latency"]["kind"] != "felt":
            raise InfraError(f"the guest does not feel how long memory takes: {done.told['latency']['why']}")
        panels.append(payoff.panel(setting, times, done.outcomes))
        facts = f"kernel {done.told['kernel']['id']}, QEMU {done.told['qemu']}"
    return Measured(panels, facts, folders)


def keep(folder: Path, setting: Setting, panels: Sequence[Panel], facts: str, command: str) -> list[Path]:
    """Write the page, the picture and the figures. UserError when the folder cannot be written to."""
    import json

    from controller.work import plot

    page, picture, figures = (folder / f"{payoff.NAME}.{suffix}" for suffix in ("md", "svg", "json"))
    try:
        picture.write_text(plot.plot(panels))
        figures.write_text(json.dumps(payoff.as_data(setting, panels), indent=1) + "\n")
        page.write_text(payoff.markdown(setting, panels, facts, command, picture.name))
    except OSError as wrong:
        raise UserError(
            f"cannot write there: {wrong.strerror}", where=str(folder), hint="name a folder of yours"
        ) from wrong
    return [page, picture, figures]
