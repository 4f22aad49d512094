"""Runs in the guest: `lazy_ways.py CASE` prints what was observed as one JSON object. Root, Python's standard library.

Talks to the kernel by system call numbers of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), reads page flags from
/proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096
SYS_MBIND, SYS_GET_MEMPOLICY, SYS_MOVE_PAGES, SYS_MLOCK2 = 237, 239, 279, 325
MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE = 0, 1, 2, 3
STRICT, MOVE, MOVE_ALL, LAZY = 1, 2, 4, 8
F_NODE, F_ADDR = 1, 2
MADV_POPULATE_READ = 22
REFERENCED, LRU, ACTIVE, IDLE = 2, 5, 6, 25
SOFT_DIRTY, SWAPPED, PRESENT = 55, 62, 63

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """The result, or minus errno."""
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return -ctypes.get_errno() if result == -1 else int(result)


class Area:
    """Private anonymous memory of so many small pages."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.map = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        libc.madvise(ctypes.c_void_p(self.start), ctypes.c_size_t(pages * PAGE), 15)  # MADV_NOHUGEPAGE

    @property
    def start(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def mbind(self, mode: int, nodes: tuple[int, ...], flags: int = 0) -> int:
        mask = ctypes.c_ulong(sum(1 << n for n in nodes))
        return syscall(
            SYS_MBIND,
            ctypes.c_void_p(self.start),
            ctypes.c_ulong(self.pages * PAGE),
            ctypes.c_int(mode),
            ctypes.byref(mask) if nodes else None,
            ctypes.c_ulong(65 if nodes else 0),
            ctypes.c_uint(flags),
        )

    def fill(self, node: int) -> None:
        """Every page on `node`, each with contents of its own."""
        assert self.mbind(MPOL_BIND, (node,)) == 0
        for page in range(self.pages):
            self.write(page, page + 1)

    def write(self, page: int, value: int) -> None:
        self.map[page * PAGE : page * PAGE + 8] = struct.pack("<Q", value)

    def read(self, page: int) -> int:
        return int(struct.unpack("<Q", self.map[page * PAGE : page * PAGE + 8])[0])

    def contents(self) -> list[int]:
        return [self.read(page) for page in range(self.pages)]

    def nodes(self) -> list[int]:
        """By move_pages(2), which touches nothing: minus errno where no page is mapped."""
        where = (ctypes.c_void_p * self.pages)(*(self.start + p * PAGE for p in range(self.pages)))
        status = (ctypes.c_int * self.pages)()
        result = syscall(
            SYS_MOVE_PAGES, ctypes.c_int(0), ctypes.c_ulong(self.pages), where, None, status, ctypes.c_int(0)
        )
        assert result == 0, result
        return list(status)

    def asked(self, page: int) -> int:
        """The node by get_mempolicy(2), which touches the page."""
        node = ctypes.c_int(-1)
        at = ctypes.c_void_p(self.start + page * PAGE)
        result = syscall(
            SYS_GET_MEMPOLICY, ctypes.byref(node), None, ctypes.c_ulong(0), at, ctypes.c_ulong(F_NODE | F_ADDR)
        )
        return node.value if result == 0 else result

    def entry(self, page: int) -> int:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
            return int(struct.unpack("<Q", os.pread(file.fileno(), 8, (self.start // PAGE + page) * 8))[0])

    def bit(self, bit: int) -> list[bool]:
        return [bool(self.entry(p) >> bit & 1) for p in range(self.pages)]

    def flag(self, flag: int) -> list[bool]:
        """Of the mapped pages' folios."""
        with Path("/proc/kpageflags").open("rb", buffering=0) as file:
            found = []
            for page in range(self.pages):
                number = self.entry(page) & (1 << 55) - 1
                found.append(bool(struct.unpack("<Q", os.pread(file.fileno(), 8, number * 8))[0] >> flag & 1))
        return found


def counters_here() -> dict[str, int]:
    """As they are: bringing them up to date runs work on every CPU."""
    text = Path("/proc/vmstat").read_text()
    return {n: int(v) for n, v in re.findall(r"^(pgmigrate_on_fault\w*|mpol_lazy\w*|pswpout) (\d+)$", text, re.M)}


def counters() -> dict[str, int]:
    Path("/proc/sys/vm/stat_refresh").write_text("1")
    return counters_here()


def since(before: dict[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in counters().items()}


def status(field: str) -> int:
    """A line of /proc/self/status, in kB."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1])


@contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    file = Path("/proc/sys") / name.replace(".", "/")
    before = file.read_text()
    file.write_text(str(value))
    try:
        yield
    finally:
        file.write_text(before)


def touched(area: Area, answer: int) -> dict[str, object]:
    """After a mark that answered so: what is where before a touch of all, and after."""
    marked, swapped = area.nodes(), area.bit(SWAPPED)
    contents = area.contents()
    area.write(0, 77)
    return {
        "answer": answer,
        "marked": marked,
        "swapped": swapped,
        "contents": contents,
        "nodes": area.nodes(),
        "written": area.read(0),
    }


def case_state() -> dict[str, object]:
    """What the kernel knows of a page goes with it: active, idle, soft-dirty."""
    area = Area(8)
    area.fill(1)
    for _ in range(3):  # each marks the pages accessed (mm/gup.c, FOLL_TOUCH), the second time they get active
        for _page in range(16):
            libc.madvise(ctypes.c_void_p(area.start), ctypes.c_size_t(4 * PAGE), MADV_POPULATE_READ)
    Path("/proc/self/clear_refs").write_text("4")
    area.write(7, 8)
    active = area.flag(ACTIVE)
    frames = [area.entry(p) & (1 << 55) - 1 for p in range(8)]
    answer = area.mbind(MPOL_BIND, (2,), MOVE | LAZY)
    with Path("/sys/kernel/mm/page_idle/bitmap").open("r+b", buffering=0) as file:
        for frame in frames[:2]:
            os.pwrite(file.fileno(), struct.pack("<Q", 1 << frame % 64), frame // 64 * 8)
    contents = area.contents()
    return {
        "answer": answer,
        "contents": contents,
        "nodes": area.nodes(),
        "active_before": active,
        "active": area.flag(ACTIVE),
        "idle": area.flag(IDLE),
        "soft_dirty": area.bit(SOFT_DIRTY),
    }


def case_memcg() -> dict[str, object]:
    """The charge stays with the cgroup, of memory and of swap, also at its limit."""
    group = Path("/sys/fs/cgroup/lazyways")
    (group.parent / "cgroup.subtree_control").write_text("+memory")
    group.mkdir(exist_ok=True)
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        area = Area(256)
        area.fill(1)
        (group / "memory.max").write_text(str(int((group / "memory.current").read_text()) + 64 * PAGE))
        before = int((group / "memory.current").read_text())
        count = counters()
        answer = area.mbind(MPOL_BIND, (2,), MOVE | LAZY)
        swap = int((group / "memory.swap.current").read_text())
        contents = area.contents()
        return {
            "answer": answer,
            "intact": contents == [p + 1 for p in range(256)],
            "nodes": sorted(set(area.nodes())),
            "memory": int((group / "memory.current").read_text()) - before,
            "swap_marked": swap,
            "swap": int((group / "memory.swap.current").read_text()),
            "counters": since(count),
        }
    finally:
        (Path("/sys/fs/cgroup") / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def case_around() -> dict[str, object]:
    """One touch of a window of 16 moves its neighbours, each to the node that its own policy wants."""
    result: dict[str, object] = {}
    for name, window in (("off", 0), ("on", 16)):
        with sysctl("vm.migrate_on_fault_around", window):
            area = Area(64)
            area.fill(1)
            count = counters()
            area.mbind(MPOL_BIND, (2,), MOVE | LAZY)
            at = (16 - area.start // PAGE % 16) % 16 + 16
            value = area.read(at + 5)
            nodes = area.nodes()
            result[name] = {
                "inside": nodes[at : at + 16],
                "outside": nodes[:at] + nodes[at + 16 :],
                "value": value == at + 6,
                "counters": since(count),
                "intact": area.contents() == [p + 1 for p in range(64)],
            }
    with sysctl("vm.migrate_on_fault_around", 16):
        area = Area(48)
        area.fill(1)
        area.mbind(MPOL_INTERLEAVE, (0, 2), MOVE | LAZY)
        at = (16 - area.start // PAGE % 16) % 16
        area.read(at)
        spread = area.nodes()[at : at + 16]
        fresh = Area(48)
        fresh.mbind(MPOL_INTERLEAVE, (0, 2))
        for page in range(48):
            fresh.write(page, 1)
        # the place in the round goes by the address (mm/mempolicy.c, get_vma_policy())
        turn = [fresh.nodes()[p] for p in range(2)]
        result["interleaved"] = {"nodes": spread, "turn": turn, "at": at}
    return result


def case_hinting() -> dict[str, object]:
    """Marked by hinting entries: resident, nothing in swap, moved by reading, by writing, and by being asked for."""
    result: dict[str, object] = {}
    with sysctl("vm.migrate_on_fault_hinting", 1):
        area = Area(16)
        area.fill(1)
        resident, count = status("RssAnon"), counters()
        answer = area.mbind(MPOL_BIND, (2,), MOVE | LAZY)
        result["resident"] = status("RssAnon") - resident
        result["asked"] = area.asked(3)
        result["after_asking"] = area.nodes()
        area.write(5, 55)
        result["after_writing"] = area.nodes()
        result["plain"] = touched(area, answer)
        result["swapped"] = area.bit(SWAPPED)
        result["counters"] = since(count)

        shared = Area(4)
        shared.fill(1)
        shared.mbind(MPOL_BIND, (2,), MOVE | LAZY)
        count = counters()
        child = os.fork()
        if child == 0:
            ok = shared.contents() == [1, 2, 3, 4]
            shared.write(0, 99)
            os._exit(0 if ok else 1)
        result["child"] = os.waitpid(child, 0)[1]
        result["after_fork"] = {"contents": shared.contents(), "counters": since(count)}

        locked = Area(4)
        locked.fill(1)
        libc.mlock(ctypes.c_void_p(locked.start), ctypes.c_size_t(4 * PAGE))
        result["locked"] = touched(locked, locked.mbind(MPOL_BIND, (2,), MOVE | LAZY))
        result["strict"] = locked.mbind(MPOL_BIND, (2,), MOVE | LAZY | STRICT)

        with sysctl("vm.migrate_on_fault", 0):
            off = Area(4)
            off.fill(1)
            result["off"] = touched(off, off.mbind(MPOL_BIND, (2,), MOVE | LAZY))
        with sysctl("kernel.numa_balancing", 1):
            balanced = Area(4)
            balanced.fill(1)
            balanced.mbind(MPOL_BIND, (2,), MOVE | LAZY)
            result["balancing"] = balanced.bit(SWAPPED)
    return result


def case_batches() -> dict[str, object]:
    """Pages that wait for the LRU in the batch of a CPU that their task has left before marking, and again after."""
    result: dict[str, object] = {}
    for name, hinting in (("swap", 0), ("hinting", 1)):
        with sysctl("vm.migrate_on_fault_hinting", hinting):
            os.sched_setaffinity(0, {0})
            area = Area(8)
            area.fill(1)
            waiting = [not on for on in area.flag(LRU)]
            os.sched_setaffinity(0, {2})
            count = counters_here()
            answer = area.mbind(MPOL_BIND, (2,), MOVE | LAZY)
            os.sched_setaffinity(0, {3})
            result[name] = {"waiting": waiting, **touched(area, answer), "counters": since(count)}
    return result


def case_switches() -> dict[str, object]:
    """What the switches accept."""
    answers = {}
    for name, values in {
        "migrate_on_fault": ["0", "1", "2", "3", "-1", "x"],
        "migrate_on_fault_around": ["0", "16", "17", "-1", "x"],
        "migrate_on_fault_hinting": ["0", "1", "2", "-1", "x"],
    }.items():
        file = Path("/proc/sys/vm") / name
        before = file.read_text()
        for value in values:
            try:
                file.write_text(value)
                answers[f"{name}={value}"] = 0
            except OSError as wrong:
                answers[f"{name}={value}"] = wrong.errno or -1
        file.write_text(before)
        answers[f"{name} default"] = int(before)
    return dict(answers)


if __name__ == "__main__":
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    Path("/proc/sys/vm/migrate_on_fault").write_text("1")
    print(json.dumps(globals()[f"case_{sys.argv[1]}"]()))
