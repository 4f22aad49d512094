"""Deadlines: of the clock, and of what the host can do meanwhile."""

from __future__ import annotations

import pytest

from provision.host import deadline, load
from provision.host.deadline import Deadline


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("provision.host.deadline.time.monotonic", lambda: self.now)
        monkeypatch.setattr("provision.host.deadline.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_plain_one_is_of_the_clock(clock: Clock) -> None:
    plain = Deadline.after(10)
    clock.now += 4
    assert plain.remaining() == pytest.approx(6)
    clock.now += 7
    assert plain.passed
    assert plain.remaining() == 0


def test_load_that_comes_later_lengthens_a_patient_one(clock: Clock) -> None:
    slow = 1.0
    patient = Deadline(10, lambda: slow, 5)
    for _ in range(5):
        clock.now += 1
        patient.remaining()
    slow = 8.0
    assert patient.remaining() == pytest.approx(5 * 8)
    for _ in range(39):
        clock.now += 1
        assert not patient.passed
    clock.now += 1.01
    assert patient.passed


def test_time_in_which_we_did_not_run_does_not_count(clock: Clock) -> None:
    patient = Deadline(10, lambda: 1.0, deadline.MOST_AT_ONCE)
    clock.now += 3600
    assert not patient.passed
    assert patient.remaining() == pytest.approx(10 - deadline.MOST_AT_ONCE)


def test_polling_asks_once_more_after_the_moment(clock: Clock) -> None:
    answers = iter([False, False, True])

    def ready() -> bool:
        clock.now += 20
        return next(answers)

    assert not Deadline.after(10).poll(ready)
    assert Deadline.after(10).poll(lambda: True)


@pytest.mark.parametrize(
    ("text", "cpus", "expected"),
    [
        ("0.00 0.01 0.05 1/200 1", 2, 1.0),
        ("6.00 1.00 0.50 1/200 1", 2, 3.0),
        # Sixteen guests that have just been started: the mean does not know yet.
        ("0.50 0.10 0.05 17/300 1", 2, 8.5),
        ("900.0 1.0 1.0 3/200 1", 2, load.MOST),
    ],
)
def test_slowness_is_runnable_tasks_for_each_cpu(text: str, cpus: int, expected: float) -> None:
    assert load.of_text(text, cpus) == expected


def test_load_that_is_expected_counts_before_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    look = load._Look()
    monkeypatch.setattr("provision.host.load.os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(load, "of_text", lambda text, cpus: 1.0)
    look.expect(16)
    assert look() == 8.0
