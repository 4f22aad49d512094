"""The figures of migration as tables: for a terminal, and for a document, which says where they go.

A number stands with the copy of the page and, after a stroke, without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from controller import evidence
from controller.bench.figures import Figure
from controller.bench.migration import MANY, NOTE, OFF, SETTINGS, SIZES, WITHOUT, Variant
from controller.bench.table import amount, target
from provision.host.errors import UserError

BEGIN = "<!-- mof bench --only migration --markdown writes from here -->"
END = "<!-- to here -->"
NONE = "-"
"""Of what could not be measured; why stands below the table."""

COST_HEAD = (
    "instructions a page",
    "direct",
    "mark",
    "touch",
    "refault alone",
    "lazy: mark + touch",
    "lazy / direct",
    "cheaper up to a touched share of",
)
SUMMARY_HEAD = (
    "1,024 pages, instructions a page",
    "direct",
    "mark",
    "touch",
    "lazy: mark + touch",
    "lazy / direct",
    "touch that writes",
    "lazy, written / direct",
)
OFF_HEAD = ("ordinary swap fault, instructions a page", "without the series", "vm.migrate_on_fault=0", "ratio")
LIMIT_HEAD = ("limit", "measured", "")


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown that is one for the eye as well: numbers to the right."""
    every = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in every)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{text:>{width}}" for text, width in rest) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [line(every[0]), rule, *(line(row) for row in every[1:])]


def _number(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return NONE
    if figure.name.removesuffix(WITHOUT).endswith(".break_even"):
        # Marking alone costs as much; or lazy is cheaper though everything is touched.
        return "none" if figure.value <= 0 else "all" if figure.value >= 1 else f"{100 * figure.value:.0f} %"
    return amount(figure.value, figure.unit)


def _both(figures: Mapping[str, Figure], name: str) -> str:
    """`8,427 / 4,326`: with the copy, and without."""
    return f"{_number(figures.get(name))} / {_number(figures.get(name + WITHOUT))}"


def _reasons(figures: Iterable[Figure]) -> list[str]:
    """Why something is missing, each reason once."""
    found = dict.fromkeys(one.reason for one in figures if one.value is None and one.reason)
    return [f"Not measured: {reason}." for reason in found]


def _cost_row(figures: Mapping[str, Figure], at: str, title: str) -> tuple[str, ...]:
    return (
        title,
        _both(figures, f"{at}.direct"),
        _number(figures.get(f"{at}.mark")),
        _both(figures, f"{at}.touch"),
        _number(figures.get(f"{at}.refault")),
        _both(figures, f"{at}.lazy"),
        _both(figures, f"{at}.of_direct"),
        _both(figures, f"{at}.break_even"),
    )


def _title(variant: Variant, figures: Sequence[Figure]) -> str:
    """`after: 6.12-mof, vm.migrate_on_fault_around=16`."""
    kernel = next((one.facts["kernel"] for one in figures if one.facts), "")
    return f"{variant}: {', '.join(filter(None, (kernel, SETTINGS[variant].title)))}"


def _summary(by: Mapping[str, Figure]) -> list[str]:
    rows = []
    for variant in Variant:
        at = f"migration.{variant}.{MANY.name}"
        cells = ("direct", "mark", "touch", "lazy", "of_direct", "touch_write", "write_of_direct")
        shown = [_number(by.get(f"{at}.{one}")) if one == "mark" else _both(by, f"{at}.{one}") for one in cells]
        rows.append((variant.value, *shown))
    return grid(SUMMARY_HEAD, rows)


def _off(by: Mapping[str, Figure]) -> list[str]:
    at = f"migration.{OFF}"
    titles = {"cache": "page in the swap cache", "device": "page read from zram"}
    names = {what: (f"{at}.{what}_base", f"{at}.{what}", f"{at}.{what}_of_base") for what in titles}
    return grid(OFF_HEAD, [(titles[what], *(_exact(by.get(name)) for name in names[what])) for what in titles])


def _exact(figure: Figure | None) -> str:
    """Half a percent shows in the first digit after the point, and in the fourth of a ratio."""
    if figure is None or figure.value is None:
        return NONE
    return f"{figure.value:,.1f}" if figure.unit != "x" else f"{figure.value:.4f}"


def _limits(figures: Iterable[Figure]) -> list[str]:
    rows = []
    for one in figures:
        if one.target is not None:
            met = {True: "met", False: "MISSED", None: "not measured"}[one.met]
            rows.append((f"{one.title} {target(one).removesuffix(' met').removesuffix(' missed')}", _exact(one), met))
    return grid(LIMIT_HEAD, rows)


def _of(figures: Iterable[Figure], part: str) -> list[Figure]:
    return [one for one in figures if one.name.startswith(f"migration.{part}.")]


def tables(every: Sequence[Figure]) -> str:
    """Every table that the group's figures make, with the note beside each."""
    by = {one.name: one for one in every}
    note = ["", f"*{NOTE}*", ""]
    lines = ["### At a glance", "", *_summary(by), *note]
    for variant in Variant:
        figures = _of(every, variant)
        rows = [_cost_row(by, f"migration.{variant}.{size.name}", size.title) for size in SIZES]
        lines += [f"### {_title(variant, figures)}", "", *grid(COST_HEAD, rows), *note, *_spaced(_reasons(figures))]
        lines += _copies(by, variant)
    lines += ["### Switched off", "", *_off(by), *note, *_spaced(_reasons(_of(every, OFF)))]
    lines += ["### Limits", "", *_limits(every), *note]
    return "\n".join(lines).rstrip() + "\n"


def _copies(by: Mapping[str, Figure], variant: Variant) -> list[str]:
    shown = [_number(by.get(f"migration.{variant}.copy_{what}")) for what in ("direct", "touch")]
    if NONE in shown:
        return []
    return [f"A page copied with `erms` counts {shown[0]} more than without in mbind, {shown[1]} in the touch.", ""]


def _spaced(lines: Sequence[str]) -> list[str]:
    return [*lines, ""] if lines else []


def put(text: str, content: str, where: str) -> str:
    """A document with this between its marks. UserError when it has not both, in this order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            "there is no place for the tables", where=where, hint=f"{BEGIN} on a line, {END} on a later one"
        )
    return f"{before}{BEGIN}\n\n{content.rstrip()}\n\n{END}{after}"


def check(path: Path) -> None:
    """UserError when the tables could not be put there."""
    put(_read(path), "", str(path))


def write(path: Path, content: str) -> None:
    """Put the tables into the document at `path`."""
    evidence.write_atomically(path, put(_read(path), content, str(path)))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not a text file"
        raise UserError(
            f"the document cannot be read: {reason}", where=str(path), hint="name one with a place"
        ) from wrong
