"""Saving and going on, against a stand-in for QEMU's monitor. Real ones are in tests/guest/test_template.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provision.guest import snapshot
from provision.guest.accelerator import Qemu
from provision.guest.console import Console
from provision.guest.qmp import Monitor, connected
from provision.guest.snapshot import Saved, Unsavable, Unusable
from provision.host.deadline import Deadline
from tests.fakes.monitor import serving

NEW, OLD = Qemu("qemu", "10.0.2"), Qemu("qemu", "7.2.0")


@dataclass
class Script:
    """What the monitor answers: query-migrate by turns, the rest with nothing; `refused`: commands that fail."""

    status: list[dict[str, Any]]
    refused: tuple[str, ...] = ()
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def answer(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((command, arguments))
        if command in self.refused:
            return {"error": {"class": "GenericError", "desc": "not now"}}
        if command == "query-migrate":
            return {"return": self.status.pop(0) if len(self.status) > 1 else self.status[0]}
        return {"return": {}}

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.asked]


@dataclass
class Guest:
    qmp: Monitor
    qemu: Qemu
    console: Console

    def check(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "t").mkdir()
    (tmp_path / "console.log").write_text("words\n")
    yield tmp_path / "t"


def save(tmp_path: Path, folder: Path, script: Script, qemu: Qemu = NEW) -> None:
    with serving(tmp_path / "qmp", script.answer), connected(str(tmp_path / "qmp"), Deadline.after(5)) as monitor:
        (folder / snapshot.STATE).touch()
        snapshot.save(Guest(monitor, qemu, Console(tmp_path / "console.log")), folder, Deadline.after(0.5))


def restore(tmp_path: Path, folder: Path, script: Script, qemu: Qemu = NEW) -> None:
    with serving(tmp_path / "qmp", script.answer), connected(str(tmp_path / "qmp"), Deadline.after(5)) as monitor:
        (folder / snapshot.STATE).touch()
        snapshot.restore(monitor, Saved(folder), qemu, Deadline.after(0.5))


def test_a_guest_is_stopped_before_its_state_is_written(tmp_path: Path, folder: Path) -> None:
    script = Script([{}, {"status": "active"}, {"status": "completed"}])
    save(tmp_path, folder, script)
    order = [c for c in script.commands if c != "query-migrate"]
    assert order == ["stop", "migrate-set-capabilities", "migrate"]
    assert dict(script.asked)["migrate"] == {"uri": f"file:{folder}/state"}
    assert (folder / "console.log").read_text() == "words\n"


def test_before_8_2_the_state_goes_through_a_descriptor(tmp_path: Path, folder: Path) -> None:
    script = Script([{}, {"status": "completed"}])
    save(tmp_path, folder, script, OLD)
    assert dict(script.asked)["getfd"] == {"fdname": "state"}
    assert dict(script.asked)["migrate"] == {"uri": "fd:state"}
    script = Script([{"status": "completed"}])
    restore(tmp_path, folder, script, OLD)
    assert dict(script.asked)["migrate-incoming"] == {"uri": "fd:state"}


def test_what_keeps_a_guest_from_being_saved_is_said(tmp_path: Path, folder: Path) -> None:
    script = Script([{"blocked-reasons": ["the device 'x' cannot be migrated"]}])
    with pytest.raises(Unsavable, match="this guest cannot be saved: the device 'x' cannot be migrated"):
        save(tmp_path, folder, script)
    assert "stop" not in script.commands


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (Script([{}, {"status": "failed", "error-desc": "no luck"}]), "no luck"),
        (Script([{}, {"status": "active"}]), "not written within"),
        (Script([{}], refused=("migrate",)), "not now"),
    ],
)
def test_a_saving_that_fails_says_why(tmp_path: Path, folder: Path, script: Script, why: str) -> None:
    with pytest.raises(Unsavable, match=why):
        save(tmp_path, folder, script)


def test_a_fork_goes_on_only_when_all_has_been_read(tmp_path: Path, folder: Path) -> None:
    script = Script([{"status": "active"}, {"status": "completed"}])
    restore(tmp_path, folder, script)
    assert [c for c in script.commands if c != "query-migrate"] == [
        "migrate-set-capabilities",
        "migrate-incoming",
        "cont",
    ]


@pytest.mark.parametrize(
    "script", [Script([{"status": "failed", "error-desc": "bad section"}]), Script([{}], refused=("migrate-incoming",))]
)
def test_a_state_that_does_not_fit_is_unusable(tmp_path: Path, folder: Path, script: Script) -> None:
    with pytest.raises(Unusable, match="cannot go on with the saved guest"):
        restore(tmp_path, folder, script)
    assert "cont" not in script.commands


@pytest.mark.parametrize("refuses", [0, errno.EXDEV])
def test_only_data_is_copied_and_holes_stay_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: int
) -> None:
    """Also where the cache is on another file system than the runs are."""

    def refuse(*_: int) -> int:
        raise OSError(refuses, os.strerror(refuses))

    if refuses:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    source = tmp_path / "swap"
    with source.open("wb") as stream:
        stream.truncate(64 << 20)
        for at in (0, 10 << 20, (64 << 20) - 4096):
            stream.seek(at)
            stream.write(os.urandom(4096))
    target = tmp_path / "copy"
    with target.open("w+b") as copy:
        copy.truncate(64 << 20)
        copied = snapshot.copy_data(source, copy)
    assert target.read_bytes() == source.read_bytes()
    assert copied < 1 << 20
    assert target.stat().st_blocks * 512 < 1 << 20


def test_a_disk_that_is_full_is_no_other_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "swap").write_bytes(b"x")
    with (tmp_path / "copy").open("w+b") as stream, pytest.raises(OSError, match="full"):
        snapshot.copy_data(tmp_path / "swap", stream)
