"""Which lines of a kernel's log do not belong there. The lines are made up after the formats of 6.12."""

from __future__ import annotations

import pytest

from controller.complaints import leaked, wrong


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
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [mixed:311]",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "get_swap_device: Bad swap file entry 3ffffffffffff",
        "swap_free: Unused swap offset entry 00001234",
        "refcount_t: underflow; use-after-free.",
    ],
)
def test_what_does_not_belong_in_a_log(line: str) -> None:
    stamped = f"[   71.002131] {line}"
    assert wrong(["[    0.000000] Linux version 6.12", stamped, "[   80.1] all well"]) == [stamped]


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
        "Call Trace:",
        "systemd[1]: Installed",
        "page allocation failure: order:0, mode:0x140dca",
    ],
)
def test_what_does(line: str) -> None:
    assert wrong([f"[    1.2] {line}"]) == []


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
