"""Asked against got."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_kernel import identity, kconfig
from provision.host.errors import InfraError, UserError


def test_an_option_that_was_dropped_is_named_with_its_fragment(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_text("# why\nCONFIG_A=y\nCONFIG_B=64\n")
    (tmp_path / "b.config").write_text("CONFIG_B=32\n# CONFIG_C is not set\n")
    asked = kconfig.merge([tmp_path / "a.config", tmp_path / "b.config"])
    assert asked == {"CONFIG_A": ("y", "a.config"), "CONFIG_B": ("32", "b.config"), "CONFIG_C": ("n", "b.config")}
    result = kconfig.parse("# CONFIG_A is not set\nCONFIG_B=32\nCONFIG_C=y\n")
    assert [str(d) for d in kconfig.dropped(asked, result)] == [
        "CONFIG_A: asked y, got n (a.config)",
        "CONFIG_C: asked n, got y (b.config)",
    ]
    with pytest.raises(InfraError, match="2 of 3") as caught:
        kconfig.check(asked, result)
    assert "CONFIG_C: asked n, got y" in caught.value.detail


def test_what_came_out_as_asked_passes() -> None:
    asked = {"CONFIG_A": ("y", "f"), "CONFIG_GONE": ("n", "f")}
    kconfig.check(asked, kconfig.parse("CONFIG_A=y\n"))


def test_rendered_fragments_read_back_the_same() -> None:
    asked = kconfig.merge(kconfig.fragments(identity.parse("6.12-base")))
    assert kconfig.parse(kconfig.render(asked)) == {symbol: value for symbol, (value, _) in asked.items()}


def test_a_line_that_is_no_option_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match=r"x\.config:2: not a configuration line"):
        kconfig.parse("CONFIG_A=y\nCONFIG_B y\n", where="x.config")


def test_the_symbol_is_asked_for_only_where_the_series_brings_it() -> None:
    def names(text: str) -> list[str]:
        return [p.stem for p in kconfig.fragments(identity.parse(text))]

    assert "mof" not in names("6.12-base")
    assert "mof" not in names("6.12-mof.1")
    assert "mof" in names("6.12-mof")
    assert names("6.12-mof-debug")[-1] == "debug"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("6.12-base", []),
        ("6.12-mof.1", []),
        ("6.12-mof", ["mof"]),
        ("6.12-base-debug", ["debug"]),
        ("6.12-mof-debug", ["mof", "debug"]),
        ("6.12-base-cxl", ["cxl"]),
        ("6.12-mof-cxl", ["mof", "cxl"]),
    ],
)
def test_a_flavour_is_a_fragment_more_and_changes_nothing_for_others(text: str, more: list[str]) -> None:
    """A kernel is kept under what went into it: with another fragment, every one would be built anew."""
    usual = ["core", "virtio", "memory", "tracing"]
    assert [p.stem for p in kconfig.fragments(identity.parse(text))] == [*usual, *more]
