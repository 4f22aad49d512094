"""The annotated trace, the summary and the HTML report, from a recorded run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from controller.analysis import verdict
from controller.analysis.model import Findings
from controller.report import html, text, trace
from tests.fakes import recorded_demo as recorded

GOLDEN = recorded.FOLDER / "trace.txt"


@pytest.fixture(scope="module")
def findings() -> Findings:
    return verdict.findings(recorded.demo())


def test_the_trace_of_the_recorded_run_is_as_recorded(findings: Findings) -> None:
    assert trace.render(findings) == GOLDEN.read_text()


def test_the_lazy_case_tells_its_phases_in_order(findings: Findings) -> None:
    story = trace.render(findings)
    lazy = story[story.index("anon-8p-lazy:") : story.index("anon-8p-lazy-where:")]
    phases = [
        "gathers the pages",
        "put into the swap cache and unmapped",
        "so the access faults",
        "finds it in the swap cache",
        "The policy says node 2",
        "So the fault moves it",
        "The page is mapped",
    ]
    places = [re.sub(r"\s+", " ", lazy).index(phase) for phase in phases]
    assert places == sorted(places)


def test_every_event_of_a_small_run_is_in_the_trace(findings: Findings) -> None:
    events = findings.evidence.events
    assert events is not None
    raw = [line for line in trace.render(findings).splitlines() if re.match(r" +\d+\.\d +\d+ +\d+ ", line)]
    assert len(raw) == len(events)


def test_the_summary_is_one_screenful(findings: Findings, tmp_path: Path) -> None:
    lines = text.summary(findings, tmp_path).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100 or str(tmp_path) in max(lines, key=len)
    assert lines[0].startswith("PASS: ")
    assert any(str(tmp_path) in line for line in lines)


def test_the_summary_of_a_lost_run_says_so(findings: Findings, tmp_path: Path) -> None:
    empty = verdict.findings(replace(findings.evidence, cases=()))
    assert text.summary(empty, tmp_path, lost="guest lost (panic): x").startswith("LOST: guest lost (panic): x")


def test_the_report_needs_no_network_and_draws_every_page(findings: Findings) -> None:
    page = html.render(findings, trace.render(findings), {})
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "@import" not in page
    assert page.count("<polyline") == 32
    assert "anon-8p-lazy-where" in page


def test_the_report_escapes_what_people_wrote(findings: Findings) -> None:
    evidence = findings.evidence
    nasty = replace(evidence.cases[0], title="<script>alert(1)</script>")
    spoiled = verdict.findings(replace(evidence, cases=(nasty, *evidence.cases[1:])))
    assert "<script>alert" not in html.render(spoiled, trace.render(spoiled), {})
