"""What a build's output and a kernel's log are read for."""

from __future__ import annotations

import pytest

from controller.check import dmesg
from guest_kernel import check_warnings

WARNINGS = [
    "mm/migrate.c:2960:5: warning: unused variable ‘x’ [-Wunused-variable]",
    "../mm/mempolicy.c:35: warning: Function parameter or struct member 'how' not described in 'mpol_vma_misplaced'",
    "mm/memory.o: warning: objtool: do_swap_page+0x1b2: unreachable instruction",
    "ld: warning: vmlinux has a LOAD segment with RWX permissions",
    "WARNING: modpost: vmlinux: section mismatch in reference: a+0x5 (section: .text) -> b (section: .init.text)",
    "WARNING: unmet direct dependencies detected for MIGRATION",
    "WARN: resolve_btfids: unresolved symbol bpf_x",
    ".config:12:warning: override: reassigning to symbol SWAP",
    "Warning: Kernel ABI header at 'tools/include/uapi/linux/x.h' differs from latest version",
]


@pytest.mark.parametrize("line", WARNINGS)
def test_every_tool_s_warnings_are_seen(line: str) -> None:
    assert check_warnings.warnings([line]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "  CC      mm/migrate.o",
        "cc1: some warnings being treated as errors",
        "make[3]: warning:  Clock skew detected.  Your build may be incomplete.",
        "  CC      lib/warning.o",
    ],
)
def test_what_is_no_warning_of_the_source(line: str) -> None:
    assert check_warnings.warnings([line]) == []


def test_a_warning_that_has_moved_is_not_new() -> None:
    before = ["../mm/a.c:10:5: warning: x", "mm/a.o: warning: objtool: f+0x1b: y"]
    after = ["mm/a.c:99:1: warning: x", "mm/a.o: warning: objtool: f+0x20: y"]
    assert check_warnings.new(before, after) == []


def test_a_second_one_like_the_first_is_new_and_so_is_one_in_another_file() -> None:
    one = "mm/a.c:10:5: warning: x"
    assert check_warnings.new([one], [one, "mm/a.c:20:5: warning: x"]) == ["mm/a.c:20:5: warning: x"]
    assert check_warnings.new([one], ["mm/b.c:10:5: warning: x"]) == ["mm/b.c:10:5: warning: x"]
    assert check_warnings.new([one, one], []) == []


def test_what_failed_is_told_by_the_lines_that_say_so_or_else_by_the_last() -> None:
    lines = ["  CC      mm/a.o", "mm/a.c:1:9: error: no", "    1 | x", "make[3]: *** [mm/a.o] Error 1", ""]
    assert check_warnings.errors(lines) == ["mm/a.c:1:9: error: no", "make[3]: *** [mm/a.o] Error 1"]
    assert check_warnings.errors(["one", "two"]) == ["one", "two"]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.234567] WARNING: CPU: 2 PID: 311 at mm/migrate.c:2960 unmap_folios_lazy+0x1f/0x30",
        "[    1.234567][   T12] WARNING: possible circular locking dependency detected",
        "WARNING: suspicious RCU usage",
        "[   12.000000] BUG: Bad page state in process mixed  pfn:1a2b3",
        "[   12.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "[   12.000000] kernel BUG at mm/page_table_check.c:85!",
        "[   12.000000] ------------[ cut here ]------------",
        "[   12.000000] Oops: 0000 [#1] PREEMPT SMP",
        "[   12.000000] Call Trace:",
        "[   12.000000] INFO: task memtoy:311 blocked for more than 120 seconds.",
        "[   12.000000] list_del corruption, ffff888012345678->next is LIST_POISON1",
        "[   12.000000] refcount_t: underflow; use-after-free.",
        "[   12.000000] memtoy: page allocation failure: order:0, mode:0xcc0",
        "[   12.000000] sysctl table check failed: vm/migrate_on_fault Not a file",
        "[   12.000000] UBSAN: shift-out-of-bounds in mm/mempolicy.c:3:1",
        "[   12.000000] initcall migrate_on_fault_init+0x0/0x20 returned with disabled interrupts",
        "[   12.000000] memtoy[311]: segfault at 8 ip 000000000040112e",
        "[   12.000000] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ],
)
def test_complaints_of_a_kernel(line: str) -> None:
    assert len(dmesg.complaints([line])) == 1


@pytest.mark.parametrize(
    "line",
    [
        "[    0.433953] kprobes: kprobe jump-optimization is enabled. All kprobes are optimized if possible.",
        '[    0.796313] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug',
        "[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
        "[    0.000000] Kernel compiled without mitigations, ignoring 'mitigations'; system may still be vulnerable",
        "[    1.590950] pci_bus 0000:00: Unknown NUMA node; performance will be reduced",
        "[    3.903981] 'struct module' btf id not found. Is CONFIG_MODULES enabled?",
        "[    0.789296] mtrr: your CPUs had inconsistent fixed MTRR settings",
        "[    0.000000] DEBUG_LOCKS: ready",
        "[    5.000000] kmemleak: 0 new suspected memory leaks",
        "[    9.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [memtoy:311]",
        "[    9.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
    ],
)
def test_what_a_sound_kernel_says_or_one_on_a_busy_host(line: str) -> None:
    assert dmesg.complaints([line]) == []


def test_stalls_are_told_apart() -> None:
    lines = ["[    9.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!", "[ 9.1] BUG: Bad page state"]
    assert dmesg.stalls(lines) == ["watchdog: BUG: soft lockup - CPU#1 stuck for 26s!"]
    assert dmesg.complaints(lines) == ["BUG: Bad page state"]
