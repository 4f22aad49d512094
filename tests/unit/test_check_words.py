"""What a build's output is read for."""

from __future__ import annotations

import pytest

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
