"""Steps that have passed are remembered in the cache, under the content of all that they depend on.

So a check that was stopped goes on where it stopped, and a change of one patch does again only what that patch is part
of. What failed is not remembered: the reason may be the host's, and who asks again wants it tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.check.data import Done, Outcome, Step
from provision.host.cache import Cache
from provision.host.eviction import Wish

KIND = "check"


class Memory:
    """`on` false: nothing is recalled and nothing kept."""

    def __init__(self, cache: Cache, *, on: bool = True) -> None:
        self._cache = cache
        self._on = on

    def recall(self, step: Step, inputs: Mapping[str, Any]) -> Done | None:
        """The step as it passed with these inputs; None when it has not."""
        found = self._cache.find(KIND, step.value, inputs) if self._on else None
        if found is None:
            return None
        facts = found.facts
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

    def forget(self, step: Step, inputs: Mapping[str, Any]) -> None:
        """As if it had never been done."""
        path = self._cache.path(KIND, step.value, inputs)
        if path.exists():
            self._cache.evict(Wish(frozenset({f"{KIND}/{path.name}"})))
