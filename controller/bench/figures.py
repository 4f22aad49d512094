"""A figure: what was measured, how often, and what it should be. All of this is pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a figure is, and so whether it may be held against a baseline.

    Seconds and rates say more about the host than about us. Rough are instructions that spread more than they may get
    worse: of a single page, or the difference of two figures. A count says how much there was.
    """

    SECONDS = "seconds"
    RATE = "rate"
    RATIO = "ratio"
    INSTRUCTIONS = "instructions"
    ROUGH = "rough"
    COUNT = "count"

    @property
    def tolerance(self) -> float | None:
        """By what share it may get worse; None: it is told, and held against nothing."""
        return {Kind.RATIO: 0.20, Kind.INSTRUCTIONS: 0.01}.get(self)


class Better(StrEnum):
    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class Figure:
    """One figure. Before it is measured it says what is to be.

    `value`: the median of `samples`, in `unit`; None when it could not be had, and then `reason` says why. `failed`:
    that was our fault, and not that something optional is missing. `target`: at most this where lower is better, at
    least this otherwise. `facts`: what has to be the same for two values to be comparable.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better = Better.LOWER
    target: float | None = None
    value: float | None = None
    samples: tuple[float, ...] = ()
    reason: str = ""
    failed: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    def measured(self, samples: Sequence[float], facts: Mapping[str, str]) -> Figure:
        """With its samples, of which there is at least one."""
        return replace(
            self,
            value=_rounded(statistics.median(samples), self.kind),
            samples=tuple(_rounded(one, self.kind) for one in samples),
            facts=dict(facts),
        )

    def absent(self, reason: str, *, failed: bool) -> Figure:
        return replace(self, value=None, samples=(), reason=reason, failed=failed)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a value."""
        if self.target is None or self.value is None:
            return None
        return self.value <= self.target if self.better is Better.LOWER else self.value >= self.target


def _rounded(value: float, kind: Kind) -> float:
    """To what is worth keeping: a tenth of an instruction, a tenth of a millisecond."""
    return round(float(value), 4 if kind in (Kind.SECONDS, Kind.RATIO) else 1)


def ratios(upper: Sequence[float], lower: Sequence[float]) -> tuple[float, ...]:
    """Round by round, so that a moment in which the host was slow is in both sides of one ratio. Shorter wins."""
    return tuple(a / b for a, b in zip(upper, lower, strict=False) if b)


def to_json(figure: Figure) -> dict[str, Any]:
    """As it stands in the output; what does not apply is left out."""
    told: dict[str, Any] = {
        "name": figure.name,
        "title": figure.title,
        "value": figure.value,
        "unit": figure.unit,
        "kind": figure.kind.value,
        "better": figure.better.value,
    }
    if figure.samples:
        told |= {"samples": list(figure.samples), "facts": dict(figure.facts)}
    if figure.target is not None:
        told |= {"target": figure.target, "met": figure.met}
    if figure.reason:
        told |= {"reason": figure.reason, "failed": figure.failed}
    return told


def from_json(told: Mapping[str, Any]) -> Figure:
    """What to_json() wrote. KeyError, TypeError or ValueError when it did not."""
    return Figure(
        name=str(told["name"]),
        title=str(told["title"]),
        unit=str(told["unit"]),
        kind=Kind(told["kind"]),
        better=Better(told["better"]),
        target=None if told.get("target") is None else float(told["target"]),
        value=None if told["value"] is None else float(told["value"]),
        samples=tuple(float(one) for one in told.get("samples", ())),
        reason=str(told.get("reason", "")),
        failed=bool(told.get("failed", False)),
        facts={str(key): str(value) for key, value in told.get("facts", {}).items()},
    )
