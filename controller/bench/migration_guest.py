"""Guests in which the costs of migration are counted: forks of templates, on the instruction clock.

Every size of every setting is measured in forks of its own, so that no figure depends on what was measured before it.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from controller import arming, experiment, machine
from controller import plan as plans
from controller.bench.figures import Figure
from controller.bench.measure import OWN_SCRIPTS, Absent, Samples, fill
from controller.bench.migration import (
    BEFORE_PATCHES,
    FEATURES,
    FIGURES_OF_PART,
    MANY,
    SETTINGS,
    SIZES,
    SOURCE,
    TARGET,
    WITHOUT,
    Answered,
    Measured,
    Size,
    Variant,
    answered,
    best,
    check_copy,
    figures_of,
    figures_off,
    values,
)
from controller.experiment import ProbeSet
from controller.plan import Options, Plan
from controller.shell import Shell
from controller.workloads import program
from controller.workloads.memtoy import output
from guest_kernel import identity
from guest_kernel.build import Kernel
from guest_kernel.identity import KernelId
from provision.hardware.qemu import CPU_TCG, Accelerator, Clock
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, UserError
from provision.host.progress import Progress

RUN_SECONDS = 900.0
"""For all runs of one fork: 16,384 pages thrice, half a billion instructions each time."""
SWAP_ROUNDS = 8
"""Of 16 pages each, in every run of swapfault; the cheapest round counts."""
SWAP_BOOTS = 5
"""Guests of either kernel in which swap faults are counted. What a guest's boot leaves behind can save a page from zram some
of its instructions, up to 56 of 5,180: forks of one template agree to the instruction, and boots of one kernel differ. So
the dearest of these counts, to which three of four boots come."""
ZRAM_MB = 64
SWAP_ON = (
    f"swapoff -a && echo {ZRAM_MB}M >/sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0"
)
"""A device that reads at once, in the place of the guest's disk, which answers when the host likes."""

SETTLE_MS = 20
"""Before each command that is timed. Less than the seconds after which a CPU gives back the free pages of other nodes that it
has at hand (mm/vmstat.c): to take 63 of them anew is not the price of one."""

PASSES = 3
"""Runs of each script in one fork, of which the cheapest counts."""
PASSES_OF_LARGE = 1
LARGE = 4096
"""From so many pages on one interrupt more or less does not show, and a run takes seconds."""

SCRIPTS: Mapping[str, str] = {"direct": "migration-direct", "lazy": "migration-lazy", "written": "migration-write"}
IN_SCRIPTS = "1024p"
"""The size that stands in the scripts."""

PROCESSOR = ",".join((CPU_TCG, *(f"+{one}" for one in FEATURES)))
"""What the figures are counted on."""

HUGE = "/sys/kernel/mm/transparent_hugepage"


@dataclass(frozen=True)
class Bed:
    """One kernel on one kind of processor, of which guests are forked."""

    plan: Plan
    parts: machine.Parts
    cache: Cache
    progress: Progress

    @property
    def kernel(self) -> Kernel:
        return self.parts.kernel

    @contextmanager
    def fork(self) -> Iterator[Shell]:
        """A shell in a guest that goes on from the template. InfraError when it cannot be had; GuestLost."""
        with tempfile.TemporaryDirectory(prefix="mof-bench-") as folder:
            work = Path(folder)
            accel = Accelerator.TCG
            artifact, why = arming.template(self.plan, self.parts, accel, self.cache, work, self.progress)
            if artifact is None:
                raise InfraError(f"no template: {why}")
            how = (self.plan, self.parts, accel, self.cache, artifact, work, "mof-bench", self.progress)
            with arming.forked(*how) as standing:
                yield standing.shell

    @contextmanager
    def boot(self) -> Iterator[Shell]:
        """A shell in a guest that has just booted. InfraError, GuestLost."""
        with tempfile.TemporaryDirectory(prefix="mof-bench-") as folder:
            how = (self.plan, self.parts, Accelerator.TCG, self.cache, Path(folder), "mof-bench", self.progress)
            with arming.booted(*how) as standing:
                yield standing.shell


@contextmanager
def _only_tcg_counts() -> Iterator[None]:
    """Also where MOF_ACCEL has KVM run everything else."""
    before = os.environ.get("MOF_ACCEL")
    os.environ["MOF_ACCEL"] = Accelerator.TCG.value
    try:
        yield
    finally:
        if before is None:
            del os.environ["MOF_ACCEL"]
        else:
            os.environ["MOF_ACCEL"] = before


@contextmanager
def bed(cache: Cache, kernel: KernelId, features: tuple[str, ...], progress: Progress) -> Iterator[Bed]:
    """The kernel is built where it is not in the cache: InfraError when that fails."""
    with _only_tcg_counts(), machine.ensured(cache, kernel, progress) as parts:
        what = experiment.load(str(OWN_SCRIPTS / f"{SCRIPTS['lazy']}.memtoy"))
        options = Options(kernel=str(kernel), probes=ProbeSet.NONE, clock=Clock.INSN, features=features)
        # Plans know the kernels of the series as it is; this one may be of its beginning.
        plan = replace(plans.plan(what, replace(options, kernel=None)), kernel=kernel, options=options)
        yield Bed(plan, parts, cache, progress)


def kernels(wanted: KernelId) -> Mapping[Variant, KernelId]:
    """The kernel of each variant. UserError when the one that is wanted has no patch of the series."""
    identity.check_series(wanted)
    before = replace(wanted, patches=BEFORE_PATCHES)
    return {variant: before if variant is Variant.BEFORE else wanted for variant in Variant}


def script(kind: str, size: Size) -> str:
    """memtoy's script of one kind for one size."""
    text = (OWN_SCRIPTS / f"{SCRIPTS[kind]}.memtoy").read_text()
    return text.replace(f"anon foo {IN_SCRIPTS}\n", f"anon foo {size.pages}p\n")


def _settings(variant: Variant) -> dict[str, int]:
    """Every switch of the series: those that the variant does not ask for are off."""
    every = {name: 0 for one in SETTINGS.values() for name in one.sysctls}
    return {**every, **SETTINGS[variant].sysctls}


def _apply(shell: Shell, variant: Variant) -> None:
    """NoSwitch when this kernel lacks one that is to be on."""
    for name, value in _settings(variant).items():
        path = f"/proc/sys/vm/{name}"
        done = shell.run(f"test -e {path} || exit 9; echo {value} >{path}", Deadline.patient(60))
        if done.status == 9 and value:
            raise NoSwitch(f"this kernel has no vm.{name}")
        if done.status not in (0, 9):
            done.expect()


class NoSwitch(InfraError):
    """The kernel lacks what a variant is about; not a failure of ours."""


def _make_huge(shell: Shell) -> None:
    """Areas of 2 MB get huge pages, and nobody looks for more of them meanwhile."""
    shell.run(
        f"echo 1 >{HUGE}/khugepaged/pages_to_scan; echo 4000000 >{HUGE}/khugepaged/scan_sleep_millisecs; "
        f"echo 0 >{HUGE}/khugepaged/defrag; echo always >{HUGE}/enabled",
        Deadline.patient(60),
    ).expect()


def commands(kinds: Sequence[tuple[str, str, int]], passes: int, cpu: int) -> str:
    """The command line that runs scripts on one CPU, each `passes` times: by the name of its runs, the kind, and what
    vm.migrate_on_fault is meanwhile. Before each run's answers stands a line with its name.

    Everything is kept in the guest until all is over: carrying words away would be counted (docs/clock.md).
    """
    runs = " && ".join(
        f"echo {switch} >/proc/sys/vm/migrate_on_fault && echo '# {name}' >>/run/answers && "
        f"{{ taskset -c {cpu} memtoy -j -s {SETTLE_MS} /run/{shlex.quote(kind)}.memtoy >>/run/answers || :; }}"
        for name, kind, switch in kinds
    )
    count = "sed -n 's/^thp_fault_alloc /# huge /p' /proc/vmstat >>/run/answers"
    return f"{count} && for i in $(seq {passes}); do {runs} || exit; done && {count} && cat /run/answers"


def parse(text: str, size: Size, ends: Mapping[str, int]) -> dict[str, Answered | InfraError]:
    """The cheapest run of each name out of what commands() printed, or what went wrong in one; `ends`: on which node its
    pages end.

    InfraError when a huge page was none.
    """
    runs: dict[str, list[list[str]]] = {name: [] for name in ends}
    huge: list[int] = []
    for line in text.splitlines():
        if line.startswith("# huge "):
            huge.append(int(line.split()[2]))
        elif line.startswith("# "):
            current: list[str] = []
            runs[line[2:]].append(current)
        else:
            current.append(line)
    if size.huge and (len(huge) != 2 or huge[1] - huge[0] < sum(map(len, runs.values()))):
        raise InfraError("the kernel gave small pages where a huge one was asked for")
    found: dict[str, Answered | InfraError] = {}
    for name, texts in runs.items():
        try:
            if not texts:
                raise InfraError("it did not run")
            found[name] = best([answered(list(output.read(lines)), size.pages, ends[name]) for lines in texts])
        except InfraError as wrong:
            found[name] = InfraError(wrong.message, where=name)
    return found


def _measure(bed: Bed, variant: Variant, size: Size) -> Measured:
    """All of one size, in one fork. InfraError, NoSwitch, GuestLost."""
    # Refaults last: the switch is off for them alone.
    kinds = [("direct", "direct", 1), ("lazy", "lazy", 1), ("refault", "lazy", 0)]
    ends = {"direct": TARGET, "lazy": TARGET, "refault": SOURCE}
    if size is MANY:
        kinds.insert(2, ("written", "written", 1))
        ends["written"] = TARGET
    cpu = bed.plan.topology.last_cpu
    passes = PASSES if size.pages < LARGE else PASSES_OF_LARGE
    with bed.fork() as shell:
        _apply(shell, variant)
        if size.huge:
            _make_huge(shell)
        for kind in dict.fromkeys(kind for _, kind, _ in kinds):
            shell.put_text(script(kind, size), f"/run/{kind}.memtoy")
        done = shell.run(commands(kinds, passes, cpu), Deadline.patient(RUN_SECONDS)).expect()
    return _together(parse(done.out, size, ends))


def _together(parts: Mapping[str, Answered | InfraError]) -> Measured:
    """InfraError when there is no direct or no lazy migration to compare; the rest may be missing."""
    there: dict[str, Answered] = {}
    why: dict[str, str] = {}
    for name, one in parts.items():
        if isinstance(one, Answered):
            there[name] = one
        elif name in FIGURES_OF_PART:
            why[name] = str(one)
        else:
            raise one
    return Measured(there["direct"], there["lazy"], there.get("refault"), there.get("written"), why)


def variant(bed: Bed, plain: Bed, which: Variant, rounds: int, progress: Progress) -> Samples:
    """Every figure of one variant: a sample a fork. `plain`: the same kernel on the processor without FEATURES.

    A size that cannot be measured leaves the others.
    """
    found: Samples = {}
    for size in SIZES:
        samples: dict[str, list[float]] = {}
        at = f"migration.{which}.{size.name}"
        names = [one.name for one in figures_of(which) if one.name.startswith(f"{at}.")]
        if size is MANY:
            names += _copy_names(which)
        measured: list[Measured] = []
        try:
            for number in range(1, rounds + 1):
                progress.step(f"{bed.kernel.id}, {which}: {size.title}, round {number} of {rounds}")
                measured.append(_measure(bed, which, size))
            for one in measured:
                for name, value in values(which, size, one).items():
                    samples.setdefault(name, []).append(value)
            found |= _missing(measured, at) | samples
        except (InfraError, GuestLost) as wrong:
            found |= dict.fromkeys(names, Absent(str(wrong), failed=not isinstance(wrong, NoSwitch)))
            continue
        if size is MANY:
            found |= _copies(plain, which, measured, progress)
    return _without_doubt(found, which)


def _missing(measured: Sequence[Measured], at: str) -> Samples:
    """Figures that are missing in any of these: of parts that went wrong, and of a touch for which nothing was left."""
    why = {part: text for one in measured for part, text in one.why.items()}
    found: Samples = {f"{at}.{name}": Absent(text) for part, text in why.items() for name in FIGURES_OF_PART[part]}
    nothing = Absent("mbind moved all at once, so that nothing was left for the touch", failed=False)
    return {**dict.fromkeys((f"{at}.break_even", f"{at}.break_even{WITHOUT}"), nothing), **found}


def _copy_names(which: Variant) -> list[str]:
    return [f"migration.{which}.copy_{what}" for what in ("direct", "touch")]


def _copies(plain: Bed, which: Variant, measured: Sequence[Measured], progress: Progress) -> Samples:
    """What a copied page costs more on the one processor than on the other."""
    names = _copy_names(which)
    try:
        progress.step(f"{plain.kernel.id}, {which}: {MANY.title}, without {', '.join(FEATURES)}")
        other = _measure(plain, which, MANY)
    except (InfraError, GuestLost) as wrong:
        return dict.fromkeys(names, Absent(str(wrong)))
    parts: tuple[Callable[[Measured], int], ...] = (lambda one: one.direct.mbind, lambda one: one.lazy.touching)
    return {
        name: [statistics.median([of(one) for one in measured]) / MANY.units - of(other) / MANY.units]
        for name, of in zip(names, parts, strict=True)
    }


def _without_doubt(samples: Samples, which: Variant) -> Samples:
    """The same, without the figures that leave out a copy if it is not certain what that costs."""
    for name in _copy_names(which):
        got = samples[name]
        if isinstance(got, Absent):
            why = got
        else:
            try:
                check_copy(got[0])
            except InfraError as wrong:
                why = Absent(str(wrong))
            else:
                continue
        doubtful = [one for one, had in samples.items() if one.endswith(WITHOUT) and not isinstance(had, Absent)]
        return {**samples, name: got, **dict.fromkeys(doubtful, why)}
    return samples


def _swap_faults(bed: Bed, tool: Path) -> dict[str, float]:
    """Instructions a page of ordinary swap faults, in a guest that boots, with the series switched off where it is there."""
    cpu = bed.plan.topology.last_cpu
    with bed.boot() as shell:
        shell.put(tool, "/run/swapfault")
        shell.run(
            f"if [ -e /proc/sys/vm/migrate_on_fault ]; then echo 0 >/proc/sys/vm/migrate_on_fault; fi && {SWAP_ON}",
            Deadline.patient(120),
        ).expect()
        run = f"taskset -c {cpu} /run/swapfault {SWAP_ROUNDS} >>/run/answers || :"
        command = f"for i in $(seq {PASSES}); do {run}; done; cat /run/answers"
        done = shell.run(command, Deadline.patient(RUN_SECONDS)).expect()
    answers = [json.loads(line) for line in done.out.splitlines()]
    if wrong := [one["error"] for one in answers if "error" in one]:
        raise InfraError(str(wrong[0]), where="swapfault")
    if len(answers) != PASSES:
        raise InfraError(f"{len(answers)} of {PASSES} runs ended", where="swapfault")
    pages = answers[0]["pages"]
    return {
        what: min(cost - loop for one in answers for cost, loop in zip(one[what], one["loop"], strict=True)) / pages
        for what in ("cache", "device")
    }


def off(base: Bed, mof: Bed, progress: Progress) -> Samples:
    """Ordinary swap faults on both kernels, in turn: of each the dearest of SWAP_BOOTS guests."""
    found: Samples = {}
    without: list[dict[str, float]] = []
    switched: list[dict[str, float]] = []
    try:
        tool = program.ensure(base.cache, "swapfault", progress)
        for number in range(1, SWAP_BOOTS + 1):
            progress.step(f"swap faults, {base.kernel.id} and {mof.kernel.id}, boot {number} of {SWAP_BOOTS}")
            without.append(_swap_faults(base, tool))
            switched.append(_swap_faults(mof, tool))
    except (InfraError, GuestLost) as wrong:
        return dict.fromkeys((one.name for one in figures_off()), Absent(str(wrong)))
    for what in switched[0]:
        before, after = (max(one[what] for one in boots) for boots in (without, switched))
        found[f"migration.off.{what}_base"] = [before]
        found[f"migration.off.{what}"] = [after]
        found[f"migration.off.{what}_of_base"] = [after / before]
    return found


def measured(
    wanted: KernelId, rounds: int, cache: Cache, describe: Callable[[Kernel], Mapping[str, str]], progress: Progress
) -> tuple[Figure, ...]:
    """The whole group. `wanted`: the kernel with the whole series; `describe`: what has to be the same for figures to be
    comparable. A kernel that cannot be had leaves the others."""
    found: list[Figure] = []
    for kernel, variants in _by_kernel(wanted).items():
        todo = {which: figures_of(which) for which in variants}
        try:
            with bed(cache, kernel, FEATURES, progress) as one, bed(cache, kernel, (), progress) as plain:
                for which in variants:
                    samples = variant(one, plain, which, rounds, progress)
                    found += fill(todo.pop(which), samples, {**describe(one.kernel), "cpu": PROCESSOR})
        except (InfraError, UserError) as wrong:
            for names in todo.values():
                found += (figure.absent(str(wrong), failed=True) for figure in names)
    without = replace(wanted, series=False, patches=None)
    try:
        with bed(cache, without, FEATURES, progress) as base, bed(cache, wanted, FEATURES, progress) as mof:
            samples = off(base, mof, progress)
            found += fill(figures_off(), samples, {**describe(mof.kernel), "cpu": PROCESSOR})
    except (InfraError, UserError) as wrong:
        found += (figure.absent(str(wrong), failed=True) for figure in figures_off())
    return tuple(found)


def _by_kernel(wanted: KernelId) -> dict[KernelId, list[Variant]]:
    found: dict[KernelId, list[Variant]] = {}
    for which, kernel in kernels(wanted).items():
        found.setdefault(kernel, []).append(which)
    return found
