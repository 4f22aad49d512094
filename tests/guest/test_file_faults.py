"""Faults on files and on shared memory: which pages move, which stay, and that their contents are right either way."""

from __future__ import annotations

import json
import re
import shlex
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from controller.workloads import program
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.files import ext4_image, put_compressed, setting
from tests.guest.kernel_log import complaints

PAGES = 8
WINDOW = 16
"""Pages of one fault-around (fault_around_pages in mm/memory.c: 64 KB)."""
HUGE = 512
ENOENT = 2
RACE_SECONDS = 20
RACE_PAGES = 32
PATIENCE = 900.0
EXT4_MB = 24
SWITCH = "/proc/sys/vm/migrate_on_fault"
AROUND = "/sys/kernel/debug/fault_around_bytes"
TRACER = "/sys/kernel/tracing/instances/filefault"
MOUNTS = {"ext4": "/run/ff-ext4", "romfs": "/run/ff-romfs", "ramfs": "/run/ff-ramfs", "tmpfs": "/run/ff-tmpfs"}
HUGE_MOUNT = "/run/ff-huge"
CPUSETS = "/run/ff-cpuset"
CGROUPS = "/sys/fs/cgroup"
MISPLACED, MOVED, LEFT = "pgmigrate_on_fault_misplaced", "pgmigrate_on_fault", "pgmigrate_on_fault_fail"
UNMAPPED, STILL_MAPPED = "mpol_lazy_unmapped", "mpol_lazy_fail"
ROMFS_FILE = "data"
_TRACED = re.compile(r"filefault-\d+ .* mm_migrate_on_fault: (.*)")


@dataclass(frozen=True)
class Event:
    """A line of the tracepoint mm_migrate_on_fault. `to`: the node that was decided on, -1 where none was."""

    address: int
    source: int
    to: int
    order: int
    mode: str
    origin: str
    result: str


@dataclass(frozen=True)
class Done:
    """What the steps of a program answered, what they added to the counters, and the tracepoint's lines about its mapping."""

    answers: list[dict[str, Any]]
    counted: dict[str, int]
    events: list[Event]
    swap_kb: int
    """Swap space that is in use after the program, less that before."""

    def all(self, step: str) -> list[dict[str, Any]]:
        return [a for a in self.answers if a["step"] == step]

    @property
    def nodes(self) -> list[list[int]]:
        """What each `where` said."""
        return [a["nodes"] for a in self.all("where")]

    @property
    def faults(self) -> list[int]:
        return [a["faults"] for a in self.answers if "faults" in a]

    @property
    def results(self) -> Counter[str]:
        return Counter(e.result for e in self.events)

    @property
    def moved(self) -> tuple[int, int, int]:
        """Pages found misplaced, moved, and left, by the counters."""
        return (
            self.counted[MISPLACED],
            self.counted[MOVED],
            self.counted[LEFT],
        )


def romfs_image(contents: bytes) -> bytes:
    """A romfs that holds one file, ROMFS_FILE (Documentation/filesystems/romfs.rst): no tool here makes one."""

    def words(data: bytes) -> int:
        return int(sum(struct.unpack(f">{len(data) // 4}I", data))) & 0xFFFFFFFF

    def name(text: str) -> bytes:
        return text.encode().ljust((len(text) // 16 + 1) * 16, b"\0")

    def entry(following: int, kind: int, about: int, size: int, called: str) -> bytes:
        head = struct.pack(">4I", following | kind, about, size, 0) + name(called)
        return head[:12] + struct.pack(">I", -words(head) & 0xFFFFFFFF) + head[16:]

    directory, regular, executable = 1, 2, 8
    root = 32  # after magic, size, checksum and the name of the volume
    file = root + 32
    body = (
        entry(file, directory | executable, file, 0, ".") + entry(0, regular, 0, len(contents), ROMFS_FILE) + contents
    )
    full = root + len(body)
    image = b"-rom1fs-" + struct.pack(">2I", full, 0) + name("mof") + body
    start = image[:512]
    image = image[:12] + struct.pack(">I", -words(start) & 0xFFFFFFFF) + image[16:]
    return image.ljust((len(image) + 1023) // 1024 * 1024, b"\0")


def pattern(pages: int) -> bytes:
    """What the program's `write` puts into a file."""
    return b"".join(
        struct.pack("<Q", (0x9E3779B97F4A7C15 * (page + 1) + word) & (2**64 - 1))
        for page in range(pages)
        for word in range(512)
    )


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A guest of its own, with a file system of each kind mounted; it must not have complained when it ends."""
    work = tmp_path_factory.mktemp("files")
    ext4_image(work / "ext4", EXT4_MB)
    (work / "romfs").write_bytes(romfs_image(pattern(WINDOW)))
    with opened(work) as lab:
        lab.shell.put(program.ensure(Cache(), "filefault", Silent()), "/run/filefault")
        for kind, folder in MOUNTS.items():
            lab.run(f"mkdir {folder}").expect()
            if kind in ("ext4", "romfs"):
                put_compressed(lab, work / kind, f"/run/{kind}.img")
                lab.run(f"mount -o loop -t {kind} /run/{kind}.img {folder}").expect()
            else:
                lab.run(f"mount -t {kind} {kind} {folder}").expect()
        lab.run(f"mkdir {HUGE_MOUNT} && mount -t tmpfs -o huge=always tmpfs {HUGE_MOUNT}").expect()
        lab.run(f"echo 0 > /proc/sys/kernel/numa_balancing && echo 1 > {SWITCH}").expect()
        # Ends khugepaged, which looks at a huge page as soon as it can be mapped: it may wait for it, with a reference,
        # while the page is being moved. A mount with huge=always does not ask this switch.
        lab.run("echo never > /sys/kernel/mm/transparent_hugepage/enabled").expect()
        lab.run(f"mkdir {TRACER} && echo 1 > {TRACER}/events/migrate/mm_migrate_on_fault/enable").expect()
        yield lab
        assert complaints(lab) == []


def counters(lab: Lab) -> tuple[dict[str, int], int]:
    """The series' counters in /proc/vmstat, in pages, and the swap space in use, in kB."""
    done = lab.run("echo 1 > /proc/sys/vm/stat_refresh; cat /proc/vmstat /proc/meminfo").expect()
    found = {name.rstrip(":"): int(value) for name, value in re.findall(r"^(\S+)\s+(\d+)", done.out, re.MULTILINE)}
    ours = {name: found[name] for name in (MISPLACED, MOVED, LEFT, UNMAPPED, STILL_MAPPED)}
    return ours, found["SwapTotal"] - found["SwapFree"]


def took(lab: Lab, *steps: str, group: str = "") -> Done:
    """Take the steps, all of which go well, and find everything read to be right; in the cgroup of this folder, if given."""
    lab.run(f"echo > {TRACER}/trace").expect()
    before, swap_before = counters(lab)
    enter = f"echo $$ > {group}/cgroup.procs && exec " if group else ""
    ran = lab.run(f"sh -c {shlex.quote(f'{enter}/run/filefault {shlex.join(steps)}')}", PATIENCE)
    assert ran.status == 0, (ran.out, ran.err, lab.run("dmesg | tail -40").out)
    answers = [json.loads(line) for line in ran.out.splitlines()]
    after, swap_after = counters(lab)
    areas = [range(a["start"], a["end"]) for a in answers if a["step"] == "map"]
    events = []
    for line in _TRACED.findall(lab.run(f"cat {TRACER}/trace").expect().out):
        said = dict(word.split("=") for word in line.split())
        if any(int(said["addr"], 16) in area for area in areas):
            events.append(
                Event(
                    int(said["addr"], 16),
                    int(said["src_nid"]),
                    int(said["dst_nid"]),
                    int(said["order"]),
                    said["mode"],
                    said["origin"],
                    said["result"],
                )
            )
    counted = {name: after[name] - before[name] for name in before}
    assert [a for a in answers if a.get("mismatches")] == []
    return Done(answers, counted, events, swap_after - swap_before)


def no_fault_around(lab: Lab) -> AbstractContextManager[None]:
    """So that each page is found by its own fault, and the tracepoint tells what became of it."""
    return setting(lab, AROUND, 4096)


def anon(pages: int = PAGES) -> list[str]:
    """Shared anonymous memory on node 1, cached and not mapped."""
    return ["node=1", f"pages={pages}", "map=anon", "dirty", "zap", "drain", "node=-"]


def clean(path: str, pages: int = PAGES, node: str = "node=1") -> list[str]:
    """A file whose pages are on the disk, and in the page cache on node 1."""
    return [f"open={path}", f"pages={pages}", node, "write", "drop", "read", "drain", "node=-"]


def unwritten(path: str, pages: int = PAGES) -> list[str]:
    """A file whose pages are in the page cache on node 1 only."""
    return [f"open={path}", f"pages={pages}", "node=1", "write", "drain", "node=-"]


PLACED = {
    "anon": anon(),
    "tmpfs": [*unwritten(f"{MOUNTS['tmpfs']}/plain"), "map=shared"],
    "ext4-clean": [*clean(f"{MOUNTS['ext4']}/clean"), "map=shared"],
    "ext4-dirty": [*unwritten(f"{MOUNTS['ext4']}/dirty"), "map=shared"],
    "ext4-private": [*clean(f"{MOUNTS['ext4']}/private"), "map=private"],
}
TO_THE_DISK = ["unmap", "drop", "read"]


def expect_all_moved(done: Done, pages: int, origin: str) -> None:
    """Each page was found on node 1 by a fault of its own, and moved to node 2, without swap."""
    assert done.nodes[-1] == [2] * pages
    assert done.moved == (pages, pages, 0)
    # Anonymous memory was filled by faults, which found a place for each page by policy.
    moved = [e for e in done.events if e.result != "well_placed"]
    assert Counter((e.result, e.source, e.to, e.order, e.mode, e.origin) for e in moved) == {
        ("migrated", 1, 2, 0, "bind", origin): pages
    }
    assert len({e.address for e in moved}) == pages
    assert done.swap_kb == 0


@pytest.mark.parametrize("kind", PLACED)
def test_pages_move_when_they_are_read(guest: Lab, kind: str) -> None:
    rest = TO_THE_DISK if kind.startswith("ext4") else []
    done = took(guest, *PLACED[kind], "mbind=2", "touch", "where", *rest)
    expect_all_moved(done, PAGES, "vma")
    assert done.faults[-1] == PAGES


@pytest.mark.parametrize("kind", [kind for kind in PLACED if kind != "ext4-private"])
def test_pages_move_when_they_are_written_and_the_file_gets_it(guest: Lab, kind: str) -> None:
    rest = TO_THE_DISK if kind.startswith("ext4") else []
    done = took(guest, *PLACED[kind], "mbind=2", "dirty", "touch", "where", *rest)
    expect_all_moved(done, PAGES, "vma")


@pytest.mark.parametrize("kind", PLACED)
def test_the_policy_of_the_task_counts_where_the_area_has_none(guest: Lab, kind: str) -> None:
    expect_all_moved(took(guest, *PLACED[kind], "node=2", "touch", "where"), PAGES, "task")


@pytest.mark.parametrize("kind", PLACED)
def test_with_the_switch_at_0_all_stay(guest: Lab, kind: str) -> None:
    with setting(guest, SWITCH, 0):
        done = took(guest, *PLACED[kind], "mbind=2", "touch", "where")
    assert (done.nodes, done.moved, done.events) == ([[1] * PAGES], (0, 0, 0), [])
    assert done.faults[-1] == 1, "all are mapped by one fault, as ever"


@pytest.mark.parametrize("kind", PLACED)
def test_without_a_policy_only_2_moves_them(guest: Lab, kind: str) -> None:
    with no_fault_around(guest):
        done = took(guest, *PLACED[kind], "cpu=2", "touch", "where")
        assert done.nodes == [[1] * PAGES]
        assert done.results["default_policy"] == PAGES
        with setting(guest, SWITCH, 2):
            done = took(guest, *PLACED[kind], "cpu=2", "touch", "where")
    assert done.nodes == [[2] * PAGES]
    assert Counter(e.origin for e in done.events if e.result == "migrated") == {"default": PAGES}


def test_a_write_to_a_private_mapping_copies_and_leaves_the_file_where_it_is(guest: Lab) -> None:
    path = f"{MOUNTS['ext4']}/copied"
    done = took(guest, *clean(path), "map=private", "mbind=2", "dirty", "where")
    assert done.nodes == [[2] * PAGES], "the copies"
    assert done.results == {"will_copy": PAGES}
    assert done.moved == (0, 0, 0)
    done = took(guest, f"openro={path}", f"pages={PAGES}", "map=ro", "touch", "where")
    assert done.nodes == [[1] * PAGES], "the file"


def test_private_pages_that_were_read_and_written_move_both_ways(guest: Lab) -> None:
    steps = [*clean(f"{MOUNTS['ext4']}/mixed"), "map=private", "node=1", "dirty=0-3", "node=-", "touch", "where"]
    done = took(guest, *steps, "mbind=2:move:lazy", "where", "touch", "where")
    assert done.nodes == [[1] * PAGES, [-ENOENT] * PAGES, [2] * PAGES]
    assert done.counted[UNMAPPED] == PAGES
    assert done.moved == (PAGES, PAGES, 0)


# --- fault-around


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
class TestAround:
    def cached(self, kind: str, name: str, wrong: int) -> list[str]:
        """WINDOW pages in the cache, of which the first `wrong` are on node 1, the others on node 2; a mapping bound to 2."""
        path = f"{MOUNTS[kind]}/{name}"
        steps = [f"open={path}", f"pages={WINDOW}"]
        if wrong:
            steps += ["node=1", f"write=0-{wrong - 1}"]
        if wrong < WINDOW:
            steps += ["node=2", f"write={wrong}-{WINDOW - 1}"]
        return [*steps, "drain", "node=-", "map=ro", "mbind=2"]

    def test_misplaced_neighbours_are_left_out(self, guest: Lab, kind: str) -> None:
        done = took(guest, *self.cached(kind, "wrong", WINDOW), "touch=5", "present", "touch", "where")
        assert done.all("present")[0]["pages"] == [5]
        assert done.faults == [1, WINDOW - 1]
        expect_all_moved(done, WINDOW, "vma")

    def test_well_placed_neighbours_are_mapped_around(self, guest: Lab, kind: str) -> None:
        done = took(guest, *self.cached(kind, "right", 0), "touch=5", "present", "touch", "where")
        assert done.all("present")[0]["pages"] == list(range(WINDOW))
        assert done.faults == [1, 0]
        assert (done.nodes, done.moved) == ([[2] * WINDOW], (0, 0, 0))

    def test_of_both_kinds_each_has_its_way(self, guest: Lab, kind: str) -> None:
        half = WINDOW // 2
        steps = self.cached(kind, "half", half)
        done = took(guest, *steps, "touch=3", "present", "touch", "where")
        assert done.all("present")[0]["pages"] == [3, *range(half, WINDOW)]
        assert done.faults == [1, half - 1]
        assert done.moved == (half, half, 0)
        assert done.nodes == [[2] * WINDOW]

    def test_a_fault_on_a_well_placed_page_goes_past_the_others(self, guest: Lab, kind: str) -> None:
        half = WINDOW // 2
        steps = self.cached(kind, "past", half)
        done = took(guest, *steps, f"touch={WINDOW - 1}", "present", "touch", "where")
        assert done.all("present")[0]["pages"] == list(range(half, WINDOW))
        assert done.faults == [1, half]
        assert done.moved == (half, half, 0)

    def test_with_the_switch_at_0_all_are_mapped_around(self, guest: Lab, kind: str) -> None:
        with setting(guest, SWITCH, 0):
            done = took(guest, *self.cached(kind, "off", WINDOW), "touch=5", "present", "where")
        assert done.all("present")[0]["pages"] == list(range(WINDOW))
        assert (done.nodes, done.moved) == ([[1] * WINDOW], (0, 0, 0))

    def test_locked_pages_are_mapped_around_where_they_are(self, guest: Lab, kind: str) -> None:
        done = took(guest, *self.cached(kind, "locked", WINDOW), "lock", "where")
        assert (done.nodes, done.moved) == ([[1] * WINDOW], (0, 0, 0))


def test_each_node_of_an_interleaving_task_is_right_for_a_file(guest: Lab) -> None:
    """Its page cache is dealt out in the order of reading: there is no other node where a page should have been."""
    steps = clean(f"{MOUNTS['ext4']}/dealt", WINDOW, "interleave=1,2")
    done = took(guest, *steps, "interleave=1,2", "map=ro", "touch=5", "present", "where")
    assert done.all("present")[0]["pages"] == list(range(WINDOW))
    assert set(done.nodes[0]) == {1, 2}
    assert done.moved == (0, 0, 0)
    done = took(guest, *steps, "interleave=2,3", "map=ro", "touch", "where")
    assert set(done.nodes[0]) <= {2, 3}
    assert done.moved[1] == done.moved[0] > 0


def test_each_node_is_right_for_a_file_if_the_cpuset_spreads_it(guest: Lab) -> None:
    folder = f"{CPUSETS}/spread"
    guest.run(f"mkdir {CPUSETS} && mount -t cgroup -o cpuset cpuset {CPUSETS} && mkdir {folder}").expect()
    try:
        guest.run(f"echo 0-3 > {folder}/cpuset.cpus && echo 1-2 > {folder}/cpuset.mems").expect()
        steps = clean(f"{MOUNTS['ext4']}/spread", WINDOW)
        placed = [*steps, "node=2", "map=ro", "touch=5", "present", "touch", "where"]
        done = took(guest, *placed, group=folder)
        assert (done.nodes, done.moved) == ([[2] * WINDOW], (WINDOW, WINDOW, 0)), "without spreading"
        guest.run(f"echo 1 > {folder}/cpuset.memory_spread_page").expect()
        done = took(guest, *placed, group=folder)
        assert set(done.nodes[0]) == {1, 2}
        assert done.all("present")[0]["pages"] == list(range(WINDOW))
        assert done.moved == (0, 0, 0)
    finally:
        guest.run(f"rmdir {folder}; umount {CPUSETS}; rmdir {CPUSETS}").expect()


# --- executable mappings


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_code_that_several_processes_map_is_left_alone(guest: Lab, kind: str) -> None:
    steps = [*clean(f"{MOUNTS[kind]}/code"), "map=exec", "mbind=2"]
    with no_fault_around(guest):
        done = took(guest, *steps, "hold=map", "touch", "where")
    assert done.nodes == [[1] * PAGES]
    assert done.results == {"shared_exec": PAGES}
    assert done.moved == (0, 0, 0)
    done = took(guest, *steps, "hold=map", "touch", "where")
    assert (done.nodes, done.faults[-1], done.moved) == ([[1] * PAGES], 1, (0, 0, 0)), "fault-around takes them"


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_code_that_one_process_maps_and_data_that_several_map_move(guest: Lab, kind: str) -> None:
    steps = clean(f"{MOUNTS[kind]}/alone")
    expect_all_moved(took(guest, *steps, "map=exec", "mbind=2", "touch", "where"), PAGES, "vma")
    expect_all_moved(took(guest, *steps, "map=ro", "mbind=2", "hold=map", "touch", "where"), PAGES, "vma")


# --- what must not be moved, or cannot be


def test_pages_that_another_process_maps_stay(guest: Lab) -> None:
    with no_fault_around(guest):
        done = took(guest, *PLACED["ext4-clean"], "hold=touch", "mbind=2", "touch", "where")
    assert done.nodes == [[1] * PAGES]
    assert done.results["mapped"] == PAGES
    assert done.moved == (0, 0, 0)


def test_memory_that_shm_lock_locks_stays(guest: Lab) -> None:
    steps = ["node=1", f"pages={PAGES}", "map=sysv", "dirty", "zap", "drain", "node=-", "mbind=2"]
    with no_fault_around(guest):
        done = took(guest, *steps, "shmlock", "touch", "where")
    assert done.nodes == [[1] * PAGES]
    assert done.results["mlocked"] == PAGES
    assert done.moved == (0, 0, 0)
    expect_all_moved(took(guest, *steps, "touch", "where"), PAGES, "vma")


def test_a_file_system_without_a_function_to_migrate(guest: Lab) -> None:
    """romfs has none: what is clean is copied all the same."""
    path = f"{MOUNTS['romfs']}/{ROMFS_FILE}"
    steps = [f"openro={path}", f"pages={WINDOW}", "drop", "node=1", "read", "drain", "node=-", "map=ro", "mbind=2"]
    expect_all_moved(took(guest, *steps, "touch", "where"), WINDOW, "vma")


def test_a_file_system_that_cannot_move_dirty_pages_keeps_them(guest: Lab) -> None:
    """ramfs has no function to migrate either, and its pages are dirty for ever."""
    steps = [*unwritten(f"{MOUNTS['ramfs']}/dirty"), "map=shared", "mbind=2"]
    done = took(guest, *steps, "touch", "where", "zap", "touch", "where", "read")
    assert done.nodes == [[1] * PAGES] * 2
    assert done.results == {"failed": 2 * PAGES}
    assert done.moved == (2 * PAGES, 0, 2 * PAGES)


@pytest.mark.parametrize(("kind", "account"), [("tmpfs", "shmem"), ("ext4", "file")])
def test_the_cgroups_account_of_each_node_follows(guest: Lab, kind: str, account: str) -> None:
    """And that of each node goes by the same calls (__folio_migrate_mapping() in mm/migrate.c)."""
    path, pages = f"{MOUNTS[kind]}/accounts", 256
    folder = f"{CGROUPS}/filefault"

    def on_node(node: int) -> int:
        """Pages that the cgroup has there. Changes get there every 2 s at the latest (FLUSH_TIME in mm/memcontrol.c)."""
        found = re.search(rf"^{account} .*N{node}=(\d+)", guest.run(f"cat {folder}/memory.numa_stat").out, re.MULTILINE)
        assert found
        return int(found[1]) // 4096

    guest.run(f"echo +memory > {CGROUPS}/cgroup.subtree_control && mkdir {folder}").expect()
    try:
        took(guest, *unwritten(path, pages), group=folder)
        assert Deadline.patient(60).poll(lambda: on_node(1) >= pages and on_node(2) == 0, 0.5), (on_node(1), on_node(2))
        others = on_node(1) - pages
        done = took(guest, f"openro={path}", f"pages={pages}", "map=ro", "mbind=2", "touch", "where", group=folder)
        assert (done.nodes, done.moved) == ([[2] * pages], (pages, pages, 0))
        wanted = (others, pages)
        assert Deadline.patient(60).poll(lambda: (on_node(1), on_node(2)) == wanted, 0.5), (
            on_node(1),
            on_node(2),
            wanted,
        )
        guest.run(f"rm {path}").expect()
        assert Deadline.patient(60).poll(lambda: on_node(2) == 0, 0.5), on_node(2)
    finally:
        guest.run(f"rm -f {path}; rmdir {folder}; echo -memory > {CGROUPS}/cgroup.subtree_control").expect()


# --- mbind() with MPOL_MF_LAZY


@pytest.mark.parametrize("kind", PLACED)
def test_lazily_unmapped_pages_move_when_they_are_touched(guest: Lab, kind: str) -> None:
    done = took(
        guest, *PLACED[kind], "touch", "where", "mbind=2:move:lazy", "where", "touch=0-3", "where", "touch", "where"
    )
    half = PAGES // 2
    assert done.nodes == [[1] * PAGES, [-ENOENT] * PAGES, [2] * half + [-ENOENT] * half, [2] * PAGES]
    assert (done.counted[UNMAPPED], done.counted[STILL_MAPPED]) == (PAGES, 0)
    assert done.moved == (PAGES, PAGES, 0)
    assert done.swap_kb == 0


@pytest.mark.parametrize("kind", ["anon", "tmpfs", "ext4-clean", "ext4-dirty"])
def test_what_was_written_before_a_lazy_mbind_is_there_after_it(guest: Lab, kind: str) -> None:
    rest = TO_THE_DISK if kind.startswith("ext4") else []
    done = took(guest, *PLACED[kind], "dirty", "mbind=2:move:lazy", "touch", "where", *rest)
    assert done.nodes == [[2] * PAGES]
    assert done.counted[UNMAPPED] == PAGES
    assert done.moved == (PAGES, PAGES, 0)


def test_locked_pages_are_not_unmapped(guest: Lab) -> None:
    done = took(guest, *PLACED["ext4-clean"], "lock", "mbind=2:move:lazy", "where")
    assert done.nodes == [[1] * PAGES]
    assert (done.counted[UNMAPPED], done.counted[STILL_MAPPED]) == (0, PAGES)


@pytest.mark.parametrize("kind", ["anon", "ext4-clean"])
def test_what_others_map_is_unmapped_under_all_only(guest: Lab, kind: str) -> None:
    steps = [*PLACED[kind], "touch", "hold=touch"]
    done = took(guest, *steps, "mbind=2:move:lazy", "where")
    assert done.nodes == [[1] * PAGES]
    assert done.counted[UNMAPPED] == 0
    done = took(guest, *steps, "mbind=2:all:lazy", "where", "touch", "where")
    assert done.nodes == [[-ENOENT] * PAGES, [2] * PAGES]
    assert done.counted[UNMAPPED] == PAGES


@pytest.mark.parametrize("kind", PLACED)
def test_with_the_switch_at_0_what_was_unmapped_comes_back_where_it_was(guest: Lab, kind: str) -> None:
    with setting(guest, SWITCH, 0):
        done = took(guest, *PLACED[kind], "touch", "mbind=2:move:lazy", "touch", "where")
    assert done.nodes == [[1] * PAGES]
    assert done.moved == (0, 0, 0)


# --- huge pages


def huge_page(name: str) -> list[str]:
    return [f"open={HUGE_MOUNT}/{name}", "node=1", f"pages={HUGE}", "write", "drain", "node=-", "map=shared"]


def test_a_huge_page_moves_whole_and_is_mapped_by_one_entry(guest: Lab) -> None:
    done = took(guest, *huge_page("whole"), "mbind=2", "touch", "where", "huge")
    assert [(e.order, e.result, e.source, e.to) for e in done.events] == [(9, "migrated", 1, 2)], guest.run(
        "cat /proc/buddyinfo"
    ).out
    assert done.nodes == [[2] * HUGE]
    assert done.moved == (HUGE, HUGE, 0)
    assert done.faults[-1] == 1
    assert done.all("huge")[0]["kb"] == HUGE * 4
    guest.run(f"rm {HUGE_MOUNT}/whole").expect()


def test_a_huge_page_that_is_well_placed_is_mapped_around(guest: Lab) -> None:
    done = took(guest, *huge_page("right"), "mbind=1", "touch", "where", "huge")
    assert done.nodes == [[1] * HUGE]
    assert (done.moved, done.events, done.faults[-1], done.all("huge")[0]["kb"]) == ((0, 0, 0), [], 1, HUGE * 4)
    guest.run(f"rm {HUGE_MOUNT}/right").expect()


def test_a_huge_page_is_unmapped_lazily_and_moves_whole(guest: Lab) -> None:
    done = took(guest, *huge_page("lazy"), "touch", "mbind=2:move:lazy", "where", "touch", "where", "huge")
    assert done.nodes == [[-ENOENT] * HUGE, [2] * HUGE]
    assert done.counted[UNMAPPED] == HUGE
    assert done.moved == (HUGE, HUGE, 0)
    assert done.all("huge")[0]["kb"] == HUGE * 4
    guest.run(f"rm {HUGE_MOUNT}/lazy").expect()


# --- races


def raced(path: str, against: str) -> list[str]:
    return [f"open={path}", f"pages={RACE_PAGES}", "write", f"race={against}:{RACE_SECONDS}", "read", "drop", "read"]


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
@pytest.mark.parametrize("against", ["truncate", "invalidate"])
def test_a_race(guest: Lab, kind: str, against: str) -> None:
    path = f"{MOUNTS[kind]}/race-{against}"
    done = took(guest, *raced(path, against))
    race = done.all("race")[0]
    assert race["wrong"] == 0
    assert min(race["rounds"], race["passes"]) > 10, race
    assert (race["bus_errors"] > 0) == (against == "truncate")
    misplaced, moved, failed = done.moved
    assert misplaced == moved + failed
    assert moved > RACE_PAGES


def test_a_race_with_all_caches_being_dropped(guest: Lab) -> None:
    path = f"{MOUNTS['ext4']}/dropped"
    dropping = "while :; do sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.2; done"
    guest.run(f"({dropping}) >/dev/null 2>&1 & echo $! > /run/dropping.pid").expect()
    try:
        done = took(guest, *raced(path, "invalidate"))
    finally:
        guest.run("kill $(cat /run/dropping.pid)").expect()
    assert done.all("race")[0]["wrong"] == 0
    assert done.moved[1] > RACE_PAGES
