"""Who decides whether pages move: cpusets, of both generations, and memory that follows its task."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from controller.workloads import program
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.files import setting
from tests.guest.kernel_log import complaints

EINVAL, EACCES = 22, 13
PAGES = 8
MANY = 4096
"""16 MB: sixteen steps of the walk that makes memory follow."""
STEP = 256
PER_SECOND = 8192
"""A step's pages and a second's at most, as mm/migrate_follow.c of the series has them."""
ENOUGH = MANY * 9 // 10
"""Some pages stay: those that another CPU has in a batch on their way to the LRU."""
QUIET_SECONDS = 3
"""Of the task's own CPU time; memory starts to follow after one second."""
PATIENCE = 900.0
V2 = "/sys/fs/cgroup"
V1 = "/run/mof-cpuset"
TRACING = "/sys/kernel/tracing"


@dataclass(frozen=True)
class Hierarchy:
    """A cpuset hierarchy: the folder of its root, and whether cpuset.cpus and cpuset.mems are empty in a new cpuset."""

    root: str
    empty: bool


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A guest of its own, because cpuset changes hierarchies in it; it must not have complained when it ends."""
    with opened(tmp_path_factory.mktemp("control")) as lab:
        lab.shell.put(program.ensure(Cache(), "control", Silent()), "/run/control")
        lab.run("echo 0 > /proc/sys/kernel/numa_balancing && echo 1 > /proc/sys/vm/migrate_on_fault").expect()
        yield lab
        assert not complaints(lab)


def steps(lab: Lab, *wanted: str, seconds: float = PATIENCE) -> list[dict[str, Any]]:
    """What the steps of /run/control answered; all of them went well."""
    done = lab.run(f"/run/control {shlex.join(wanted)}", seconds).expect()
    return [json.loads(line) for line in done.out.splitlines()]


def only(answers: list[dict[str, Any]], step: str) -> list[dict[str, Any]]:
    return [a for a in answers if a["step"] == step]


def nodes(answers: list[dict[str, Any]]) -> list[dict[str, int]]:
    """What each `where` said, after every `touch` found the contents intact."""
    assert all(a["mismatches"] == 0 for a in only(answers, "touch")), answers
    return [a["nodes"] for a in only(answers, "where")]


def refused(lab: Lab, text: str, path: str, user: int = 0) -> int:
    """The errno of one write(), 0 when it was taken."""
    who = f"setpriv --reuid={user} --clear-groups " if user else ""
    done = lab.run(f"{who}/run/control {shlex.quote(f'write={text}:{path}')}")
    return int(json.loads(done.out).get("errno", 0))


def value(lab: Lab, folder: str) -> str:
    return lab.run(f"cat {folder}/cpuset.migrate_on_fault").expect().out.strip()


def counter(lab: Lab, name: str) -> int:
    lab.run("echo 1 > /proc/sys/vm/stat_refresh").expect()
    return int(lab.run(f"awk '$1 == \"{name}\" {{print $2}}' /proc/vmstat").expect().out)


def until(lab: Lab, command: str) -> None:
    """Repeat a command of the guest until it succeeds: cgroups are taken apart in the background."""
    deadline = Deadline.after(120)
    while lab.run(command).status != 0:
        assert not deadline.passed, lab.run(command)


def mounted(lab: Lab) -> Hierarchy:
    until(lab, f"mkdir -p {V1} && mount -t cgroup -o cpuset none {V1}")
    return Hierarchy(V1, True)


def unmounted(lab: Lab) -> None:
    """The controller goes back to the other hierarchy some time after the mount is gone.

    Not after a mount that went while a removed cgroup was still being taken apart: only a later one starts to take the
    hierarchy apart then (kernel/cgroup/cgroup.c, cgroup_kill_sb()).
    """
    back = "awk '$1 == \"cpuset\" {exit $2 != 0}' /proc/cgroups && grep -qw cpuset /sys/fs/cgroup/cgroup.controllers"
    mounted_ = f"mountpoint -q {V1} || mount -t cgroup -o cpuset none {V1}"
    until(lab, f"{back} || {{ {{ {mounted_}; }} && umount {V1} && sleep 0.2 && {back}; }}")


@pytest.fixture(params=["v1", "v2"])
def hierarchy(guest: Lab, request: pytest.FixtureRequest) -> Iterator[Hierarchy]:
    if request.param == "v1":
        yield mounted(guest)
        unmounted(guest)
    else:
        guest.run(f"echo +cpuset > {V2}/cgroup.subtree_control").expect()
        yield Hierarchy(V2, False)
        until(guest, f"echo -cpuset > {V2}/cgroup.subtree_control")


@pytest.fixture
def make(guest: Lab, hierarchy: Hierarchy) -> Iterator[Callable[[str], str]]:
    """Makes a cpuset of all CPUs and nodes, and gives its folder; all are removed at the end."""
    made: list[str] = []

    def new(name: str) -> str:
        folder = f"{hierarchy.root}/{name}"
        guest.run(f"mkdir {folder}").expect()
        made.append(folder)
        if hierarchy.empty:
            guest.run(f"cd {folder} && echo 0-3 > cpuset.cpus && echo 0-3 > cpuset.mems").expect()
        elif "/" in name:
            # Enabled in the parent only now that it has a child: which starts with what the parent says at that time.
            guest.run(f"echo +cpuset > {folder}/../cgroup.subtree_control").expect()
        return folder

    yield new
    for folder in reversed(made):
        until(guest, f"rmdir {folder}")


LAZY = (f"map={PAGES}", "cpu=1", "bind=1", "fill", "lazy=2")
"""Pages of node 1 that are to be on node 2, and are in no page table."""
STAYED, MOVED = [{"1": PAGES}], [{"2": PAGES}]


def test_a_cpuset_starts_with_what_its_parent_says(guest: Lab, make: Callable[[str], str]) -> None:
    parent = make("parent")
    assert value(guest, parent) == "1"
    early = make("parent/early")
    assert refused(guest, "0", f"{parent}/cpuset.migrate_on_fault") == 0
    late = make("parent/late")
    assert [value(guest, f) for f in (parent, early, late)] == ["0", "1", "0"]


def test_the_root_has_the_file_only_in_the_legacy_hierarchy(guest: Lab, hierarchy: Hierarchy) -> None:
    there = guest.run(f"test -e {hierarchy.root}/cpuset.migrate_on_fault").status == 0
    assert there == (hierarchy.root == V1)


@pytest.mark.parametrize("text", ["2", "-1", "x", "01x", "18446744073709551616"])
def test_what_is_not_a_flag_is_refused(guest: Lab, make: Callable[[str], str], text: str) -> None:
    file = f"{make('strict')}/cpuset.migrate_on_fault"
    with_zero = refused(guest, "0", file)
    assert (with_zero, refused(guest, text, file) != 0, guest.run(f"cat {file}").out) == (0, True, "0\n")
    if text in ("2", "-1", "x"):
        assert refused(guest, text, file) == EINVAL


def test_who_owns_the_file_may_write_it(guest: Lab, make: Callable[[str], str]) -> None:
    folder = make("owned")
    file = f"{folder}/cpuset.migrate_on_fault"
    modes = guest.run(f"stat -c '%a %u %g' {file} {folder}/cpuset.mems").expect().out.splitlines()
    assert modes[0] == modes[1]
    assert refused(guest, "0", file, user=1000) == EACCES
    guest.run(f"chown 1000 {file}").expect()
    assert refused(guest, "0", file, user=1000) == 0
    assert value(guest, folder) == "0"


@pytest.mark.parametrize(("flag", "expected"), [("1", MOVED), ("0", STAYED)])
def test_off_means_that_a_page_comes_back_where_it_was(
    guest: Lab, make: Callable[[str], str], flag: str, expected: list[dict[str, int]]
) -> None:
    folder = make("job")
    moved = counter(guest, "pgmigrate_on_fault")
    answers = steps(
        guest, f"write={flag}:{folder}/cpuset.migrate_on_fault", f"join={folder}", *LAZY, "state", "touch", "where"
    )
    assert only(answers, "state")[0]["swapped"] == PAGES
    assert nodes(answers) == expected
    assert counter(guest, "pgmigrate_on_fault") - moved == (PAGES if expected == MOVED else 0)


def test_the_tracepoint_says_that_it_was_the_cpuset(guest: Lab, make: Callable[[str], str]) -> None:
    folder = make("traced")
    event = f"{TRACING}/events/migrate/mm_migrate_on_fault/enable"
    guest.run(f"echo > {TRACING}/trace; echo 1 > {event}").expect()
    steps(guest, f"write=0:{folder}/cpuset.migrate_on_fault", f"join={folder}", *LAZY, "touch")
    guest.run(f"echo 0 > {event}").expect()
    lines = guest.run(f"grep -c 'src_nid=1.*result=cpuset_off' {TRACING}/trace").out
    assert int(lines) == PAGES


def test_a_change_counts_at_once_for_the_tasks_that_are_there(guest: Lab, make: Callable[[str], str]) -> None:
    folder = make("changed")
    file = f"{folder}/cpuset.migrate_on_fault"
    off, on = (f"sh=echo {flag} > {file}" for flag in "01")
    answers = steps(guest, f"join={folder}", *LAZY, off, "touch", "where", "lazy=2", on, "touch", "where")
    assert nodes(answers) == [*STAYED, *MOVED]


def test_a_task_that_is_moved_takes_the_flag_of_its_new_cpuset(guest: Lab, make: Callable[[str], str]) -> None:
    forbids, allows = make("forbids"), make("allows")
    off = f"write=0:{forbids}/cpuset.migrate_on_fault"
    answers = steps(
        guest,
        off,
        f"join={allows}",
        *LAZY,
        f"join={forbids}",
        "touch",
        "where",
        "lazy=2",
        f"join={allows}",
        "touch",
        "where",
    )
    assert nodes(answers) == [*STAYED, *MOVED]


def test_a_child_inherits_and_keeps_it_when_its_parent_leaves(
    guest: Lab, hierarchy: Hierarchy, make: Callable[[str], str]
) -> None:
    folder = make("family")
    off = f"write=0:{folder}/cpuset.migrate_on_fault"
    leave = f"sh=echo $(awk '/^PPid/ {{print $2}}' /proc/$PPID/status) > {hierarchy.root}/cgroup.procs"
    answers = steps(guest, off, f"join={folder}", "fork", leave, *LAZY, "touch", "where")
    assert [a["status"] for a in only(answers, "sh")] == [0]
    assert nodes(answers) == STAYED


def test_the_sysctl_is_the_upper_limit(guest: Lab, make: Callable[[str], str]) -> None:
    folder = make("limited")
    assert value(guest, folder) == "1"
    with setting(guest, "/proc/sys/vm/migrate_on_fault", 0):
        answers = steps(guest, f"join={folder}", *LAZY, "touch", "where")
    assert nodes(answers) == STAYED


@pytest.fixture
def v2(guest: Lab) -> Iterator[str]:
    """A cgroup with a child, both with the controller; the child forbids."""
    folder = f"{V2}/outer"
    guest.run(
        f"echo +cpuset > {V2}/cgroup.subtree_control && mkdir -p {folder}/inner && cd {folder} &&"
        " echo +cpuset > cgroup.subtree_control && echo 0 > inner/cpuset.migrate_on_fault"
    ).expect()
    yield folder
    for last in (f"{folder}/inner", folder):
        until(guest, f"rmdir {last}")
    until(guest, f"echo -cpuset > {V2}/cgroup.subtree_control")


def test_a_child_that_is_born_into_another_cgroup_takes_its_flag(guest: Lab, v2: str) -> None:
    answers = steps(guest, f"into={v2}/inner", *LAZY, "touch", "where")
    assert nodes(answers) == STAYED
    answers = steps(guest, f"join={v2}/inner", f"into={V2}", *LAZY, "touch", "where")
    assert nodes(answers) == MOVED


def test_without_the_controller_a_cgroup_follows_its_ancestor(guest: Lab, v2: str) -> None:
    answers = steps(
        guest,
        f"join={v2}/inner",
        *LAZY,
        "touch",
        "where",
        "lazy=2",
        f"write=-cpuset:{v2}/cgroup.subtree_control",
        "touch",
        "where",
    )
    assert nodes(answers) == [*STAYED, *MOVED]


def test_a_legacy_root_that_forbids_is_forgotten_with_its_hierarchy(guest: Lab) -> None:
    mounted(guest)
    guest.run(f"echo 0 > {V1}/cpuset.migrate_on_fault").expect()
    assert nodes(steps(guest, *LAZY, "touch", "where")) == STAYED
    # A task that lives through it; it waits until the controller is back.
    back = "while ! awk '$1 == \"cpuset\" {exit $2 != 0}' /proc/cgroups; do sleep .1; done"
    answers = steps(guest, *LAZY, f"sh=umount {V1}; {back}", "touch", "where")
    unmounted_again = guest.run(f"mountpoint -q {V1}").status
    assert (nodes(answers), unmounted_again != 0) == (MOVED, True)


# ---- memory that follows its task ----


@contextmanager
def following(lab: Lab, follow: int = 1, mode: int = 2, balancing: int = 0) -> Iterator[None]:
    with (
        setting(lab, "/proc/sys/kernel/numa_balancing", balancing),
        setting(lab, "/proc/sys/vm/migrate_on_fault", mode),
        setting(lab, "/proc/sys/vm/migrate_on_fault_follow", follow),
    ):
        yield


START = (f"map={MANY}", "cpu=1", "fill", "watch=.2")
"""Memory on node 1, and long enough there for the tick to have seen it."""
STILL = (f"watch={QUIET_SECONDS}", "state")


def test_memory_follows_its_task_in_bounded_steps(guest: Lab) -> None:
    before = counter(guest, "mpol_lazy_unmapped")
    with following(guest):
        answers = steps(guest, *START, "cpu=3", f"watch=30:{ENOUGH}", "state", "touch", "where")
    assert only(answers, "state")[0]["swapped"] >= ENOUGH, answers
    assert counter(guest, "mpol_lazy_unmapped") - before >= ENOUGH
    assert nodes(answers)[0]["3"] >= ENOUGH, answers

    # The guest's clock, and lower bounds of time only: a slow machine makes them easier to keep, never harder.
    settled, followed = only(answers, "watch")
    assert settled["samples"] == []
    samples = followed["samples"]
    assert len(samples) >= 4, samples
    assert samples[0][1] >= 900_000, "it did not wait for the task to come to rest"
    interval = STEP / PER_SECOND * 1e6
    last = 0
    for earlier, now, pages in samples:
        assert pages - last <= STEP * (1 + (now - earlier) // (interval * 0.8)), (earlier, now, pages, last)
        last = pages
    assert (samples[-1][1] - samples[0][0]) / 1e6 >= (samples[-1][2] - STEP) / PER_SECOND * 0.8, samples


def test_what_is_not_touched_is_not_moved(guest: Lab) -> None:
    moved = counter(guest, "pgmigrate_on_fault")
    with following(guest):
        answers = steps(guest, *START, "cpu=2", f"watch=30:{ENOUGH}", "where")
    assert nodes(answers)[0]["-2"] >= ENOUGH
    assert counter(guest, "pgmigrate_on_fault") - moved < MANY // 2


@pytest.mark.parametrize(
    ("follow", "mode", "balancing"),
    [(0, 2, 0), (1, 1, 0), (1, 0, 0), (1, 2, 1)],
    ids=["off", "explicit", "never", "balancing"],
)
def test_memory_stays_mapped_unless_all_switches_agree(guest: Lab, follow: int, mode: int, balancing: int) -> None:
    before = counter(guest, "mpol_lazy_unmapped")
    with following(guest, follow, mode, balancing):
        answers = steps(guest, *START, "cpu=2", *STILL)
    assert (only(answers, "state")[0]["swapped"], counter(guest, "mpol_lazy_unmapped") - before) == (0, 0)


@pytest.mark.parametrize(
    "what",
    [
        (f"map={MANY}", "cpu=1", "bind=1", "fill", "watch=.2"),
        ("prefer=1", *START),
        (*START, "lock"),
        (*START, "thread"),
        (*START, "fork", "watch=.2"),
    ],
    ids=["area-policy", "task-policy", "mlocked", "threads", "shared-with-parent"],
)
def test_what_somebody_decided_about_or_shares_is_left_alone(guest: Lab, what: tuple[str, ...]) -> None:
    failed = counter(guest, "mpol_lazy_fail")
    with following(guest):
        answers = steps(guest, *what, "cpu=2", *STILL, "where")
    assert only(answers, "state")[0]["swapped"] == 0
    assert nodes(answers) == [{"1": MANY}]
    assert counter(guest, "mpol_lazy_fail") == failed


def test_a_cpuset_that_forbids_keeps_memory_from_following(guest: Lab, v2: str) -> None:
    with following(guest):
        answers = steps(guest, f"join={v2}/inner", *START, "cpu=2", *STILL)
    assert only(answers, "state")[0]["swapped"] == 0


def test_a_task_that_does_not_come_to_rest_is_not_followed(guest: Lab) -> None:
    back_and_forth = [step for node in (2, 1) * 6 for step in (f"cpu={node}", "watch=.25")]
    with following(guest):
        answers = steps(guest, *START, *back_and_forth, "state")
    # On a machine that is busy elsewhere the task may have stayed on a node for long enough after all.
    short = [a for a in only(answers, "watch")[1:] if a["seconds"] < 0.9]
    assert short, answers
    assert [a["samples"] for a in short] == [[]] * len(short)


def test_it_is_a_switch(guest: Lab) -> None:
    file = "/proc/sys/vm/migrate_on_fault_follow"
    assert guest.run(f"cat {file}").expect().out.strip() == "0"
    assert [refused(guest, text, file) for text in ("2", "-1", "x")] == [EINVAL] * 3
    assert refused(guest, "1", file, user=1000) != 0
