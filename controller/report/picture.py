"""A case's pages over time, by node, as SVG: each page a line through the lanes of the nodes.

The time axis is made of memtoy's commands, each with a band of its own, for what matters takes microseconds and what
lies between takes milliseconds. Within a band, the changes are in their order and evenly spaced, for the first fault of
many takes longer than all others together.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from controller.analysis.model import CaseFinding, CaseInput, PageState, Step
from controller.workloads.memtoy.output import MapResult, SegmentResult

LEFT, RIGHT, TOP, BOTTOM = 150, 20, 58, 14
QUIET, BUSY = 98, 330
"""Widths of a command's band in which no page changes, and in which some do."""
LANE = 30
SPREAD = 6.0
"""Pixels between the lines of two pages in the same lane."""
MOST_BANDS = 24
LABEL = 26


@dataclass(frozen=True)
class _Band:
    """A command on the time axis: up to `end` (ns), at x, so wide; `changes`: when pages change in it, in order."""

    end: int
    changes: tuple[int, ...]
    x: float
    width: float
    text: str

    def place(self, time: int) -> float:
        share = (bisect.bisect_left(self.changes, time) + 1) / (len(self.changes) + 1)
        return self.x + self.width * share


def _bands(case: CaseInput, changes: Sequence[int]) -> list[_Band]:
    done = [d for d in case.results if not isinstance(d.result, MapResult | SegmentResult)]
    done = done[:MOST_BANDS]
    found: list[_Band] = []
    x = float(LEFT)
    for number, one in enumerate(done):
        end = done[number + 1].start_ns if number + 1 < len(done) else one.end_ns + 1
        inside = sorted({time for time in changes if one.start_ns <= time < end})
        # Where memtoy located pages or had touched them, all change at its end; that needs no room.
        width = BUSY if len(inside) > 1 else QUIET
        found.append(_Band(end, tuple(inside), x, width, " ".join(one.text.split("#")[0].split())))
        x += width
    return found


def _x(bands: Sequence[_Band], time: int) -> float:
    for band in bands:
        if time < band.end:
            return band.place(time)
    return bands[-1].x + bands[-1].width


@dataclass(frozen=True)
class _Lane:
    node: int
    state: PageState
    top: float
    height: float

    @property
    def label(self) -> str:
        where = f"node {self.node}"
        return where if self.state is PageState.MAPPED else f"{where}, unmapped"


def _lanes(case: CaseFinding, pages: int) -> list[_Lane]:
    used = {(step.node, step.state) for steps in case.steps.values() for step in steps}
    height = max(LANE, SPREAD * pages + 10)
    order = sorted(used, key=lambda pair: (pair[0], pair[1] is PageState.CACHED))
    return [_Lane(node, state, TOP + i * (height + 8), height) for i, (node, state) in enumerate(order)]


def _label(band: _Band) -> str:
    room = max(8, int((band.width - 8) / 6.4))
    words = band.text.split()
    lines, current = [], ""
    for word in words:
        if current and len(current) + 1 + len(word) > room:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    lines.append(current)
    shown = [line if len(line) <= room else line[: room - 1] + "…" for line in lines[:3]]
    x = f"{band.x + 5:.1f}"
    spans = "".join(f'<tspan x="{x}" dy="{13 if i else 0}">{escape(line)}</tspan>' for i, line in enumerate(shown))
    return f'<text class="cmd" x="{x}" y="16">{spans}<title>{escape(band.text)}</title></text>'


def _points(steps: Sequence[Step], bands: Sequence[_Band], at: dict[tuple[int, PageState], float], end: float) -> str:
    """The page's line: level while nothing changes, and a slope of a few pixels where it does."""
    parts: list[tuple[float, float]] = []
    for step in steps:
        x, y = _x(bands, step.time), at[step.node, step.state]
        if parts:
            parts.append((max(parts[-1][0], x - 5), parts[-1][1]))
            x = max(x + 5, parts[-1][0] + 2)
        parts.append((x, y))
    if parts:
        parts.append((max(end, parts[-1][0]), parts[-1][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in parts)


def picture(case: CaseInput, finding: CaseFinding) -> str:
    """An <svg> element; empty when nothing is known about any page."""
    drawn = {i: steps for i, steps in finding.steps.items() if steps}
    changes = sorted(step.time for steps in drawn.values() for step in steps)
    bands = _bands(case, changes)
    if not drawn or not bands:
        return ""
    lanes = _lanes(finding, len(drawn))
    end = bands[-1].x + bands[-1].width
    bottom = lanes[-1].top + lanes[-1].height
    width, height = end + RIGHT, bottom + BOTTOM
    title = f"{len(drawn)} of {finding.pages} pages of {finding.name} over time, by node"
    out = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="min-width:{width * 0.62:.0f}px;max-width:{width:.0f}px" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    ]
    for number, band in enumerate(bands):
        shade = "band odd" if number % 2 else "band"
        out.append(
            f'<rect class="{shade}" x="{band.x:.1f}" y="0" width="{band.width:.1f}" height="{bottom + 4:.1f}"/>'
            f"{_label(band)}"
        )
    for lane in lanes:
        out.append(
            f'<rect class="lane {lane.state.value}" x="{LEFT}" y="{lane.top:.1f}" width="{end - LEFT:.1f}" '
            f'height="{lane.height:.1f}" rx="3"/>'
            f'<text class="node" x="{LEFT - 10}" y="{lane.top + lane.height / 2 + 4:.1f}">{escape(lane.label)}</text>'
        )
    for order, (index, steps) in enumerate(drawn.items()):
        offset = 5 + SPREAD / 2 + order * SPREAD
        at = {(lane.node, lane.state): lane.top + offset for lane in lanes}
        address = int(finding.table.address[index])
        story = "; ".join(f"{step.how}: node {step.node}" for step in steps)
        hue = round(200 + 140 * order / max(1, len(drawn) - 1)) % 360
        out.append(
            f'<polyline class="page" style="stroke:hsl({hue} 62% var(--page-light))" '
            f'points="{_points(steps, bands, at, end)}">'
            f"<title>page {index}, {address:x}: {escape(story)}</title></polyline>"
        )
        for step in steps:
            if step.how.startswith("moved"):
                x = max(_x(bands, step.time) + 5, 0)
                out.append(f'<circle class="dot" cx="{x:.1f}" cy="{at[step.node, step.state]:.1f}" r="2.1"/>')
    return "".join(out) + "</svg>"
