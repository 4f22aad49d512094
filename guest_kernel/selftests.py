"""The kernel's own tests of its memory management, as programs that run in a guest.

They come from tools/testing/selftests of the tree that a kernel id stands for, series applied, and are linked
statically: the guest's C library is of another release than the host's, and its image has neither libnuma nor
liburing. The artifact holds one stripped program a file.

The same programs serve to compare kernels: those of the patched tree run on the unpatched kernel too, where what the
series adds has nothing to test.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest_kernel import series, source
from guest_kernel.identity import KernelId
from provision.host import process
from provision.host.cache import Artifact, Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

KIND = "selftests"
RECIPE = 1
"""Raised when the steps below change in a way that changes what comes out."""

NEED_BYTES = 3 * 2**30
BUILD_SECONDS = 1800.0

TESTS = "tools/testing/selftests"
MM = f"{TESTS}/mm"
RELEVANT = ("tools/", "include/uapi/", "arch/x86/include/uapi/", "arch/x86/entry/syscalls/", "scripts/", "usr/include/")
"""Where a patch must have changed something for the programs to differ."""
RELEVANT_FILES = ("mm/gup_test.h",)

CHOSEN: tuple[str, ...] = (
    "mm/compaction_test",
    "mm/cow",
    "mm/droppable",
    "mm/gup_longterm",
    "mm/gup_test",
    "mm/hugepage-mremap",
    "mm/hugetlb-madvise",
    "mm/hugetlb_dio",
    "mm/hugetlb_fault_after_madv",
    "mm/hugetlb_madv_vs_map",
    "mm/khugepaged",
    "mm/ksm_functional_tests",
    "mm/ksm_tests",
    "mm/madv_populate",
    "mm/map_populate",
    "mm/migration",
    "mm/mkdirty",
    "mm/mlock-random-test",
    "mm/mlock2-tests",
    "mm/mremap_dontunmap",
    "mm/mremap_test",
    "mm/mrelease_test",
    "mm/on-fault-limit",
    "mm/pagemap_ioctl",
    "mm/soft-dirty",
    "mm/split_huge_page_test",
    "mm/transhuge-stress",
    "mm/uffd-stress",
    "mm/uffd-unit-tests",
)
"""What concerns migration, policies, swap, KSM, huge pages, userfaultfd, pinning, locking or madvise."""

LEFT_OUT: Mapping[str, str] = {
    "cgroup/test_memcontrol": "wants to write files to a disk; half of it fails in the guests, where files are in memory",
    "mm/hmm-tests": "memory of devices; wants the module test_hmm",
    "mm/hugepage-mmap": "hugetlb mappings as such; their pages are never swapped",
    "mm/hugepage-shm": "hugetlb mappings as such; their pages are never swapped",
    "mm/hugepage-vmemmap": "the memory map of hugetlb pages; wants HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
    "mm/hugetlb-read-hwpoison": "memory failure, which the guests' kernel is built without",
    "mm/hugetlb-soft-offline": "memory failure, which the guests' kernel is built without",
    "mm/map_fixed_noreplace": "where mappings go, not what they map",
    "mm/map_hugetlb": "hugetlb mappings as such; their pages are never swapped",
    "mm/mdwe_test": "permissions of mappings",
    "mm/memfd_secret": "pages that are never swapped and cannot be migrated",
    "mm/mseal_test": "permissions of mappings",
    "mm/pkey_sighandler_tests_64": "protection keys, which the emulated processor has not",
    "mm/protection_keys_64": "protection keys, which the emulated processor has not",
    "mm/seal_elf": "permissions of mappings",
    "mm/thuge-gen": "wants pages of 1 GB, and no node has as much",
    "mm/va_high_addr_switch": "where mappings go, not what they map",
    "mm/virtual_address_range": "where mappings go; reserves the whole address space, for minutes under emulation",
    "mm/write_to_hugetlbfs": "a helper of scripts on hugetlb reservations",
}
"""What is not chosen, and why. A build fails when mm/ has a program that is in neither list."""

FORCED_HEADER = ("mm/khugepaged",)
"""Programs that use KSFT_SKIP without including its header, in the stable updates of 6.12 (seen in 6.12.117)."""


@dataclass(frozen=True)
class Selftests:
    """Built programs. `programs` are names as in CHOSEN; `added`, part of them, those that the series brings along."""

    path: Path
    programs: tuple[str, ...]
    added: tuple[str, ...]

    def program(self, name: str) -> Path:
        """The static binary of a program, mm/NAME."""
        return self.path / Path(name).name


def relevant(patches: tuple[series.Patch, ...]) -> tuple[series.Patch, ...]:
    """The patches that have a part in the programs."""
    return tuple(p for p in patches if any(f.startswith(RELEVANT) or f in RELEVANT_FILES for f in p.touches))


def added(patches: tuple[series.Patch, ...]) -> tuple[str, ...]:
    """The test programs that patches bring along: mm/NAME for each new mm/NAME.c that they also add to the Makefile."""
    found = []
    for patch in patches:
        text = patch.path.read_text()
        new = re.findall(rf"^--- /dev/null\n\+\+\+ b/{re.escape(MM)}/(\S+)\.c$", text, re.MULTILINE)
        made = set(re.findall(r"^\+TEST_GEN_(?:FILES|PROGS) \+?= (\S+)$", text, re.MULTILINE))
        found += [f"mm/{name}" for name in new if name in made]
    return tuple(dict.fromkeys(found))


def offered(makefile: str) -> frozenset[str]:
    """The programs that the text of mm/Makefile builds on a 64-bit x86, as mm/NAME."""
    plain = re.findall(r"^\s*TEST_GEN_(?:FILES|PROGS) \+?= ([\w-]+)\s*$", makefile, re.MULTILINE)
    keys = [f"{name}_64" for name in re.findall(r"^\s*VMTARGETS \+?:?= (\w+)\s*$", makefile, re.MULTILINE)]
    sixty_four = set(plain) - {"protection_keys"} | set(keys)
    return frozenset(f"mm/{name}" for name in sixty_four)


def inputs(kernel: KernelId, origin: source.Source) -> dict[str, Any]:
    """Everything that decides what comes out. Two kernels between which no test and no header differs share it."""
    return {
        "recipe": RECIPE,
        "source": {"version": origin.version, "sha256": origin.sha256},
        "patches": [{"name": p.name, "sha256": p.sha256} for p in relevant(series.of(kernel))],
        "programs": list(CHOSEN),
        "left_out": sorted(LEFT_OUT),
        "compiler": process.run([process.find("gcc"), "--version"], deadline=Deadline.after(30)).output.splitlines()[0],
    }


def ensure(cache: Cache, kernel: KernelId, progress: Progress) -> Selftests:
    """The programs, built if they are not in the cache (two minutes).

    UserError when a patch does not apply; InfraError when something does not compile, or when the tree has a program
    of which nobody has said whether it is wanted.
    """
    origin = source.locate(cache, kernel.base, progress)

    def maker(draft: Path) -> Mapping[str, Any]:
        work = cache.scratch("selftests")
        try:
            return _build(kernel, origin, work, draft, progress)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    made = cache.make(KIND, kernel.base, inputs(kernel, origin), maker, need_bytes=NEED_BYTES, progress=progress)
    return _selftests(made)


def _selftests(artifact: Artifact) -> Selftests:
    facts = artifact.facts
    return Selftests(artifact.path, tuple(facts["programs"]), tuple(facts["added"]))


def _build(kernel: KernelId, origin: source.Source, work: Path, draft: Path, progress: Progress) -> dict[str, Any]:
    progress.step(f"selftests: unpacking {source.package(kernel.base)} {origin.version}")
    tree = source.unpack(origin, work)
    patches = series.of(kernel)
    series.apply(patches, tree)
    new = added(patches)
    if unknown := offered((tree / MM / "Makefile").read_text()) - set(CHOSEN) - set(LEFT_OUT) - set(new):
        raise InfraError(
            f"the kernel's tree has tests that nobody has decided on: {', '.join(sorted(unknown))}",
            where=f"{origin.tarball.name}:{MM}/Makefile",
            hint="add each to CHOSEN or to LEFT_OUT in guest_kernel/selftests.py",
        )
    progress.step("selftests: compiling")
    _make(tree, tree, "headers")
    wanted = (*CHOSEN, *new)
    for folder in sorted({Path(name).parent for name in wanted}):
        here = tree / TESTS / folder
        names = [name for name in wanted if Path(name).parent == folder]
        forced = [name for name in names if name in FORCED_HEADER]
        _make(tree, here, *(str(tree / TESTS / name) for name in names if name not in forced))
        if forced:
            header = f"USERCFLAGS=-include {tree / TESTS / 'kselftest.h'}"
            _make(tree, here, header, *(str(tree / TESTS / name) for name in forced))
    for name in wanted:
        shutil.copy2(tree / TESTS / name, draft / Path(name).name)
    return {"programs": list(wanted), "added": list(new)}


def _make(tree: Path, folder: Path, *arguments: str) -> None:
    """make in a folder of the tree.

    With plain gcc, not through ccache: mm/check_config.sh takes the first word of CC for the compiler, and would find
    no liburing.
    """
    jobs = len(os.sched_getaffinity(0)) + 1
    argv = [process.find("make"), f"-j{jobs}", "CC=gcc", "HOSTCC=gcc", "USERLDFLAGS=-static -s", *arguments]
    try:
        process.run(argv, cwd=folder, deadline=Deadline.after(BUILD_SECONDS))
    except InfraError as wrong:
        raise InfraError(
            "the kernel's selftests do not build",
            where=str(folder.relative_to(tree)),
            hint="apt-get install libnuma-dev libcap-dev liburing-dev",
            detail=wrong.detail,
        ) from wrong
