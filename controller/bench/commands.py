"""`mof` commands as a person types them, timed from outside, and what they leave behind.

A command starts Python, imports what it needs and ends, all of which a person waits for: so it is a process of its
own here too. Its run folders go to a folder that is removed with the bench.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host import process
from provision.host.deadline import Deadline
from provision.host.errors import InfraError

RUN_SECONDS = 900.0
"""For any one command: the longest is a batch of runs side by side on a slow host."""
GRACE_SECONDS = 15.0
"""Between asking a command to end and making it: it ends its guests meanwhile."""


@dataclass(frozen=True)
class Ran:
    """A program that ended. `began_ns`: CLOCK_MONOTONIC just before it was started; `seconds` until it had ended."""

    status: int
    output: str
    errors: str
    began_ns: int
    seconds: float


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Run a program to its end and time it. InfraError when it takes longer than RUN_SECONDS."""
    deadline = Deadline.patient(RUN_SECONDS)
    pipe = subprocess.PIPE
    began = time.monotonic_ns()
    with process.started(argv, env=env, cwd=cwd, stdout=pipe, stderr=pipe, grace=GRACE_SECONDS) as child:
        try:
            out, err = child.communicate(timeout=deadline.remaining())
        except subprocess.TimeoutExpired as late:
            raise InfraError(f"{' '.join(argv[:4])} did not end within {deadline.seconds:.0f} s") from late
        ended = time.monotonic_ns()
    return Ran(
        child.returncode, out.decode(errors="replace"), err.decode(errors="replace"), began, (ended - began) / 1e9
    )


@dataclass(frozen=True)
class Done:
    """A `mof run` or `mof demo` that passed: what it printed as JSON, and the folder that is named in it."""

    ran: Ran
    told: Mapping[str, Any]
    folder: Path

    def manifest(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return found

    def first_command_seconds(self) -> float:
        """From the start of the command until the first command in the guest had answered.

        The run tells that moment on the system's monotonic clock, which is ours too. InfraError when it does not.
        """
        at = self.manifest().get("first_command_at")
        if at is None:
            raise InfraError("the run does not tell when the first command answered", where="manifest.json")
        return (int(at) - self.ran.began_ns) / 1e9


class Lab:
    """Runs `mof` on one kernel. `runs`: where the commands put their run folders."""

    def __init__(self, kernel: str, runs: Path) -> None:
        self.kernel = kernel
        self.runs = runs

    @contextmanager
    def mof(self, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Done]:
        """One command, with --kernel and --json added; its run folder is there as long as the block.

        InfraError when its exit status is not 0, with the reason that it gives.
        """
        argv = [sys.executable, "-m", "controller.cli.main", *arguments, "--kernel", self.kernel, "--json"]
        ran = run(argv, env={**(env or {}), "MOF_RUNS": str(self.runs)})
        try:
            yield _done(ran, f"mof {' '.join(_short(one) for one in arguments)}", self.runs)
        finally:
            for left in self.runs.iterdir():
                shutil.rmtree(left, ignore_errors=True)


def _short(argument: str) -> str:
    return Path(argument).name if "/" in argument else argument


def _done(ran: Ran, what: str, runs: Path) -> Done:
    try:
        told: dict[str, Any] = json.loads(ran.output)
    except ValueError:
        told = {}
    if ran.status != 0 or not told:
        lines = [line for line in ran.errors.splitlines() if line.startswith("mof: ")]
        why = told.get("reason") or (lines[-1].removeprefix("mof: ") if lines else f"exit status {ran.status}")
        raise InfraError(str(why), where=what, detail=process.tail(ran.errors))
    return Done(ran, told, runs / str(told.get("group") or told["run"]))


@contextmanager
def lab(kernel: str) -> Iterator[Lab]:
    """A Lab whose run folders go with it."""
    with tempfile.TemporaryDirectory(prefix="mof-bench-") as folder:
        yield Lab(kernel, Path(folder))
