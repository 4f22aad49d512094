"""A guest for a run that keeps a folder: a fork of a template where that can be, else one that boots. The folder says which."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from controller import arming, machine
from controller.arming import Standing
from controller.evidence import RunFolder
from controller.plan import Wanted
from provision.guest import snapshot
from provision.host.cache import Cache
from provision.host.progress import Progress


@dataclass(frozen=True)
class Place:
    """Where a run notes what it comes to. `timings`: seconds, by what took them."""

    folder: RunFolder
    warnings: list[str]
    timings: dict[str, float]


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Notes the seconds that the block takes."""
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = round(time.monotonic() - began, 3)


@contextmanager
def had(plan: Wanted, parts: machine.Parts, cache: Cache, place: Place, progress: Progress) -> Iterator[Standing]:
    """The guest, for as long as the block lasts. GuestLost, InfraError."""
    with ExitStack() as stack:
        standing = _stand(stack, plan, parts, cache, place, progress)
        place.timings.update(standing.timings)
        yield standing


def _stand(
    stack: ExitStack, plan: Wanted, parts: machine.Parts, cache: Cache, place: Place, progress: Progress
) -> Standing:
    folder = place.folder
    name = f"mof-{folder.id[-6:]}"
    why = "asked for"
    accel = arming.choose(plan, parts.kernel, cache, progress)
    if not plan.options.boot:
        with timed(place.timings, "template"):
            artifact, why = arming.template(plan, parts, accel, cache, folder.path, progress)
        if artifact is not None:
            try:
                forked = arming.forked(plan, parts, accel, cache, artifact, folder.path, name, progress)
                standing = stack.enter_context(forked)
                folder.record(template=standing.template)
                return standing
            except snapshot.Unusable as wrong:
                arming.discard(cache, artifact)
                why = str(wrong)
        place.warnings.append(f"booted instead of forking a template: {why}")
        progress.note(f"booting: {why}")
    folder.record(template=None, booted=why)
    return stack.enter_context(arming.booted(plan, parts, accel, cache, folder.path, name, progress))
