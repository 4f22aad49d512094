"""Several runs of one plan, told together: how each ended, and how far their costs spread."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.analysis.model import Clock, Cost, Outcome
from controller.report import figures

SCHEMA = 1
MOST_TOLD = 6


@dataclass(frozen=True)
class CaseSpread:
    """Costs of one case over the runs that measured one, in `unit` a page; `spread`: (most - least) / least."""

    name: str
    runs: int
    passed: int
    least: float | None
    median: float | None
    most: float | None
    spread: float | None
    unit: str


def spreads(verdicts: Sequence[Mapping[str, Any]]) -> tuple[CaseSpread, ...]:
    """One a case, in the order of the first verdict that has it."""
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in verdicts:
        for case in verdict.get("cases", ()):
            cases.setdefault(case["name"], []).append(case)
    return tuple(_spread(name, rows) for name, rows in cases.items())


def _spread(name: str, rows: Sequence[Mapping[str, Any]]) -> CaseSpread:
    passed = sum(row["verdict"] == Outcome.PASS for row in rows)
    units = {row["cost_per_page"]["unit"] for row in rows}
    values = [row["cost_per_page"]["value"] for row in rows if row["cost_per_page"]["value"] is not None]
    if not values or len(units) != 1:
        return CaseSpread(name, len(rows), passed, None, None, None, None, "")
    least, most = min(values), max(values)
    spread = (most - least) / least if least else None
    return CaseSpread(name, len(rows), passed, least, statistics.median(values), most, spread, units.pop())


def outcome(verdicts: Sequence[Mapping[str, Any]], count: int) -> Outcome:
    """Pass when all `count` runs passed; else the worst that is among them. A run without a verdict is lost."""
    found = {Outcome(verdict["verdict"]) for verdict in verdicts if verdict}
    if len([v for v in verdicts if v]) < count:
        found.add(Outcome.LOST)
    return next((o for o in (Outcome.LOST, Outcome.FAIL, Outcome.UNDECIDED) if o in found), Outcome.PASS)


def told(name: str, verdicts: Sequence[Mapping[str, Any]], count: int, seconds: float, jobs: int) -> dict[str, Any]:
    """summary.json of the group, schema 1. `verdicts`: {} for a run that has none."""
    whole = outcome(verdicts, count)
    known = [verdict for verdict in verdicts if verdict]
    clocks = sorted({verdict["clock"] for verdict in known if verdict["clock"]})
    return {
        "schema": SCHEMA,
        "group": name,
        "verdict": whole.value,
        "reason": reason(verdicts, count),
        "count": count,
        "jobs": jobs,
        "seconds": round(seconds, 3),
        "clock": clocks[0] if len(clocks) == 1 else "",
        "cases": [
            {
                "name": one.name,
                "runs": one.runs,
                "passed": one.passed,
                "cost_per_page": {
                    "least": one.least,
                    "median": one.median,
                    "most": one.most,
                    "spread": one.spread,
                    "unit": one.unit,
                },
            }
            for one in spreads(known)
        ],
        "runs": list(verdicts),
    }


def reason(verdicts: Sequence[Mapping[str, Any]], count: int) -> str:
    """`16 runs: 15 pass, 1 undecided (2 events lost)`."""
    by = Counter(verdict["verdict"] if verdict else "lost" for verdict in verdicts)
    words = [f"{by[o.value]} {o.value}" for o in Outcome if by[o.value]]
    why = next((v["reason"] for v in verdicts if v and v["verdict"] != Outcome.PASS), "")
    missing = f", {count - len(verdicts)} not run" if len(verdicts) < count else ""
    return f"{count} runs: {', '.join(words)}{missing}" + (f" ({why})" if why else "")


def summary(group: Mapping[str, Any], folder: Path, errors: Sequence[tuple[int, str]]) -> str:
    """Plain text: the verdict, a line a case, what went wrong. `errors`: number of the run and its line."""
    return "\n".join([f"{str(group['verdict']).upper()}: {group['reason']}", "", *_lines(group, folder, errors)])


def _lines(group: Mapping[str, Any], folder: Path, errors: Sequence[tuple[int, str]]) -> Iterator[str]:
    cases = group["cases"]
    if cases:
        width = max(len("case"), *(len(case["name"]) for case in cases))
        clock = "instruction clock" if group["clock"] == Clock.INSN else f"{group['clock']} clock"
        yield (
            f"  {'case':<{width}}  {'passed':>9}  {'a page, least':>14}  {'median':>14}  {'most':>14}  {'spread':>8}"
            f"   {clock}"
        )
        for case in cases:
            cost = case["cost_per_page"]
            shown = [figures.cost(Cost(cost[key], cost["unit"])) for key in ("least", "median", "most")]
            spread = "-" if cost["spread"] is None else f"{100 * cost['spread']:.2f} %"
            passed = f"{case['passed']} of {case['runs']}"
            yield f"  {case['name']:<{width}}  {passed:>9}  " + "  ".join(f"{s:>14}" for s in shown) + f"  {spread:>8}"
        yield ""
    for number, error in errors[:MOST_TOLD]:
        yield f"  run {number}: {error}"
    if len(errors) > MOST_TOLD:
        yield f"  ... and {len(errors) - MOST_TOLD} more"
    if errors:
        yield ""
    rate = 60 * group["count"] / group["seconds"] if group["seconds"] else 0.0
    yield f"  {group['jobs']} at a time, {group['seconds']:.1f} s, {rate:.0f} runs a minute"
    yield f"  {folder}"
