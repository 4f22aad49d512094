"""The workload `locality` on the host, which need not have more than one CPU and one node: it counts its accesses, and a
result that is not what it should be is noticed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.workloads import program

SOURCES = program.FOLDER / "locality"
MEGABYTE = 1 << 20
PAGES = MEGABYTE // 4096
CPU = min(os.sched_getaffinity(0))
PARTS = ("parts", f"--bytes={MEGABYTE}", f"--cpu={CPU}", f"--workers={CPU},{CPU},{CPU}", "--rounds=3")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program's files, compiled."""
    folder = tmp_path_factory.mktemp("objects")
    units = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run(["gcc", *program.FLAGS, "-c", *units], check=True, timeout=120, cwd=folder)
    return folder


def linked(folder: Path, objects: list[Path]) -> Path:
    binary = folder / "locality"
    subprocess.run(["gcc", *program.FLAGS, "-o", str(binary), *map(str, objects)], check=True, timeout=120)
    return binary


@pytest.fixture(scope="module")
def locality(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Path:
    return linked(tmp_path_factory.mktemp("locality"), sorted(objects.glob("*.o")))


def broken(folder: Path, objects: Path, file: str, found: str, put: str) -> Path:
    """The program, with one place of one of its files changed."""
    text = (SOURCES / file).read_text()
    assert text.count(found) == 1, "the place to break is no longer there"
    changed = folder / file
    changed.write_text(text.replace(found, put))
    flags = [*program.FLAGS, f"-I{SOURCES}"]
    subprocess.run(["gcc", *flags, "-c", "-o", str(changed.with_suffix(".o")), str(changed)], check=True, timeout=120)
    others = [path for path in objects.glob("*.o") if path.stem != changed.stem]
    return linked(folder, [changed.with_suffix(".o"), *others])


def run(binary: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run([str(binary), *options], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


CHASE = ("chase", f"--bytes={MEGABYTE}", "--steps=100007", "--rounds=2")
STREAM = ("stream", f"--bytes={MEGABYTE}", "--rounds=2")
UPDATE = ("update", f"--bytes={MEGABYTE}", "--steps=50000")
FIRST_TOUCH = (*PARTS, "--placement=first-touch")
ELEMENTS, LINES = MEGABYTE // 8, MEGABYTE // 64


@pytest.mark.parametrize(
    ("options", "phases", "pages"),
    [
        (CHASE, [("chase", 100_007)] * 2, PAGES),
        (
            STREAM,
            [("copy", 2 * ELEMENTS), ("scale", 2 * ELEMENTS), ("add", 3 * ELEMENTS), ("triad", 3 * ELEMENTS)] * 2,
            3 * PAGES,
        ),
        (UPDATE, [("pass", 100_000)] * 2, PAGES),
        ((*UPDATE, "--rounds=2", "--mark", "--settle=20"), [("pass", 100_000)] * 4, PAGES),
        (FIRST_TOUCH, [("init", ELEMENTS), *[("round", LINES)] * 3], PAGES),
        ((*PARTS, "--placement=ideal"), [("init", ELEMENTS), *[("round", LINES)] * 3], PAGES),
        ((*FIRST_TOUCH, "--writes"), [("init", ELEMENTS), *[("round", 2 * LINES)] * 3], PAGES),
        ((*FIRST_TOUCH, "--percent=25"), [("init", ELEMENTS), *[("round", LINES // 4)] * 3], PAGES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_phase_tells_its_accesses(
    locality: Path, options: tuple[str, ...], phases: list[tuple[str, int]], pages: int
) -> None:
    status, lines, said = run(locality, *options)
    assert (status, said) == (0, "")
    assert [(line["phase"], line["accesses"]) for line in lines[:-1]] == phases
    assert all(line["ns"] > 0 for line in lines[:-1])
    last = lines[-1]
    assert last["result"] == "correct"
    assert (sum(last["pages"].values()), last["absent"]) == (pages, 0)


def test_a_lap_is_marked_for_each_phase(locality: Path) -> None:
    """Three different instructions, `nopl` with "mof" and what is to be done in its displacement."""
    marks = re.findall(rb"\x0f\x1f\x80(.)mof", locality.read_bytes(), re.DOTALL)
    assert sorted(set(marks)) == [b"\x00", b"\x01", b"\x02"]


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (("chase.c", "mix(i) % i;", "mix(i) % (i + 1);"), CHASE, "the cycle closes after"),
        (("chase.c", "rest = steps % 16;", "rest = steps % 15;"), CHASE, "at another line than"),
        (("chase.c", "\tlocate(", "\tlines_at[7].next = lines_at;\n\tlocate("), CHASE, "line 7 does not name"),
        (("stream.c", "\tlocate(", "\tc[n - 1] += 1e-9;\n\tlocate("), STREAM, "stream: element 131071 is"),
        (("stream.c", "i < n; i++)\n\t\tto[i] = from[i];", "i < n - 1; i++)\n\t\tto[i] = from[i];"), STREAM, "131071"),
        (("update.c", "\tlocate(", "\ttable[300] ^= 1;\n\tlocate("), UPDATE, "update: word 300 is"),
        (("update.c", "uint64_t x = 1;", "static uint64_t x = 1;"), UPDATE, "update: word"),
        (("parts.c", "\tlocate(", "\tmemory[12345] ^= 1;\n\tlocate("), FIRST_TOUCH, "parts: word 12345 is"),
        (("parts.c", "\tmine->sum = sum;", "\tmine->sum = sum + 1;"), FIRST_TOUCH, "has read a sum of"),
        (
            ("parts.c", "\t\tat[word]++;", "\t\tat[word] += at != memory + 200 * WORDS;"),
            (*FIRST_TOUCH, "--writes"),
            "parts: word 102400 is",
        ),
    ],
)  # fmt: skip
def test_a_wrong_result_is_noticed(
    tmp_path: Path, objects: Path, change: tuple[str, str, str], options: tuple[str, ...], why: str
) -> None:
    status, lines, said = run(broken(tmp_path, objects, *change), *options)
    assert status == 1
    assert lines[-1]["result"] == "wrong"
    assert why in said


def test_a_call_that_fails_ends_it(locality: Path) -> None:
    status, lines, said = run(locality, *CHASE, "--node=63")
    assert (status, lines) == (1, [])
    assert said == "locality: mbind: Invalid argument\n"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("chess",),
        ("chase", "--bytes=4096"),
        ("chase", "--bytes=4095", "--steps=1"),
        ("stream", "--bytes=4096", "--steps=1"),
        ("stream", "--bytes=-1"),
        ("stream", "--bytes=4096x"),
        ("stream", "--bytes=4096", "--rounds=0"),
        ("stream", "--bytes=4096", "--workers=1", "--placement=direct"),
        ("update", "--bytes=12288", "--steps=1"),
        ("parts", "--bytes=4096", "--workers=0"),
        ("parts", "--bytes=4096", "--workers=0,", "--placement=direct"),
        ("parts", "--bytes=4096", "--workers=0;1", "--placement=direct"),
        ("parts", "--bytes=4096", "--workers=0,0", "--placement=direct"),
        ("parts", "--bytes=4096", "--workers=0", "--placement=ideally"),
        ("parts", "--bytes=4096", "--workers=0", "--placement=ideal", "--node=0"),
        ("parts", "--bytes=4096", "--workers=0", "--placement=ideal", "--percent=101"),
        ("stream", "--bytes=4096", "more"),
        ("stream", "--what"),
    ],
)
def test_bad_options_are_refused(locality: Path, options: tuple[str, ...]) -> None:
    status, lines, said = run(locality, *options)
    assert (status, lines) == (2, [])
    assert said.startswith("locality: ") or "unrecognized" in said
