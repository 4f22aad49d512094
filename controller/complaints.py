"""What the kernel of a guest complains of: lines of its log that do not belong there, and memory that it lost.

Which lines those are is known from the kernel's source, Linux 6.12: the files are named beside the patterns. A debug
kernel (`6.12-mof-debug`) says most of them. A line is looked at without its time stamp.
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

_STAMP = re.compile(r"^(?:<\d+>)?(?:\[ *\d+\.\d+\])?(?:\[ *[TC]\d+\])? ?")

_WRONG = re.compile(
    "|".join(
        (
            # Everywhere. kernel/panic.c, __warn(); kernel/locking/lockdep.c; kernel/rcu/update.c. With "WARNING" further
            # right, processors tell what their mitigations leave open (arch/x86/kernel/cpu/bugs.c, pr_fmt).
            r"^(?!(?:Spectre V2|RETBleed|Speculative Return Stack Overflow) ?: ).*\bWARNING\b",
            r"\bBUG\b",  # lib/bug.c, mm/page_alloc.c bad_page(), kernel/fork.c check_mm(), kernel/locking/lockdep.c
            r"^-+\[ cut here \]-+",  # kernel/panic.c
            r"\bOops\b|general protection fault|Unable to handle ",  # arch/x86/kernel/dumpstack.c, traps.c
            r"^ ?(?:Call Trace:|<TASK>)",  # arch/x86/kernel/dumpstack.c: somebody called dump_stack()
            r"Kernel panic - not syncing",  # kernel/panic.c
            r"initcall \S+ (?:returned with|failed)",  # init/main.c
            r"segfault at|trap invalid opcode",  # arch/x86/mm/fault.c: a program of the image, with a sound kernel never
            r"unsafe access to|has unsafe dereference",  # kernel/trace/trace_events.c
            r"sysctl (?:table|duplicate)|cannot create duplicate filename|already registered",  # fs/proc, fs/sysfs
            # Of locks and RCU: kernel/locking, kernel/sched/core.c, kernel/rcu/update.c.
            r"INFO: (?:trying to register|possible|inconsistent|lockdep)",
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
            # Of pages, page tables, swap entries, counters: mm/page_alloc.c, mm/debug.c, mm/memory.c, mm/swapfile.c,
            # kernel/fork.c, lib/refcount.c, mm/page_poison.c. One of the kernel's own tests asks for a page's dump
            # (mm/gup_test.c).
            r"[Bb]ad (?:page|rss-counter|swap)",
            r"page dumped because(?!: gup_test: dump_pages\(\) test$)",
            r"[Uu]nused swap",
            r"page_table_check",
            r"refcount_t:",
            r"non-zero pgtables_bytes",
            r"pagealloc: (?:memory corruption|single bit error)",
            r"page allocation failure",
            r"Out of memory: |invoked oom-killer",  # mm/oom_kill.c
            # Of lists and objects: lib/list_debug.c, lib/debugobjects.c, mm/slub.c, mm/kasan/report.c, mm/kmemleak.c.
            r"list_(?:add|del)(?:_entry)?[^:]* corruption",
            r"INFO: Slab |Object 0x|Padding overwritten|slab-\w+",
            r"KASAN|UBSAN|\b(?:KCSAN|KMSAN|KFENCE): ",
            r"\bODEBUG: (?!selftest passed)",
            r"\b(?!0 )\d+ new suspected memory leaks",
            # Of tasks: kernel/hung_task.c.
            r"INFO: task \S+ blocked |blocked for more than \d+ seconds",
        )
    )
)

# They may be the host's doing: an emulated processor that gets no time.
_STALLED = re.compile(
    "|".join(
        (
            r"^(?:watchdog: )?BUG: (?:soft|workqueue) lockup",  # kernel/watchdog.c, kernel/workqueue.c
            r"rcu: INFO: .*stall|rcu: .* kthread starved",  # kernel/rcu/tree_stall.h
            r"^clocksource: .*(?:unstable|Marking)",  # kernel/time/clocksource.c
        )
    )
)
_SLOW = re.compile(r"soft lockup|\bstall(?:s|ed)?\b")
"""The same in other words; but a line that is a complaint besides is one."""


def _sorted(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    complaints: list[str] = []
    stalled: list[str] = []
    for line in lines:
        text = _STAMP.sub("", line.rstrip())
        if _STALLED.search(text):
            stalled.append(text)
        elif _WRONG.search(text):
            complaints.append(text)
        elif _SLOW.search(text):
            stalled.append(text)
    return complaints, stalled


def wrong(lines: Iterable[str]) -> list[str]:
    """The lines after which a kernel is not as it should be, without their time stamps, in order."""
    return _sorted(lines)[0]


def stalls(lines: Iterable[str]) -> list[str]:
    """Lines that say that something did not get on, which a busy host alone can cause. None of them is in `wrong`."""
    return _sorted(lines)[1]


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


def since(shell: Shell) -> list[str]:
    """The lines of the guest's log since the last call that do not belong there, stalls too; the log is emptied.

    So nothing is lost when a test says more than the kernel's buffer holds, and what was said is known by its test.
    """
    log = shell.run("dmesg --read-clear", Deadline.patient(60)).expect().out.splitlines()
    return [*wrong(log), *stalls(log)]


def found(shell: Shell) -> list[str]:
    """Everything in the guest's log that does not belong there, stalls too, and every object that kmemleak finds lost.

    Takes two scans of the guest's memory where the kernel has kmemleak, which is slow under emulation.
    """
    lost: list[str] = []
    if shell.run(f"test -e {KMEMLEAK}", Deadline.patient(30)).status == 0:
        scan = f"echo scan >{KMEMLEAK}"
        twice = f"{scan} && sleep {MIN_AGE_SECONDS} && {scan}"
        shell.run(twice, Deadline.patient(SCAN_SECONDS)).expect()
        lost = leaked(shell.run(f"cat {KMEMLEAK}", Deadline.patient(SCAN_SECONDS)).expect().out)
    log = shell.run("dmesg", Deadline.patient(60)).expect().out.splitlines()
    return [*wrong(log), *stalls(log), *lost]
