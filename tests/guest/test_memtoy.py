"""Every memtoy command in a guest with the series; what each script expects stands in its first comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.workloads.memtoy.output import CommandResult, TouchResult, WhereResult
from tests.guest.conftest import Lab
from tests.guest.files import setting

SCRIPTS = Path(__file__).parent / "scripts"
EIO, EFAULT, EINVAL, ENOENT, EOPNOTSUPP = 5, 14, 22, 2, 95


def run(lab: Lab, name: str) -> tuple[int, list[CommandResult]]:
    return lab.memtoy((SCRIPTS / f"{name}.memtoy").read_text())


def nodes(results: list[CommandResult]) -> list[list[int]]:
    """What every `where` showed."""
    return [list(r.result.nodes) for r in results if isinstance(r.result, WhereResult)]


def failed(results: list[CommandResult]) -> list[tuple[int, int]]:
    """(line, errno) of the commands that failed."""
    return [(r.line, r.errno) for r in results if not r.ok]


def test_the_commands_that_need_one_process(lab: Lab) -> None:
    status, results = run(lab, "commands")
    assert (status, failed(results)) == (0, [])
    assert nodes(results)[:3] == [[1] * 8, [2] * 4 + [1] * 4, [2] * 8]


def test_children_take_commands(lab: Lab) -> None:
    status, results = run(lab, "children")
    assert (status, failed(results)) == (0, [])
    assert len({r.pid for r in results}) >= 3
    assert any(r.line == 24 and r.child == "/a/deep" for r in results)


def test_failures_are_told_and_the_next_command_is_done(lab: Lab) -> None:
    status, results = run(lab, "failures")
    assert status == 1
    assert failed(results) == [(6, 0), (8, EFAULT), (11, EINVAL), (12, EOPNOTSUPP), (14, ENOENT)]
    touched = next(r.result for r in results if r.line == 6)
    assert isinstance(touched, TouchResult)
    assert touched.mismatches == 2048


def test_a_mapped_file(lab: Lab) -> None:
    lab.run("head -c 32768 /dev/zero > /run/memtoy.data").expect()
    status, results = run(lab, "file")
    assert (status, failed(results)) == (0, [])


def test_huge_shared_memory(lab: Lab) -> None:
    pools = "/sys/devices/system/node/node[0-3]/hugepages/hugepages-2048kB/nr_hugepages"
    lab.run(f"for pool in {pools}; do echo 2 > $pool; done").expect()
    try:
        status, results = run(lab, "huge")
        assert (status, failed(results)) == (0, [])
        assert nodes(results) == [[1], [2]]
    finally:
        lab.run(f"for pool in {pools}; do echo 0 > $pool; done").expect()


def test_policies_place_pages_at_the_first_touch(lab: Lab) -> None:
    status, results = run(lab, "interleaved")
    assert (status, failed(results)) == (0, [])
    spread, preferred, two = nodes(results)
    assert sorted(spread) == sorted([0, 1, 2, 3] * 4)
    assert preferred == [3] * 4
    assert sorted(two) == [0, 0, 1, 1]


def test_entering_a_cpuset_moves_pages(lab: Lab) -> None:
    status, results = run(lab, "mems")
    assert (status, failed(results)) == (0, [])
    assert nodes(results)[:2] == [[1] * 8, [2] * 8]


def test_the_canonical_lazy_script(lab: Lab) -> None:
    status, results = run(lab, "lazy")
    assert (status, failed(results)) == (0, [])
    assert nodes(results) == [[1] * 8, [2] * 8]


def test_only_what_is_touched_moves(lab: Lab) -> None:
    status, results = run(lab, "lazy-half")
    assert (status, failed(results)) == (0, [])
    assert nodes(results) == [[-ENOENT] * 8, [2] * 4 + [-ENOENT] * 4, [2] * 8]


def test_locked_pages_stay_and_strict_says_so(lab: Lab) -> None:
    status, results = run(lab, "lazy-strict")
    assert status == 1
    assert failed(results) == [(12, EIO)]
    assert nodes(results) == [[1] * 8, [1] * 8]


def test_parent_and_child_keep_their_contents_after_a_lazy_mbind(lab: Lab) -> None:
    status, results = run(lab, "fork-after-lazy")
    assert (status, failed(results)) == (0, [])


@pytest.mark.parametrize("switch", [0, 1])
def test_with_the_switch_off_pages_are_mapped_back_where_they_were(lab: Lab, switch: int) -> None:
    with setting(lab, "/proc/sys/vm/migrate_on_fault", switch):
        status, results = run(lab, "lazy-half")
    assert (status, failed(results)) == (0, [])
    assert nodes(results)[-1] == [2 if switch else 1] * 8
