"""The workload `mixed` on the host: it ends, counts, and notices contents that are not what they should be.

The host need not know MPOL_MF_LAZY, nor have more than one node: then system calls are refused, which is counted.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.workloads import program

SOURCES = program.FOLDER / "mixed"


def compiled(folder: Path, change: tuple[str, str, str] | None = None) -> Path:
    """The program, with one place of one of its files changed."""
    for source in SOURCES.glob("*.[ch]"):
        text = source.read_text()
        if change is not None and source.name == change[0]:
            assert text.count(change[1]) == 1, "the place to break is no longer there"
            text = text.replace(change[1], change[2])
        (folder / source.name).write_text(text)
    binary = folder / "mixed"
    units = [str(path) for path in sorted(folder.glob("*.c"))]
    subprocess.run(["gcc", *program.FLAGS, "-o", str(binary), *units], check=True, timeout=120)
    return binary


def run(binary: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(binary), *options], capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("mixed"))


def test_it_ends_and_tells_what_it_did(mixed: Path) -> None:
    status, found = run(mixed, "--seconds", "2", "--processes", "2", "--seed", "4")
    assert status == 0, found
    assert found["seed"] == 4
    assert found["enough"]
    assert found["all_ended"]
    assert found["checked"] > found["written"] > 0
    assert found["faults"] > 0
    assert found["processes"] >= 2
    assert (found["mismatches"], found["crashed"], found["lost"], found["broken"]) == (0, 0, 0, 0)


def test_what_does_not_come_about_ends_at_the_limit(mixed: Path) -> None:
    status, found = run(mixed, "--seconds", "0", "--migrations", "1e15", "--limit", "1", "--processes", "1")
    assert (status, found["enough"], found["all_ended"]) == (1, False, True)


STORE = "\twords[thread] = slot(a, thread, page, number);"
FILL = "\t\t\tto[word] = fixed(a, page, word);"
LOST_NOW_AND_THEN = ("area.c", STORE, f"\tif (number % 5)\n\t{STORE}")
CONTENTS_OF_ANOTHER_PAGE = ("area.c", FILL, FILL.replace("page", "page ^ (page == 77)"))


@pytest.mark.parametrize("change", [LOST_NOW_AND_THEN, CONTENTS_OF_ANOTHER_PAGE])
def test_wrong_contents_are_noticed(tmp_path: Path, change: tuple[str, str, str]) -> None:
    status, found = run(compiled(tmp_path, change), "--seconds", "2", "--processes", "2")
    assert status == 1
    assert found["mismatches"] > 0
    assert found["first"]["expected"] != found["first"]["found"]


@pytest.mark.parametrize(
    "options", [["--seconds"], ["--seconds", "x"], ["--seconds", "-1"], ["--processes", "0"], ["--what"], ["more"]]
)
def test_bad_options_are_refused(mixed: Path, options: list[str]) -> None:
    assert run(mixed, *options) == (2, {})
