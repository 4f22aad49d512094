"""`mof topology` as typed, as far as no guest is needed, and what it draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli import main
from provision.hardware import drawing, topology
from tests.unit.test_qemu_args import GOLDEN


def test_every_preset_says_what_it_is_and_where_its_figures_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["topology", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == topology.presets()
    for name in topology.presets():
        one = topology.load(name)
        assert one.title
        assert one.source


def test_it_is_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main.main(["topology", "show", "slow-tier"]) == 0
    shown = capsys.readouterr().out
    assert "│ CPU 0-1  │  │ CPU 2-3  │  │ no CPU   │" in shown
    assert "node 1  242  118  419" in shown
    assert "memory tier 28: node 2" in shown
    assert "node 0 demotes to 2" in shown


@pytest.mark.parametrize("name", [*topology.presets(), str(GOLDEN / "topology-cached.toml")])
@pytest.mark.parametrize("width", [30, 80, 200])
def test_boxes_are_straight_and_no_wider_than_there_is_room(name: str, width: int) -> None:
    boxes = [line for line in drawing.draw(topology.load(name), width).splitlines() if line[:1] in ("┌", "│", "└")]
    assert len({len(line) for line in boxes if line.startswith("┌")}) <= 2, "the last row may have fewer"
    for line in boxes:
        assert len(line) <= width
        assert line.count("│") % 2 == 0


def test_json_has_what_was_derived(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["topology", "show", "slow-tier", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tiers"] == {"4": [0, 1], "28": [2]}
    assert told["distances"][1] == [21, 10, 36]


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("distances = [[10, 9], [9, 10]]\n")
    for arguments in (["show", "5node"], ["show", str(bad)], ["check", str(bad)], ["show"]):
        assert main.main(["topology", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
