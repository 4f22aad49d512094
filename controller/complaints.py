"""What the kernel of a guest complains of: lines of its log that do not belong there, and memory that it lost.

Which lines those are is known from the kernel's source (6.12): lib/bug.c and kernel/panic.c (WARNING, kernel BUG),
kernel/locking/lockdep.c, mm/page_alloc.c and mm/memory.c (Bad page), lib/list_debug.c, lib/debugobjects.c, mm/kmemleak.c,
kernel/hung_task.c, kernel/watchdog.c, kernel/rcu/tree_stall.h. A debug kernel (`6.12-mof-debug`) says most of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.shell import Shell
from provision.host.deadline import Deadline

KMEMLEAK = "/sys/kernel/debug/kmemleak"
MIN_AGE_SECONDS = 6
"""kmemleak reports no object that is younger than 5 s (mm/kmemleak.c, MSECS_MIN_AGE), and one only after a scan in
which its checksum stayed the same: so two scans, with this between them."""
SCAN_SECONDS = 600.0

_WRONG = re.compile(
    "|".join(
        (
            # Of CPUs, locks and RCU; "WARNING:" heads lockdep's reports, too, and what WARN_ON() prints.
            r"\bBUG\b",
            r"\bWARNING:",
            r"\bOops\b",
            r"general protection fault",
            r"possible (?:circular locking|recursive locking|irq lock inversion|deadlock)",
            r"inconsistent lock state",
            r"[Ii]nvalid wait context",
            r"suspicious RCU usage",
            r"sleeping function called",
            r"bad unlock balance",
            r"held lock freed",
            r"lock held when returning to user space",
            r"lockdep is turned off",
            r"DEBUG_LOCKS_WARN_ON",
            r"scheduling while atomic",
            # Of pages, page tables, swap entries, counters.
            r"[Bb]ad (?:page|rss-counter|swap)",
            r"[Uu]nused swap",
            r"page_table_check",
            r"refcount_t:",
            r"non-zero pgtables_bytes",
            r"pagealloc: (?:memory corruption|single bit error)",
            # Of lists and objects.
            r"list_(?:add|del)(?:_entry)?[^:]* corruption",
            r"slab-\w+|KASAN|UBSAN",
            r"\bODEBUG\b: (?!.*selftest)",
            r"new suspected memory leaks",
            # Of tasks and CPUs that do not get on.
            r"blocked for more than \d+ seconds",
            r"soft lockup",
            r"\bstall(?:s|ed)?\b",
        )
    )
)


def wrong(lines: Iterable[str]) -> list[str]:
    """The lines that tell of a kernel gone wrong, as they are."""
    return [line for line in lines if _WRONG.search(line)]


def leaked(report: str) -> list[str]:
    """What kmemleak found, a line an object: what it is, and the innermost functions that allocated it."""
    found = []
    for block in re.split(r"^(?=unreferenced object)", report, flags=re.MULTILINE):
        if not block.startswith("unreferenced object"):
            continue
        head = block.splitlines()[0].rstrip(":")
        frames = re.findall(r"^\s+(?:\[<[0-9a-f]+>\] )?(\w+)\+0x[0-9a-f]+/0x[0-9a-f]+", block, re.MULTILINE)
        found.append(f"kmemleak: {head}, from {' < '.join(frames[:6]) or 'an unknown place'}")
    return found


def found(shell: Shell) -> list[str]:
    """Everything in the guest's log that does not belong there, and every object that kmemleak finds lost.

    Takes two scans of the guest's memory where the kernel has kmemleak, which is slow under emulation.
    """
    lost: list[str] = []
    if shell.run(f"test -e {KMEMLEAK}", Deadline.patient(30)).status == 0:
        scan = f"echo scan >{KMEMLEAK}"
        twice = f"{scan} && sleep {MIN_AGE_SECONDS} && {scan}"
        shell.run(twice, Deadline.patient(SCAN_SECONDS)).expect()
        lost = leaked(shell.run(f"cat {KMEMLEAK}", Deadline.patient(SCAN_SECONDS)).expect().out)
    log = shell.run("dmesg", Deadline.patient(60)).expect().out
    return [*wrong(log.splitlines()), *lost]
