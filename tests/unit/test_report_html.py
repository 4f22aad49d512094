"""The HTML report: one file, sound pictures, nothing fetched, nothing unescaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from controller.analysis import verdict
from controller.analysis.model import Clock, Evidence
from controller.report import html, picture, trace
from tests.fakes import recorded_runs as recorded

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Balanced(HTMLParser):
    """Fails on tags that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass


def page(run: Evidence, manifest: dict[str, Any] | None = None, lost: str = "") -> str:
    found = verdict.findings(run)
    text = html.render(found, trace.render(found), manifest or {}, lost=lost)
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\(|@import|<script|https?:""", text)
    return text


@pytest.mark.parametrize("name", ["demo", "base", "more"])
def test_recorded_runs_make_sound_pages(name: str) -> None:
    run = recorded.evidence(name)
    text = page(run)
    for case in run.cases:
        assert case.name in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_picture_has_a_line_a_page_and_a_lane_a_place() -> None:
    run = recorded.evidence("demo")
    found = verdict.findings(run)
    for case, finding in zip(run.cases, found.cases, strict=True):
        root = ET.fromstring(picture.picture(case, finding))
        lines = [e for e in root.iter() if e.get("class") == "page"]
        lanes = [e for e in root.iter() if (e.get("class") or "").startswith("lane")]
        assert len(lines) == 8
        assert len(lanes) == (3 if "lazy" in case.name else 2)
        assert len([e for e in root.iter() if e.get("class") == "dot"]) == 8
        width, height = (float(x) for x in root.get("viewBox", "").split()[2:])
        for line in lines:
            points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
            assert [x for x, _ in points] == sorted(x for x, _ in points)
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_of_many_pages_some_are_drawn_and_the_page_says_so() -> None:
    text = page(recorded.only(recorded.evidence("more"), "direct-640"))
    assert text.count("<polyline") == 32
    assert "32 of 640" in re.sub(r"\s+", " ", text)


def test_nothing_known_is_no_picture() -> None:
    run = recorded.evidence("demo")
    bare = replace(run, cases=(replace(run.cases[0], results=run.cases[0].results[:3]),))
    assert picture.picture(bare.cases[0], verdict.findings(bare).cases[0]) == ""
    page(bare)


def test_what_people_wrote_is_escaped() -> None:
    run = recorded.evidence("demo")
    nasty = "<script>alert('x')</script> & \"more\""
    results = tuple(replace(done, text=f"{done.text} {nasty}") for done in run.cases[0].results)
    case = replace(run.cases[0], title=nasty, script_text=nasty, results=results)
    text = page(replace(run, cases=(case,), warnings=(nasty,)), {"experiment": nasty, "qemu_command": [nasty]})
    assert "<script" not in text and "&lt;script" in text


def test_the_machine_and_how_to_repeat_it() -> None:
    manifest = {
        "experiment": "demo",
        "qemu_command": ["qemu-system-x86_64", "-machine", "q35"],
        "started": "2026-01-01",
    }
    text = page(replace(recorded.evidence("demo"), clock=Clock.INSN), manifest)
    assert "mof run demo --kernel 6.12-mof --topology 4node" in text
    assert "qemu-system-x86_64 -machine q35" in text
    assert "1,110 fired, 1,110 received, 0 lost" in text
    assert "guest instructions" in text


def test_a_lost_run_is_a_page_too() -> None:
    run = replace(recorded.evidence("demo"), cases=(), events=None, probes=None)
    text = page(run, lost="guest lost (panic): sysrq triggered crash")
    assert 'class="banner lost"' in text and "sysrq triggered crash" in text
    assert "--probes none" in text
