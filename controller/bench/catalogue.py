"""Every figure that a bench can have, by group, with its target: what is measured is filled in later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.bench import migration
from controller.bench.figures import Better, Figure, Kind
from controller.bench.groups import Group

INSN = "instructions"


SETS = ("counts", "full", "steps")
"""Probe sets whose price is measured, against none."""

FULL, QUICK = 16, 4
"""Runs side by side, and boots beside them. The target is of the former."""

_MOST = {"counts": 1.01, "full": 1.05}
"""What a lazy migration may cost with these probes, none being 1."""

RATIOS: Mapping[str, tuple[str, str]] = {
    "start.armed_of_vng": ("start.armed", "start.vng"),
    "start.demo_of_vng": ("start.demo", "start.vng"),
    "start.armed_of_boot": ("start.armed", "start.boot_armed"),
    "start.demo_of_boot": ("start.demo", "start.boot_demo"),
}
"""Ratios of figures that are measured in rounds: upper and lower."""


def _start() -> Iterator[Figure]:
    yield Figure("start.import", "import of mof", "s", Kind.SECONDS, target=0.3)
    yield Figure("start.armed", "to the first command, forked, probes attached", "s", Kind.SECONDS)
    yield Figure("start.boot_armed", "the same by booting", "s", Kind.SECONDS)
    yield Figure("start.demo", "whole demo, forked, with report", "s", Kind.SECONDS)
    yield Figure("start.boot_demo", "the same by booting", "s", Kind.SECONDS)
    yield Figure("start.vng", "vng -r KERNEL -- true", "s", Kind.SECONDS)
    yield Figure("start.armed_of_vng", "forked first command / vng", "x", Kind.RATIO, target=0.4)
    yield Figure("start.demo_of_vng", "whole demo / vng", "x", Kind.RATIO, target=2.0)
    yield Figure("start.armed_of_boot", "forked first command / booted", "x", Kind.RATIO)
    yield Figure("start.demo_of_boot", "demo, forked / booted", "x", Kind.RATIO)


def _pages() -> Iterator[Figure]:
    yield Figure("pages.lazy", "lazy, a page of 1,024", INSN, Kind.INSTRUCTIONS)
    yield Figure("pages.lazy_mark", "  of it mbind, which unmaps", INSN, Kind.INSTRUCTIONS)
    yield Figure("pages.lazy_touch", "  of it the touch, which moves", INSN, Kind.INSTRUCTIONS)
    yield Figure("pages.direct", "direct, a page of 1,024", INSN, Kind.INSTRUCTIONS)
    yield Figure("pages.lazy_one", "lazy, one page alone", INSN, Kind.ROUGH)
    yield Figure("pages.direct_one", "direct, one page alone", INSN, Kind.ROUGH)
    yield Figure("pages.lazy_of_direct", "lazy / direct", "x", Kind.RATIO)
    yield Figure(
        "pages.break_even", "share of pages touched up to which lazy is cheaper", "x", Kind.RATIO, Better.HIGHER
    )


def _probes() -> Iterator[Figure]:
    for one in SETS:
        yield Figure(f"probes.{one}_lazy", f"{one}: lazy, a page", INSN, Kind.INSTRUCTIONS)
        yield Figure(f"probes.{one}_direct", f"{one}: direct, a page", INSN, Kind.INSTRUCTIONS)
        yield Figure(f"probes.{one}_events", f"{one}: events a page, lazy", "events", Kind.COUNT)
        yield Figure(f"probes.{one}_event", f"{one}: what an event adds, lazy", INSN, Kind.ROUGH)
        yield Figure(f"probes.{one}_of_none_lazy", f"{one} / none, lazy", "x", Kind.RATIO, target=_MOST.get(one))
        yield Figure(f"probes.{one}_of_none_direct", f"{one} / none, direct", "x", Kind.RATIO)


def _drain() -> Iterator[Figure]:
    yield Figure("drain.rate", "events received, none lost", "events/s", Kind.RATE, Better.HIGHER)


def _many(count: int) -> Iterator[Figure]:
    yield Figure("many.forks", f"forks, {count} runs side by side", "/min", Kind.RATE, Better.HIGHER)
    yield Figure("many.boots", "boots, one after the other", "/min", Kind.RATE, Better.HIGHER)
    # Named by its count: a few forks do not fill the host, so their ratio is another figure.
    yield Figure(
        f"many.{count}_forks_of_boots",
        "forks / boots",
        "x",
        Kind.RATIO,
        Better.HIGHER,
        target=8.0 if count >= FULL else None,
    )


def _memory() -> Iterator[Figure]:
    for work in ("chase", "stream"):
        yield Figure(
            f"memory.{work}_counted", f"{work}, accesses counted / controller that is off", "x", Kind.RATIO, target=3.0
        )
        yield Figure(
            f"memory.{work}_idle", f"{work}, controller that is off / no controller", "x", Kind.RATIO, target=1.1
        )


def figures(group: Group, count: int) -> tuple[Figure, ...]:
    """The group's figures, not yet measured. `count`: how many runs side by side make up the group `many`."""
    match group:
        case Group.START:
            return tuple(_start())
        case Group.PAGES:
            return tuple(_pages())
        case Group.PROBES:
            return tuple(_probes())
        case Group.DRAIN:
            return tuple(_drain())
        case Group.MANY:
            return tuple(_many(count))
        case Group.MEMORY:
            return tuple(_memory())
        case Group.MIGRATION:
            return migration.figures()
