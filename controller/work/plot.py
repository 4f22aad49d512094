"""Time to solution by rounds, as SVG: a panel for each machine, a line for each way, a dot where it begins to pay. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from controller.work.cases import Placement
from controller.work.payoff import WAYS, Panel

WIDTH, HEIGHT = 270, 220
LEFT, TOP, BOTTOM, GAP = 52, 48, 40, 26
COLOURS = {Placement.FIRST_TOUCH: "#8a8a8a", Placement.DIRECT: "#d95f02", Placement.LAZY: "#1b6fb5"}
"""Told apart by whoever does not see red and green."""
STYLE = "font: 12px system-ui, sans-serif; fill: #333"


def plot(panels: Sequence[Panel]) -> str:
    """The whole picture; all panels have the same scale."""
    most = max(max(curve.totals) for one in panels for curve in one.curves.values()) / 1e6
    step = _step(most)
    top = math.ceil(most / step) * step
    each = LEFT + WIDTH + GAP
    width, height = each * len(panels), TOP + HEIGHT + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/><g style="{STYLE}">',
    ]
    for number, one in enumerate(panels):
        out += _panel(one, number * each + LEFT, top, step)
    out += _legend()
    return "\n".join([*out, "</g></svg>"]) + "\n"


def _step(most: float) -> float:
    """1, 2 or 5 of some power of ten, of which there are four to nine up to `most`."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most / 4)


def _panel(one: Panel, x: float, top: float, step: float) -> list[str]:
    rounds = len(one.curves[WAYS[0]].totals) - 1

    def place(n: int, ns: int) -> tuple[float, float]:
        return x + WIDTH * n / rounds, TOP + HEIGHT * (1 - ns / 1e6 / top)

    out = [f'<text x="{x}" y="{TOP - 10}">remote {one.times:g} times as far</text>']
    for line in range(round(top / step) + 1):
        y = TOP + HEIGHT * (1 - line * step / top)
        out.append(f'<path d="M{x} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{line * step:g}</text>')
    for n in sorted({0, rounds // 4, rounds // 2, rounds * 3 // 4, rounds}):
        out.append(f'<text x="{place(n, 0)[0]:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{n}</text>')
    out.append(f'<text x="{x + WIDTH / 2}" y="{TOP + HEIGHT + 32}" text-anchor="middle">rounds</text>')
    for way in WAYS:
        totals = one.curves[way].totals
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(n, ns) for n, ns in enumerate(totals)))
        out.append(f'<polyline fill="none" stroke="{COLOURS[way]}" stroke-width="2" points="{points}"/>')
        after = one.pays_after(way) if way is not Placement.FIRST_TOUCH else None
        if after is not None:
            a, b = place(after, totals[after])
            out.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{COLOURS[way]}"><title>{way.value} pays after round {after}'
                "</title></circle>"
            )
    return out


def _legend() -> list[str]:
    out = ['<text x="8" y="18">total, ms</text>']
    for number, way in enumerate(WAYS):
        x = 110 + 110 * number
        out.append(f'<path d="M{x} 14h22" stroke="{COLOURS[way]}" stroke-width="2"/>')
        out.append(f'<text x="{x + 28}" y="18">{way.value}</text>')
    return out
