"""What holds for a whole check, and is said once: what it was made of, and what it leaves out, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.check.data import Outcome, Row, Step
from guest_kernel import check, check_variants, kconfig
from guest_kernel.check_variants import VARIANTS


def facts(kernel: Mapping[str, Any], steps: Sequence[Step]) -> Mapping[str, Any]:
    """For the JSON. `kernel`: what the kernel without a patch is built of (guest_kernel.build.inputs)."""
    told: dict[str, Any] = {"source": kernel["source"], "compiler": kernel["compiler"]}
    if Step.CHECKPATCH in steps:
        told["checkpatch_ignored"] = dict(check.IGNORED)
    if Step.VARIANTS in steps:
        told["variants"] = {v.name: {"asked": {v.symbol: "n", **v.options}, "why": v.why} for v in VARIANTS}
        told["variants_fragment"] = kconfig.parse(check_variants.FRAGMENT.read_text())
    return told


def notes(rows: Sequence[Row], steps: Sequence[Step]) -> tuple[str, ...]:
    """For a person, each once, in order."""
    said = []
    if Step.CHECKPATCH in steps:
        said += [f"checkpatch.pl is not asked for {name}: {why}" for name, why in check.IGNORED.items()]
    said += [f"{v.name}: {v.why}" for v in VARIANTS if v.why and Step.VARIANTS in steps]
    said += [note for row in rows for d in row.done if d.outcome is not Outcome.SKIPPED for note in d.notes]
    return tuple(dict.fromkeys(said))
