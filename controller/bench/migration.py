"""What lazy migration costs, as data: which figures there are, and how they come out of memtoy's answers. All of it pure.

The group compares a page that mbind(2) moves before it returns (direct) with one that it marks and the next touch moves
(lazy), on several kernels and settings, by number of pages. Each figure has two forms: as counted, and without the
instructions of the copy itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controller.bench.figures import Better, Figure, Kind
from controller.workloads.memtoy.output import CommandResult, MbindResult, TouchResult, WhereResult
from provision.host.errors import InfraError

INSN = "instructions"
PAGE = 4096

NOTE = "Guest instructions, which are not time: cache misses, atomics, interrupts between CPUs and remote copies are absent."
"""Stands with every table."""

FEATURES = ("erms",)
"""The processor copies a page by `rep movsb` (arch/x86/lib/copy_mc_64.S, copy_mc_enhanced_fast_string): on hardware one
instruction, here one for each byte. Without it a loop of moves would do it, in fewer instructions than bytes; which of the
two is left out makes no difference to what remains."""

COPY = 4_101
"""Of one page, in copy_mc_enhanced_fast_string: 4,096 times `rep movsb`, once more to find that nothing is left, and the four
instructions around it. Held against what is measured by check_copy()."""

PLAIN_COPY = 1_558
"""The same without `erms`, instead of it: memcpy_orig (arch/x86/lib/memcpy_64.S), 128 rounds of 12 instructions for 32 bytes,
18 before and after them, and 4 in copy_mc_to_kernel() for the call."""

COPY_TOLERANCE = 40
"""Instructions by which the difference between both processors may be off: direct and lazy figures repeat to about 20."""

LOOP = 9
"""Instructions for a page in the loop of memtoy's `touch` that reads, of a page that is mapped: what 1,024 pages take more
than one, divided by their number. What it takes besides is the clock, which memtoy reads before and after everything it
times."""

SOURCE, TARGET = 1, 2
"""Nodes: where the scripts write their pages, and where their policy then wants them."""


class Variant(StrEnum):
    """On what, and how, a set of figures is measured."""

    BEFORE = "before"
    AFTER = "after"
    AROUND = "around"
    HINTING = "hinting"


@dataclass(frozen=True)
class Setting:
    """`title` for the tables; `sysctls` of /proc/sys/vm that make it what it is, as they are to be."""

    title: str
    sysctls: Mapping[str, int]


SETTINGS: Mapping[Variant, Setting] = {
    Variant.BEFORE: Setting("five patches", {}),
    Variant.AFTER: Setting("whole series", {}),
    Variant.AROUND: Setting("vm.migrate_on_fault_around=16", {"migrate_on_fault_around": 16}),
    Variant.HINTING: Setting("vm.migrate_on_fault_hinting=1", {"migrate_on_fault_hinting": 1}),
}

BEFORE_PATCHES = 5
"""So many patches make up the series that `before` is: lazy migration without anything that makes it cheaper."""


@dataclass(frozen=True)
class Size:
    """How much is moved at once. `units`: what its figures are divided by; `copies`: of pages, for one such unit."""

    name: str
    title: str
    pages: int
    units: int
    huge: bool = False

    @property
    def copies(self) -> int:
        return self.pages // self.units


SIZES = (
    Size("1", "1 page", 1, 1),
    Size("8", "8 pages", 8, 8),
    Size("1024", "1,024 pages", 1024, 1024),
    Size("16384", "16,384 pages", 16384, 16384),
    Size("thp", "one THP, whole", 512, 1, huge=True),
)
MANY = SIZES[2]
"""That which the limits are about, and where a touch that writes is measured too."""

LIMITS: Mapping[str, float] = {
    "migration.after.1.lazy": 16_000,
    "migration.after.1024.of_direct": 1.30,
    "migration.around.1024.of_direct": 1.05,
    "migration.hinting.1024.of_direct": 1.20,
    "migration.off.cache_of_base": 1.005,
    "migration.off.device_of_base": 1.005,
}
"""What may be at most."""

WITHOUT = "_without"
"""Ends the name of a figure that leaves out the copy."""


def _figure(name: str, title: str, kind: Kind, better: Better = Better.LOWER) -> Figure:
    unit = "x" if kind is Kind.RATIO else INSN
    return Figure(name, title, unit, kind, better, target=LIMITS.get(name))


def _of(variant: Variant, size: Size) -> Iterator[Figure]:
    kind = Kind.INSTRUCTIONS if size.units >= MANY.units or size.huge else Kind.ROUGH
    at, where = f"migration.{variant}.{size.name}", f"{variant}, {size.title}"
    for what, words in (("direct", "direct"), ("touch", "touch"), ("lazy", "lazy, all touched")):
        yield _figure(f"{at}.{what}", f"{where}: {words}", kind)
        yield _figure(f"{at}.{what}{WITHOUT}", f"{where}: {words}, without the copy", kind)
    yield _figure(f"{at}.mark", f"{where}: mark", kind)
    yield _figure(f"{at}.refault", f"{where}: refault alone", kind)
    for ending, words in (("", ""), (WITHOUT, ", without the copy")):
        yield _figure(f"{at}.of_direct{ending}", f"{where}: lazy / direct{words}", Kind.RATIO)
        break_even = f"{where}: share touched up to which lazy is cheaper{words}"
        yield _figure(f"{at}.break_even{ending}", break_even, Kind.RATIO, Better.HIGHER)
    if size is MANY:
        for what, words in (("touch_write", "touch that writes"), ("lazy_write", "lazy, all written")):
            yield _figure(f"{at}.{what}", f"{where}: {words}", kind)
            yield _figure(f"{at}.{what}{WITHOUT}", f"{where}: {words}, without the copy", kind)
        for ending, words in (("", ""), (WITHOUT, ", without the copy")):
            yield _figure(f"{at}.write_of_direct{ending}", f"{where}: lazy, written / direct{words}", Kind.RATIO)


def figures_of(variant: Variant) -> tuple[Figure, ...]:
    """Not yet measured, by size and within it in the order of the tables."""
    found = [one for size in SIZES for one in _of(variant, size)]
    at = f"migration.{variant}"
    # What the two processors differ by in a page that is copied: of what COPY says, this is measured.
    found.append(_figure(f"{at}.copy_direct", f"{variant}: copy, {FEATURES[0]} over without, direct", Kind.ROUGH))
    found.append(_figure(f"{at}.copy_touch", f"{variant}: copy, {FEATURES[0]} over without, touch", Kind.ROUGH))
    return tuple(found)


OFF = "off"
"""Beside the variants: ordinary swap faults with the series switched off."""


def figures_off() -> tuple[Figure, ...]:
    """Of ordinary swap faults, without the series and with it switched off."""
    found: list[Figure] = []
    for what, words in (("cache", "swap fault, page in the swap cache"), ("device", "swap fault, page read from zram")):
        found.append(_figure(f"migration.off.{what}_base", f"{words}: without the series", Kind.INSTRUCTIONS))
        found.append(_figure(f"migration.off.{what}", f"{words}: vm.migrate_on_fault=0", Kind.INSTRUCTIONS))
        found.append(_figure(f"migration.off.{what}_of_base", f"{words}: switched off / without", Kind.RATIO))
    return tuple(found)


def figures() -> tuple[Figure, ...]:
    """All of the group, not yet measured."""
    return (*(one for variant in Variant for one in figures_of(variant)), *figures_off())


@dataclass(frozen=True)
class Answered:
    """One run of a script: instructions of its mbind, less what reading the clock takes, of the first touch after that and
    of the second, which finds every page mapped; and how many pages were on the target node before the first touch."""

    mbind: int
    touch: int
    again: int
    early: int

    @property
    def touching(self) -> int:
        """Of the touch, what the loop itself does not cost."""
        return self.touch - self.again

    @property
    def whole(self) -> int:
        return self.mbind + self.touching


def answered(results: Sequence[CommandResult], pages: int, end: int) -> Answered:
    """From what memtoy said of one of the scripts, in which `pages` pages had to come to node `end`.

    InfraError when a command failed, contents were lost or the pages are elsewhere: then it cost something else.
    """
    for one in results:
        if not one.ok:
            raise InfraError(f"{one.text}: {one.error}")
    moves = [one for one in results if isinstance(one.result, MbindResult) and "move" in one.result.flags]
    touches = [one for one in results if isinstance(one.result, TouchResult)]
    places = [one.result.nodes for one in results if isinstance(one.result, WhereResult)]
    if len(moves) != 1 or len(touches) != 4 or len(places) != 3:
        raise InfraError("the script did not run to its end")
    for nodes, wanted in ((places[0], SOURCE), (places[2], end)):
        if (there := sum(node == wanted for node in nodes)) != pages:
            raise InfraError(f"{there} of {pages} pages are on node {wanted}")
    early = sum(node == TARGET for node in places[1])
    again = touches[2].cpu_ns
    clock = max(0, again - LOOP * pages)
    return Answered(max(0, moves[0].cpu_ns - clock), touches[1].cpu_ns, again, early)


def best(runs: Sequence[Answered]) -> Answered:
    """That which cost least: whatever else happens on the guest's CPUs meanwhile is counted too, and only adds."""
    return min(runs, key=lambda one: one.whole)


@dataclass(frozen=True)
class Measured:
    """One size in one fork. `refault`: None where the pages moved all the same, or could not be mapped again; `written`: by a
    touch that writes, None where that was not tried or failed. `why` they are missing, by their names here."""

    direct: Answered
    lazy: Answered
    refault: Answered | None
    written: Answered | None = None
    why: Mapping[str, str] = field(default_factory=dict)


def break_even(direct: float, mark: float, touch: float) -> float:
    """Of what is marked, this share may be touched until it would have cost less to move all of it directly:
    mark + share x touch = direct. Above 1: lazy is cheaper even if everything is touched."""
    return (direct - mark) / touch


def values(variant: Variant, size: Size, one: Measured) -> dict[str, float]:
    """The figures of one fork, by name: instructions a page, or a THP."""
    at = f"migration.{variant}.{size.name}"
    found: dict[str, float] = {}
    direct, mark = one.direct.mbind / size.units, one.lazy.mbind / size.units
    found[f"{at}.mark"] = mark
    if one.refault is not None:
        found[f"{at}.refault"] = one.refault.touching / size.units
    for ending, copy in (("", 0), (WITHOUT, COPY)):
        plain = direct - copy * size.copies
        # Pages that mbind moved at once, because they could not be marked, were copied there and not by the touch.
        marked = mark - copy * one.lazy.early / size.units
        touch = one.lazy.touching / size.units - copy * (size.pages - one.lazy.early) / size.units
        found |= {
            f"{at}.direct{ending}": plain,
            f"{at}.touch{ending}": touch,
            f"{at}.lazy{ending}": marked + touch,
            f"{at}.of_direct{ending}": (marked + touch) / plain,
        }
        # A THP that could not be marked has nothing left for the touch.
        if touch > 0 and one.lazy.early < size.pages:
            found[f"{at}.break_even{ending}"] = break_even(plain, marked, touch)
        if one.written is not None:
            writing = one.written.touching / size.units - copy * size.copies
            found |= {
                f"{at}.touch_write{ending}": writing,
                f"{at}.lazy_write{ending}": marked + writing,
                f"{at}.write_of_direct{ending}": (marked + writing) / plain,
            }
    return found


FIGURES_OF_PART: Mapping[str, tuple[str, ...]] = {
    "refault": ("refault",),
    "written": tuple(one + end for one in ("touch_write", "lazy_write", "write_of_direct") for end in ("", WITHOUT)),
}
"""Of the parts of a measurement that may be missing alone: the figures that go with them."""


def check_copy(difference: float) -> None:
    """InfraError unless a copied page differs between both processors by what their two ways to copy say: else this kernel
    copies in another way, and figures without the copy would be wrong."""
    expected = COPY - PLAIN_COPY
    if abs(difference - expected) > COPY_TOLERANCE:
        raise InfraError(
            f"a copy is {difference:,.0f} instructions longer with {FEATURES[0]}, not {expected:,}: not copied as assumed"
        )
