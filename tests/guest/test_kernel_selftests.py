"""Nothing else broke: the kernel's own tests come out the same with and without the series.

All of it takes many minutes: `pytest -m long` runs this, `mof kernel selftest` those that take longer still.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import selftests
from controller.analysis.ktap import Outcome
from controller.selftests import Case, Compared
from controller.shell import Shell
from guest_kernel import identity
from guest_kernel import selftests as programs
from provision.host.cache import Cache
from provision.host.progress import Silent
from tests.guest.conftest import opened

pytestmark = pytest.mark.long

AT_LEAST = 800
"""Subtests that pass on each kernel, most of them of `cow`: fewer, and something that they need is missing."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    @contextmanager
    def opener(kernel: str) -> Iterator[Shell]:
        with opened(tmp_path_factory.mktemp("selftests"), kernel=kernel) as lab:
            yield lab.shell

    built = programs.ensure(Cache(), identity.parse("6.12-mof"), Silent())
    return selftests.compared(opener, built, selftests.chosen(quick=True))


def test_both_kernels_give_the_same_results(found: Compared) -> None:
    assert found.differences == [], "\n".join(map(str, found.differences))


def test_the_tests_of_the_series_itself_pass(found: Compared) -> None:
    assert [one for one in found.added if one.outcome is not Outcome.PASSED] == []


@pytest.mark.parametrize("kernel", ["base", "patched"])
def test_most_of_it_was_tested_and_not_skipped(found: Compared, kernel: str) -> None:
    results = [runs[0] for runs in getattr(found, kernel).values()]
    assert sum(one.count(Outcome.PASSED) for one in results) >= AT_LEAST
    skipped = [one.case for one in results if one.outcome is Outcome.SKIPPED]
    assert skipped == [], "programs that found nothing to test"
    crashed = [(one.case, one.status, one.tail) for one in results if one.outcome is Outcome.CRASHED]
    assert crashed == []


def test_neither_kernel_complained(found: Compared) -> None:
    assert found.base
    assert found.complaints == ()


def test_a_program_that_fails_is_seen_to_fail(tmp_path: Path) -> None:
    """One that wants the superuser, run as somebody else."""
    case = Case("mm/split_huge_page_test", user="nobody", seconds=60)
    built = programs.ensure(Cache(), identity.parse("6.12-mof"), Silent())
    with opened(tmp_path) as lab:
        selftests.install(lab.shell, built, [case])
        result = selftests.run_case(lab.shell, case)
    assert result.outcome in (Outcome.FAILED, Outcome.CRASHED), result
