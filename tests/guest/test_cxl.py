"""CXL memory in a real guest: it is there as the preset says, pages go there and back, and devices reach it.

The kernel has no debug information, as that of `mof kernel check`: nothing here attaches a probe, and a third less is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.workloads.memtoy import output
from controller.workloads.memtoy.output import CommandResult, WhereResult
from guest_kernel.identity import KernelId
from provision.guest import nodes
from provision.hardware import topology
from tests.guest.conftest import Lab, mof, opened

KERNEL = KernelId("6.12", series=False, cxl=True, lean=True)
SCRIPT = Path(__file__).parent / "scripts" / "cxl.memtoy"
NODE = "/sys/devices/system/node/node2"


@pytest.fixture(scope="module")
def cxl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path_factory.mktemp("cxl"), kernel=KERNEL, topology="cxl") as found:
        yield found


def test_a_guest_sees_what_was_asked_for(cxl: Lab) -> None:
    assert nodes.check(topology.load("cxl"), nodes.shown(cxl.shell, speeds=True)) == []
    assert "CXL Window 0" in cxl.run("cat /proc/iomem").expect().out
    assert "System RAM (kmem)" in cxl.run("cat /proc/iomem").expect().out


def test_pages_go_there_and_come_back(cxl: Lab) -> None:
    status, results = cxl.memtoy(SCRIPT.read_text())
    assert (status, [one for one in results if not one.ok]) == (0, [])
    where = [set(one.result.nodes) for one in results if isinstance(one.result, WhereResult)]
    assert where == [{0}, {2}, {1}, {2}]


def test_a_program_runs_from_it(cxl: Lab) -> None:
    """Its code is there, in the page cache of a tmpfs, and so is its stack."""
    copied = "numactl --membind=2 cp /usr/bin/grep /run/grep-there"
    said = (
        cxl.run(f"{copied} && numactl --membind=2 /run/grep-there -E 'grep-there|stack' /proc/self/numa_maps")
        .expect()
        .out
    )
    places = {("file" if "file=" in line else "stack"): line for line in said.splitlines()}
    assert set(places) == {"file", "stack"}
    assert all(" N2=" in line and " N0=" not in line and " N1=" not in line for line in places.values()), said


def test_a_disk_reads_into_it(cxl: Lab) -> None:
    """Page cache there is filled by the disk; more at once than QEMU's bounce buffer holds by itself."""
    file = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    usual = cxl.run(f"echo 3 >/proc/sys/vm/drop_caches; sha256sum {file}").expect().out
    there = f"echo 3 >/proc/sys/vm/drop_caches; numactl --membind=2 sha256sum {file} && grep FilePages {NODE}/meminfo"
    said = cxl.run(there).expect().out
    assert said.startswith(usual)
    assert int(said.split("FilePages:")[1].split()[0]) > 1024


def reclaimed(lab: Lab, segment: str, *, demote: bool) -> list[CommandResult]:
    """What memtoy answers when half of the memory of its segment of 2 MB is reclaimed between its commands: a `where` before and
    after, and a `touch` that verifies its contents."""
    script = f"""
group=/sys/fs/cgroup/reclaimed
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p $group
rm -f /run/commands /run/said
mkfifo /run/commands
(echo 0 >$group/cgroup.procs && exec memtoy -j </run/commands >/run/said) &
exec 3>/run/commands
printf '%s\\n' 'anon foo 2m' 'map foo' {segment} 'touch foo write=0x5eed' 'where foo nofault' >&3
until grep -q '"where"' /run/said; do sleep 0.1; done
echo {int(demote)} >/sys/kernel/mm/numa/demotion_enabled
echo 1M >$group/memory.reclaim 2>/dev/null || true
echo 0 >/sys/kernel/mm/numa/demotion_enabled
printf '%s\\n' 'where foo nofault' 'touch foo read=0x5eed' >&3
exec 3>&-
wait
cat /run/said
"""
    return output.read(lab.run(script, 120).expect().out.splitlines())


def test_pages_from_it_go_to_the_swap_disk_and_back(cxl: Lab) -> None:
    """More of them at once than fit into the buffer that QEMU has for a disk by default."""
    counted = "awk '/^pswpout/ {print $2}' /proc/vmstat"
    before = int(cxl.run(counted).expect().out)
    results = reclaimed(cxl, "'mbind foo bind 2'", demote=False)
    assert [one for one in results if not one.ok] == []
    there, after = (one.result.nodes for one in results if isinstance(one.result, WhereResult))
    assert set(there) == {2}
    assert int(cxl.run(counted).expect().out) - before >= 128
    assert len([node for node in after if node == 2]) <= 512 - 128


def test_pages_are_demoted_there(cxl: Lab) -> None:
    """To the next tier instead of to swap (Documentation/ABI/testing/sysfs-kernel-mm-numa)."""
    results = reclaimed(cxl, "'mbind foo preferred 0'", demote=True)
    assert [one for one in results if not one.ok] == []
    there, after = (one.result.nodes for one in results if isinstance(one.result, WhereResult))
    assert set(there) == {0}
    assert 2 in after


def test_a_kernel_without_the_drivers_is_refused_before_it_is_built(tmp_path: Path) -> None:
    done = mof("topology", "check", "cxl", "--kernel", "6.12-mof.2", runs=tmp_path)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "--kernel 6.12-mof.2-cxl" in done.err
