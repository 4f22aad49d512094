"""The results of a check, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 1


class Step(StrEnum):
    """What is done to each prefix, in this order."""

    APPLY = "apply"
    CHECKPATCH = "checkpatch"
    OBJECTS = "objects"
    BUILD = "build"
    VARIANTS = "variants"
    BOOT = "boot"
    PROMISE = "promise"


class Outcome(StrEnum):
    """What a step came to, as the table shows it."""

    OK = "ok"
    FAILED = "FAIL"
    SKIPPED = "-"


@dataclass(frozen=True)
class Found:
    """What the work of a step found: `words` say what is wrong, and there are none when nothing is.

    `notes`: what a person should know all the same. `figures`: what goes into the JSON.
    """

    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A step of a prefix. `seconds` are those of when it was done; `remembered`: that was in an earlier check."""

    step: Step
    outcome: Outcome
    seconds: float = 0.0
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    remembered: bool = False


@dataclass(frozen=True)
class Row:
    """A prefix: the first `number` patches. `patch` is the last one's file, `done` has the steps that were asked for."""

    number: int
    patch: str
    subject: str
    sha256: str
    done: tuple[Done, ...]

    def step(self, step: Step) -> Done | None:
        return next((d for d in self.done if d.step is step), None)


@dataclass(frozen=True)
class Checked:
    """A whole check. `facts`: source, compiler, ignored types. `notes`: what holds for all of it, each said once."""

    base: str
    patches: int
    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    seconds: float
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return any(d.outcome is Outcome.FAILED for row in self.rows for d in row.done)


def to_json(checked: Checked) -> dict[str, Any]:
    """Everything, for `--json`: a prefix an object, its steps by name."""
    return {
        "schema": SCHEMA,
        "verdict": "fail" if checked.failed else "pass",
        "base": checked.base,
        "patches": checked.patches,
        "steps": [step.value for step in checked.steps],
        "seconds": round(checked.seconds, 1),
        **checked.facts,
        "notes": list(checked.notes),
        "prefixes": [
            {
                "number": row.number,
                "patch": row.patch,
                "subject": row.subject,
                "sha256": row.sha256,
                "steps": {d.step.value: _told(d) for d in row.done},
            }
            for row in checked.rows
        ],
    }


def _told(done: Done) -> dict[str, Any]:
    told = asdict(done)
    del told["step"]
    outcome = {Outcome.OK: "ok", Outcome.FAILED: "fail", Outcome.SKIPPED: "skipped"}[done.outcome]
    return {**told, "outcome": outcome, "words": list(done.words), "notes": list(done.notes)}
