"""What sets of probes add to a page that moves: counted in one guest, with the probes and then without them.

Two guests would not do: what their boots leave of free memory has made more of a difference than the cheapest set.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller import overhead
from controller.bench import migration, migration_guest
from controller.bench.catalogue import SETS, figures
from controller.bench.groups import Group
from controller.bench.measure import Absent, Costs, Samples
from controller.bench.migration_guest import Bed
from controller.experiment import ProbeSet
from controller.overhead import Overhead
from guest_kernel.identity import KernelId
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError
from provision.host.progress import Progress

KINDS = ("lazy", "direct")
AGENT = "[p]robes.agent"
"""What pkill(1) and pgrep(1) find it by, and not the shell that runs them."""
RUN_SECONDS = 300.0


@dataclass(frozen=True)
class Priced:
    """Instructions a page of 1,024 that move lazily or directly, the cheapest run of a few."""

    probed: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.probed / self.bare


def priced(plain: Bed, probe_set: ProbeSet, kinds: Sequence[str] = KINDS) -> dict[str, Priced]:
    """By kind, of `lazy` and `direct`, in one fork of a guest with these probes. InfraError, GuestLost."""
    bed = replace(plain, plan=replace(plain.plan, probes=probe_set))
    cpu = bed.plan.topology.last_cpu
    pages = migration.MANY.pages
    found: dict[tuple[str, str], float] = {}
    with bed.fork() as shell:
        for kind in kinds:
            shell.put_text(migration_guest.script(kind, migration.MANY), f"/run/{kind}.memtoy")
        # The first runs leave free memory as later ones find it. What closes the probes' file descriptors detaches them.
        for when, before in (("first", "true"), ("probed", "true"), ("bare", f"pkill -f {AGENT}; sleep 1")):
            shell.run(f"{before} || :", Deadline.patient(60)).expect()
            for kind in kinds:
                command = migration_guest.commands([(kind, kind, 1)], migration_guest.PASSES, cpu)
                done = shell.run(f"rm -f /run/answers; {command}", Deadline.patient(RUN_SECONDS)).expect()
                one = migration_guest.parse(done.out, migration.MANY, {kind: migration.TARGET})[kind]
                if isinstance(one, InfraError):
                    raise one
                found[kind, when] = one.whole / pages
        if shell.run(f"! pgrep -f {AGENT}", Deadline.patient(60)).status:
            raise InfraError("the probes could not be detached", where=probe_set.value)
    return {kind: Priced(found[kind, "probed"], found[kind, "bare"]) for kind in kinds}


def measured(
    kernel: KernelId, rounds: int, costs: Costs, cache: Cache, progress: Progress
) -> tuple[Samples, Mapping[ProbeSet, Overhead]]:
    """The group `probes`: a sample a fork. `costs` tells how many events a page leaves. A set that fails leaves the others."""
    found: Samples = {}
    overheads: dict[ProbeSet, Overhead] = {}
    with migration_guest.bed(cache, kernel, (), progress) as plain:
        for name in SETS:
            one = ProbeSet(name)
            names = [f.name for f in figures(Group.PROBES, 0) if f.name.startswith(f"probes.{one}_")]
            try:
                events = costs.of("lazy-1024", one).events
                runs = []
                for number in range(1, rounds + 1):
                    progress.step(f"{kernel}, probes {one}: with them and without, round {number} of {rounds}")
                    runs.append(priced(plain, one))
            except (InfraError, GuestLost) as wrong:
                found |= dict.fromkeys(names, Absent(str(wrong)))
                continue
            lazy, direct = ([run[kind] for run in runs] for kind in KINDS)
            adds = overhead.between(
                statistics.median(run.bare for run in lazy),
                statistics.median(run.bare for run in direct),
                statistics.median(run.probed for run in lazy),
                statistics.median(run.probed for run in direct),
                events,
            )
            overheads[one] = adds
            found |= {
                f"probes.{one}_lazy": [run.probed for run in lazy],
                f"probes.{one}_direct": [run.probed for run in direct],
                f"probes.{one}_events": (events,),
                f"probes.{one}_event": (adds.per_event,),
                f"probes.{one}_of_none_lazy": [run.ratio for run in lazy],
                f"probes.{one}_of_none_direct": [run.ratio for run in direct],
            }
    return found, overheads
