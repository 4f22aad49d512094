"""The figures as a table for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from controller.bench.baseline import Comparison, Outcome
from controller.bench.figures import Better, Figure

HEAD = ("", "median", "least", "most", "target", "baseline")


def amount(value: float, unit: str) -> str:
    """`1.84 s`, `11,712`, `0.312`, `97.5 /min`: instructions and ratios need no unit beside their titles."""
    match unit:
        case "s":
            return f"{value:.2f} s"
        case "x":
            return f"{value:.3f}"
        case "instructions":
            return f"{value:,.0f}"
        case "events":
            return f"{value:.1f}"
        case "/min":
            return f"{value:.1f} /min"
    return f"{value:,.0f} {unit}"


def target(figure: Figure) -> str:
    """`<= 0.4 met`; empty without a target."""
    if figure.target is None:
        return ""
    sign = "<=" if figure.better is Better.LOWER else ">="
    said = {True: " met", False: " missed", None: ""}[figure.met]
    return f"{sign} {figure.target:g}{' s' if figure.unit == 's' else ''}{said}"


def against(figure: Figure, comparison: Comparison) -> str:
    """`0.301 +3.7 %`, with WORSE where it is; empty where there is nothing to say."""
    if comparison.baseline is None:
        return ""
    text = amount(comparison.baseline, figure.unit)
    if comparison.outcome is Outcome.OTHER:
        return f"{text} not compared"
    if comparison.change is None:
        return text
    return f"{text} {100 * comparison.change:+.1f} %{' WORSE' if comparison.outcome is Outcome.WORSE else ''}"


def render(title: str, groups: Mapping[str, Sequence[Figure]], comparisons: Mapping[str, Comparison]) -> str:
    """`title`, a block for each group, and what there is to say below. `comparisons`: by figure."""
    rows = {name: [_row(one, comparisons[one.name]) for one in figures] for name, figures in groups.items()}
    every = [HEAD, *(row for block in rows.values() for row in block)]
    # A reason stands where the numbers would, and does not make their columns wider.
    widths = [max(len(row[i]) for row in every if i == 0 or len(row) == len(HEAD)) for i in range(len(HEAD))]
    lines = [title, ""]
    for name, block in rows.items():
        head = _line(("", *HEAD[1:]), widths)
        lines.append(f"{name}{head[len(name) :]}" if len(name) < widths[0] + 2 else name)
        lines += [_line(row, widths) for row in block]
        lines.append("")
    lines += _notes(comparisons, {one.name: one for figures in groups.values() for one in figures})
    return "\n".join(lines).rstrip()


def _row(figure: Figure, comparison: Comparison) -> tuple[str, ...]:
    if figure.value is None:
        return (figure.title, f"{'FAILED' if figure.failed else '-'}  {figure.reason}")
    spread = [amount(edge(figure.samples), figure.unit) if len(figure.samples) > 1 else "" for edge in (min, max)]
    return (
        figure.title,
        amount(figure.value, figure.unit),
        *spread,
        target(figure),
        against(figure, comparison),
    )


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    """Numbers to the right, words to the left."""
    title = f"  {row[0]:<{widths[0]}}"
    if len(row) == 2:
        return f"{title}  {row[1]}"
    numbers = "  ".join(f"{text:>{width}}" for text, width in zip(row[1:4], widths[1:4], strict=True))
    words = "  ".join(f"{text:<{width}}" for text, width in zip(row[4:], widths[4:], strict=True))
    return f"{title}  {numbers}  {words}".rstrip()


def _notes(comparisons: Mapping[str, Comparison], figures: Mapping[str, Figure]) -> Iterator[str]:
    """Why figures were not compared, each reason once; and what got worse."""
    reasons: dict[str, int] = {}
    for one in comparisons.values():
        if one.outcome is Outcome.OTHER:
            reasons[one.why] = reasons.get(one.why, 0) + 1
    for why, count in reasons.items():
        yield f"{count} figure{'s' if count > 1 else ''} not compared: {why}"
    for one in comparisons.values():
        if one.outcome is Outcome.WORSE and one.change is not None:
            figure = figures[one.name]
            may = 100 * (figure.kind.tolerance or 0.0)
            yield f"WORSE: {one.name} ({figure.title.strip()}) by {100 * abs(one.change):.1f} %, {may:g} % are allowed"
