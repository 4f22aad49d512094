"""The patch series: order, prefixes, and application without fuzz."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_kernel import identity, series
from provision.host.errors import UserError

OLD = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"


def patch_text(subject: str, old: str, new: str, context: str = "three") -> str:
    return f"""From 0 Mon Sep 17 00:00:00 2001
From: A Developer <a@example.org>
Subject: [PATCH 1/2] {subject}

Because.
---
diff --git a/file.c b/file.c
--- a/file.c
+++ b/file.c
@@ -1,5 +1,5 @@
 one
 two
-{old}
+{new}
 four
 five
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file.c").write_text(OLD)
    (tmp_path / "0001-a.patch").write_text(patch_text("mm: first\n of all", "three", "THREE"))
    (tmp_path / "0002-b.patch").write_text(patch_text("mm: second", "THREE", "3"))
    (tmp_path / "series").write_text("# order\n0001-a.patch\n\n0002-b.patch # last\n")
    return tmp_path


def test_patches_come_in_the_order_of_the_series_file(folder: Path) -> None:
    patches = series.load(folder)
    assert [p.name for p in patches] == ["0001-a.patch", "0002-b.patch"]
    assert patches[0].subject == "mm: first of all"
    assert patches[0].touches == ("file.c",)
    series.apply(patches, folder / "tree")
    assert (folder / "tree/file.c").read_text() == OLD.replace("three", "3")


def test_a_patch_that_does_not_apply_is_named_with_the_file(folder: Path) -> None:
    with pytest.raises(UserError, match=r"0002-b\.patch: patch does not apply: file\.c: Hunk #1 FAILED"):
        series.apply(series.load(folder)[1:], folder / "tree")


def test_fuzz_is_refused(folder: Path) -> None:
    (folder / "tree/file.c").write_text(OLD.replace("five", "5"))
    with pytest.raises(UserError, match="does not apply"):
        series.apply(series.load(folder)[:1], folder / "tree")


def test_a_patch_applied_before_is_no_success(folder: Path) -> None:
    first = series.load(folder)[:1]
    series.apply(first, folder / "tree")
    with pytest.raises(UserError, match="does not apply"):
        series.apply(first, folder / "tree")


def test_a_named_patch_that_is_missing_is_reported_with_its_line(folder: Path) -> None:
    (folder / "0002-b.patch").unlink()
    with pytest.raises(UserError, match=r"series:4: patch '0002-b\.patch' is not there"):
        series.load(folder)


def test_the_series_has_the_five_patches_and_prefixes_are_its_beginnings() -> None:
    whole = series.of(identity.parse("6.12-mof"))
    assert len(whole) >= 5
    assert series.of(identity.parse("6.12-base")) == ()
    for count in range(1, len(whole) + 1):
        assert series.of(identity.parse(f"6.12-mof.{count}")) == whole[:count]


def test_every_patch_has_a_changelog_and_a_sign_off() -> None:
    for patch in series.of(identity.parse("6.12-mof")):
        text = patch.path.read_text()
        assert "\nSigned-off-by: " in text
        assert len(text.split("\n---\n")[0]) > 500, f"{patch.name}: no changelog to speak of"
