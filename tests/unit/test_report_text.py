"""The terminal summary keeps to its screenful, whatever there is to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.analysis import verdict
from controller.analysis.model import Clock, Findings, Outcome
from controller.report import text
from tests.fakes import recorded_runs as recorded

FOLDER = Path("runs/20260101T000000Z-demo-abcdef")


def summary(findings: Findings, lost: str = "") -> list[str]:
    lines = text.summary(findings, FOLDER, lost=lost).splitlines()
    assert len(lines) <= text.HEIGHT
    assert max(len(line) for line in lines) <= text.WIDTH
    assert any(str(FOLDER) in line for line in lines)
    return lines


def test_the_demo() -> None:
    lines = summary(verdict.findings(recorded.evidence("demo")))
    assert lines[0] == "PASS: 4 cases, 32 of 32 pages moved, contents intact, no event lost"
    lazy = next(line for line in lines if line.startswith("  anon-8p-lazy "))
    assert lazy.split()[:4] == ["anon-8p-lazy", "pass", "lazy", "8"]
    assert "intact" in lazy and "1 > 2" in lazy


def test_a_failure_names_the_command() -> None:
    lines = summary(verdict.findings(recorded.evidence("base")))
    assert lines[0].startswith("FAIL: anon-8p-lazy: line ")
    assert any("warning:" in line for line in lines)


@pytest.mark.parametrize("number", [0, 1, 9, 10, 40])
@pytest.mark.parametrize("warnings", [0, 1, 3, 30])
def test_many_cases_and_long_warnings_still_fit(number: int, warnings: int) -> None:
    found = verdict.findings(recorded.evidence("demo"))
    one = replace(found.cases[0], name="a-case-with-a-name-that-is-much-too-long-for-a-column")
    bad = replace(one, name="bad", outcome=Outcome.FAIL)
    cases = tuple([one] * (number - 1) + [bad] if number else [])
    long = tuple(f"warning {i} " + "that goes on and on " * 20 for i in range(warnings))
    lines = summary(replace(found, cases=cases, warnings=long, reason="because " * 100))
    if number:
        assert any(line.startswith("  bad") for line in lines)
    if number > text.MOST_CASES:
        assert any(line.endswith("cases more") for line in lines)


def test_a_lost_guest_and_one_without_probes() -> None:
    run = recorded.evidence("demo")
    lost = summary(verdict.findings(replace(run, cases=())), lost="guest lost (hang): nothing for 60 s")
    assert lost[0] == "LOST: guest lost (hang): nothing for 60 s"
    assert any("no probes" in line for line in summary(verdict.findings(replace(run, probes=None, events=None))))


def test_instructions_are_called_so() -> None:
    lines = summary(verdict.findings(replace(recorded.evidence("demo"), clock=Clock.INSN)))
    assert any(line.endswith(" insn") for line in lines)


def test_the_coloured_summary_says_the_same() -> None:
    plain = text.summary(verdict.findings(recorded.evidence("base")), FOLDER)
    styled = text.styled(plain)
    assert styled.plain == plain
    assert any("red" in str(span.style) for span in styled.spans)
    assert any("green" in str(span.style) for span in styled.spans)
