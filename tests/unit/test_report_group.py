"""Several runs told together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.analysis.model import Outcome
from controller.report import group


def verdict(outcome: str, cost: float | None = None, unit: str = "instructions") -> dict[str, Any]:
    case = {"name": "lazy", "verdict": outcome, "cost_per_page": {"value": cost, "unit": unit, "of": ""}}
    return {"verdict": outcome, "reason": f"because {outcome}", "clock": "insn", "cases": [case]}


def test_the_spread_is_of_most_over_least() -> None:
    (one,) = group.spreads([verdict("pass", cost) for cost in (11_500.0, 11_523.0, 11_510.0)])
    assert (one.least, one.median, one.most) == (11_500.0, 11_510.0, 11_523.0)
    assert one.spread == pytest.approx(0.002)
    assert (one.runs, one.passed) == (3, 3)


def test_costs_of_different_clocks_are_not_put_together() -> None:
    (one,) = group.spreads([verdict("pass", 10.0), verdict("pass", 10.0, "ns")])
    assert one.median is None


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass", "pass"], Outcome.PASS),
        (["pass", "undecided"], Outcome.UNDECIDED),
        (["undecided", "fail"], Outcome.FAIL),
        (["lost", "fail"], Outcome.LOST),
        (["pass", ""], Outcome.LOST),
        (["pass"], Outcome.LOST),
    ],
)
def test_the_worst_decides(verdicts: list[str], expected: Outcome) -> None:
    assert group.outcome([verdict(text) if text else {} for text in verdicts], 2) is expected


def test_the_summary_names_the_clock_and_what_went_wrong() -> None:
    told = group.told("g", [verdict("pass", 11_500.0), verdict("undecided")], 2, 4.0, 2)
    text = group.summary(told, Path("/runs/g"), [(1, "something broke")])
    assert text.startswith("UNDECIDED: 2 runs: 1 pass, 1 undecided (because undecided)")
    assert "instruction clock" in text
    assert "11,500 insn" in text
    assert "run 1: something broke" in text
    assert "30 runs a minute" in text
