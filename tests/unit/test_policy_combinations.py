"""The combinations of policy, cpuset and CPU, without a kernel."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from controller.workloads.policy import calls, combinations
from controller.workloads.policy.combinations import (
    CHOOSING,
    HUGE_UNITS,
    UNITS,
    WITH_NODES,
    Combination,
    Cpuset,
    Flag,
    Home,
    Mode,
    Source,
    generate,
)

MACHINES: dict[str, dict[int, tuple[int, ...]]] = {
    "2node": {0: (0, 1), 1: (2, 3)},
    "4node": {node: (node,) for node in range(4)},
}


@pytest.fixture(params=sorted(MACHINES))
def cpus(request: pytest.FixtureRequest) -> dict[int, tuple[int, ...]]:
    return MACHINES[str(request.param)]


@pytest.fixture
def made(cpus: dict[int, tuple[int, ...]]) -> tuple[Combination, ...]:
    return generate(cpus)


def test_they_are_the_same_each_time(cpus: dict[int, tuple[int, ...]]) -> None:
    assert generate(cpus) == generate(cpus)
    assert generate(cpus) != generate(cpus, seed=combinations.SEED + 1)


def test_there_are_a_few_hundred(made: tuple[Combination, ...]) -> None:
    assert 250 <= len(made) <= 450
    assert [c.id for c in made] == list(range(len(made)))


def test_every_shape_is_there(made: tuple[Combination, ...]) -> None:
    there = {(c.mode, c.source, c.flag, c.cpuset) for c in made}
    assert there >= set(product(WITH_NODES, Source, Flag, Cpuset))
    assert there >= set(product((Mode.LOCAL,), Source, (Flag.PLAIN,), Cpuset))
    assert {(c.cpuset, c.local, c.sysctl) for c in made if c.mode is Mode.DEFAULT} == set(
        product(Cpuset, {c.local for c in made}, (1, 2))
    )
    homes = {
        (c.mode, c.flag, c.cpuset, Home.INSIDE if c.home in c.nodes else Home.OUTSIDE)
        for c in made
        if c.home is not None
    }
    assert homes == set(product(CHOOSING, Flag, Cpuset, (Home.INSIDE, Home.OUTSIDE)))


def test_the_rest_varies(made: tuple[Combination, ...], cpus: dict[int, tuple[int, ...]]) -> None:
    assert {c.cpu for c in made} == {cpu for some in cpus.values() for cpu in some}
    for what in ("write", "direct", "huge"):
        assert {getattr(c, what) for c in made} == {True, False}
    for what in ("shift", "rotate", "rival", "nodes", "then"):
        assert len({getattr(c, what) for c in made}) > 2
    assert len({c.weights for c in made if c.mode is Mode.WEIGHTED}) > 2


def test_what_is_asked_for_can_be_done(made: tuple[Combination, ...], cpus: dict[int, tuple[int, ...]]) -> None:
    everywhere = frozenset(cpus)
    for c in made:
        assert c.nodes | c.enter | c.then | c.rival <= everywhere, c
        assert c.cpu in cpus[c.local], c
        assert not c.nodes or c.mode in WITH_NODES, c
        # Who enters a cpuset before sets only a policy of nodes that he may have; pages that are mapped would be moved.
        assert not c.rival or c.rival & (c.enter or everywhere), c
        assert not c.direct or (c.source is Source.AREA and c.cpuset is Cpuset.NONE), c
        assert c.home is None or (c.mode in CHOOSING and c.source is Source.AREA), c
        assert c.enter != c.then or not c.enter, c
        assert c.units == HUGE_UNITS if c.huge else c.units >= UNITS, c
        if c.cpuset is Cpuset.SHIFTED:
            assert not c.enter & c.then, c


def test_some_are_to_be_refused(made: tuple[Combination, ...]) -> None:
    refused = [c for c in made if c.to_be_refused]
    assert {(c.mode, c.source) for c in refused} == set(product(WITH_NODES, Source))
    assert len(refused) < len(made) / 10


def test_a_line_has_all_of_it() -> None:
    c = Combination(
        id=7,
        mode=Mode.WEIGHTED,
        source=Source.AREA,
        local=3,
        cpu=5,
        everywhere=frozenset({0, 1, 2, 3}),
        nodes=frozenset({0, 2}),
        flag=Flag.STATIC,
        then=frozenset({1, 3}),
        weights=(3, 1, 2, 1),
        units=24,
        write=True,
    )
    assert c.line() == (
        "7 mode=weighted-interleave task=0 flags=32768 nodes=5 rival=0 home=-1 cpu=5 enter=0 then=10 sysctl=2 units=24"
        " rotate=0 shift=0 huge=0 write=1 direct=0 weights=3,1,2,1"
    )
    assert str(c) == (
        "combination 7 (weighted-interleave by mbind, nodes 0,2, on CPU 5 of node 3, static nodes, then in a cpuset of 1,3,"
        " weights (3, 1, 2, 1), write, sysctl 2)"
    )


def test_calls_have_names_and_lines_of_their_own() -> None:
    every = (*calls.REFUSED, *calls.TAKEN, *calls.NO_EFFECT)
    assert max(Counter(call.name for call in every).values()) == 1
    assert len({call.line(0) for call in every}) == len(every)
    assert all(call.flags & calls.LAZY for call in (*every, *calls.UNKNOWN))
    assert not any(call.eager().flags & calls.LAZY for call in every)
