"""Runs side by side: how many at once, and how processes that end badly are told."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from controller import conclusion, experiment, many
from controller import plan as plans
from controller.plan import Options, Plan
from provision.host.errors import GuestLost, InfraError, Loss
from provision.host.progress import Silent


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "a.memtoy"
    path.write_text("anon foo 8p\nmap foo\ntouch foo\n")
    return plans.plan(experiment.load(str(path)), Options())


def test_without_a_wish_one_guest_more_than_cpus(plan: Plan) -> None:
    assert many.budget(plan, None, 100, 24_000, 2).jobs == 3
    assert many.budget(plan, None, 2, 24_000, 2).jobs == 2


def test_sixteen_fit_two_cores_and_24_gb(plan: Plan) -> None:
    assert many.budget(plan, 16, 16, 22_000, 2).jobs == 16


def test_memory_bounds_what_was_asked_for(plan: Plan) -> None:
    assert many.budget(plan, 16, 16, 3_000, 8).jobs == (3_000 - many.SPARE_MB) // many.FORK_MB
    assert many.budget(plan, 16, 16, 100, 8).jobs == 1


def test_large_workloads_need_more_and_never_more_than_their_machine(plan: Plan) -> None:
    large = dataclasses.replace(plan, memory=256 << 20)
    assert many.budget(large, 64, 64, 24_000, 64).by_memory == (24_000 - many.SPARE_MB) // (many.FORK_MB + 768)
    unknown = dataclasses.replace(plan, memory=None)
    assert many.budget(unknown, 64, 64, 24_000, 64).by_memory == (24_000 - many.SPARE_MB) // (many.FORK_MB + 2048)


def ended(monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path, body: Any, count: int = 3) -> list[many.Ended]:
    """What becomes of `count` runs, two at a time, where conclusion.run() is `body`."""
    monkeypatch.setattr(conclusion, "run", body)
    found = list(many.run(plan, count, many.Budget(2, 2, 2), tmp_path, Silent()))
    return sorted(found, key=lambda one: one.number)


def concluded(verdict: str, lost: GuestLost | None = None) -> conclusion.Conclusion:
    return conclusion.Conclusion(Path("/runs/x"), {"verdict": verdict, "pid": os.getpid()}, "", lost)


def test_each_run_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path) -> None:
    found = ended(monkeypatch, plan, tmp_path, lambda *_: concluded("pass"))
    assert [(one.number, one.status, one.folder) for one in found] == [(n, 0, "/runs/x") for n in range(3)]
    assert len({one.verdict["pid"] for one in found} | {os.getpid()}) == 4


def test_statuses_are_those_of_mof_run(monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path) -> None:
    def lost(*_: Any) -> conclusion.Conclusion:
        return concluded("lost", GuestLost(Loss.PANIC, "Kernel panic"))

    def broken(*_: Any) -> conclusion.Conclusion:
        raise InfraError("no space", hint="free some")

    assert {one.status for one in ended(monkeypatch, plan, tmp_path, lambda *_: concluded("undecided"))} == {1}
    assert {(one.status, one.error) for one in ended(monkeypatch, plan, tmp_path, lost)} == {
        (4, "guest lost (panic): Kernel panic")
    }
    assert {(one.status, one.error) for one in ended(monkeypatch, plan, tmp_path, broken)} == {
        (3, "no space (free some)")
    }


def test_a_process_that_is_killed_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path
) -> None:
    def one_dies(_plan: Any, _cache: Any, progress: Any, _root: Any) -> conclusion.Conclusion:
        with contextlib.suppress(FileExistsError):
            (tmp_path / "first").touch(exist_ok=False)  # to look and then to touch would kill two that look at once
            os.kill(os.getpid(), signal.SIGKILL)
        return concluded("pass")

    found = ended(monkeypatch, plan, tmp_path, one_dies, 5)
    assert sorted(one.status for one in found) == [0, 0, 0, 0, 1]
    assert "ended with status -9" in next(one.error for one in found if one.status)


def test_leaving_ends_those_that_run(monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path) -> None:
    def slow(*_: Any) -> conclusion.Conclusion:
        (tmp_path / f"pid-{os.getpid()}").touch()
        try:
            time.sleep(60)
        finally:
            (tmp_path / f"cleaned-{os.getpid()}").touch()
        return concluded("pass")

    def quick(_plan: Any, _cache: Any, _progress: Any, _root: Any) -> conclusion.Conclusion:
        with contextlib.suppress(FileExistsError):
            (tmp_path / "first").touch(
                exist_ok=False
            )  # to look and then to touch would have two that look at once be slow
            return slow()
        deadline = time.monotonic() + 10
        while not list(tmp_path.glob("pid-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return concluded("pass")

    monkeypatch.setattr(conclusion, "run", quick)
    running = many.run(plan, 3, many.Budget(2, 2, 2), tmp_path, Silent())
    next(running)
    running.close()  # type: ignore[attr-defined]
    (pid,) = [path.name.removeprefix("pid-") for path in tmp_path.glob("pid-*")]
    assert (tmp_path / f"cleaned-{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
