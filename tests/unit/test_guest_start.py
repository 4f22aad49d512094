"""A QEMU that does not start, hangs, or dies: a shell script in its place. Real guests are in tests/guest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.guest import guest
from provision.guest.guest import GuestSpec, launched
from provision.hardware import topology
from provision.hardware.qemu import Accelerator
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Silent


@dataclass(frozen=True)
class Image:
    root: Path


def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> GuestSpec:
    """A guest whose QEMU is `body`; sockets go to a folder under tmp_path."""
    programs, work, runtime = tmp_path / "bin", tmp_path / "run", tmp_path / "rt"
    for folder in (programs, work, runtime):
        folder.mkdir()
    program = programs / "qemu-system-x86_64"
    version = 'if [ "$1" = --version ]; then echo QEMU emulator version 10.0.2; exit; fi'
    program.write_text(f"#!/bin/sh\n{version}\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(guest, "_runtime_base", lambda: runtime)
    return GuestSpec(
        tmp_path / "bzImage", Image(tmp_path / "root"), topology.load("4node"), work, accelerator=Accelerator.TCG
    )


def refused(wish: GuestSpec) -> InfraError:
    with pytest.raises(InfraError) as caught, launched(wish, Cache(wish.work / "cache"), Silent()):
        pass
    return caught.value


def nothing_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "rt").iterdir())


def test_qemu_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "qemu-system-x86_64: cannot set up guest memory 'ram0': Cannot allocate memory"
    wrong = refused(spec(tmp_path, monkeypatch, f'echo "{words}" >&2; exit 1'))
    assert "QEMU did not start: cannot set up guest memory 'ram0': Cannot allocate memory" in str(wrong)
    assert "smaller topology" in wrong.hint
    assert wrong.detail == words
    assert (tmp_path / "run" / guest.QEMU_LOG).read_text().strip() == words
    assert nothing_left(tmp_path)


def test_qemu_dies_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = refused(spec(tmp_path, monkeypatch, "exit 3"))
    assert "QEMU did not start" in str(wrong)
    assert not (tmp_path / "run" / guest.QEMU_LOG).exists()
    assert nothing_left(tmp_path)


def test_qemu_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "START_SECONDS", 0.3)
    monkeypatch.setattr(Deadline, "patient", Deadline.after)
    pid = tmp_path / "pid"
    wrong = refused(spec(tmp_path, monkeypatch, f"echo $$ >{pid}; exec sleep 60"))
    assert "did not answer within 0 s" in str(wrong)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert nothing_left(tmp_path)


def test_folders_of_the_dead_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = spec(tmp_path, monkeypatch, "exit 1")
    base = tmp_path / "rt"
    for name in ("mof-4194305-dead", f"mof-{os.getpid()}-alive", "mof-other", "else"):
        (base / name).mkdir()
    refused(wish)
    assert sorted(path.name for path in base.iterdir()) == sorted([f"mof-{os.getpid()}-alive", "mof-other", "else"])
