"""Kernel ids."""

from __future__ import annotations

import pytest

from guest_kernel import identity
from provision.host.errors import UserError


@pytest.mark.parametrize(
    "text",
    ["6.12-base", "6.12-mof", "6.12-mof.3", "6.12-base-debug", "6.12-mof.5-debug", "6.12-base-cxl", "6.12-mof.5-cxl"],
)
def test_an_id_reads_back_as_it_was_typed(text: str) -> None:
    assert str(identity.parse(text)) == text


def test_the_release_carries_the_id() -> None:
    assert identity.parse("6.12-mof.3-debug").localversion == "-mof.3-debug"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("6.12", "unknown kernel id"),
        ("9.99-mof", "unknown kernel id"),
        ("6.12-mof.0", "the series has"),
        ("6.12-mof.77", "the series has"),
        ("6.12-base.1", "only mof kernels count patches"),
        ("6.12-mof-debug-cxl", "unknown kernel id"),
        ("6.12-mof-lean", "unknown kernel id"),
        ("../../etc", "unknown kernel id"),
        ("6.12-MOF", "unknown kernel id"),
    ],
)
def test_a_wrong_id_gets_one_line_with_the_mend(text: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        identity.parse(text)
    assert why in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
