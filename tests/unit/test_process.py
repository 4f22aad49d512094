"""Programs: none outlives the block that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provision.host import process
from provision.host.deadline import Deadline
from provision.host.errors import InfraError


def gone(pid: int) -> bool:
    """Ended, or waiting to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_failed_program_is_an_infra_error_with_its_words() -> None:
    with pytest.raises(InfraError, match="failed with status 3") as caught:
        process.run(["sh", "-c", "echo why >&2; exit 3"], deadline=Deadline.after(10))
    assert caught.value.detail == "why"


def test_lines_come_as_they_are_printed_also_the_last_without_an_end() -> None:
    seen: list[str] = []
    done = process.run(["printf", "a\\nb\\nc"], deadline=Deadline.after(10), line=seen.append)
    assert seen == ["a", "b", "c"]
    assert done.output == "a\nb\nc"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missed_deadline_ends_the_program_and_its_children(tmp_path: Path, streaming: bool) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; wait"
    with pytest.raises(InfraError, match="did not end within"):
        process.run(["sh", "-c", script], deadline=Deadline.after(0.5), line=print if streaming else None)
    assert Deadline.after(5).poll(lambda: gone(int(pid_file.read_text())))


def test_a_program_dies_with_us_even_when_we_cannot_clean_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
import pathlib, time
from provision.host import process
with process.started(["sleep", "300"]) as child:
    pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
    time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        assert Deadline.after(10).poll(lambda: pid_file.exists() and pid_file.read_text() != "")
        os.kill(parent.pid, signal.SIGKILL)
    assert Deadline.after(5).poll(lambda: gone(int(pid_file.read_text())))


def test_a_missing_program_names_the_package() -> None:
    with pytest.raises(InfraError, match=r"no-such-program is not installed \(apt-get install some-package\)"):
        process.find("no-such-program", "some-package")


def test_a_make_above_us_is_not_heard_of_below(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OURS", "2")
    told = process.run(["env"], deadline=Deadline.after(10)).output.splitlines()
    assert "OURS=2" in told
    assert not [line for line in told if line.startswith(("MAKE", "MFLAGS"))]
