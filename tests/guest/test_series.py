"""Every prefix of the series compiles cleanly, and kernels before, in and after it do what their patches promise.

The quick part of `mof kernel check`: see docs/kernel-check.md for what that does beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from controller.check import guest as guests
from controller.check import keys, promises, run
from controller.check.data import Checked, Done, Found, Outcome, Step
from controller.check.memory import Memory
from guest_kernel import check, identity, series
from provision.host.cache import Cache
from provision.host.progress import Silent

BASE = "6.12"
PATCHES = series.load(identity.SERIES / BASE)
STEPS = (Step.APPLY, Step.CHECKPATCH, Step.OBJECTS)
PREFIXES = range(1, len(PATCHES) + 1)

BOOTED = (0, 4, len(PATCHES))
"""Without a patch; when faults move pages and nothing asks for it yet; all of them."""
CLAIMS = [(number, claim.name) for number in BOOTED for claim in promises.standing(PATCHES[:number])]

Tried = tuple[Found, Found]


def kernel(number: int) -> identity.KernelId:
    """What other tests boot as well, as they do; without debug information what is built for these tests alone."""
    return keys.kernel_id(BASE, number, len(PATCHES), lean=number not in (0, len(PATCHES)))


@pytest.fixture(scope="session")
def checked() -> Checked:
    """All prefixes in one tree, each compiled with what its last patch touches; nothing is taken from memory."""
    return run.run(Cache(), BASE, PATCHES, PREFIXES, STEPS, Silent(), memory=Memory(Cache(), on=False), lean=True)


@pytest.fixture(scope="session")
def tried() -> Callable[[int], Tried]:
    """What the log of a kernel says after its boot, and what became of each claim; one guest a kernel."""

    @cache
    def boot(number: int) -> Tried:
        with guests.booted(Cache(), kernel(number), Silent()) as one:
            return guests.boot(one), guests.promise(one, promises.standing(PATCHES[:number]), Cache(), Silent())

    return boot


def done(checked: Checked, number: int, step: Step) -> Done:
    found = checked.rows[number - 1].step(step)
    assert found is not None
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", PREFIXES)
def test_a_prefix(checked: Checked, number: int, step: Step) -> None:
    found = done(checked, number, step)
    assert found.outcome is Outcome.OK, "\n".join((checked.rows[number - 1].patch, *found.words))


@pytest.mark.parametrize("number", PREFIXES)
def test_all_that_a_patch_touches_is_compiled(checked: Checked, number: int) -> None:
    compiled = done(checked, number, Step.OBJECTS).figures["objects"]
    assert compiled == check.touched(PATCHES[number - 1])


@pytest.mark.parametrize("number", BOOTED, ids=kernel)
def test_a_kernel_boots_without_a_complaint(tried: Callable[[int], Tried], number: int) -> None:
    assert tried(number)[0].words == ()


@pytest.mark.parametrize(("number", "claim"), CLAIMS, ids=lambda v: str(kernel(v)) if isinstance(v, int) else v)
def test_what_a_kernel_of_the_series_promises(tried: Callable[[int], Tried], number: int, claim: str) -> None:
    told = tried(number)[1].figures["claims"][claim]
    assert told["holds"], f"{told['title']}: {told.get('why')}"


@pytest.mark.parametrize("number", BOOTED, ids=kernel)
def test_trying_it_leaves_nothing_in_the_log(tried: Callable[[int], Tried], number: int) -> None:
    assert [word for word in tried(number)[1].words if word.startswith("the log: ")] == []
