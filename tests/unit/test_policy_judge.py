"""What is said of answers that are as they should be, and of those that are not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.workloads.policy import judge
from controller.workloads.policy.combinations import Combination, Cpuset, Mode, Source
from controller.workloads.policy.judge import About

EVERYWHERE = frozenset({0, 1, 2, 3})
SOURCES = Path(judge.__file__).parent


def combination(mode: Mode = Mode.BIND, nodes: frozenset[int] = frozenset({1, 2}), **more: Any) -> Combination:
    return replace(
        Combination(
            id=0, mode=mode, source=Source.AREA, local=0, cpu=0, everywhere=EVERYWHERE, nodes=nodes, units=4, sysctl=1
        ),
        **more,
    )


def right(mode: str = "bind", nodes: int = 0b0110, **more: Any) -> dict[str, Any]:
    """Four pages, one from each node, under a policy that binds to 1 and 2, by a task on node 0."""
    return {
        "id": 0,
        "refused": 0,
        "home": 0,
        "cpu": 0,
        "allowed": 0b1111,
        "effective": nodes,
        "mismatches": 0,
        "start": [0, 1, 2, 3],
        "out": [1, 1, 1, 1],
        "final": [1, 1, 2, 1],
        "fresh": [1, 1, 1, 1],
        "answers": [
            [0, 0, 1, 0, mode, "vma", "migrated"],
            [1, 1, -1, 0, mode, "vma", "well_placed"],
            [2, 2, -1, 0, mode, "vma", "well_placed"],
            [3, 3, 1, 0, mode, "vma", "migrated"],
        ],
        **more,
    }


def found(told: dict[str, Any] | None, c: Combination | None = None) -> list[tuple[About, int | None]]:
    lines = [json.dumps(told)] if told is not None else []
    return [(d.about, d.unit) for d in judge.disagreements([c or combination()], judge.read(lines))]


def preferred(at: int, **more: Any) -> dict[str, Any]:
    """The same four pages when fresh ones come from node `at`, by the default policy, and the switch does not allow it."""
    answers = [
        [n, n, -1 if n == at else at, 0, "prefer", "default", "well_placed" if n == at else "default_policy"]
        for n in range(4)
    ]
    return right(effective=0, final=[0, 1, 2, 3], fresh=[at] * 4, answers=answers, **more)


def test_what_is_right_is_not_complained_of() -> None:
    assert found(right()) == []
    assert found(preferred(0), combination(Mode.DEFAULT, frozenset())) == []
    assert found({"id": 0, "refused": 22}, combination(enter=frozenset({3}))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"final": [0, 1, 2, 1]}, [(About.MOVE, 0)]),
        ({"final": [2, 1, 2, 1]}, [(About.MOVE, 0)]),
        ({"final": [1, 1, 1, 1]}, [(About.STAY, 2)]),
        ({"fresh": [1, 1, 1, 0]}, [(About.ORACLE, 3), (About.MOVE, 3), (About.TRACE, 3)]),
        ({"fresh": [2, 1, 1, 1]}, [(About.MOVE, 0), (About.TRACE, 0)]),
        ({"answers": right()["answers"][1:]}, [(About.TRACE, 0)]),
        ({"answers": [*right()["answers"], right()["answers"][0]]}, [(About.TRACE, 0)]),
        ({"out": [1, 1, 0, 1]}, [(About.RUN, 2)]),
        ({"mismatches": 1}, [(About.CONTENTS, None)]),
        ({"cpu": 1}, [(About.RUN, None)]),
        ({"home": 22}, [(About.REFUSAL, None)]),
        ({"refused": 22}, [(About.REFUSAL, None)]),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], expected: list[tuple[About, int | None]]) -> None:
    assert found(right(**change)) == expected


@pytest.mark.parametrize("field", range(1, 7))
def test_every_word_of_the_tracepoint_counts(field: int) -> None:
    told = right()
    told["answers"][0][field] = 7 if field < 4 else "other"
    assert found(told) == [(About.TRACE, 0)]


def test_a_combination_without_an_answer_is_told() -> None:
    assert found(None) == [(About.RUN, None)]
    assert found({"id": 0, "wrong": "mbind: no"}) == [(About.RUN, None)]
    assert found({"id": -1, "wrong": "the end"}) == [(About.RUN, None)]


def test_what_should_be_refused_is_missed_if_it_is_not() -> None:
    taken = found(right(allowed=0b1000, effective=0b1000), combination(enter=frozenset({3})))
    assert taken[0] == (About.REFUSAL, None)


def test_the_switch_says_whether_the_default_policy_moves_pages() -> None:
    assert {about for about, _ in found(preferred(0), combination(Mode.DEFAULT, frozenset(), sysctl=2))} == {
        About.MOVE,
        About.TRACE,
    }


def test_interleaving_leaves_no_choice() -> None:
    told = right("interleave", fresh=[1, 2, 1, 2], final=[1, 2, 1, 2])
    told["answers"] = [[n, n, to, 0, "interleave", "vma", "migrated"] for n, to in enumerate([1, 2, 1, 2])]
    assert found(told, combination(Mode.INTERLEAVE)) == []


def test_without_a_node_that_is_allowed_pages_stay_within_the_cpuset() -> None:
    c = combination(Mode.PREFERRED_MANY, then=frozenset({0, 3}), cpuset=Cpuset.AFTER)
    told = right("prefer_many", allowed=0b1001, final=[0, 0, 0, 3], fresh=[0] * 4)
    told["answers"] = [
        [0, 0, -1, 0, "prefer_many", "vma", "well_placed"],
        [1, 1, 0, 0, "prefer_many", "vma", "migrated"],
        [2, 2, 0, 0, "prefer_many", "vma", "migrated"],
        [3, 3, -1, 0, "prefer_many", "vma", "well_placed"],
    ]
    assert found(told, c) == []
    assert (About.MOVE, 1) in found({**told, "final": [0, 1, 0, 3]}, c)


def test_an_mbind_that_unmaps_leaves_what_is_on_one_of_its_nodes() -> None:
    c = combination(direct=True)
    told = right(out=[1, 0, 0, 1])
    told["answers"] = [told["answers"][0], told["answers"][3]]
    assert found(told, c) == []
    assert found({**told, "final": [1, 1, 1, 1]}, c) == [(About.STAY, 2)]
    assert found({**told, "out": [1, 0, 0, 0]}, c) == [(About.RUN, 3)]


def test_it_is_told_how_much_was_compared() -> None:
    told = judge.read([json.dumps(right())])
    assert judge.tally([combination()], told) == judge.Tally(moved=2, chosen=2)
    assert judge.tally([combination(nodes=frozenset({1}))], told).rebound == 1
    told = judge.read([json.dumps(preferred(0))])
    assert judge.tally([combination(Mode.DEFAULT, frozenset())], told) == judge.Tally(stayed=1, unexplicit=3)


def test_a_disagreement_says_what_was_asked_and_what_was_seen() -> None:
    words = str(
        judge.disagreements([combination()], judge.read([json.dumps(right(final=[0, 1, 2, 1]))]))[0],
    )
    assert words == (
        "combination 0 (bind by mbind, nodes 1,2, on CPU 0 of node 0, sysctl 1), page 0: started on 0, fresh pages come from"
        " 1, is now on 0; the tracepoint says 0 -> 1 by bind of vma: migrated"
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("policy") / "policy"
    flags = ["-static", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    units = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run(["gcc", *flags, "-o", str(binary), *units], check=True, timeout=120)
    return binary


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("1 mode=none units=4", "mode"),
        ("1 mode=bind units=0", "units"),
        ("1 mode=bind units=x", "number"),
        ("1 mode=bind colour=4 units=4", "colour"),
        ("1 bind", "bind"),
    ],
)
def test_the_program_refuses_what_it_does_not_know(program: Path, line: str, word: str) -> None:
    """And does so before it touches the machine."""
    done = subprocess.run([str(program)], input=f"{line}\n", capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert word in judge.read(done.stdout.splitlines()).wrong[-1]


def test_the_program_takes_no_other_arguments(program: Path) -> None:
    assert subprocess.run([str(program), "x"], capture_output=True, timeout=30, check=False).returncode == 2
