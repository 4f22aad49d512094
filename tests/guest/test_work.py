"""`mof work` in real guests: each kind of work, and where the pages of parts are in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.conftest import Ran

STEPS = 1_000_000
SINGLE = """\
[[case]]
name = "{work}"
work = "{work}"
megabytes = 2
cpu = 1
node = 2
{more}
"""
PARTS = """\
[[case]]
name = "{name}"
work = "parts"
megabytes = 2
init_cpu = 0
cpus = [1, 2, 3]
placement = "{placement}"
rounds = 3
{more}
"""
PLACEMENTS = ("first-touch", "direct", "lazy", "ideal")
PAGES = 512
THIRDS = {"1": 170, "2": 171, "3": 171}
FILE = "\n".join(
    [
        SINGLE.format(work="chase", more=f"steps = {STEPS}"),
        SINGLE.format(work="stream", more="rounds = 2"),
        SINGLE.format(work="update", more="updates = 20_000"),
        *(PARTS.format(name=placement, placement=placement, more="") for placement in PLACEMENTS),
        PARTS.format(name="written", placement="lazy", more="writes = true"),
        PARTS.format(name="half", placement="lazy", more="touched_percent = 50"),
    ]
)

Cases = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("work") / "kinds.toml"
    file.write_text(FILE)
    return str(file)


def told(ran: Ran) -> Cases:
    assert ran.status == 0, ran.explain()
    found = json.loads(ran.out)
    assert (found["result"], found["warnings"]) == ("correct", []), ran.explain()
    return {case["name"]: case for case in found["cases"]}


@pytest.fixture(scope="module")
def on_wall(once: Callable[..., Ran], path: str) -> Cases:
    return told(once("work", "run", path, "--json"))


@pytest.fixture(scope="module")
def counted(once: Callable[..., Ran], path: str) -> Cases:
    """On the clock of instructions, with the memory controller looking on."""
    return told(once("work", "run", path, "--clock", "insn", "--memory", "--json"))


@pytest.fixture(params=["wall", "insn"])
def ran(request: pytest.FixtureRequest) -> Cases:
    found: Cases = request.getfixturevalue("on_wall" if request.param == "wall" else "counted")
    return found


def test_every_case_is_correct_and_has_its_phases(ran: Cases) -> None:
    assert {case["result"] for case in ran.values()} == {"correct"}
    phases = {name: [phase["phase"] for phase in case["phases"]] for name, case in ran.items()}
    assert phases["chase"] == ["chase"]
    assert phases["stream"] == ["copy", "scale", "add", "triad"] * 2
    assert phases["update"] == ["pass"] * 2
    assert phases["ideal"] == phases["first-touch"] == ["init", *["round"] * 3]
    assert phases["lazy"] == phases["direct"] == ["init", "place", *["round"] * 3]


def test_pages_are_where_the_case_says(ran: Cases) -> None:
    assert [ran[name]["pages"] for name in ("chase", "stream", "update")] == [
        {"2": PAGES},
        {"2": 3 * PAGES},
        {"2": PAGES},
    ]
    assert ran["first-touch"]["pages"] == {"0": PAGES}
    for name in ("direct", "lazy", "ideal", "written"):
        assert (ran[name]["pages"], ran[name]["absent"]) == (THIRDS, 0), name


def test_pages_that_nobody_touches_stay_unmapped_and_do_not_move(ran: Cases) -> None:
    half = ran["half"]
    assert half["absent"] == PAGES // 2
    assert sum(half["pages"].values()) == PAGES // 2
    assert set(half["pages"]) == set(THIRDS)


def test_a_step_of_chase_is_one_instruction_and_a_sixteenth_of_two(counted: Cases) -> None:
    (phase,) = counted["chase"]["phases"]
    assert phase["accesses"] == STEPS
    assert 1.125 <= phase["each"] < 1.13


def test_the_first_lazy_round_moves_and_later_ones_are_as_cheap_as_elsewhere(counted: Cases) -> None:
    rounds = {name: [p["each"] for p in counted[name]["phases"] if p["phase"] == "round"] for name in PLACEMENTS}
    assert rounds["lazy"][0] > 5 * rounds["lazy"][-1]
    for name in PLACEMENTS:
        assert rounds[name][-1] == pytest.approx(rounds["ideal"][-1], rel=0.1), name


def test_the_memory_controller_sees_the_accesses_and_hardly_more(counted: Cases) -> None:
    for name in ("chase", "stream", "update"):
        expected = sum(phase["accesses"] for phase in counted[name]["phases"])
        seen = counted[name]["memory"]
        assert seen["lost"] == 0
        assert expected <= seen["remote"] < expected + 2000, name
        assert seen["local"] < 2000, name


def test_an_access_is_that_of_the_cpu_that_makes_it(counted: Cases) -> None:
    """Where several run the same code: pages are each worker's own, or all of them another's."""
    accesses = {name: [p["accesses"] for p in counted[name]["phases"]] for name in PLACEMENTS}
    assert counted["ideal"]["memory"]["local"] >= sum(accesses["ideal"])
    assert counted["ideal"]["memory"]["remote"] < 5000
    init, *rounds = accesses["first-touch"]
    seen = counted["first-touch"]["memory"]
    assert init <= seen["local"] < init + 5000
    assert sum(rounds) <= seen["remote"] < sum(rounds) + 5000


def test_the_run_folder_has_it_all(once: Callable[..., Ran], path: str) -> None:
    ran = once("work", "run", path, "--json")
    assert ran.folder is not None
    assert json.loads((ran.folder / "work.json").read_text()) == json.loads(ran.out)
    assert (ran.folder / "summary.txt").read_text().startswith("CORRECT: kinds, 9 of 9 cases correct")
    manifest = json.loads((ran.folder / "manifest.json").read_text())
    assert (manifest["state"], manifest["clock"], manifest["topology"]) == ("complete", "wall", "4node")
    assert len((ran.folder / "workload" / "stream.jsonl").read_text().splitlines()) == 9
