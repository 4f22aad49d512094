"""The kernel's own tests, run in guests of two kernels, and what differs between them.

`mof kernel selftest` runs all of them on the unpatched and on the patched kernel, one guest after the
other, prints the table of docs/selftests.md and ends with status 1 when something differs.

A test that differs is tried again, twice on each kernel at most: some depend on timing, and fail now and then on
either. What then comes out differently each time is called unsteady, and is told, but is no difference.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from controller import complaints
from controller.analysis import ktap
from controller.analysis.ktap import Outcome
from controller.shell import Shell
from guest_kernel import identity
from guest_kernel.selftests import Selftests
from provision.host import process
from provision.host.deadline import Deadline
from provision.host.progress import Progress, Silent

IN_GUEST = "/run/selftests"
AGAIN = 2
"""How often a test that differs is tried again on each kernel."""
TAIL_LINES = 15
KSFT_SKIP = 4
"""The exit status of a program that could not test anything here (kselftest.h)."""
DEBUG_PATIENCE = 4.0
"""How much longer a program may take on a debug kernel: emulated, each of its page faults costs several times as much."""
SIGNALLED = 128
"""sh(1) adds the signal that ended a program to this."""


class Reader(StrEnum):
    """How a program says what became of its tests; STATUS: by its exit status alone."""

    KTAP = "ktap"
    UFFD = "uffd"
    KHUGEPAGED = "khugepaged"
    STATUS = "status"


class When(StrEnum):
    """QUICK: in `make test` and by --quick; FULL: when all are run."""

    QUICK = "quick"
    FULL = "full"
    ALWAYS = "always"


@dataclass(frozen=True)
class Case:
    """One call of a test program, which is named as in guest_kernel.selftests.

    `huge_pages`: 2 MB pages to reserve, over all nodes. `user`: run as this one and not as root.
    """

    program: str
    arguments: str = ""
    when: When = When.ALWAYS
    reader: Reader = Reader.KTAP
    huge_pages: int = 0
    seconds: float = 600.0
    user: str = ""

    @property
    def name(self) -> str:
        return f"{Path(self.program).name} {self.arguments}".strip()


CASES: tuple[Case, ...] = (
    # Migration entries, each test for 20 s (migration.c, RUNTIME).
    Case("mm/migration", when=When.FULL, huge_pages=16),
    Case("mm/migration", "-t private_anon", When.QUICK),
    Case("mm/compaction_test", when=When.FULL),
    # Copy on write, and pages that are pinned meanwhile; once with huge pages of both kinds.
    Case("mm/cow", huge_pages=128),
    Case("mm/gup_longterm", huge_pages=128),
    Case("mm/gup_test", "-u"),
    Case("mm/gup_test", "-a"),
    Case("mm/gup_test", "-ct -F 0x1 0 19 0x1000"),
    # KSM: merging, unmerging, zero pages, with and without regard to nodes, and in time with and without huge pages.
    Case("mm/ksm_tests", "-M -p 10"),
    Case("mm/ksm_tests", "-U"),
    Case("mm/ksm_tests", "-Z -p 10 -z 0"),
    Case("mm/ksm_tests", "-Z -p 10 -z 1"),
    Case("mm/ksm_tests", "-N -m 1"),
    Case("mm/ksm_tests", "-N -m 0"),
    Case("mm/ksm_tests", "-H -s 10", When.FULL),
    Case("mm/ksm_tests", "-P -s 10", When.FULL),
    Case("mm/ksm_functional_tests", when=When.FULL),
    # Huge pages. The file part of split_huge_page_test writes 4 MB nine times, byte by byte.
    Case("mm/khugepaged", reader=Reader.KHUGEPAGED),
    Case("mm/khugepaged", "-s 2", When.FULL, Reader.KHUGEPAGED),
    Case("mm/split_huge_page_test", when=When.FULL, seconds=1800),
    Case("mm/transhuge-stress", "-d 20", When.FULL),
    # userfaultfd.
    Case("mm/uffd-unit-tests", when=When.FULL, reader=Reader.UFFD, huge_pages=128),
    Case("mm/uffd-unit-tests", "-f move", When.QUICK, Reader.UFFD, huge_pages=32),
    Case("mm/uffd-stress", "anon 20 16", reader=Reader.STATUS),
    Case("mm/uffd-stress", "shmem 20 16", When.FULL, Reader.STATUS),
    Case("mm/uffd-stress", "shmem-private 20 16", When.FULL, Reader.STATUS),
    Case("mm/uffd-stress", "hugetlb 128 32", When.FULL, Reader.STATUS, huge_pages=128),
    Case("mm/uffd-stress", "hugetlb-private 128 32", When.FULL, Reader.STATUS, huge_pages=128),
    # madvise and mmap.
    Case("mm/madv_populate"),
    Case("mm/map_populate"),
    Case("mm/droppable"),
    Case("mm/mrelease_test"),
    Case("mm/mremap_dontunmap"),
    Case("mm/mremap_test", when=When.FULL),
    # What page tables remember of pages: dirty, soft-dirty, written.
    Case("mm/mkdirty"),
    Case("mm/soft-dirty"),
    # Write protection by userfaultfd, which it begins with, wants CONFIG_PTE_MARKER_UFFD_WP.
    Case("mm/pagemap_ioctl", when=When.FULL, huge_pages=32),
    # Locked memory.
    Case("mm/mlock-random-test"),
    Case("mm/mlock2-tests"),
    Case("mm/on-fault-limit", user="nobody"),
    # hugetlb, where it is migrated or advised on. Two of them want one page and no more.
    Case("mm/hugepage-mremap", huge_pages=32),
    Case("mm/hugetlb-madvise", reader=Reader.STATUS, huge_pages=64),
    Case("mm/hugetlb_dio", huge_pages=32),
    Case("mm/hugetlb_fault_after_madv", reader=Reader.STATUS, huge_pages=1),
    Case("mm/hugetlb_madv_vs_map", reader=Reader.STATUS, huge_pages=1),
)
"""All calls, after the kernel's own list of them (tools/testing/selftests/mm/run_vmtests.sh)."""


def chosen(*, quick: bool) -> tuple[Case, ...]:
    """The cases of `make test`, or those of a full run."""
    other = When.FULL if quick else When.QUICK
    return tuple(case for case in CASES if case.when is not other)


@dataclass(frozen=True)
class Result:
    """What a case came to. `subtests` by name; empty when the program only has an exit status."""

    case: str
    outcome: Outcome
    status: int
    subtests: Mapping[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    tail: str = ""

    def count(self, outcome: Outcome) -> int:
        """How many subtests came to this; a program without subtests counts as one."""
        return sum(one is outcome for one in self.subtests.values() or [self.outcome])


def uffd_subtests(text: str) -> dict[str, Outcome]:
    """What uffd-unit-tests says: `Testing NAME... done`, `... skipped [reason: WHY]` or `... failed [reason: WHY]`."""
    words = {"done": Outcome.PASSED, "skipped": Outcome.SKIPPED, "failed": Outcome.FAILED}
    found = {}
    for part in re.split(r"^Testing ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("...")
        said = re.match(r"\s*(done|skipped|failed)\b", rest)
        found[name.strip()] = words[said[1]] if said else Outcome.CRASHED
    return found


def khugepaged_subtests(text: str) -> dict[str, Outcome]:
    """What khugepaged says: `Run test: NAME`, and then each step's end in green, red or, when skipped, yellow."""
    found = {}
    for part in re.split(r"^Run test: ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        if "\x1b[31m" in rest:
            outcome = Outcome.FAILED
        elif "\x1b[32m" in rest:
            outcome = Outcome.PASSED
        else:
            outcome = Outcome.SKIPPED if "\x1b[33m" in rest else Outcome.CRASHED
        found[name.strip()] = outcome
    return found


def interpret(case: Case, status: int, out: str, *, timed_out: bool = False, seconds: float = 0.0) -> Result:
    """The result of a program that ended with `status` and printed `out`."""
    outcome = Outcome.PASSED
    subtests: dict[str, Outcome] = {}
    match case.reader:
        case Reader.KTAP:
            report = ktap.parse(out)
            subtests, outcome = report.leaves(), report.outcome
        case Reader.UFFD:
            subtests = uffd_subtests(out)
        case Reader.KHUGEPAGED:
            subtests = khugepaged_subtests(out)
    if case.reader in (Reader.UFFD, Reader.KHUGEPAGED):
        if not subtests or Outcome.CRASHED in subtests.values():
            outcome = Outcome.CRASHED
        elif set(subtests.values()) == {Outcome.SKIPPED}:
            outcome = Outcome.SKIPPED
    if timed_out or status >= SIGNALLED:
        outcome = Outcome.CRASHED
    elif status == KSFT_SKIP:
        outcome = Outcome.SKIPPED
    elif status != 0 and outcome is not Outcome.CRASHED:
        outcome = Outcome.FAILED
    return Result(case.name, outcome, status, subtests, round(seconds, 1), process.tail(out, TAIL_LINES))


@dataclass(frozen=True)
class Difference:
    """A test that came out otherwise: what was seen on each kernel, in the order in which it was; None: not there.

    `subtest` is empty for the program as a whole.
    """

    case: str
    subtest: str
    base: tuple[Outcome | None, ...]
    patched: tuple[Outcome | None, ...]

    def __str__(self) -> str:
        def said(outcomes: tuple[Outcome | None, ...]) -> str:
            return ", ".join("absent" if one is None else one.value for one in outcomes)

        what = f"{self.case}: {self.subtest}" if self.subtest else self.case
        return f"{what}: {said(self.base)} on the unpatched kernel, {said(self.patched)} on the patched one"


@dataclass(frozen=True)
class Comparison:
    """`differences`: never the same on both kernels. `unsteady`: not always the same even on one."""

    differences: tuple[Difference, ...] = ()
    unsteady: tuple[Difference, ...] = ()


def compare(base: Sequence[Result], patched: Sequence[Result]) -> Comparison:
    """Compare the runs of one case on two kernels, at least one on each.

    A test is different when no outcome was seen on both; unsteady when one was, but others too.
    """
    runs = (*base, *patched)
    names = dict.fromkeys(name for run in runs for name in ("", *run.subtests))
    differences, unsteady = [], []
    for name in names:

        def seen(results: Sequence[Result], name: str = name) -> tuple[Outcome | None, ...]:
            return tuple(run.subtests.get(name) if name else run.outcome for run in results)

        one = Difference(runs[0].case, name, seen(base), seen(patched))
        if not set(one.base) & set(one.patched):
            differences.append(one)
        elif len({*one.base, *one.patched}) > 1:
            unsteady.append(one)
    return Comparison(tuple(differences), tuple(unsteady))


Runs = dict[str, list[Result]]
"""All runs of each case on one kernel, in their order."""


@dataclass(frozen=True)
class Compared:
    """All runs on both kernels. `added`: of the tests that the series itself brings, on the patched kernel only.

    `complaints`: lines of the kernels' logs that do not belong there, and lost objects, with the test after which they stood.
    """

    base: Runs
    patched: Runs
    added: tuple[Result, ...] = ()
    complaints: tuple[str, ...] = ()

    def comparisons(self) -> Iterator[Comparison]:
        for name in self.base:
            yield compare(self.base[name], self.patched[name])

    @property
    def differences(self) -> list[Difference]:
        return [one for comparison in self.comparisons() for one in comparison.differences]

    @property
    def unsteady(self) -> list[Difference]:
        return [one for comparison in self.comparisons() for one in comparison.unsteady]


def install(shell: Shell, programs: Selftests, cases: Sequence[Case]) -> None:
    """Put the programs of these cases into the guest."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "selftests.tar.gz"
        # Level 1: three times smaller, and quickly read by an emulated processor.
        with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
            for name in sorted({case.program for case in cases}):
                tar.add(programs.program(name), Path(name).name)
        shell.run(f"mkdir -p {IN_GUEST}", Deadline.patient(30)).expect()
        shell.put(packed, f"{IN_GUEST}.tar.gz")
    unpack = f"tar -C {IN_GUEST} -xzf {IN_GUEST}.tar.gz && rm {IN_GUEST}.tar.gz"
    shell.run(unpack, Deadline.patient(120)).expect()


def _settings(huge_pages: int) -> str:
    """Shell commands that bring the guest into one state before each program, whatever the one before left behind."""
    return "\n".join(
        (
            "mm=/sys/kernel/mm vm=/proc/sys/vm",
            "[ ! -e $vm/migrate_on_fault ] || echo 1 >$vm/migrate_on_fault",
            "echo 0 >/proc/sys/kernel/numa_balancing",
            "echo 2 >$mm/ksm/run; echo 0 >$mm/ksm/run",
            "echo 0 >$mm/ksm/use_zero_pages; echo 1 >$mm/ksm/merge_across_nodes",
            "echo madvise >$mm/transparent_hugepage/enabled",
            "echo 1 >$vm/unprivileged_userfaultfd",
            "echo 0 >$vm/nr_overcommit_hugepages",
            f"[ {huge_pages} = 0 ] || {{ echo 3 >$vm/drop_caches; echo 1 >$vm/compact_memory; }}",
            f"echo {huge_pages} >$vm/nr_hugepages",
        )
    )


def run_case(shell: Shell, case: Case, patience: float = 1.0) -> Result:
    """Run one program to its end, or to the end of its time, which counts as a crash. GuestLost as the shell has it.

    `patience` is what its time is multiplied by.
    """
    shell.run(_settings(case.huge_pages), Deadline.patient(120)).expect()
    command = f"./{Path(case.program).name} {case.arguments}"
    if case.user:
        command = f"setpriv --reuid={case.user} --clear-groups {command}"
    began = time.monotonic()
    done = shell.run(f"cd {IN_GUEST} && {command} 2>&1", Deadline.patient(case.seconds * patience))
    return interpret(case, done.status, done.out, timed_out=done.timed_out, seconds=time.monotonic() - began)


def added_cases(programs: Selftests) -> tuple[Case, ...]:
    """A case for each program that the series brings along."""
    return tuple(Case(name) for name in programs.added)


Opener = Callable[[str], AbstractContextManager[Shell]]
"""Opens a guest of a kernel (`6.12-mof`) for as long as the block lasts."""


def compared(
    opener: Opener,
    programs: Selftests,
    cases: Sequence[Case],
    *,
    base: str = "6.12-base",
    patched: str = "6.12-mof",
    progress: Progress | None = None,
) -> Compared:
    """Run the cases on both kernels, and those that differ again: two guests one after the other, a third if needed.

    What the kernels complain of is in the result: it makes no difference to what the tests came to.
    """
    progress = progress or Silent()
    on_base: Runs = {}
    on_patched: Runs = {}
    new: list[Result] = []
    log: list[str] = []

    def heard(lines: Sequence[str], where: str) -> None:
        for line in lines:
            log.append(f"{where}: {line}")
            progress.note(f"  {line}")

    def run(shell: Shell, case: Case, kernel: str, what: str = "") -> Result:
        progress.step(f"{kernel}{what}: {case.name}")
        result = run_case(shell, case, DEBUG_PATIENCE if identity.parse(kernel).debug else 1.0)
        progress.note(f"  {result.outcome.value} after {result.seconds:.0f} s")
        heard(complaints.since(shell), f"{kernel}: {case.name}")
        return result

    @contextmanager
    def guest(kernel: str, cases: Sequence[Case]) -> Iterator[Shell]:
        with opener(kernel) as shell:
            heard(complaints.since(shell), f"{kernel}: boot")
            install(shell, programs, cases)
            yield shell
            progress.step(f"{kernel}: the log, and what is lost")
            heard(complaints.found(shell), f"{kernel}: at the end")

    def differing() -> list[Case]:
        return [case for case in cases if compare(on_base[case.name], on_patched[case.name]).differences]

    with guest(base, cases) as shell:
        for case in cases:
            on_base[case.name] = [run(shell, case, base)]
    with guest(patched, (*cases, *added_cases(programs))) as shell:
        for case in cases:
            on_patched[case.name] = [run(shell, case, patched)]
        new = [run(shell, case, patched) for case in added_cases(programs)]
        for _ in range(AGAIN):
            for case in differing():
                on_patched[case.name].append(run(shell, case, patched, " again"))
    if left := differing():
        with guest(base, left) as shell:
            for case in left:
                for _ in range(AGAIN):
                    if compare(on_base[case.name], on_patched[case.name]).differences:
                        on_base[case.name].append(run(shell, case, base, " again"))
    return Compared(on_base, on_patched, tuple(new), tuple(log))


def table(found: Compared) -> str:
    """Markdown: a line a case, with the first run on each kernel as passed/failed/skipped, and what differs."""

    def counts(result: Result) -> str:
        failed = result.count(Outcome.FAILED) + result.count(Outcome.CRASHED)
        told = f"{result.count(Outcome.PASSED)} / {failed} / {result.count(Outcome.SKIPPED)}"
        expected = result.count(Outcome.EXPECTED)
        told += f" / {expected} as expected" if expected else ""
        return told + (" (crashed)" if result.outcome is Outcome.CRASHED else "")

    lines = ["| program | unpatched | patched | |", "|---|---|---|---|"]
    for name, runs in found.base.items():
        other = found.patched[name]
        comparison = compare(runs, other)
        remark = "**differs**" if comparison.differences else "unsteady" if comparison.unsteady else "same"
        lines.append(f"| `{name}` | {counts(runs[0])} | {counts(other[0])} | {remark} |")
    lines += [f"| `{result.case}` | | {counts(result)} | of the series |" for result in found.added]
    return "\n".join(lines)
