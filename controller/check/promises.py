"""What each patch promises, by a key that does not change when patches are put in another order.

A patch begins claims and ends earlier ones; what was begun and not ended holds for every later prefix. A patch that is
not listed changes nothing of that: with it, all has to hold that held before. To add a promise, write a claim
(controller.check.claims) and list it here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.check import claims
from controller.check.claims import Claim
from guest_kernel.series import Patch

BASE: tuple[Claim, ...] = (
    claims.DIRECT,
    claims.ABSENT,
    claims.UNCONFIGURED,
    claims.LAZY_REFUSED,
    claims.CACHED_STAY,
)
"""What holds without any patch. It also shows that the experiments can come out otherwise."""


@dataclass(frozen=True)
class Promise:
    """`begins`: what holds from this patch on; `ends`: names of claims that hold no more."""

    begins: tuple[Claim, ...] = ()
    ends: tuple[str, ...] = ()


PROMISES: Mapping[str, Promise] = {
    # Nothing changes for user space: what held without it holds.
    "mm-migrate-separate-replacing-a-folio-from-unmapping": Promise(),
    # What the policy answers shows only once a fault asks: claims about that belong to the patch with the fault's hook.
    "mm-mempolicy-tell-where-the-policy-of-an-area-wants": Promise((claims.CONFIGURED,), ("unconfigured",)),
    # Nobody calls it yet, so what is in the swap cache still stays, and is not counted.
    "mm-migrate-move-a-misplaced-folio-between-finding-an": Promise(
        (claims.SWITCH_DEFAULT, claims.SWITCH_WORKS), ("absent",)
    ),
    "mm-migrate-misplaced-anonymous-folios-in-do_swap_pag": Promise(
        (claims.CACHED_MOVE, claims.CACHED_OFF), ("cached-stay",)
    ),
    "mm-mempolicy-add-MPOL_MF_LAZY-to-mbind": Promise(
        (claims.LAZY_TAKEN, claims.LAZY, claims.POLICY), ("lazy-refused",)
    ),
}


def key(patch: Patch) -> str:
    """The patch's file name without its number and ending: git-format-patch(1) makes it from the subject."""
    return re.sub(r"^\d+-|\.patch$", "", patch.name).strip("-")


def standing(patches: Sequence[Patch], promises: Mapping[str, Promise] | None = None) -> tuple[Claim, ...]:
    """What holds with these patches applied, in the order in which it began."""
    known = PROMISES if promises is None else promises
    held = {claim.name: claim for claim in BASE}
    for patch in patches:
        promise = known.get(key(patch), Promise())
        for name in promise.ends:
            held.pop(name, None)
        held |= {claim.name: claim for claim in promise.begins}
    return tuple(held.values())
