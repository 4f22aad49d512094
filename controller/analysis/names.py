"""What the kernel's numbers are called. From 6.12 with the series; each table names its header."""

from __future__ import annotations

import errno

from controller.analysis.model import Mechanism

MIGRATE_REASONS = (
    "compaction", "memory_failure", "memory_hotplug", "syscall", "mempolicy_mbind", "numa_misplaced", "contig_range",
    "longterm_pin", "demotion", "damon", "migrate_on_fault",
)  # fmt: skip
"""enum migrate_reason, include/linux/migrate_mode.h; the last is the series'."""
MR_SYSCALL, MR_MBIND, MR_BALANCING, MR_ON_FAULT = 3, 4, 5, 10

BY_REASON = {
    MR_SYSCALL: Mechanism.MANUAL,
    MR_MBIND: Mechanism.DIRECT,
    MR_BALANCING: Mechanism.BALANCING,
    MR_ON_FAULT: Mechanism.LAZY,
}

MIGRATE_MODES = ("async", "sync_light", "sync")
"""enum migrate_mode, same header."""

MOF_RESULTS = (
    "migrated", "well_placed", "mapped", "writeback", "not_uptodate", "foreign", "mlocked", "ksm", "will_copy",
    "default_policy", "off_lru", "extra_refs", "no_memory", "failed", "hwpoison", "shared_exec", "migrated_around",
    "cpuset_off",
)  # fmt: skip
"""enum mof_result of the series, include/linux/migrate_on_fault.h."""
MOF_MIGRATED, MOF_WELL_PLACED, MOF_MIGRATED_AROUND = 0, 1, 16
MOF_MOVED = (MOF_MIGRATED, MOF_MIGRATED_AROUND)
"""The results that say that the page is on another node now."""

POLICIES = ("default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted-interleave")
"""MPOL_*, include/uapi/linux/mempolicy.h."""

ORIGINS = ("nobody", "default", "the task", "mbind")
"""enum mpol_origin of the series: who set the policy that was asked."""

MF_STRICT, MF_MOVE, MF_MOVE_ALL, MF_LAZY = 1, 2, 4, 8
"""MPOL_MF_*, include/uapi/linux/mempolicy.h."""
MF_NAMES = ((MF_STRICT, "STRICT"), (MF_MOVE, "MOVE"), (MF_MOVE_ALL, "MOVE_ALL"), (MF_LAZY, "LAZY"))

F_NODE, F_ADDR = 1, 2
"""MPOL_F_*, same header."""

FAULT_WRITE, FAULT_REMOTE, FAULT_USER = 1 << 0, 1 << 7, 1 << 6
"""enum fault_flag, include/linux/mm_types.h."""
VM_FAULT_NAMES = (
    (0x1, "OOM"), (0x2, "SIGBUS"), (0x4, "major: read from the swap device"), (0x40, "SIGSEGV"), (0x100, "nopage"),
    (0x400, "retry"), (0x1000, "copied"), (0x4000, "completed"),
)  # fmt: skip
"""enum vm_fault_reason, same header; those that do_swap_page() returns."""


def reason(number: int) -> str:
    return MIGRATE_REASONS[number] if 0 <= number < len(MIGRATE_REASONS) else f"reason {number}"


def mof_result(number: int) -> str:
    return MOF_RESULTS[number] if 0 <= number < len(MOF_RESULTS) else f"result {number}"


def policy(mode: int) -> str:
    """The policy's name; mode flags (the upper bits) are left out."""
    number = mode & 0xFFF
    return POLICIES[number] if number < len(POLICIES) else f"policy {number}"


def move_flags(flags: int) -> str:
    """MPOL_MF_* joined by |; empty for none."""
    return "|".join(name for bit, name in MF_NAMES if flags & bit)


def error(result: int) -> str:
    """The name of a negative result: EAGAIN for -11."""
    return errno.errorcode.get(-result, str(result))


def nodes_in(mask: int) -> str:
    """A node mask in words: `node 2`, `nodes 1,2`, or nothing."""
    listed = [str(n) for n in range(64) if mask >> n & 1]
    return f"node{'s' if len(listed) > 1 else ''} {','.join(listed)}" if listed else ""
