"""Accesses over time as SVG: how many went to the memory of the CPU's own node, in all and by range of addresses.

Time is in accesses, or in samples, which are taken every so many of them: what nobody accesses takes no room.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

from controller.analysis.model import RangeAccess

WIDTH, HEIGHT = 720, 96
MOST_POINTS = 360
LABEL_WIDTH = 72
RIGHT = 20

COLUMNS = 90
ROWS = 48
ROW = 13
NAME_WIDTH = 170
"""Of the map's labels, which are names of segments and addresses."""


def line(series: Sequence[tuple[int, int, int]]) -> str:
    """Of the accesses between two samples (ns, local, remote, both since the beginning) those that were local, as an <svg>
    over the number of accesses; empty when there are none."""
    step = max(1, len(series) // MOST_POINTS)
    kept = [(0, 0), *((local, remote) for _, local, remote in series[step - 1 :: step])]
    if series and kept[-1] != series[-1][1:]:
        kept.append(series[-1][1:])
    total = sum(kept[-1])
    if not total:
        return ""
    points = []
    for (local, remote), (more, other) in itertools.pairwise(kept):
        done = (more - local) + (other - remote)
        if done:
            y = 8 + (HEIGHT - 16) * (1 - (more - local) / done)
            points += [
                (LABEL_WIDTH + WIDTH * (local + remote) / total, y),
                (LABEL_WIDTH + WIDTH * (more + other) / total, y),
            ]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    width = LABEL_WIDTH + WIDTH + RIGHT
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img">'
        f"<title>share of local accesses</title>"
        f'<text class="cmd" x="4" y="14">all local</text><text class="cmd" x="4" y="{HEIGHT - 6}">all remote</text>'
        f'<rect class="lane" x="{LABEL_WIDTH}" y="4" width="{WIDTH}" height="{HEIGHT - 8}"/>'
        f'<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="{drawn}"/></svg>'
    )


def chart(ranges: Sequence[RangeAccess]) -> str:
    """A map of samples and ranges of addresses as an <svg>: each field by its share of local accesses, empty where there are
    none. Neighbours are drawn as one where there are too many. Empty when there is nothing to show."""
    rows = _joined([one for one in ranges if any(map(sum, one.shares))])
    if not rows:
        return ""
    samples = len(rows[0].shares)
    step = -(-samples // COLUMNS)
    columns = -(-samples // step)
    field = WIDTH / columns
    width, height = NAME_WIDTH + WIDTH + RIGHT, ROW * len(rows) + 8
    out = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>share of local accesses, by range of addresses</title>"
        f'<rect class="lane" x="{NAME_WIDTH}" y="4" width="{WIDTH}" height="{ROW * len(rows)}"/>'
    ]
    for number, one in enumerate(rows):
        y = 4 + ROW * number
        out.append(f'<text class="cmd" x="4" y="{y + ROW - 3}">{escape(one.segment)} {one.start:x}</text>')
        for column in range(columns):
            local, remote = map(sum, zip(*one.shares[column * step : (column + 1) * step], strict=True))
            if not local + remote:
                continue
            share = local / (local + remote)
            # From orange, all of it remote, to blue: told apart by whoever does not see red and green.
            out.append(
                f'<rect x="{NAME_WIDTH + field * column:.1f}" y="{y}" width="{field + 0.1:.1f}" height="{ROW - 1}" '
                f'fill="hsl({28 + 182 * share:.0f} 80% 52%)"><title>{100 * share:.1f} % of {local + remote:,} local'
                f"</title></rect>"
            )
    return "".join(out) + "</svg>"


def _joined(ranges: list[RangeAccess]) -> list[RangeAccess]:
    """At most so many: as many neighbours of the same segment as it takes come together."""
    each = 1
    rows = ranges
    while len(rows) > ROWS and each < len(ranges):
        each *= 2
        rows = []
        for _, group in itertools.groupby(ranges, key=lambda one: (one.segment, one.start // (one.length * each))):
            together = list(group)
            added = [tuple(map(sum, zip(*of, strict=True))) for of in zip(*(o.shares for o in together), strict=True)]
            length = together[-1].start + together[-1].length - together[0].start
            shares = tuple((local, remote) for local, remote in added)
            rows.append(RangeAccess(together[0].segment, together[0].start, length, shares))
    return rows
