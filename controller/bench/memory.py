"""What it costs to have accesses to memory counted: processor time of QEMU, with the memory controller and without.

There is a guest for each, anew in each round. Each work is done in turn without the controller, with it but not counting, and
counting: what is compared was measured within seconds of each other.
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
    "chase": Single(Kind.CHASE, 1, CPU, NODE, 1, steps=64_000_000),
    "stream": Single(Kind.STREAM, 1, CPU, NODE, 64),
}
"""In memory that the host's caches hold: with more, where the host happens to have each guest's pages makes more of a
difference than anything else (a chase over 8 MB took 2.6 times as long in one of two guests that did the same). Long enough that
to translate the code anew, and what the program does before it is counted, are a small part."""
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


def once(
    parts: machine.Parts, cache: Cache, progress: Progress, works: Mapping[str, Single] = WORKS
) -> dict[tuple[str, str], float]:
    """One round, in guests of its own, so that where the host has their pages is another matter each time. By work: `bare`,
    without a controller; `idle`, with one that does not count; `counted`; and `after`, when it has counted and is off again.
    GuestLost, InfraError."""
    found: dict[tuple[str, str], float] = {}
    with _guest(False, parts, cache, progress) as bare, _guest(True, parts, cache, progress) as watched:
        for name, work in works.items():
            for standing in (bare, watched):
                _took(standing, work, mark=False)  # what is done for the first time
            found[name, "bare"] = _took(bare, work, mark=False)
            found[name, "idle"] = _took(watched, work, mark=False)
            found[name, "counted"] = _took(watched, work, mark=True)
            found[name, "after"] = _took(watched, work, mark=False)
    return found


def measured(kernel: KernelId, rounds: int, cache: Cache, progress: Progress) -> Samples:
    """The group `memory`: a sample a round."""
    took: dict[tuple[str, str], list[float]] = {}
    try:
        with machine.ensured(cache, kernel, progress) as parts:
            for number in range(1, rounds + 1):
                progress.step(f"two guests, round {number} of {rounds}")
                for key, one in once(parts, cache, progress).items():
                    took.setdefault(key, []).append(one)
    except (InfraError, GuestLost) as wrong:
        return {f"memory.{name}_{how}": Absent(str(wrong)) for name in WORKS for how in ("idle", "counted")}
    found: Samples = {}
    for name in WORKS:
        # In one guest, whose pages are where they are; two have it better or worse by chance.
        found[f"memory.{name}_counted"] = ratios(took[name, "counted"], took[name, "idle"])
        found[f"memory.{name}_idle"] = ratios(took[name, "idle"], took[name, "bare"])
    return found
