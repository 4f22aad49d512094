"""The check itself: prefix by prefix, step by step, each step done unless it is remembered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controller.check import guest as guests
from controller.check import promises, told
from controller.check.data import Checked, Done, Found, Outcome, Row, Step
from controller.check.guest import Booted
from controller.check.keys import Keys
from controller.check.memory import Memory
from guest_kernel import build, check, check_variants, check_warnings, kconfig, series, source
from guest_kernel.check_headers import Headers
from guest_kernel.check_stage import Stage
from guest_kernel.check_variants import SYMBOL, VARIANTS, Variant
from provision.host.cache import Cache
from provision.host.errors import GuestLost, InfraError, UserError
from provision.host.progress import Progress

MAIN_BYTES = 6 * 2**30
APART_BYTES = 4 * 2**30
"""Unpacked 1.5 GB; built in the usual configuration 3.5 GB; the small ones 0.4 GB each."""

BUILD_LOCK = "kernel-build"
"""As in guest_kernel.build: one kernel of the usual size at a time is built on a host."""
DOES_NOT_BUILD = re.compile(r"the kernel does not build|\d+ of \d+ configuration options were not accepted")
"""What guest_kernel.build and .kconfig say when it is the tree's fault that there is no kernel, and not the host's."""

USUAL = "usual"
"""The output folder of the usual configuration, where that is not built in the tree itself."""

WORDS = 40
"""Lines of a failure that are kept."""


class Runner:
    """Does steps of prefixes; as a context manager it owns trees and a guest, and leaves none."""

    def __init__(
        self,
        cache: Cache,
        base: str,
        patches: tuple[series.Patch, ...],
        progress: Progress,
        *,
        memory: Memory | None = None,
        lean: bool = False,
    ) -> None:
        self.base = base
        self.patches = patches
        self.origin = source.locate(cache, base, progress)
        self.keys = Keys(base, patches, self.origin, lean=lean)
        self._cache = cache
        self._progress = progress
        self._memory = memory or Memory(cache)
        self._stack = ExitStack()
        self._main = Stage(cache, self.origin, patches, "check", progress)
        self._apart = Stage(cache, self.origin, patches, "check-variants", progress)
        self._plain = Stage(cache, self.origin, (), "check-base", progress)
        self._booted: tuple[int, ExitStack, Booted] | None = None
        self._headers: tuple[int, Headers] | None = None
        self._before: dict[str, tuple[str, ...]] = {}
        self._configurations: dict[tuple[Stage, str], tuple[int, Mapping[str, tuple[str, str]]]] = {}
        self._work: dict[Step, Callable[[int], Found]] = {
            Step.APPLY: self._apply,
            Step.CHECKPATCH: self._checkpatch,
            Step.OBJECTS: self._objects,
            Step.BUILD: self._build,
            Step.VARIANTS: self._variants,
            Step.BOOT: self._boot,
            Step.PROMISE: self._promise,
        }

    def __enter__(self) -> Self:
        self._stack.enter_context(self._main)
        self._stack.enter_context(self._apart)
        self._stack.enter_context(self._plain)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.leave_guest()
        finally:
            self._stack.close()

    def forget(self, steps: Sequence[Step], prefixes: Sequence[int]) -> None:
        """As if these had never been done."""
        for step in steps:
            for number in prefixes:
                self._memory.forget(step, self.keys.of(step, number))
            for variant in _compared(step):
                self._memory.forget(step, self.keys.before(variant))
            if step is Step.VARIANTS:
                self._forget_parts(prefixes)

    # Doing them.

    def prepare(self, steps: Sequence[Step], prefixes: Sequence[int]) -> None:
        """Ask for space, and learn what the builds without a patch warn of, while the trees have none."""
        due = [s for s in steps if any(self._memory.recall(s, self.keys.of(s, n)) is None for n in prefixes)]
        main = MAIN_BYTES if {Step.OBJECTS, Step.BUILD} & set(due) else 0
        self._cache.require_space(main + (APART_BYTES if Step.VARIANTS in due else 0))
        for step in steps:
            for variant in _compared(step):
                self._memory.recall(step, self.keys.before(variant))  # also where not due, so that a record keeps it
        for step in due:
            for variant in _compared(step):
                self._warnings_before(variant)

    def _warnings_before(self, variant: Variant | None) -> tuple[str, ...]:
        """What the kernel without a patch warns of in this configuration. InfraError when it does not build."""
        name = variant.name if variant is not None else ""
        if name not in self._before:
            inputs = self.keys.before(variant)
            step = Step.BUILD if variant is None else Step.VARIANTS
            done = self._memory.recall(step, inputs)
            if done is None:
                what = f"{self.keys.kernel(0)} {name}".strip()
                self._progress.step(f"{what}: compiling, to compare with")
                began = time.monotonic()
                built = self._whole(0) if variant is None else self._small(variant, 0)[1]
                if built is not None and built.errors:
                    raise InfraError(
                        "the kernel does not build without any patch", where=what, detail="\n".join(built.errors)
                    )
                said = list(built.warnings) if built is not None else []
                done = Done(step, Outcome.OK, time.monotonic() - began, figures={"said": said})
                self._memory.keep(done, inputs)
            self._before[name] = tuple(done.figures["said"])
        return self._before[name]

    def row(self, number: int, steps: Sequence[Step]) -> Row:
        """All steps of a prefix, but not those that an earlier one has made pointless."""
        patch = self.patches[number - 1]
        done: list[Done] = []
        try:
            for step in steps:
                why = _pointless(step, done)
                done.append(Done(step, Outcome.SKIPPED, notes=(why,)) if why else self.step(step, number))
        finally:
            self.leave_guest()
        return Row(number, patch.name, patch.subject, patch.sha256, tuple(done))

    def step(self, step: Step, number: int) -> Done:
        """One step, recalled or done."""
        inputs = self.keys.of(step, number)
        if (known := self._memory.recall(step, inputs)) is not None:
            return known
        self._progress.step(f"{self.keys.kernel(number)}: {step.value}")
        began = time.monotonic()
        try:
            found = self._work[step](number)
        except UserError as wrong:
            # The series is the person's input, but what does not fit is the finding here.
            found = Found((str(wrong),))
        except GuestLost as lost:
            found = Found((str(lost), *lost.console_tail.splitlines()[-WORDS:]))
        except InfraError as wrong:
            if not DOES_NOT_BUILD.fullmatch(wrong.message):
                raise
            found = Found((str(wrong), *wrong.detail.splitlines()[-WORDS:]))
        outcome = Outcome.FAILED if found.words else Outcome.OK
        done = Done(step, outcome, time.monotonic() - began, found.words, found.notes, found.figures)
        self._memory.keep(done, inputs)
        if step is Step.VARIANTS and outcome is Outcome.OK:
            self._forget_parts((number,))  # all of them are in the whole
        return done

    # The steps.

    def _apply(self, number: int) -> Found:
        self._main.at(number)
        return Found(figures={"files": len(self.patches[number - 1].touches)})

    def _checkpatch(self, number: int) -> Found:
        said = check.checkpatch(self.patches[number - 1], self._main.at(number))
        return Found(tuple(map(str, said)), (), {"complaints": len(said)})

    def _configured(self, number: int) -> Path:
        tree = self._main.at(number)
        asked = kconfig.merge(kconfig.fragments(self.keys.kernel(number)))
        if not self._still_configured(self._main, "", number, asked):
            build.configure(self._cache, self.keys.kernel(number), tree)
            self._configurations[self._main, ""] = number, asked
        return tree

    def _still_configured(self, stage: Stage, name: str, number: int, asked: Mapping[str, tuple[str, str]]) -> bool:
        """Whether the stage's configuration of this name is still what was asked for: patches since then leave it alone.

        To ask Kconfig takes seconds, for six configurations of each prefix.
        """
        last, wish = self._configurations.get((stage, name), (number + 1, asked))
        between = self.patches[last:number]
        return last <= number and wish == asked and not any(check.configures(patch) for patch in between)

    def _objects(self, number: int) -> Found:
        kernel = self.keys.kernel(number)
        built = check.objects(
            self._cache,
            check.touched(self.patches[number - 1]),
            self._configured(number),
            self._progress,
            localversion=kernel.localversion,
        )
        new = self._new_with_w1(built, USUAL, kconfig.merge(kconfig.fragments(self.keys.kernel(0))))
        return Found(
            (*built.errors, *new)[:WORDS],
            tuple(f"not compiled in this configuration: {name}" for name in built.left_out),
            {"objects": list(built.objects), "warnings": len(built.warnings), "new": new},
        )

    def _new_with_w1(self, built: check.Built, name: str, asked: Mapping[str, tuple[str, str]]) -> list[str]:
        """The warnings of touched objects that the same files have not without any patch.

        Those are compiled only if there are warnings at all, in a tree of their own, and remembered.
        """
        if not built.warnings:
            return []
        step = Step.OBJECTS
        inputs = {
            **self.keys.of(step, 0),
            "asked": {symbol: value for symbol, (value, _) in asked.items()},
            "before": name,
            "objects": list(built.objects),
        }
        done = self._memory.recall(step, inputs)
        if done is None:
            self._progress.step(
                f"{self.keys.kernel(0)} {name}: compiling {len(built.objects)} objects, to compare with"
            )
            began = time.monotonic()
            tree = self._plain.at(0)
            there = [o for o in built.objects if (tree / o).with_suffix(".c").exists()]
            check.configure(self._cache, tree, name, asked)
            said = check.objects(self._cache, there, tree, self._progress, out=name).warnings
            done = Done(step, Outcome.OK, time.monotonic() - began, figures={"said": list(said)})
            self._memory.keep(done, inputs)
        return check_warnings.new(done.figures["said"], built.warnings)

    def _whole(self, number: int) -> check.Built:
        """The usual kernel, built and kept: to boot it, compiling it once more would cost as much again."""
        with self._cache.lock(BUILD_LOCK, self._progress):
            tree = self._configured(number)
            built = check.whole(self._cache, tree, self._progress, localversion=self.keys.kernel(number).localversion)
            if not built.errors:
                build.keep(self._cache, self.keys.kernel(number), self.origin, tree, self._progress)
        return built

    def _build(self, number: int) -> Found:
        before = self._warnings_before(None)
        built = self._whole(number)
        new = check_warnings.new(before, built.warnings)
        return Found(
            (*built.errors, *new)[:WORDS],
            (),
            {"compiled": built.steps, "warnings": len(built.warnings), "warnings_before": len(before), "new": new},
        )

    def _small(self, variant: Variant, number: int) -> tuple[check_variants.Outcome, check.Built | None]:
        """A variant's configuration, and its whole build; None where the configuration cannot be had."""
        tree = self._apart.at(number)
        known = any(
            f"config {variant.symbol.removeprefix('CONFIG_')}\n" in (tree / name).read_text()
            for name in ("mm/Kconfig", "init/Kconfig", "arch/x86/Kconfig")
        )
        if self._still_configured(self._apart, variant.name, number, variant.asked()):
            result = kconfig.parse((tree / variant.name / ".config").read_text(), where=".config")
        else:
            result = check.configure(self._cache, tree, variant.name, variant.asked())
            self._configurations[self._apart, variant.name] = number, variant.asked()
        outcome = check_variants.outcome(variant, result, known)
        if not outcome.configurable:
            return outcome, None
        if self._headers is None or number < self._headers[0]:
            self._headers = number, Headers(tree)  # going back, the tree was unpacked anew
        self._headers = number, self._headers[1]
        names = sorted({name for patch in self.patches for name in patch.touches if name.endswith(".h")})
        self._headers[1].show(variant.name, names, off=result.get(SYMBOL) != "y")
        return outcome, check.whole(self._cache, tree, self._progress, target="vmlinux", out=variant.name)

    def _variants(self, number: int) -> Found:
        """Each variant that passes is remembered at once: where a header changes for all, each takes minutes."""
        found = []
        for variant in VARIANTS:
            inputs = self.keys.part(variant, number)
            known = self._memory.recall(Step.VARIANTS, inputs)
            if known is not None:
                found.append(Found((), known.notes, known.figures))
                continue
            self._progress.step(f"{self.keys.kernel(number)}: {variant.name}")
            began = time.monotonic()
            one = self._variant(variant, number)
            found.append(one)
            outcome = Outcome.FAILED if one.words else Outcome.OK
            done = Done(Step.VARIANTS, outcome, time.monotonic() - began, one.words, one.notes, one.figures)
            self._memory.keep(done, inputs)
        words = [word for one in found for word in one.words]
        return Found(
            tuple(words[:WORDS]),
            tuple(note for one in found for note in one.notes),
            {name: figures for one in found for name, figures in one.figures.items()},
        )

    def _variant(self, variant: Variant, number: int) -> Found:
        before = self._warnings_before(variant)
        began = time.monotonic()
        outcome, built = self._small(variant, number)
        figures: dict[str, Any] = {
            "asked": {variant.symbol: "n"},
            "got": {variant.symbol: outcome.got},
            "configurable": outcome.configurable,
            "dropped": list(outcome.dropped),
        }
        if built is None:
            return Found((), (str(outcome),), {variant.name: figures})
        new = check_warnings.new(before, built.warnings)
        tree = self._apart.at(number)
        wanted = check.touched(self.patches[number - 1])
        prepared = not built.errors
        touched = check.objects(self._cache, wanted, tree, self._progress, out=variant.name, prepared=prepared)
        new_with_w1 = self._new_with_w1(touched, variant.name, variant.asked())
        figures |= {
            "compiled": built.steps,
            "warnings": len(built.warnings),
            "new": new,
            "objects": list(touched.objects),
            "new_with_w1": new_with_w1,
            "left_out": list(touched.left_out),
            "seconds": round(time.monotonic() - began, 1),
        }
        wrong = (*built.errors, *new, *touched.errors, *(f"W=1: {text}" for text in new_with_w1))
        return Found(tuple(f"{variant.name}: {text}" for text in wrong), (str(outcome),), {variant.name: figures})

    def _forget_parts(self, prefixes: Sequence[int]) -> None:
        for number in prefixes:
            for variant in VARIANTS:
                self._memory.forget(Step.VARIANTS, self.keys.part(variant, number))

    def _guest(self, number: int) -> Booted:
        """The guest of this prefix, booted when it is first needed."""
        if self._booted is None or self._booted[0] != number:
            self.leave_guest()
            stack = ExitStack()
            opened = stack.enter_context(guests.booted(self._cache, self.keys.kernel(number), self._progress))
            self._booted = (number, stack, opened)
        return self._booted[2]

    def leave_guest(self) -> None:
        """End the guest, if there is one."""
        if self._booted is not None:
            stack, self._booted = self._booted[1], None
            stack.close()

    def _boot(self, number: int) -> Found:
        return guests.boot(self._guest(number))

    def _promise(self, number: int) -> Found:
        return guests.promise(
            self._guest(number), promises.standing(self.patches[:number]), self._cache, self._progress
        )


def _pointless(step: Step, done: Sequence[Done]) -> str:
    """Why a step is not even tried after what has been done; empty when it is."""
    failed = {d.step: d for d in done if d.outcome is Outcome.FAILED}
    if Step.APPLY in failed:
        return "the patch does not apply"
    # A boot that has figures has come to a log, and only that is complained of.
    if step is Step.PROMISE and Step.BOOT in failed and not failed[Step.BOOT].figures:
        return "the kernel does not boot"
    return ""


def _compared(step: Step) -> tuple[Variant | None, ...]:
    """The configurations in which a step compares with the kernel without a patch; None is the usual one."""
    return {Step.BUILD: (None,), Step.VARIANTS: VARIANTS}.get(step, ())


def run(
    cache: Cache,
    base: str,
    patches: tuple[series.Patch, ...],
    prefixes: Sequence[int],
    steps: Sequence[Step],
    progress: Progress,
    *,
    fresh: bool = False,
    memory: Memory | None = None,
    lean: bool = False,
) -> Checked:
    """Check these prefixes (from 1) in these steps. InfraError when the host cannot; what failed is in the result.

    `lean`: kernels without debug information, which differ in nothing that is looked at here, and take less time.
    """
    began = time.monotonic()
    rows = []
    with Runner(cache, base, patches, progress, memory=memory, lean=lean) as runner:
        if fresh:
            runner.forget(steps, prefixes)
        runner.prepare(steps, prefixes)
        for number in prefixes:
            rows.append(runner.row(number, steps))
        if memory is not None and tuple(steps) == tuple(Step) and len(set(prefixes)) == len(patches):
            memory.forget_unseen()
        facts = told.facts(runner.keys.build(0), steps)
    return Checked(
        base, len(patches), tuple(steps), tuple(rows), time.monotonic() - began, facts, told.notes(rows, steps)
    )
