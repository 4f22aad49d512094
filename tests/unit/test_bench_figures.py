"""Figures, and how they stand to a baseline."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.bench import baseline, catalogue
from controller.bench.baseline import Kept, Outcome
from controller.bench.figures import Better, Figure, Kind, from_json, ratios, to_json
from controller.bench.groups import Group
from provision.host.errors import UserError

FACTS = {"kernel": "6.12-mof", "source": "6.12.117-1", "qemu": "10.0.2", "accelerator": "tcg"}
COST = Figure("pages.lazy", "lazy", "instructions", Kind.INSTRUCTIONS)
SPEED = Figure("many.16_forks_of_boots", "forks / boots", "x", Kind.RATIO, Better.HIGHER, target=8.0)
TIME = Figure("start.demo", "demo", "s", Kind.SECONDS, target=3.0)


def outcome(figure: Figure, value: float, kept: float | None, facts: dict[str, str] = FACTS) -> Outcome:
    old = None if kept is None else Kept(kept, facts)
    return baseline.compare(figure.measured([value], FACTS), old).outcome


def test_the_value_is_the_median() -> None:
    assert TIME.measured([3.0, 1.0, 2.0], FACTS).value == 2.0
    assert TIME.measured([1.0, 2.0], FACTS).value == 1.5
    assert COST.measured([10.26, 10.24], FACTS).samples == (10.3, 10.2)


def test_ratios_are_those_of_each_round() -> None:
    assert ratios([1.0, 9.0], [2.0, 3.0]) == (0.5, 3.0)
    assert ratios([1.0, 9.0], [2.0]) == (0.5,)
    assert ratios([1.0], [0.0]) == ()


@pytest.mark.parametrize(
    ("figure", "value", "kept", "expected"),
    [
        (COST, 101.0, 100.0, Outcome.KEPT),
        (COST, 101.1, 100.0, Outcome.WORSE),
        (COST, 50.0, 100.0, Outcome.KEPT),
        (SPEED, 8.0, 10.0, Outcome.KEPT),
        (SPEED, 7.99, 10.0, Outcome.WORSE),
        (SPEED, 100.0, 10.0, Outcome.KEPT),
        (replace(SPEED, better=Better.LOWER), 12.0, 10.0, Outcome.KEPT),
        (replace(SPEED, better=Better.LOWER), 12.01, 10.0, Outcome.WORSE),
        (TIME, 1000.0, 1.0, Outcome.TOLD),
        (COST, 100.0, None, Outcome.NEW),
    ],
)
def test_worse_is_what_is_beyond_the_tolerance(
    figure: Figure, value: float, kept: float | None, expected: Outcome
) -> None:
    assert outcome(figure, value, kept) is expected


@pytest.mark.parametrize("value", [0.3, 1.1, 7.7, 11711.9, 123456.7])
def test_exactly_the_tolerance_is_allowed(value: float) -> None:
    for figure, up in ((replace(COST, kind=Kind.RATIO), 1.2), (COST, 1.01)):
        worst = replace(figure, value=value * up, samples=(value * up,), facts=FACTS)
        assert baseline.compare(worst, Kept(value, FACTS)).outcome is Outcome.KEPT


@pytest.mark.parametrize(
    ("key", "other", "word"),
    [
        ("qemu", "7.2.0", "QEMU is 7, not 10"),
        ("source", "6.12.90-1", "kernel source is 6.12.90-1"),
        ("kernel", "6.12-base", "kernel is 6.12-base"),
        ("accelerator", "kvm", "accelerator is kvm, not tcg"),
        ("cpus", "2", "CPUs is 2, not unknown"),
    ],
)
def test_other_circumstances_are_compared_for_nothing(key: str, other: str, word: str) -> None:
    found = baseline.compare(COST.measured([500.0], FACTS), Kept(100.0, {**FACTS, key: other}))
    assert found.outcome is Outcome.OTHER
    assert word in found.why
    assert found.change is None


def test_another_minor_qemu_is_the_same() -> None:
    assert outcome(COST, 200.0, 100.0, {**FACTS, "qemu": "10.2.1"}) is Outcome.WORSE


def test_what_is_absent_is_not_worse() -> None:
    found = baseline.compare(COST.absent("it broke", failed=True), Kept(100.0, FACTS))
    assert (found.outcome, found.baseline, found.why) == (Outcome.ABSENT, 100.0, "it broke")
    assert baseline.compare(COST.absent("none", failed=False), None).baseline is None


def test_targets() -> None:
    assert TIME.met is None
    assert TIME.measured([3.0], FACTS).met
    assert TIME.measured([3.1], FACTS).met is False
    assert SPEED.measured([8.0], FACTS).met
    assert SPEED.measured([7.9], FACTS).met is False
    assert COST.measured([1.0], FACTS).met is None


@pytest.mark.parametrize(
    "figure",
    [
        COST.measured([1.0, 2.0], FACTS),
        SPEED.measured([9.0], FACTS),
        TIME.absent("not installed", failed=False),
        SPEED.absent("run 3 was lost", failed=True),
    ],
)
def test_json_and_back(figure: Figure) -> None:
    assert from_json(json.loads(json.dumps(to_json(figure)))) == figure


def test_a_baseline_keeps_what_may_be_compared_and_was_measured() -> None:
    old = {"pages.direct": Kept(6000.0, FACTS), "pages.lazy": Kept(1.0, {})}
    made = baseline.text(
        [COST.measured([11700.0], FACTS), SPEED.absent("lost", failed=True), TIME.measured([1.0], FACTS)], old
    )
    assert baseline.parse(made, "x") == {"pages.direct": Kept(6000.0, FACTS), "pages.lazy": Kept(11700.0, FACTS)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 2, "figures": {}}',
        '{"schema": 1, "figures": {"x": {"value": 1}}}',
        '{"schema": 1, "figures": {"x": {"value": "much", "facts": {}}}}',
        '{"schema": 1, "figures": {"x": {"value": 0, "facts": {}}}}',
        '{"schema": 1, "figures": {"x": {"value": NaN, "facts": {}}}}',
        '{"schema": 1, "figures": [1]}',
    ],
)
def test_what_is_no_baseline(text: str) -> None:
    with pytest.raises(UserError, match="not a baseline"):
        baseline.parse(text, "file.json")


def test_history_is_one_line() -> None:
    line = baseline.history_line({"time": "now"}, [COST.measured([1.0], FACTS), TIME.absent("no", failed=False)])
    assert line.endswith("\n")
    assert json.loads(line) == {"time": "now", "figures": {"pages.lazy": {"value": 1.0, "unit": "instructions"}}}
    assert line.count("\n") == 1


def test_the_catalogue_holds_together() -> None:
    every = [one for group in Group for one in catalogue.figures(group, 16)]
    names = [one.name for one in every]
    assert len(set(names)) == len(names)
    assert all(name in names for pair in catalogue.RATIOS.items() for name in (pair[0], *pair[1]))
    targets = {one.name: one.target for one in every if one.target is not None}
    assert targets == {
        "start.import": 0.3,
        "start.armed_of_vng": 0.4,
        "start.demo_of_vng": 2.0,
        "probes.counts_of_none_lazy": 1.01,
        "probes.full_of_none_lazy": 1.05,
        "many.16_forks_of_boots": 8.0,
        "memory.chase_counted": 3.0,
        "memory.chase_idle": 1.1,
        "memory.stream_counted": 3.0,
        "memory.stream_idle": 1.1,
        "migration.after.1.lazy": 16_000,
        "migration.after.1024.of_direct": 1.30,
        "migration.around.1024.of_direct": 1.05,
        "migration.hinting.1024.of_direct": 1.20,
        "migration.off.cache_of_base": 1.005,
        "migration.off.device_of_base": 1.005,
    }
