"""Whether migration on fault leaves anything behind: counters of a guest before and after a load, and what is missing.

`mof kernel leaks --seconds 600 --migrations 100000` runs the workload `mixed` in a guest within a memory limit,
waits until all of it has ended, and says what is left of it. Status 1: something is, or a page had wrong contents, or
the kernel complained.

What would be left of a lost reference is a page that nobody uses and that is not free: memory that no counter accounts
for. If it is charged still, the memory cgroup cannot go either; the old page of a migration is not, its charge has
moved to the new one. A lost swap slot shows in swapoff(8), which does not end before the last slot is free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller import complaints
from controller.shell import Shell
from controller.workloads import program
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Silent

PAGE_KB = 4
PROGRAM = "/run/mixed"
GROUP = "/sys/fs/cgroup/mixed"
LIMIT_MB = 48
"""Less than the processes of `mixed` want, so that there is reclaim and swapping all the time."""
SETTLE_SECONDS = 300.0
SWAPOFF_SECONDS = 300.0
GONE_SECONDS = 120.0
SLACK_SECONDS = 900.0
"""On top of the asked time: for as many migrations as asked on a slow host, and for ending all processes."""

UNACCOUNTED_SLACK_KB = 1024
SLAB_SLACK_KB = 8192
"""Noise is a tenth of either. One page lost in 400 migrations shows after 100,000 of them; those that are still charged,
all the same how few (`dying_groups`)."""


@dataclass(frozen=True)
class Counters:
    """A guest at rest. Memory in KB, the others in pages; `unaccounted` is what is neither free nor counted as used.

    Free is also what CPUs hold back for themselves, which MemFree leaves out: hundreds of megabytes after a load, since
    the kernel decides on its own how much that may be (since 6.7; pcp->high, mm/page_alloc.c).
    """

    isolated_anon: int
    isolated_file: int
    writeback: int
    anon_kb: int
    slab_kb: int
    free_kb: int
    unaccounted_kb: int
    swap_used_kb: int
    dying_groups: int

    @classmethod
    def parse(cls, text: str) -> Counters:
        """From /proc/vmstat, meminfo, zoneinfo and swaps, and the root group's cgroup.stat, one after the other.

        InfraError when one of the wanted lines is missing.
        """
        found = {}
        swapped = held = 0
        for line in text.splitlines():
            words = line.replace(":", " ").split()
            if line.startswith("/dev/"):
                swapped += int(words[3])  # Filename Type Size Used Priority
            elif line.startswith(" ") and words[0] == "count":
                held += int(words[1]) * PAGE_KB
            elif len(words) >= 2 and words[1].isdigit():
                found[words[0]] = int(words[1])
        try:
            # Unevictable is part of neither; shared memory is on the anonymous lists; the stacks, tables and per-CPU
            # areas are on no list (Documentation/filesystems/proc.rst).
            used = sum(found[name] for name in ("Active", "Inactive", "Unevictable", "Slab", "KernelStack"))
            used += sum(found[name] for name in ("PageTables", "SecPageTables", "Percpu", "VmallocUsed", "Hugetlb"))
            return cls(
                isolated_anon=found["nr_isolated_anon"],
                isolated_file=found["nr_isolated_file"],
                writeback=found["nr_writeback"],
                anon_kb=found["AnonPages"],
                slab_kb=found["Slab"],
                free_kb=found["MemFree"],
                unaccounted_kb=found["MemTotal"] - found["MemFree"] - held - used,
                swap_used_kb=swapped,
                dying_groups=found["nr_dying_descendants"],
            )
        except KeyError as wrong:
            raise InfraError(f"the guest's counters have no {wrong}", detail=text[-2000:]) from wrong


def lost(before: Counters, after: Counters) -> list[str]:
    """What is missing afterwards, in words; empty when nothing is."""
    found = []
    for name in ("isolated_anon", "isolated_file", "writeback"):
        if getattr(after, name) > 0:
            found.append(f"{getattr(after, name)} pages are still counted as {name.replace('_', ' ')}")
        elif getattr(after, name) < 0:
            found.append(f"the counter {name.replace('_', ' ')} has sunk to {getattr(after, name)}")
    if after.swap_used_kb > before.swap_used_kb:
        found.append(f"{after.swap_used_kb - before.swap_used_kb} KB of swap are still in use")
    if after.dying_groups > before.dying_groups:
        found.append("the load's memory cgroup is still charged for something")
    for name, slack in (("unaccounted_kb", UNACCOUNTED_SLACK_KB), ("slab_kb", SLAB_SLACK_KB), ("anon_kb", 4096)):
        more = getattr(after, name) - getattr(before, name)
        if more > slack:
            found.append(f"{more} KB more than before are {name.removesuffix('_kb')}")
    return found


@dataclass(frozen=True)
class Outcome:
    """A load and what it left. `load`: what `mixed` said (controller/workloads/mixed/main.c); `group`: what its memory
    cgroup counted; `lost`, `wrong`: empty when all is well."""

    load: Mapping[str, Any]
    group: Mapping[str, int]
    before: Counters
    after: Counters
    lost: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """Everything that should not be, in words."""
        return [*self.wrong, *self.lost]


def misbehaved(load: Mapping[str, Any]) -> list[str]:
    """What is wrong with what `mixed` saw, in words."""
    found = []
    if load["mismatches"]:
        found.append(f"{load['mismatches']} words of memory had other contents than were written: {load.get('first')}")
    if load["crashed"]:
        found.append(f"{load['crashed']} processes died of signal {load['signal']}")
    if load["lost"]:
        found.append(f"{load['lost']} processes were killed, and not by mixed")
    if load["broken"]:
        found.append(f"{load['broken']} processes could not start or ended with an error")
    if load["refused"]:
        found.append(f"{load['refused']} system calls were refused, the last with errno {load['errno']}")
    if not load["all_ended"]:
        found.append("some processes do not end, even when killed")
    if not load["enough"]:
        found.append(f"only {load['migrations']} migrations came about in {load['seconds']} s")
    return found


def settled(shell: Shell) -> Counters:
    """Bring the guest to rest and count. Swap is turned off and on again, which empties the CPUs' stores of slots and
    needs every slot to be free."""
    rest = (
        "sync; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; echo 1 >/proc/sys/vm/stat_refresh"
    )
    shell.run(rest, Deadline.patient(SETTLE_SECONDS)).expect()
    # With a slot that nobody will ever free it goes on until it is killed, and swap stays on, with the slot in use.
    if shell.run("swapoff -a", Deadline.patient(SWAPOFF_SECONDS)).status == 0:
        shell.run("swapon $(cat /run/swaps)", Deadline.patient(60)).expect()
    shell.run(rest, Deadline.patient(SETTLE_SECONDS)).expect()
    files = "/proc/vmstat /proc/meminfo /proc/zoneinfo /proc/swaps /sys/fs/cgroup/cgroup.stat"
    return Counters.parse(shell.run(f"cat {files}", Deadline.patient(60)).expect().out)


def prepare(shell: Shell, cache: Cache) -> None:
    """Put `mixed` into the guest; turn on what its pages are to meet: KSM, huge pages, the switch; and note the swap."""
    shell.put(program.ensure(cache, "mixed", Silent()), PROGRAM)
    shell.run(
        "\n".join(
            (
                "set -e",
                "awk 'NR > 1 {print $1}' /proc/swaps >/run/swaps",
                "test -s /run/swaps",
                "[ ! -e /proc/sys/vm/migrate_on_fault ] || echo 1 >/proc/sys/vm/migrate_on_fault",
                "echo 0 >/proc/sys/kernel/numa_balancing",
                "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
                "echo 1 >/sys/kernel/mm/ksm/run",
                "echo +memory >/sys/fs/cgroup/cgroup.subtree_control",
            )
        ),
        Deadline.patient(60),
    ).expect()


def run(
    shell: Shell, cache: Cache, *, seconds: float, migrations: int, seed: int = 1, limit_mb: int = LIMIT_MB
) -> Outcome:
    """Run the load in a prepared guest, and look at what it left. GuestLost as the shell has it."""
    before = settled(shell)
    slack = seconds + SLACK_SECONDS
    command = f"{PROGRAM} --seconds {seconds} --migrations {migrations} --seed {seed} --limit {slack}"
    shell.run(f"mkdir {GROUP} && echo {limit_mb}M >{GROUP}/memory.max", Deadline.patient(30)).expect()
    try:
        done = shell.run(f"echo $$ >{GROUP}/cgroup.procs && exec {command}", Deadline.patient(slack + SLACK_SECONDS))
        if not done.out.strip():
            raise InfraError(f"mixed said nothing and ended with status {done.status}", detail=done.err)
        load = json.loads(done.out.splitlines()[-1])
        events = shell.run(f"cat {GROUP}/memory.events {GROUP}/memory.stat", Deadline.patient(60)).expect().out
    finally:
        # The folder goes at once; the group itself only when nothing is charged to it any more.
        gone = Deadline.patient(GONE_SECONDS)
        gone.poll(lambda: shell.run(f"rmdir {GROUP}", Deadline.patient(30)).status == 0, interval=0.5)
    after = settled(shell)
    patience = Deadline.patient(GONE_SECONDS)
    while after.dying_groups > before.dying_groups and not patience.passed:
        after = settled(shell)
    group = {name: int(value) for name, value in (line.split() for line in events.splitlines())}
    wrong = [*misbehaved(load), *complaints.found(shell)]
    return Outcome(load, group, before, after, tuple(lost(before, after)), tuple(wrong))
