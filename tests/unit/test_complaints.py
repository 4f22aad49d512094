"""Which lines of a kernel's log do not belong there. The lines are made up after the formats of 6.12."""

from __future__ import annotations

from typing import cast

import pytest

from controller.complaints import found, leaked, stalls, wrong
from controller.shell import Result, Shell
from provision.host.deadline import Deadline


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 2 PID: 311 at mm/migrate.c:2960 unmap_folios_lazy+0x1f/0x30",
        "WARNING: possible circular locking dependency detected",
        "WARNING: inconsistent lock state",
        "WARNING: suspicious RCU usage",
        "WARNING: bad unlock balance detected!",
        "[ BUG: Invalid wait context ]",
        "BUG: sleeping function called from invalid context at include/linux/pagemap.h:1042",
        "BUG: Bad page state in process mixed  pfn:1a2b3",
        "BUG: Bad page map in process mixed  pte:800000001a2b3067 pmd:0a1b2067",
        "BUG: Bad rss-counter state mm:00000000deadbeef type:MM_SWAPENTS val:1",
        "BUG: non-zero pgtables_bytes on freeing mm: 4096",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "kernel BUG at mm/page_table_check.c:85!",
        "Oops: 0000 [#1] PREEMPT SMP",
        "Oops: general protection fault, probably for non-canonical address 0xdead000000000108",
        "list_add corruption. prev->next should be next (ffff8881), but was ffff8882. (prev=ffff8883).",
        "list_del corruption, ffff888012345678->next is LIST_POISON1 (dead000000000100)",
        "ODEBUG: free active (active state 0) object: ffff888012345678 object type: timer_list hint: 0x0",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "INFO: task mixed:311 blocked for more than 122 seconds.",
        "get_swap_device: Bad swap file entry 3ffffffffffff",
        "swap_free: Unused swap offset entry 00001234",
        "refcount_t: underflow; use-after-free.",
        "------------[ cut here ]------------",
        "Call Trace:",
        " <TASK>",
        "memtoy: page allocation failure: order:0, mode:0xcc0",
        "page dumped because: nonzero mapcount",
        "Out of memory: Killed process 311 (mixed)",
        "sysctl table check failed: vm/migrate_on_fault Not a file",
        "UBSAN: shift-out-of-bounds in mm/mempolicy.c:3:1",
        "initcall migrate_on_fault_init+0x0/0x20 returned with disabled interrupts",
        "memtoy[311]: segfault at 8 ip 000000000040112e",
        "kmemleak: 10 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "INFO: trying to register non-static key.",
        "mof: WARNING: a walk that stalls",
    ],
)
def test_what_does_not_belong_in_a_log(line: str) -> None:
    for stamp in ("[   71.002131] ", "[   71.002131][   T12] ", "<4>[   71.002131] "):
        log = ["[    0.000000] Linux version 6.12", f"{stamp}{line}", "[   80.1] all well"]
        assert (wrong(log), stalls(log)) == ([line], [])


@pytest.mark.parametrize(
    "line",
    [
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [mixed:311]",
        "BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 34s!",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "rcu: rcu_preempt kthread starved for 5252 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1",
        "INFO: rcu_tasks detected stalls on tasks:",
        "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:",
    ],
)
def test_what_a_busy_host_alone_can_cause_is_told_apart(line: str) -> None:
    log = [f"[    9.0] {line}", "[    9.1] BUG: Bad page state"]
    assert (stalls(log), wrong(log)) == ([line], ["BUG: Bad page state"])


@pytest.mark.parametrize(
    "line",
    [
        'PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug',
        "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        "debug: unmapping init [mem 0xffffffff82e00000-0xffffffff82ffffff]",
        "page_owner is disabled",
        "kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
        "kmemleak: Automatic memory scanning thread started",
        "ODEBUG: selftest passed",
        "rcu: RCU lockdep checking is enabled.",
        "debug_vm_pgtable: [debug_vm_pgtable         ]: Validating architecture page table helpers",
        "mixed (311): drop_caches: 3",
        "FAULT_INJECTION: forcing a failure.",
        "systemd[1]: Installed",
        "kprobes: kprobe jump-optimization is enabled. All kprobes are optimized if possible.",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
        "Kernel compiled without mitigations, ignoring 'mitigations'; system may still be vulnerable",
        "pci_bus 0000:00: Unknown NUMA node; performance will be reduced",
        "'struct module' btf id not found. Is CONFIG_MODULES enabled?",
        "mtrr: your CPUs had inconsistent fixed MTRR settings",
        "DEBUG_LOCKS: ready",
        "kmemleak: 0 new suspected memory leaks",
        "page dumped because: gup_test: dump_pages() test",
        "clocksource: Switched to clocksource tsc",
    ],
)
def test_what_does(line: str) -> None:
    assert wrong([f"[    1.2] {line}"]) == []
    assert stalls([f"[    1.2] {line}"]) == []


KMEMLEAK = """\
unreferenced object 0xffff888003a1c000 (size 64):
  comm "mixed", pid 311, jiffies 4294912345
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 0):
    kmalloc_trace+0x1d/0x30
    mpol_new+0x3a/0xb0
    do_mbind+0x11f/0x400
unreferenced object 0xffff888003a1c040 (size 64):
  comm "mixed", pid 312, jiffies 4294912399
  backtrace (crc 1f):
    [<00000000deadbeef>] mpol_new+0x3a/0xb0
"""


def test_each_lost_object_is_one_complaint_with_its_origin() -> None:
    first, second = leaked(KMEMLEAK)
    assert (
        first == "kmemleak: unreferenced object 0xffff888003a1c000 (size 64), from kmalloc_trace < mpol_new < do_mbind"
    )
    assert second.endswith("from mpol_new")
    assert leaked("") == []


class Guest:
    """Answers commands as a kernel without kmemleak does, with this log."""

    def __init__(self, log: str) -> None:
        self.log = log

    def run(self, command: str, deadline: Deadline) -> Result:
        if command.startswith("test -e"):
            return Result(command, 1, "", "")
        assert command == "dmesg"
        return Result(command, 0, self.log, "")


def test_stalls_count_where_a_guest_is_to_be_well() -> None:
    log = "[    1.0] all well\n[    9.0] rcu: INFO: rcu_preempt self-detected stall on CPU\n[    9.1] WARNING: late\n"
    told = found(cast(Shell, Guest(log)))
    assert sorted(told) == ["WARNING: late", "rcu: INFO: rcu_preempt self-detected stall on CPU"]
