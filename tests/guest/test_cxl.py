"""CXL memory in a real guest: it is there as the preset says, pages go there and back, and devices reach it.

The kernel has no debug information, as that of `mof kernel check`: nothing here attaches a probe, and a third less is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.workloads.memtoy.output import WhereResult
from guest_kernel.identity import KernelId
from provision.guest import nodes
from provision.hardware import topology
from provision.hardware.qemu import SWAP_SERIAL
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
    """All that it touches first is there: its stack, its heap, and its own copy of what it relocates."""
    said = cxl.run(
        "numactl --membind=2 python3 -c 'print(sum(range(1000))); print(open(\"/proc/self/numa_maps\").read())'"
    )
    assert said.expect().out.startswith("499500\n")
    stack = next(line for line in said.out.splitlines() if " stack " in line)
    assert " N2=" in stack


def test_a_disk_reads_into_it(cxl: Lab) -> None:
    """Page cache there is filled by the disk; more at once than QEMU's bounce buffer holds by itself."""
    file = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    usual = cxl.run(f"echo 3 >/proc/sys/vm/drop_caches; sha256sum {file}").expect().out
    there = f"echo 3 >/proc/sys/vm/drop_caches; numactl --membind=2 sha256sum {file} && grep FilePages {NODE}/meminfo"
    said = cxl.run(there).expect().out
    assert said.startswith(usual)
    assert int(said.split("FilePages:")[1].split()[0]) > 1024


def test_pages_from_it_go_to_the_swap_disk_and_back(cxl: Lab) -> None:
    program = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pattern = bytes(range(256)) * 16
for page in range(1024):
    memory[page * 4096 : (page + 1) * 4096] = pattern
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(4 << 20), 21) == 0  # MADV_PAGEOUT
assert all(memory[page * 4096 : (page + 1) * 4096] == pattern for page in range(1024))
"""
    cxl.shell.put_text(program, "/run/pageout.py")
    swapped = "awk '/^pswpout/ {print $2}' /proc/vmstat"
    before = int(cxl.run(swapped).expect().out)
    cxl.run("numactl --membind=2 python3 /run/pageout.py").expect()
    assert int(cxl.run(swapped).expect().out) - before >= 1024
    assert SWAP_SERIAL in cxl.run("cat /sys/block/vd*/serial").expect().out


def test_pages_are_demoted_there(cxl: Lab) -> None:
    """Of 32 MB on node 0 half is reclaimed: not to swap, but to the next tier (Documentation/admin-guide/mm/numaperf.rst)."""
    group = "/sys/fs/cgroup/demoted"
    program = f"""
import mmap, os
open("{group}/cgroup.procs", "w").write(str(os.getpid()))
memory = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 32 << 20, 4096):
    memory[at : at + 8] = at.to_bytes(8, "little")
open("/sys/kernel/mm/numa/demotion_enabled", "w").write("1")
try:
    open("{group}/memory.reclaim", "w").write("16M")
except OSError:
    pass  # less than that
open("/sys/kernel/mm/numa/demotion_enabled", "w").write("0")
print(sum(int(word[3:]) for line in open("/proc/self/numa_maps") for word in line.split() if word.startswith("N2=")))
assert all(memory[at : at + 8] == at.to_bytes(8, "little") for at in range(0, 32 << 20, 4096))
"""
    cxl.shell.put_text(program, "/run/demoted.py")
    cxl.run(f"echo +memory >/sys/fs/cgroup/cgroup.subtree_control && mkdir -p {group}").expect()
    there = cxl.run("numactl --cpunodebind=0 python3 /run/demoted.py", 120).expect().out
    assert int(there) > 1024


def test_a_kernel_without_the_drivers_is_refused_before_it_is_built(tmp_path: Path) -> None:
    done = mof("topology", "check", "cxl", "--kernel", "6.12-mof.2", runs=tmp_path)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "--kernel 6.12-mof.2-cxl" in done.err
