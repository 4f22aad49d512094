"""What it costs to have accesses to memory counted: processor time of QEMU, with the memory controller and without.

There is a guest for each. Each work is done in turn without the controller, with it but not counting, and counting: what is
compared was measured within seconds of each other.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller import arming, machine
from controller.arming import Standing
from controller.bench.figures import ratios
from controller.bench.measure import Absent, Samples
from controller.experiment import DEFAULT_TOPOLOGY, ProbeSet
from controller.plan import Options
from controller.work import command
from controller.work.cases import Kind, Single
from controller.workloads import program
from guest_kernel.identity import KernelId
from provision.hardware import topology as topologies
from provision.hardware.qemu import Accelerator
from provision.hardware.topology import Topology
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError
from provision.host.progress import Progress

CPU = NODE = 1
WORKS: Mapping[str, Single] = {
    "chase": Single(Kind.CHASE, 8, CPU, NODE, 1, steps=8_000_000),
    "stream": Single(Kind.STREAM, 8, CPU, NODE, 8),
}
"""Long enough that to translate the code anew, and what the program does before it is counted, are a small part."""
RUN_SECONDS = 300.0


@dataclass(frozen=True)
class _Wanted:
    """What guests are made after (controller.plan.Wanted)."""

    topology: Topology
    options: Options
    probes: ProbeSet = ProbeSet.NONE


@contextmanager
def _guest(counting: bool, parts: machine.Parts, cache: Cache, progress: Progress) -> Iterator[Standing]:
    """A fork, or a boot where that cannot be, with the program in it."""
    wanted = _Wanted(topologies.load(DEFAULT_TOPOLOGY), Options(count_accesses=counting))
    tool = program.ensure(cache, command.PROGRAM, progress)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mof-bench-")))
        how = (work, "mof-bench", progress)
        artifact, _ = arming.template(wanted, parts, Accelerator.TCG, cache, work, progress)
        had = (
            arming.forked(wanted, parts, Accelerator.TCG, cache, artifact, *how)
            if artifact is not None
            else arming.booted(wanted, parts, Accelerator.TCG, cache, *how)
        )
        standing = stack.enter_context(had)
        standing.shell.put(tool, command.IN_GUEST)
        yield standing


def _took(standing: Standing, work: Single, *, mark: bool) -> float:
    """Nanoseconds of QEMU's processor time; so it matters little what else the host does."""
    line = shlex.join(command.argv(work, mark=mark, settle_ms=0))
    before = standing.guest.processor_ns()
    standing.shell.run(line, Deadline.patient(RUN_SECONDS)).expect()
    return float(standing.guest.processor_ns() - before)


def measured(
    kernel: KernelId, rounds: int, cache: Cache, progress: Progress, works: Mapping[str, Single] = WORKS
) -> Samples:
    """The group `memory`: a sample a round."""
    took: dict[tuple[str, str], list[float]] = {}
    try:
        with (
            machine.ensured(cache, kernel, progress) as parts,
            _guest(False, parts, cache, progress) as bare,
            _guest(True, parts, cache, progress) as watched,
        ):
            for number in range(rounds + 1):
                for name, work in works.items():
                    progress.step(f"{name}, {f'round {number} of {rounds}' if number else 'warming up'}")
                    turns = (("bare", bare, False), ("idle", watched, False), ("counted", watched, True))
                    for how, standing, mark in turns:
                        one = _took(standing, work, mark=mark)
                        if number:
                            took.setdefault((name, how), []).append(one)
    except (InfraError, GuestLost) as wrong:
        return {f"memory.{name}_{how}": Absent(str(wrong)) for name in works for how in ("idle", "counted")}
    return {
        f"memory.{name}_{how}": ratios(took[name, how], took[name, "bare"])
        for name in works
        for how in ("idle", "counted")
    }
