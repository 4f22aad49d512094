"""When moving pays: from what CPUs spent to totals, tables and a picture."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from controller.work import payoff, payoff_run, plot
from controller.work import run as runs
from controller.work.answers import Outcome, Phase, State
from controller.work.cases import Placement
from controller.work.payoff import WAYS, Curve, Panel, Setting
from provision.guest.memctl import Spent
from provision.hardware import topology
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError
from provision.host.progress import Silent

SETTING = Setting(megabytes=4, rounds=3, local_ns=100, touched_percent=100)
MS = 1_000_000


def phase(name: str, *ms: float) -> Phase:
    """One in which CPUs spent so much each, half of it waiting."""
    return Phase(name, 0, 0, tuple(Spent(int(one * MS) // 2, int(one * MS) // 2) for one in ms))


def outcome(way: int, *phases: Phase, state: State = State.CORRECT) -> Outcome:
    case = payoff.workload(SETTING, "6.12-mof").cases[way]
    return Outcome(case, state, "it rains" if state is not State.CORRECT else "", phases)


STAYED = outcome(0, phase("init", 10, 0), *[phase("round", 1, 8)] * 3)
DIRECT = outcome(1, phase("init", 10, 0), phase("place", 0, 9), *[phase("round", 1, 4)] * 3)
LAZY = outcome(2, phase("init", 10, 0), phase("place", 0, 1), phase("round", 1, 12), *[phase("round", 1, 4)] * 2)


@pytest.fixture
def panel() -> Panel:
    return payoff.panel(SETTING, 2, [STAYED, DIRECT, LAZY])


def test_a_phase_takes_as_long_as_its_slowest_cpu(panel: Panel) -> None:
    totals = {way: [ns / MS for ns in panel.curves[way].totals] for way in WAYS}
    assert totals == {
        Placement.FIRST_TOUCH: [10, 18, 26, 34],
        Placement.DIRECT: [19, 23, 27, 31],
        Placement.LAZY: [11, 23, 27, 31],
    }
    assert (panel.local_ns, panel.remote_ns) == (100, 200)


def test_it_pays_after_the_round_at_whose_end_the_total_is_less(panel: Panel) -> None:
    assert panel.pays_after(Placement.DIRECT) == 3
    assert panel.pays_after(Placement.LAZY) == 3
    slower = Curve(tuple(ns + 50 * MS for ns in panel.curves[Placement.LAZY].totals))
    never = Panel(2, 100, 200, {**panel.curves, Placement.LAZY: slower})
    assert never.pays_after(Placement.LAZY) is None
    assert payoff.rows(never)[-1] == ("pays after round", "-", "3", "not in these")


def test_a_case_that_is_not_correct_or_not_counted_gives_no_curve() -> None:
    with pytest.raises(InfraError, match="first-touch: wrong: it rains"):
        payoff.curve(outcome(0, state=State.WRONG))
    with pytest.raises(InfraError, match="what its CPUs spent is not known"):
        payoff.curve(outcome(0, Phase("init", 5, 5)))


def test_the_machine_is_a_topology_with_these_distances() -> None:
    made = topology.parse(payoff.topology(SETTING, 1.5), "x", "x")
    assert made.performance is not None
    assert made.performance.latency_ns[0] == (100, 150, 150, 150)
    assert made.distances[0] == (10, 15, 15, 15)
    assert [node.cpus for node in made.nodes] == [(0,), (1,), (2,), (3,)]


def test_tables(panel: Panel) -> None:
    assert payoff.rows(panel) == [
        ("initialised and placed", "10.000", "19.000", "11.000"),
        ("after 1 round", "18.000", "23.000", "23.000"),
        ("after 2 rounds", "26.000", "27.000", "27.000"),
        ("after 3 rounds", "34.000", "31.000", "31.000"),
        ("each round in the end", "8.000", "4.000", "4.000"),
        ("pays after round", "-", "3", "3"),
    ]
    assert payoff.shown(20) == [1, 2, 5, 10, 20]
    assert payoff.text([panel]).splitlines()[:3] == [
        "Remote memory 2 times as far: 200 ns, local 100 ns",
        "",
        "  total, ms               first-touch  direct    lazy",
    ]
    page = payoff.markdown(SETTING, [panel, panel], "kernel k", "mof work break-even", "p.svg")
    assert page.count("| after 2 rounds | 26.000 | 27.000 | 27.000 |\n") == 2
    assert "| total, ms | first-touch | direct | lazy |\n|---|---:|---:|---:|\n| initialised" in page
    assert "![total time by rounds](p.svg)" in page
    assert "{" not in page


def test_the_picture_has_a_line_for_each_way_and_a_dot_where_it_pays(panel: Panel) -> None:
    drawn = plot.plot([panel, panel])
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f".//{space}polyline")
    assert len(lines) == 6
    assert len(root.findall(f".//{space}circle")) == 4
    for line in lines:
        points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        assert len(points) == 4
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    # As high as 31 of 40 ms of what the scale has.
    first = [float(y) for y in re.findall(r",([\d.]+)", lines[1].attrib["points"])]
    assert first[-1] == pytest.approx(plot.TOP + plot.HEIGHT * (1 - 31 / 35), abs=0.1)


def test_a_kernel_without_the_series_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"6\.12-base does not migrate lazily"):
        payoff_run.plans(SETTING, (2.0,), "6.12-base", 60)


@pytest.mark.parametrize("state", ["wrong", "failed", "undecided"])
def test_a_run_that_is_not_correct_gives_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    done = runs.Done(tmp_path, {"result": state, "latency": {"kind": "felt"}}, "what it came to")
    monkeypatch.setattr(runs, "run", lambda *_: done)
    planned = payoff_run.plans(SETTING, (2.0, 3.0), "6.12-mof", 60)
    measured = payoff_run.measure(SETTING, planned, Cache(tmp_path), Silent())
    assert measured.failed is done
    assert (measured.panels, measured.folders) == ([], [tmp_path])
