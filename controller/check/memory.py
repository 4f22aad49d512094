"""Steps that have passed are remembered, under the content of all that they depend on: in the cache, and in a record.

So a check that was stopped goes on where it stopped, and a change of one patch does again only what that patch is part
of. What failed is not remembered: the reason may be the host's, and who asks again wants it tried again.

A record is a file that a check may be given. It has the same in it, in a form that goes to another machine, or into a
repository beside the patches that it is about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.check.data import Done, Outcome, Step
from controller.evidence import write_atomically
from provision.host.cache import Cache, digest
from provision.host.errors import InfraError, UserError
from provision.host.eviction import Wish

KIND = "check"
SCHEMA = 1


class Record:
    """A record in a file, which need not be there yet. UserError when it is something else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, dict[str, Any]] = {}
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if path.parent.is_dir():
                return
            raise UserError("there is no such folder", where=str(path.parent), hint="make it first") from None
        except OSError as wrong:
            raise UserError(f"cannot be read: {wrong.strerror}", where=str(path), hint="name a file") from wrong
        try:
            data = json.loads(content)
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']!r}")
            self._steps = {key: _passed(one) for key, one in data["steps"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise UserError(
                f"not a record of a check: {wrong}", where=str(path), hint="name another file; it will be made"
            ) from wrong

    def find(self, key: str) -> Mapping[str, Any] | None:
        return self._steps.get(key)

    def keep(self, key: str, facts: Mapping[str, Any]) -> None:
        if self._steps.get(key) != facts:
            self._steps[key] = dict(facts)
            self._write()

    def forget(self, key: str) -> None:
        if self._steps.pop(key, None) is not None:
            self._write()

    def only(self, keys: set[str]) -> None:
        """Leave out everything else: steps of a series as it no longer is."""
        kept = {key: one for key, one in self._steps.items() if key in keys}
        if kept != self._steps:
            self._steps = kept
            self._write()

    def _write(self) -> None:
        text = json.dumps({"schema": SCHEMA, "steps": dict(sorted(self._steps.items()))}, indent=1) + "\n"
        try:
            write_atomically(self._path, text)
        except OSError as wrong:
            raise InfraError(f"cannot be written: {wrong.strerror}", where=str(self._path)) from wrong


class Memory:
    """`on` false: nothing is recalled and nothing kept. With a record, that is asked first, and told everything."""

    def __init__(self, cache: Cache, record: Record | None = None, *, on: bool = True) -> None:
        self._cache = cache
        self._record = record
        self._on = on
        self._seen: set[str] = set()

    def recall(self, step: Step, inputs: Mapping[str, Any]) -> Done | None:
        """The step as it passed with these inputs; None when it has not."""
        if not self._on:
            return None
        key = _key(step, inputs)
        self._seen.add(key)
        facts = self._record.find(key) if self._record is not None else None
        if facts is None:
            found = self._cache.find(KIND, step.value, inputs)
            if found is None:
                return None
            facts = found.facts
            if self._record is not None:
                self._record.keep(key, facts)
        return Done(
            step,
            Outcome(facts["outcome"]),
            float(facts["seconds"]),
            (),
            tuple(facts["notes"]),
            facts["figures"],
            remembered=True,
        )

    def keep(self, done: Done, inputs: Mapping[str, Any]) -> None:
        """Remember a step that passed."""
        if not self._on or done.outcome is not Outcome.OK:
            return
        facts = {
            "outcome": done.outcome.value,
            "seconds": round(done.seconds, 1),
            "notes": list(done.notes),
            "figures": dict(done.figures),
        }

        def maker(draft: Path) -> Mapping[str, Any]:
            return facts

        self._cache.make(KIND, done.step.value, inputs, maker)
        key = _key(done.step, inputs)
        self._seen.add(key)
        if self._record is not None:
            self._record.keep(key, facts)

    def forget(self, step: Step, inputs: Mapping[str, Any]) -> None:
        """As if it had never been done."""
        path = self._cache.path(KIND, step.value, inputs)
        if path.exists():
            self._cache.evict(Wish(frozenset({f"{KIND}/{path.name}"})))
        if self._record is not None:
            self._record.forget(_key(step, inputs))

    def forget_unseen(self) -> None:
        """Of the record, what was not asked for: of a whole check, that is of a series as it no longer is."""
        if self._record is not None:
            self._record.only(self._seen)


def _passed(one: Mapping[str, Any]) -> dict[str, Any]:
    """A step as it is written. ValueError, KeyError, TypeError when it is none, or none that passed."""
    if one["outcome"] != Outcome.OK:
        raise ValueError(f"a step that came to {one['outcome']!r}")
    facts = {"seconds": float(one["seconds"]), "notes": list(one["notes"]), "figures": dict(one["figures"])}
    return {"outcome": Outcome.OK.value, **facts}


def _key(step: Step, inputs: Mapping[str, Any]) -> str:
    return f"{step.value}-{digest(inputs)[:32]}"
