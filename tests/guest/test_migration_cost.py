"""The costs of migration as they are counted in a guest: what is measured is what its name says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller.bench import migration, migration_guest
from controller.bench.migration import COPY, SIZES, Measured, Variant
from controller.bench.migration_guest import Bed
from controller.workloads import program
from guest_kernel import identity
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Silent

_, EIGHT, _, _, THP = SIZES


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Of the patched kernel on the processor that copies by `rep movsb`."""
    with migration_guest.bed(Cache(), identity.parse("6.12-mof"), migration.FEATURES, Silent()) as found:
        yield found


@pytest.fixture(scope="module")
def eight(bed: Bed) -> Measured:
    return migration_guest._measure(bed, Variant.AFTER, EIGHT)


def test_the_processor_has_the_feature(bed: Bed) -> None:
    with bed.fork() as shell:
        flags = shell.run("grep -m1 ^flags /proc/cpuinfo", Deadline.patient(60)).expect().out.split()
    assert set(migration.FEATURES) <= set(flags)
    assert "avx" not in flags  # else it is not the model that the figures name


def test_eight_pages(eight: Measured) -> None:
    assert eight.why == {}
    assert eight.lazy.early == 0
    assert eight.direct.early == EIGHT.pages
    assert eight.refault is not None
    # A page that is moved is copied, by whom it may: a mark or a refault that copied would be dearer than that.
    copies = EIGHT.pages * COPY
    assert eight.direct.mbind > copies > eight.lazy.mbind
    assert eight.lazy.touching > copies > eight.refault.touching > EIGHT.pages * 300


def test_a_huge_page_is_huge(bed: Bed) -> None:
    one = migration_guest._measure(bed, Variant.AFTER, THP)
    # Little beside the copies: 512 pages moved one by one would be dearer by half.
    assert THP.pages * COPY < one.direct.mbind < 1.2 * THP.pages * COPY


def test_ordinary_swap_faults(bed: Bed) -> None:
    tool = program.ensure(Cache(), "swapfault", Silent())
    found = migration_guest._swap_faults(bed, tool)
    # Reading takes a page and fills it; finding it in the cache does neither.
    assert 300 < found["cache"] < found["device"] < 20_000


def test_without_swap_there_is_no_swap_fault(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_guest, "SWAP_ON", "swapoff -a")
    with pytest.raises(InfraError, match="is there swap"):
        migration_guest._swap_faults(bed, program.ensure(Cache(), "swapfault", Silent()))
