"""Figures against those of an earlier bench: what got worse, by more than may be. And the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from controller import evidence
from controller.bench.figures import Better, Figure
from provision.host.errors import UserError

SCHEMA = 1
DEFAULT = Path(__file__).parents[2] / "docs" / "bench-baseline.json"

_WORDS = {
    "kernel": "kernel",
    "source": "kernel source",
    "qemu": "QEMU",
    "accelerator": "accelerator",
    "cpus": "CPUs",
    "cpu": "processor",
}
_EDGE = 1e-9
"""What floating point may add to a value that is exactly at the edge of its tolerance."""


class Outcome(StrEnum):
    """How a figure stands to its baseline."""

    KEPT = "kept"  # within its tolerance, or better
    WORSE = "worse"
    NEW = "new"  # the baseline does not have it
    OTHER = "other"  # measured under something else: compared for nothing
    ABSENT = "absent"
    TOLD = "told"  # of a kind that is held against nothing


@dataclass(frozen=True)
class Kept:
    """What a baseline says of one figure, and the facts under which it was measured."""

    value: float
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """`change`: as a share of the baseline's value; `why` there is no comparison, in words."""

    name: str
    outcome: Outcome
    baseline: float | None = None
    change: float | None = None
    why: str = ""


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """The first fact that is not the same, in words; of QEMU only the major version counts."""
    for key in dict.fromkeys((*ours, *theirs)):
        mine, other = ours.get(key, "unknown"), theirs.get(key, "unknown")
        if key == "qemu":
            mine, other = mine.partition(".")[0], other.partition(".")[0]
        if mine != other:
            return f"the baseline's {_WORDS.get(key, key)} is {other}, not {mine}"
    return ""


def compare(figure: Figure, kept: Kept | None) -> Comparison:
    """One figure. Being better is never wrong; being worse is, beyond the tolerance of its kind."""
    tolerance = figure.kind.tolerance
    if figure.value is None:
        return Comparison(figure.name, Outcome.ABSENT, None if kept is None else kept.value, why=figure.reason)
    if tolerance is None:
        return Comparison(figure.name, Outcome.TOLD)
    if kept is None:
        return Comparison(figure.name, Outcome.NEW)
    if why := differing(figure.facts, kept.facts):
        return Comparison(figure.name, Outcome.OTHER, kept.value, why=why)
    change = figure.value / kept.value - 1
    worse = change if figure.better is Better.LOWER else -change
    outcome = Outcome.WORSE if worse > tolerance + _EDGE else Outcome.KEPT
    return Comparison(figure.name, outcome, kept.value, change)


def compare_all(figures: Iterable[Figure], baseline: Mapping[str, Kept]) -> tuple[Comparison, ...]:
    return tuple(compare(one, baseline.get(one.name)) for one in figures)


def parse(text: str, where: str) -> dict[str, Kept]:
    """A baseline by figure. UserError when the text is none."""
    try:
        told = json.loads(text)
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']}")
        found = {
            str(name): Kept(float(one["value"]), {str(k): str(v) for k, v in one["facts"].items()})
            for name, one in told["figures"].items()
        }
        if bad := [name for name, one in found.items() if not one.value > 0]:
            raise ValueError(f"{bad[0]} is not above 0")
    except (KeyError, TypeError, AttributeError, ValueError) as wrong:
        raise UserError(f"not a baseline: {wrong}", where=where, hint="make one with --write-baseline") from wrong
    return found


def read(path: Path) -> dict[str, Kept]:
    """UserError when the file cannot be read or is no baseline."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not a text file"
        raise UserError(
            f"the baseline cannot be read: {reason}", where=str(path), hint="make one with --write-baseline"
        ) from wrong
    return parse(text, str(path))


def text(figures: Iterable[Figure], old: Mapping[str, Kept]) -> str:
    """A baseline of these figures; those that were not measured this time stay as they were."""
    kept = dict(old)
    for one in figures:
        if one.value is not None and one.value > 0 and one.kind.tolerance is not None:
            kept[one.name] = Kept(one.value, one.facts)
    told = {name: {"value": kept[name].value, "facts": dict(kept[name].facts)} for name in sorted(kept)}
    return json.dumps({"schema": SCHEMA, "figures": told}, indent=1) + "\n"


def write(path: Path, content: str) -> None:
    evidence.write_atomically(path, content)


def history_line(told: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """One bench as one line of JSON."""
    short = {one.name: {"value": one.value, "unit": one.unit} for one in figures if one.value is not None}
    return json.dumps({**told, "figures": short}) + "\n"


def append(path: Path, line: str) -> None:
    """Add a line to a history, in one write, so that two benches do not mix theirs."""
    with path.open("a") as stream:
        stream.write(line)
