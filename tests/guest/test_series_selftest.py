"""The series' own kernel selftest, in guests that have all it wants, that lack something, and that fail it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.analysis import ktap
from controller.analysis.ktap import Outcome, Report
from guest_kernel import identity, selftests
from provision.host import process
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.kernel_log import complaints

PROGRAM = "mm/migrate_on_fault"
IN_GUEST = "/run/migrate_on_fault"
DISK = "/run/files.ext4"
FILES = "/run/files"
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"
SECONDS = 900.0

MODE = "/proc/sys/vm/migrate_on_fault"
BALANCING = "/proc/sys/kernel/numa_balancing"

HAS_SWAP = {"flag.no_swap_no_unmapping": "there is swap space"}
FOR_ROOT = {
    "flag.accepted_with_move_all": "needs root",
    "anon.swap_slots_freed": "needs root",
    "anon.default_policy_follows": "needs root, or vm.migrate_on_fault = 2",
    "anon.switched_off": "needs root, or vm.migrate_on_fault = 0",
    "anon.pinned_stays": "needs root, debugfs and CONFIG_GUP_TEST",
    "anon.shared_unmapped_with_move_all": "needs root",
    "anon.merged_by_ksm": "needs root",
}
MOVING = {
    "anon.moved_by_reading",
    "anon.moved_by_writing",
    "anon.moved_by_query",
    "anon.only_touched_pages",
    "anon.interleaved",
    "anon.policy_of_task",
    "anon.counters",
    "anon.spliced_page_stays",
    "anon.pinned_stays",
    "anon.huge_page",
    "cached.file.moved_by_reading",
    "cached.shmem.moved_by_reading",
    "cache.file_on_fault",
    "cache.private_file_on_fault",
    "cache.shmem_on_fault",
    "cache.cached_file_on_fault",
}
"""Tests that cannot pass where a fault moves nothing. Those of pages that stay want to see them move in the end."""
STAYING = {
    "flag.refused_without_move",
    "flag.refused_with_unknown_bits",
    "flag.hole_as_with_move",
    "anon.unmapped",
    "anon.mlocked_stays",
    "anon.shared_stays_with_move",
}
"""Tests that have to pass there nevertheless."""


@pytest.fixture(scope="module")
def program() -> Path:
    """The static binary, from the tree of the patched kernel."""
    return selftests.ensure(Cache(), identity.parse("6.12-mof"), Silent()).program(PROGRAM)


@contextmanager
def prepared(
    work: Path, program: Path, *, kernel: str = "6.12-mof", topology: str = "4node", append: str = ""
) -> Iterator[Lab]:
    """A guest with the program and an ext4 file system, which must not have complained when it ends."""
    disk = work / "files.ext4"
    make = [process.find("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", str(disk), "16m"]
    process.run(make, deadline=Deadline.after(60))
    with opened(work, kernel=kernel, topology=topology, append=append) as lab:
        lab.shell.put(program, IN_GUEST)
        lab.shell.put(disk, DISK)
        mount = f"chmod 755 {IN_GUEST} && mkdir {FILES} && mount -o loop {DISK} {FILES} && chmod 1777 {FILES}"
        lab.run(mount).expect()
        yield lab
        assert not complaints(lab)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[Lab]:
    with prepared(tmp_path_factory.mktemp("selftest"), program) as lab:
        yield lab


@pytest.fixture
def settings(guest: Lab) -> Iterator[None]:
    """The switch as it is by default, and balancing off; the same again afterwards, whatever a test set."""
    default = f"echo 1 > {MODE} && echo 0 > {BALANCING}"
    guest.run(default).expect()
    yield
    guest.run(default).expect()


def ran(lab: Lab, *, user: str = "", folder: str = FILES) -> Report:
    """What the program reported, all of it: a result for each test that it announced, and no line out of place."""
    command = f"cd {folder} && TMPDIR={shlex.quote(folder)} {user} {IN_GUEST}"
    done = lab.run(command, SECONDS)
    report = ktap.parse(done.out)
    assert report.complete and not report.garbage, f"{done.out}\n{done.err}"
    if done.status != (Outcome.FAILED in {test.outcome for test in report.tests}):
        raise AssertionError(f"status {done.status}\n{done.out}\n{done.err}")
    return report


def names(report: Report, outcome: Outcome) -> set[str]:
    return {test.name for test in report.tests if test.outcome is outcome}


def skipped(report: Report) -> dict[str, str]:
    """Why a test was skipped, by its name."""
    return {test.name: test.reason for test in report.tests if test.outcome is Outcome.SKIPPED}


def test_everything_passes_as_root(guest: Lab, settings: None) -> None:
    report = ran(guest)
    assert names(report, Outcome.FAILED) == set()
    assert skipped(report) == HAS_SWAP
    assert names(report, Outcome.PASSED) >= MOVING | STAYING


def test_settings_are_put_back(guest: Lab, settings: None) -> None:
    guest.run(f"echo 2 > {MODE} && echo 1 > {BALANCING}").expect()
    during = guest.run(f"cd {FILES} && {IN_GUEST} -t switched_off -t default_policy_follows", SECONDS)
    assert names(ktap.parse(during.out), Outcome.PASSED) == {"anon.switched_off", "anon.default_policy_follows"}
    assert guest.run(f"cat {MODE} {BALANCING}").out.split() == ["2", "1"]


def test_as_nobody_it_skips_what_is_for_root(guest: Lab, settings: None) -> None:
    report = ran(guest, user=NOBODY)
    assert names(report, Outcome.FAILED) == set()
    assert skipped(report) == HAS_SWAP | FOR_ROOT


def test_as_nobody_it_does_not_insist_on_the_switch(guest: Lab, settings: None) -> None:
    guest.run(f"echo 0 > {MODE}").expect()
    report = ran(guest, user=NOBODY)
    assert names(report, Outcome.FAILED) == set()
    assert {why for name, why in skipped(report).items() if name not in HAS_SWAP | FOR_ROOT} == {
        "needs root, or vm.migrate_on_fault = 1"
    }
    assert guest.run(f"cat {MODE}").out.strip() == "0"


def test_without_swap_space_anonymous_pages_are_skipped(guest: Lab, settings: None) -> None:
    guest.run("cp /proc/swaps /run/swaps && swapoff -a").expect()
    try:
        report = ran(guest)
    finally:
        guest.run("tail -n +2 /run/swaps | while read -r device _; do swapon $device; done").expect()
    assert names(report, Outcome.FAILED) == set()
    anonymous = {test.name for test in report.tests if test.name.startswith("anon.")}
    assert len(anonymous) > 20
    assert skipped(report) == dict.fromkeys(anonymous, "no swap space")
    assert set(HAS_SWAP) <= names(report, Outcome.PASSED)


def test_on_tmpfs_files_are_skipped(guest: Lab, settings: None) -> None:
    report = ran(guest, folder="/tmp")
    assert names(report, Outcome.FAILED) == set()
    without = {name: why for name, why in skipped(report).items() if name not in HAS_SWAP}
    assert all("tmpfs" in why for why in without.values())
    assert set(without) == {test.name for test in report.tests if "file" in test.name}


def test_it_fails_where_faults_move_nothing(guest: Lab, settings: None) -> None:
    """A kernel that claims to be switched on and is not: the program reads and writes a file laid over the switch."""
    guest.run(f"echo 0 > {MODE} && echo 1 > /run/mode && mount --bind /run/mode {MODE}").expect()
    try:
        report = ran(guest)
    finally:
        guest.run(f"umount {MODE}").expect()
    assert names(report, Outcome.FAILED) >= MOVING
    assert names(report, Outcome.PASSED) >= STAYING


@pytest.mark.parametrize(
    ("kernel", "topology", "append", "reason"),
    [
        ("6.12-base", "4node", "", "kernel without CONFIG_MIGRATE_ON_FAULT"),
        ("6.12-mof", "4node", "numa=off", "needs two NUMA nodes with free memory, has 1"),
    ],
    ids=["unpatched", "one-node"],
)
def test_where_there_is_nothing_to_test_all_is_skipped(
    tmp_path: Path, program: Path, kernel: str, topology: str, append: str, reason: str
) -> None:
    with prepared(tmp_path, program, kernel=kernel, topology=topology, append=append) as lab:
        report = ran(lab)
    assert {test.outcome for test in report.tests} == {Outcome.SKIPPED}
    assert set(skipped(report).values()) == {reason}


def test_two_nodes_are_enough(tmp_path: Path, program: Path) -> None:
    with prepared(tmp_path, program, topology="2node") as lab:
        report = ran(lab)
    assert names(report, Outcome.FAILED) == set()
    assert skipped(report) == HAS_SWAP
