"""Which lines of a kernel's log are complaints.

The words are those of the functions named beside them, Linux 6.12. A line is looked at without its time stamp, and most
patterns begin where it does: processors' mitigations say "WARNING:" further right, and a PCI driver "report a bug".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STAMP = re.compile(r"^(?:<\d+>)?(?:\[ *\d+\.\d+\])?(?:\[ *[TC]\d+\])? ?")

_COMPLAINTS = tuple(
    re.compile(text)
    for text in (
        r"^WARNING: ",  # kernel/panic.c, __warn(); kernel/locking/lockdep.c; kernel/rcu/update.c
        r"^(?:BUG: |kernel BUG at )",  # lib/bug.c, mm/page_alloc.c bad_page(), kernel/fork.c check_mm(), lockdep
        r"^-+\[ cut here \]-+",  # kernel/panic.c
        r"\bOops: |general protection fault|Unable to handle ",  # arch/x86/kernel/dumpstack.c, traps.c
        r"^ ?(?:Call Trace:|<TASK>)",  # arch/x86/kernel/dumpstack.c: somebody called dump_stack()
        r"Kernel panic - not syncing",  # kernel/panic.c
        r"INFO: task \S+ blocked ",  # kernel/hung_task.c
        r"INFO: (?:trying to register|possible|inconsistent|lockdep)",  # kernel/locking/lockdep.c
        r"INFO: Slab |Object 0x|Padding overwritten",  # mm/slub.c
        r"\bBad (?:page|rss-counter)|page dumped because",  # mm/page_alloc.c, mm/debug.c, kernel/fork.c
        r"(?:list_add|list_del) corruption",  # lib/list_debug.c
        r"refcount_t: ",  # lib/refcount.c
        r"\b(?:KASAN|KCSAN|KMSAN|UBSAN|KFENCE): ",  # mm/kasan/report.c, lib/ubsan.c
        r"kmemleak: [1-9]\d* new suspected memory leaks",  # mm/kmemleak.c
        r"sleeping function called|scheduling while atomic|DEBUG_LOCKS_WARN_ON",  # kernel/sched/core.c, kernel/locking
        r"ODEBUG: ",  # lib/debugobjects.c
        r"page allocation failure",  # mm/page_alloc.c, warn_alloc()
        r"Out of memory: |invoked oom-killer",  # mm/oom_kill.c
        r"sysctl (?:table|duplicate)|cannot create duplicate filename|already registered",  # fs/proc, fs/sysfs
        r"unsafe access to|has unsafe dereference",  # kernel/trace/trace_events.c
        r"initcall \S+ (?:returned with|failed)",  # init/main.c
        r"segfault at|trap invalid opcode",  # arch/x86/mm/fault.c: a program of the image, with a sound kernel never
    )
)

# They may be the host's doing: an emulated processor that gets no time.
_STALLS = tuple(
    re.compile(text)
    for text in (
        r"^(?:watchdog: )?BUG: (?:soft|workqueue) lockup",  # kernel/watchdog.c, kernel/workqueue.c
        r"rcu: INFO: .*stall|rcu: .* kthread starved",  # kernel/rcu/tree_stall.h
        r"^clocksource: .*(?:unstable|Marking)",  # kernel/time/clocksource.c
    )
)


def _plain(line: str) -> str:
    return _STAMP.sub("", line.rstrip())


def complaints(lines: Iterable[str]) -> list[str]:
    """The lines after which a kernel is not as it should be, without their time stamps, in order."""
    found = []
    for line in lines:
        text = _plain(line)
        if any(p.search(text) for p in _STALLS):
            continue
        if any(p.search(text) for p in _COMPLAINTS):
            found.append(text)
    return found


def stalls(lines: Iterable[str]) -> list[str]:
    """Lines that say that something did not get on, which a busy host alone can cause."""
    return [text for line in lines if any(p.search(text := _plain(line)) for p in _STALLS)]
