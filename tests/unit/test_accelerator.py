"""Which QEMU, which accelerator, and that the probe's answer is remembered. QEMU is a shell script here."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.guest import accelerator
from provision.guest.accelerator import Choice, KvmAnswer, Qemu
from provision.hardware.qemu import Accelerator
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError

BOOTED = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"


class Notes:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", path)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 1.0)
    return path


def script(tmp_path: Path, body: str) -> Qemu:
    """A QEMU that writes to the console file that it is told, and counts how often it was started."""
    path = tmp_path / "qemu"
    find = "for a; do case $a in file,id=console,path=*) console=${a#*path=};; esac; done"
    path.write_text(f"#!/bin/sh\necho x >>{tmp_path}/starts\n{find}\n{body}\n")
    path.chmod(0o755)
    return Qemu(str(path), "10.0.2")


def starts(tmp_path: Path) -> int:
    return len((tmp_path / "starts").read_text().splitlines())


def ask(tmp_path: Path, qemu: Qemu, *, again: bool = False) -> KvmAnswer:
    return accelerator.kvm_works(qemu, Path("bzImage"), Cache(tmp_path / "cache"), Notes(), again=again)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright", "10.0.2"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("QEMU emulator version 11.0", "11.0"),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert accelerator.parse_version(text) == version


@pytest.mark.parametrize("text", ["QEMU emulator version 7.1.0", "QEMU emulator version 6.2.0", "something else"])
def test_too_old_or_unknown(text: str) -> None:
    with pytest.raises(InfraError) as caught:
        accelerator.parse_version(text)
    assert caught.value.hint


def test_a_missing_qemu_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "PROGRAM", "qemu-system-none")
    with pytest.raises(InfraError, match="apt-get install qemu-system-x86"):
        accelerator.find_qemu()


@pytest.mark.parametrize(("text", "wish"), [("", "auto"), ("auto", "auto"), ("kvm", "kvm"), ("tcg", "tcg")])
def test_the_environment(text: str, wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOF_ACCEL", text)
    assert accelerator.from_environment() is Accelerator(wish)


def test_a_wrong_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOF_ACCEL", "xen")
    with pytest.raises(UserError, match=r"MOF_ACCEL: 'xen'.*auto, kvm, tcg"):
        accelerator.from_environment()


def test_a_kernel_that_boots_is_the_proof(tmp_path: Path, device: Path) -> None:
    qemu = script(tmp_path, f"echo '{BOOTED}' >$console")
    assert ask(tmp_path, qemu) == KvmAnswer(True, "")
    assert ask(tmp_path, qemu) == KvmAnswer(True, "")
    assert starts(tmp_path) == 1
    ask(tmp_path, qemu, again=True)
    assert starts(tmp_path) == 2


def test_silence_is_no_proof_and_is_remembered(tmp_path: Path, device: Path) -> None:
    qemu = script(tmp_path, "exec sleep 60")
    answer = ask(tmp_path, qemu)
    assert not answer.works
    assert "said nothing in 1 s" in answer.why
    assert ask(tmp_path, qemu) == answer
    assert starts(tmp_path) == 1
    ask(tmp_path, Qemu(qemu.path, "10.1.0"))  # another QEMU is asked anew
    assert starts(tmp_path) == 2


def test_a_kernel_that_stops_half_way(tmp_path: Path, device: Path) -> None:
    qemu = script(tmp_path, "echo '[    0.1] Linux version 6.12' >$console; exec sleep 60")
    assert "no further than" in ask(tmp_path, qemu).why


def test_qemus_own_words(tmp_path: Path, device: Path) -> None:
    qemu = script(tmp_path, "echo 'qemu-system-x86_64: failed to set MSR 0x10a' >&2; exit 1")
    answer = ask(tmp_path, qemu)
    assert not answer.works
    assert "failed to set MSR 0x10a" in answer.why


def test_an_unreadable_memory_is_no_memory(tmp_path: Path, device: Path) -> None:
    qemu = script(tmp_path, f"echo '{BOOTED}' >$console")
    ask(tmp_path, qemu)
    (kept,) = (tmp_path / "cache/host").iterdir()
    kept.write_text("{")
    assert ask(tmp_path, qemu).works
    assert starts(tmp_path) == 2


def test_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "KVM_DEVICE", tmp_path / "none")
    assert ask(tmp_path, Qemu("/nowhere", "10.0.2")) == KvmAnswer(False, f"there is no {tmp_path}/none")


def test_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"kvm": KvmAnswer(False, "it hangs")}
    monkeypatch.setattr(accelerator, "kvm_works", lambda *_: answers["kvm"])

    def resolve(wish: Accelerator, notes: Notes, cxl: bool = False) -> Choice:
        return accelerator.resolve(wish, Qemu("q", "10"), Path("k"), Cache(tmp_path), notes, cxl=cxl)

    notes = Notes()
    assert resolve(Accelerator.AUTO, notes) == Choice(Accelerator.TCG, "it hangs")
    assert notes.notes == ["no KVM, so TCG emulates: it hangs"]
    assert resolve(Accelerator.TCG, notes) == Choice(Accelerator.TCG)
    with pytest.raises(InfraError, match="KVM was asked for and does not work: it hangs"):
        resolve(Accelerator.KVM, notes)
    answers["kvm"] = KvmAnswer(True, "")
    assert resolve(Accelerator.AUTO, notes, cxl=True) == Choice(Accelerator.TCG)
    with pytest.raises(UserError, match="KVM cannot run from CXL memory"):
        resolve(Accelerator.KVM, notes, cxl=True)
    assert resolve(Accelerator.AUTO, notes) == resolve(Accelerator.KVM, notes) == Choice(Accelerator.KVM)
    assert len(notes.notes) == 1
