"""What stands after which patch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.check import promises
from controller.check.claims import Claim
from controller.check.promises import BASE, PROMISES, Promise
from controller.check.trial import Trial
from guest_kernel import identity, series
from guest_kernel.series import Patch


def patch(name: str) -> Patch:
    return Patch(Path(name), "ab")


def claim(name: str) -> Claim:
    def holds(trial: Trial) -> Mapping[str, Any]:
        return {}

    return Claim(name, name, holds)


def names(*patches: str, known: Mapping[str, Promise] | None = None) -> list[str]:
    return [c.name for c in promises.standing([patch(p) for p in patches], known)]


def test_the_key_of_a_patch_has_neither_its_number_nor_its_ending() -> None:
    assert (
        promises.key(patch("0005-mm-mempolicy-add-MPOL_MF_LAZY-to-mbind.patch"))
        == "mm-mempolicy-add-MPOL_MF_LAZY-to-mbind"
    )
    assert promises.key(patch("0012-mm-mempolicy-tell-where-.patch")) == "mm-mempolicy-tell-where"


def test_every_promise_belongs_to_a_patch_of_some_series() -> None:
    there = {promises.key(p) for base in identity.bases() for p in series.load(identity.SERIES / base)}
    assert set(PROMISES) - there == set()


def test_what_is_ended_had_begun() -> None:
    begun = {c.name for c in BASE} | {c.name for p in PROMISES.values() for c in p.begins}
    assert {name for p in PROMISES.values() for name in p.ends} <= begun


def test_a_claim_s_name_means_one_claim() -> None:
    every = [*BASE, *(c for p in PROMISES.values() for c in p.begins)]
    assert len({c.name for c in every}) == len(set(every))


@pytest.mark.parametrize("base", identity.bases())
def test_the_end_of_each_series_holds_what_the_series_is_for(base: str) -> None:
    standing = [c.name for c in promises.standing(series.load(identity.SERIES / base))]
    assert {"direct", "configured", "switch", "cached-move", "lazy"} <= set(standing)
    assert not {"absent", "unconfigured", "lazy-refused", "cached-stay"} & set(standing)


def test_claims_begin_and_end_and_an_unknown_patch_changes_nothing() -> None:
    known = {"one": Promise((claim("a"),)), "two": Promise((claim("b"),), ("a", "direct"))}
    base = [c.name for c in BASE]
    assert names(known=known) == base
    assert names("0001-one.patch", known=known) == [*base, "a"]
    assert names("0001-one.patch", "0002-other.patch", known=known) == [*base, "a"]
    assert names("0007-one.patch", "0009-two.patch", known=known) == [*base[1:], "b"]
