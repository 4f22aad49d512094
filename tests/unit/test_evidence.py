"""The run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.evidence import RunFolder
from provision.host.errors import InfraError


def test_the_folder_is_readable_from_its_first_moment(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "demo")
    assert json.loads((folder.path / "manifest.json").read_text())["state"] == "running"
    folder.record(kernel={"id": "6.12-mof"})
    folder.close("complete")
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert (manifest["state"], manifest["kernel"]["id"], manifest["run"]) == ("complete", "6.12-mof", folder.id)
    assert manifest["ended"] >= manifest["started"]


def test_two_runs_in_the_same_second_have_two_folders(tmp_path: Path) -> None:
    assert len({RunFolder(tmp_path, "demo").path for _ in range(20)}) == 20


def test_lines_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "demo")
    with folder.lines("a.jsonl") as stream:
        stream.write('{"line": 1}\n')
        assert (folder.workload / "a.jsonl").read_text() == '{"line": 1}\n'


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "demo")
    folder.write("trace.txt", "one")
    with pytest.raises(TypeError):
        folder.write("trace.txt", None)  # type: ignore[arg-type]
    assert (folder.path / "trace.txt").read_text() == "one"
    assert not [p for p in folder.path.iterdir() if p.name.startswith(".")]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InfraError, match=r"the run folder cannot be made: .*MOF_RUNS"):
        RunFolder(blocked, "demo")
