"""What runs of the kernel's selftests mean, which of them differ, and which programs are built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from controller import complaints, selftests
from controller.analysis.ktap import Outcome
from controller.selftests import CASES, Case, Compared, Reader, Result, compare, interpret
from controller.shell import Shell
from guest_kernel import selftests as programs
from guest_kernel import series
from guest_kernel.selftests import CHOSEN, LEFT_OUT, Selftests

OK, BAD, SKIP, DEAD = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.CRASHED
KTAP = Case("mm/cow")


def result(outcome: Outcome = OK, **subtests: Outcome) -> Result:
    return Result("cow", outcome, 0, subtests)


@pytest.mark.parametrize(
    ("status", "out", "outcome"),
    [
        (0, "1..1\nok 1 a\n", OK),
        (1, "1..1\nok 1 a\n", BAD),  # says that all is well, and ends as if it were not
        (1, "1..1\nnot ok 1 a\n", BAD),
        (4, "1..0 # SKIP no such kernel\n", SKIP),
        (4, "no plan at all\n", SKIP),
        (0, "1..2\nok 1 a\n", DEAD),
        (139, "1..1\nok 1 a\n", DEAD),
        (1, "", DEAD),
    ],
)
def test_a_program_s_result_needs_its_output_and_its_status(status: int, out: str, outcome: Outcome) -> None:
    assert interpret(KTAP, status, out).outcome is outcome


def test_a_program_that_did_not_end_crashed_and_keeps_what_it_said() -> None:
    found = interpret(KTAP, 143, "1..2\nok 1 a\n", timed_out=True)
    assert (found.outcome, found.subtests) == (DEAD, {"a": OK})


UFFD = """\
Testing UFFDIO_API (with syscall)... done
Testing wp-fork on shmem... skipped [reason: feature missing]
Testing move on anon... failed [reason: not the same (0x1 != 0x2)]
Testing pagemap on anon... Bus error
"""


def test_userfaultfd_s_own_words() -> None:
    assert selftests.uffd_subtests(UFFD) == {
        "UFFDIO_API (with syscall)": OK,
        "wp-fork on shmem": SKIP,
        "move on anon": BAD,
        "pagemap on anon": DEAD,
    }
    case = Case("mm/uffd-unit-tests", reader=Reader.UFFD)
    assert interpret(case, 1, UFFD).outcome is DEAD
    assert interpret(case, 0, "Userfaults unit tests: pass=0, skip=0, fail=0 (total=0)\n").outcome is DEAD
    assert interpret(case, 0, "Testing wp on anon... skipped [reason: feature missing]\n").outcome is SKIP
    assert interpret(case, 0, "Testing wp on anon... done\n").outcome is OK


KHUGEPAGED = """\
Save THP and khugepaged settings... \x1b[32mOK\x1b[0m

Run test: collapse_full (khugepaged:anon)
Collapse four PTE tables.... \x1b[32mOK\x1b[0m
Check page contents... \x1b[31mFail\x1b[0m

Run test: collapse_empty (madvise:anon)
Do not collapse. \x1b[32mOK\x1b[0m

Run test: collapse_swapin_single_pte (madvise:anon)
Swap out one page... \x1b[33mSkip\x1b[0m

Run test: collapse_fork (madvise:anon)
Allocate
"""


def test_khugepaged_s_own_words() -> None:
    assert selftests.khugepaged_subtests(KHUGEPAGED) == {
        "collapse_full (khugepaged:anon)": BAD,
        "collapse_empty (madvise:anon)": OK,
        "collapse_swapin_single_pte (madvise:anon)": SKIP,
        "collapse_fork (madvise:anon)": DEAD,
    }


def test_the_same_is_no_difference_even_where_it_is_bad() -> None:
    found = compare([result(BAD, a=OK, b=BAD, c=SKIP)], [result(BAD, a=OK, b=BAD, c=SKIP)])
    assert found == selftests.Comparison()


@pytest.mark.parametrize("other", [result(a=BAD), result(a=SKIP), result(a=DEAD), result()])
def test_what_changes_or_vanishes_differs_either_way(other: Result) -> None:
    (one,) = compare([result(a=OK)], [other]).differences
    assert (one.subtest, one.base) == ("a", (OK,))
    (back,) = compare([other], [result(a=OK)]).differences
    assert back.patched == (OK,)


def test_the_program_as_a_whole_counts_as_well() -> None:
    (one,) = compare([result(OK, a=OK)], [result(DEAD, a=OK)]).differences
    assert (one.subtest, one.patched) == ("", (DEAD,))
    assert str(one) == "cow: passed on the unpatched kernel, crashed on the patched one"


def test_what_was_seen_on_both_is_unsteady_and_not_different() -> None:
    found = compare([result(a=OK), result(a=BAD)], [result(a=BAD)])
    assert found.differences == ()
    assert [(one.base, one.patched) for one in found.unsteady] == [((OK, BAD), (BAD,))]
    always = compare([result(a=OK), result(a=OK)], [result(a=BAD), result(a=BAD), result(a=BAD)])
    assert len(always.differences) == 1


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two kernels on which a test's outcomes are taken from lists; the last one stays."""
    state: dict[str, Any] = {"opened": [], "patience": [], "said": {}, "6.12-base": [OK], "6.12-mof": [OK]}
    state["6.12-mof-debug"] = [OK]

    @contextmanager
    def opener(kernel: str) -> Iterator[Shell]:
        state["opened"].append(kernel)
        yield cast(Shell, kernel)

    def run_case(shell: Shell, case: Case, patience: float) -> Result:
        state["patience"].append(patience)
        left = state[cast(str, shell)]
        return Result(case.name, OK, 0, {"a": left.pop(0) if len(left) > 1 else left[0]})

    def install(*_: object) -> None: ...

    monkeypatch.setattr(selftests, "run_case", run_case)

    def said(shell: Shell) -> list[str]:
        left: list[list[str]] = state["said"].get(shell, [])
        return left.pop(0) if left else []

    monkeypatch.setattr(selftests, "install", install)
    monkeypatch.setattr(complaints, "since", said)
    monkeypatch.setattr(complaints, "found", said)
    state["run"] = lambda **how: selftests.compared(opener, Selftests(Path(), (), ()), [KTAP], **how)
    return state


def test_what_agrees_is_run_once_on_each(kernels: dict[str, Any]) -> None:
    found: Compared = kernels["run"]()
    assert kernels["opened"] == ["6.12-base", "6.12-mof"]
    assert (found.differences, found.unsteady) == ([], [])
    assert [len(runs) for runs in (found.base["cow"], found.patched["cow"])] == [1, 1]


def test_what_fails_by_chance_is_run_again_where_it_failed(kernels: dict[str, Any]) -> None:
    kernels["6.12-mof"] = [BAD, OK]
    found: Compared = kernels["run"]()
    assert found.differences == []
    assert [one.patched for one in found.unsteady] == [(BAD, OK)]
    assert kernels["opened"] == ["6.12-base", "6.12-mof"]


def test_what_failed_by_chance_on_the_unpatched_kernel_is_run_again_there(kernels: dict[str, Any]) -> None:
    kernels["6.12-base"] = [BAD, OK]
    found: Compared = kernels["run"]()
    assert (found.differences, len(found.unsteady)) == ([], 1)
    assert kernels["opened"] == ["6.12-base", "6.12-mof", "6.12-base"]


def test_what_always_differs_is_run_thrice_on_each_and_differs(kernels: dict[str, Any]) -> None:
    kernels["6.12-mof"] = [BAD]
    found: Compared = kernels["run"]()
    assert [(one.base, one.patched) for one in found.differences] == [((OK,) * 3, (BAD,) * 3)]
    assert "| `cow` | 1 / 0 / 0 | 0 / 1 / 0 | **differs** |" in selftests.table(found)


def test_what_a_kernel_complains_of_is_known_by_the_test_after_which_it_stood(kernels: dict[str, Any]) -> None:
    kernels["said"] = {"6.12-base": [[], ["BUG: one"]], "6.12-mof": [["BUG: two"], [], ["kmemleak: three"]]}
    found: Compared = kernels["run"]()
    assert found.differences == []
    assert found.complaints == (
        "6.12-base: cow: BUG: one",
        "6.12-mof: boot: BUG: two",
        "6.12-mof: at the end: kmemleak: three",
    )


def test_a_debug_kernel_is_given_more_time(kernels: dict[str, Any]) -> None:
    kernels["run"](patched="6.12-mof-debug")
    assert kernels["patience"] == [1.0, selftests.DEBUG_PATIENCE]


def test_each_program_is_run_and_only_those_that_are_built() -> None:
    assert {case.program for case in selftests.chosen(quick=False)} == set(CHOSEN)
    assert {case.program for case in selftests.chosen(quick=True)} <= set(CHOSEN)
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert not set(CHOSEN) & set(LEFT_OUT)
    assert all(LEFT_OUT.values())


MAKEFILE = """\
TEST_GEN_FILES = cow
TEST_GEN_FILES += ksm_tests
ifneq ($(ARCH),arm64)
TEST_GEN_FILES += soft-dirty
endif
VMTARGETS := protection_keys
VMTARGETS += pkey_sighandler_tests
TEST_GEN_FILES += $(BINARIES_64)
TEST_GEN_FILES += protection_keys
TEST_PROGS := run_vmtests.sh
TEST_FILES := test_vmalloc.sh
"""


def test_what_a_makefile_offers() -> None:
    assert programs.offered(MAKEFILE) == {
        "mm/cow",
        "mm/ksm_tests",
        "mm/soft-dirty",
        "mm/protection_keys_64",
        "mm/pkey_sighandler_tests_64",
    }


PATCH = """\
Subject: [PATCH] selftests/mm: try it

--- a/tools/testing/selftests/mm/Makefile
+++ b/tools/testing/selftests/mm/Makefile
@@ -1,3 +1,4 @@
 TEST_GEN_FILES += migration
+TEST_GEN_FILES += migrate_on_fault
--- /dev/null
+++ b/tools/testing/selftests/mm/migrate_on_fault.c
@@ -0,0 +1 @@
+int main(void) { return 0; }
--- /dev/null
+++ b/tools/testing/selftests/mm/helper.c
@@ -0,0 +1 @@
+int helper;
"""


def patch(folder: Path, name: str, text: str) -> series.Patch:
    path = folder / name
    path.write_text(text)
    return series.Patch(path, name)


def test_programs_that_a_patch_adds_are_found(tmp_path: Path) -> None:
    assert programs.added((patch(tmp_path, "1.patch", PATCH),)) == ("mm/migrate_on_fault",)
    assert programs.added((patch(tmp_path, "2.patch", "--- a/mm/migrate.c\n+++ b/mm/migrate.c\n"),)) == ()


def test_only_patches_that_tests_are_made_of_decide_about_them(tmp_path: Path) -> None:
    core = patch(tmp_path, "1.patch", "--- a/mm/migrate.c\n+++ b/mm/migrate.c\n")
    header = patch(tmp_path, "2.patch", "--- a/x\n+++ b/include/uapi/linux/mempolicy.h\n")
    own = patch(tmp_path, "3.patch", PATCH)
    assert programs.relevant((core, header, own)) == (header, own)
