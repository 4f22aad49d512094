"""What the probes themselves cost, as `mof bench` has measured it, kept in the cache for later reports.

Instructions, not times: they hold for the kernel, the probe set and the state of the probes' sources under which they
were counted, and on any host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from controller import machine
from controller.experiment import ProbeSet
from provision.host.cache import Cache, digest, digest_file

if TYPE_CHECKING:
    from guest_kernel.build import Kernel

KIND = "overhead"
RECIPE = 2
"""Raised when the scripts or the way of measuring change."""


@dataclass(frozen=True)
class Overhead:
    """Instructions that a set of probes adds to a page that moves, over 1,024 pages, and to what: `base_...` is a page
    without probes. `share_...` is what is added over that. `per_event`: added by one event of a lazy migration."""

    per_page_lazy: float
    per_page_direct: float
    per_event: float
    share_lazy: float
    share_direct: float
    events_per_page: float
    base_lazy: float
    base_direct: float


def between(base_lazy: float, base_direct: float, lazy: float, direct: float, events_per_page: float) -> Overhead:
    """From the instructions a page without probes and with them. Pure."""
    return Overhead(
        per_page_lazy=round(lazy - base_lazy, 1),
        per_page_direct=round(direct - base_direct, 1),
        per_event=round((lazy - base_lazy) / events_per_page, 1) if events_per_page else 0.0,
        share_lazy=round(lazy / base_lazy - 1, 5),
        share_direct=round(direct / base_direct - 1, 5),
        events_per_page=round(events_per_page, 2),
        base_lazy=base_lazy,
        base_direct=base_direct,
    )


def _key(kernel: Kernel, probe_set: ProbeSet) -> tuple[str, dict[str, Any]]:
    sources = {path: digest_file(file) for path, file in machine.agent_files().items()}
    inputs = {
        "recipe": RECIPE,
        "kernel": kernel.build_id,
        "set": probe_set.value,
        "sources": digest(sources),
    }
    return kernel.id, inputs


def of(cache: Cache, kernel: Kernel, probe_set: ProbeSet) -> Overhead | None:
    """What was measured for this kernel, set and state of the probes; None when nothing was."""
    if probe_set is ProbeSet.NONE:
        return None
    found = cache.find(KIND, *_key(kernel, probe_set))
    if found is None:
        return None
    try:
        return Overhead(**{one.name: float(found.facts[one.name]) for one in fields(Overhead)})
    except (KeyError, TypeError, ValueError):
        return None


def keep(cache: Cache, kernel: Kernel, probe_set: ProbeSet, measured: Overhead) -> None:
    """For later reports. The first that was measured under the same circumstances stays: a second tells the same."""
    facts: Mapping[str, Any] = asdict(measured)
    cache.make(KIND, *_key(kernel, probe_set), lambda draft: facts)
