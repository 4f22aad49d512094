"""What a step of a check depends on: under the content of that it is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller import complaints
from controller.check import promises, trial
from controller.check.data import Step
from controller.workloads import program
from controller.workloads.memtoy import SCRIPTS
from guest_kernel import build, check, series
from guest_kernel.check_variants import VARIANTS, Variant
from guest_kernel.identity import KernelId
from guest_kernel.source import Source
from provision.host.cache import digest_file

RECIPE = 1
"""Raised when a step comes to look at more, or at other things, than it did: what is remembered is then done again."""


def kernel_id(base: str, number: int, length: int, *, lean: bool = False) -> KernelId:
    """The kernel of a prefix. The whole series goes by the name under which everybody else builds it."""
    if number == 0:
        return KernelId(base, False, lean=lean)
    return KernelId(base, True, None if number == length else number, lean=lean)


class Keys:
    """Everything that decides what a step comes to, for a series on a base."""

    def __init__(self, base: str, patches: tuple[series.Patch, ...], origin: Source, *, lean: bool) -> None:
        self._base = base
        self._lean = lean
        self._patches = patches
        self._origin = origin
        self._kernels: dict[int, dict[str, Any]] = {}

    def kernel(self, number: int) -> KernelId:
        return kernel_id(self._base, number, len(self._patches), lean=self._lean)

    def build(self, number: int) -> dict[str, Any]:
        """Of the kernel itself: guest_kernel.build.inputs."""
        if number not in self._kernels:
            self._kernels[number] = build.inputs(self.kernel(number), self._origin)
        return self._kernels[number]

    def of(self, step: Step, number: int) -> dict[str, Any]:
        """Of a prefix; number 0 is the kernel without a patch."""
        common = {
            "recipe": RECIPE,
            "source": {"version": self._origin.version, "sha256": self._origin.sha256},
            "patches": [patch.sha256 for patch in self._patches[:number]],
        }
        kernel = self.build(number)
        match step:
            case Step.APPLY:
                return common
            case Step.CHECKPATCH:
                return {**common, "ignored": dict(check.IGNORED)}
            case Step.OBJECTS | Step.BUILD:
                return {**common, "config": kernel["config"], "compiler": kernel["compiler"]}
            case Step.VARIANTS:
                asked = {v.name: {s: value for s, (value, _) in v.asked().items()} for v in VARIANTS}
                return {**common, "config": asked, "compiler": kernel["compiler"]}
            case Step.BOOT:
                return {**common, "kernel": kernel, "patterns": digest_file(Path(complaints.__file__))}
            case Step.PROMISE:
                standing = promises.standing(self._patches[:number])
                return {
                    **common,
                    "kernel": kernel,
                    "patterns": digest_file(Path(complaints.__file__)),
                    "claims": [c.name for c in standing],
                    "code": _digests(trial.__file__, *(c.holds.__code__.co_filename for c in standing)),
                    "programs": {
                        name: _digests(*(program.FOLDER / name).glob("*.[ch]"))
                        for name in ("memtoy", *(name for c in standing for name in c.programs))
                    },
                    "scripts": _digests(*SCRIPTS.glob("*.memtoy")),
                }

    def before(self, variant: Variant | None) -> dict[str, Any]:
        """Of the build without a patch, in the usual configuration or in a variant's."""
        if variant is None:
            return {**self.of(Step.BUILD, 0), "before": ""}
        return {**self.of(Step.VARIANTS, 0), "before": variant.name}

    def part(self, variant: Variant, number: int) -> dict[str, Any]:
        """Of one variant of a prefix, while the step has not come to its end."""
        return {**self.of(Step.VARIANTS, number), "part": variant.name}


def _digests(*files: str | Path) -> dict[str, str]:
    return {"/".join(Path(f).parts[-2:]): digest_file(Path(f)) for f in sorted(map(str, files))}
