"""Calls of mbind() with MPOL_MF_LAZY that a kernel has to refuse: by which error, and without a trace of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from controller.workloads import program
from controller.workloads.policy import calls
from controller.workloads.policy.calls import NO_EFFECT, REFUSED, TAKEN, UNKNOWN, Call, Outcome, Seen
from provision.host.cache import Cache
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.kernel_log import complaints

ENOENT = 2
SECONDS = 600.0
BALANCING_OFF = "echo 0 >/proc/sys/kernel/numa_balancing"
LAZY_BY_SWAP = "hinting=/proc/sys/vm/migrate_on_fault_hinting; test ! -e $hinting || echo 0 >$hinting"
"""The other way, with a kernel that has it, leaves pages mapped."""
AS_FOUND = Seen(mode=calls.PREFERRED, nodes=0b10, present=True, node=1)
ABSENT = Seen(mode=-1, nodes=0, present=False, node=-1)

Try = Callable[[Sequence[Call]], dict[Call, Outcome]]


def trying(lab: Lab) -> Try:
    """Makes all calls of a list in the guest."""
    lab.shell.put(program.ensure(Cache(), "policy", Silent()), "/run/policy")

    def run(wanted: Sequence[Call]) -> dict[Call, Outcome]:
        lab.shell.put_text(calls.lines(wanted), "/run/calls")
        done = lab.run("/run/policy call </run/calls", SECONDS).expect()
        assert not complaints(lab)
        return dict(zip(wanted, calls.read(done.out.splitlines()), strict=True))

    return run


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Call, Outcome]]:
    """What a kernel of the series made of all calls, with MPOL_MF_LAZY and without."""
    wanted = (*REFUSED, *TAKEN, *NO_EFFECT)
    with opened(tmp_path_factory.mktemp("bad"), topology="2node") as lab:
        lab.run(f"{BALANCING_OFF}; {LAZY_BY_SWAP}; echo 1 >/proc/sys/vm/migrate_on_fault").expect()
        yield trying(lab)(tuple(dict.fromkeys((*wanted, *(call.eager() for call in wanted)))))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Call, Outcome]]:
    """What a kernel without it makes of the flag, and of the other calls without the flag."""
    eager = (call.eager() for call in (*REFUSED, *TAKEN, *NO_EFFECT))
    with opened(tmp_path_factory.mktemp("bad"), kernel="6.12-base", topology="2node") as lab:
        lab.run(BALANCING_OFF).expect()
        yield trying(lab)(tuple(dict.fromkeys((*UNKNOWN, *eager))))


def as_found(call: Call) -> tuple[Seen, ...]:
    first, last = call.hole or (0, -1)
    return tuple(ABSENT if first <= page <= last else AS_FOUND for page in range(calls.PAGES))


def holds(call: Call, outcome: Outcome) -> None:
    """The error that is due; policy, page table and nodes as before."""
    assert outcome.before == as_found(call), f"{call}: the area is not as it should be to begin with"
    assert outcome.errno == call.errno, f"{call}: errno {outcome.errno}, not {call.errno}"
    assert outcome.after == outcome.before, f"{call}: it has changed the area, although it gave errno {outcome.errno}"
    assert outcome.unmapped <= 0, f"{call}: {outcome.unmapped} pages were unmapped"


@pytest.mark.parametrize("call", (*REFUSED, *NO_EFFECT), ids=str)
def test_what_is_wrong_is_refused_and_changes_nothing(patched: dict[Call, Outcome], call: Call) -> None:
    holds(call, patched[call])
    assert patched[call].unmapped == 0


@pytest.mark.parametrize("call", TAKEN, ids=str)
def test_what_is_right_is_taken(patched: dict[Call, Outcome], call: Call) -> None:
    outcome = patched[call]
    first, last = call.start // calls.PAGE, (call.start + call.length - 1) // calls.PAGE
    expected = tuple(
        Seen(mode=call.mode, nodes=1 if call.mode == calls.BIND else 0, present=False, node=-ENOENT)
        if first <= page <= last and before == AS_FOUND
        else before
        for page, before in enumerate(as_found(call))
    )
    assert (outcome.errno, outcome.before, outcome.after) == (0, as_found(call), expected)
    assert outcome.unmapped == sum(not page.present for page in expected) - sum(page == ABSENT for page in expected)


@pytest.mark.parametrize("call", [c for c in (*REFUSED, *NO_EFFECT) if c.like_move], ids=str)
def test_it_gives_what_moving_at_once_gives(
    patched: dict[Call, Outcome], base: dict[Call, Outcome], call: Call
) -> None:
    """On this kernel and on one without the series: above all, that a hole keeps the policy from being set at all."""
    for kernel, outcomes in (("the series'", patched), ("base", base)):
        eager = outcomes[call.eager()]
        assert eager.before == as_found(call)
        assert (patched[call].errno, patched[call].after) == (eager.errno, eager.after), f"{call}: {kernel} kernel"


@pytest.mark.parametrize("call", TAKEN, ids=str)
def test_it_sets_the_policy_that_moving_at_once_sets(
    patched: dict[Call, Outcome], base: dict[Call, Outcome], call: Call
) -> None:
    def policies(outcome: Outcome) -> list[tuple[int, int]]:
        return [(page.mode, page.nodes) for page in outcome.after]

    for outcomes in (patched, base):
        assert policies(patched[call]) == policies(outcomes[call.eager()])


@pytest.mark.parametrize("call", UNKNOWN, ids=str)
def test_a_kernel_without_the_option_knows_no_such_flag(base: dict[Call, Outcome], call: Call) -> None:
    holds(call, base[call])
    assert base[call].unmapped == -1
