"""`mof cache`, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.cli import cache as command
from provision.host.artifact import MANIFEST, Artifact
from provision.host.cache import Cache
from provision.host.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("MOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOF_CACHE_LIMIT", raising=False)
    return Cache()


def put(cache: Cache, kind: str, name: str, days: float = 0, size: int = 1000, **facts: Any) -> Artifact:
    def maker(draft: Path) -> Mapping[str, Any]:
        (draft / "data").write_bytes(b"x" * size)
        return facts

    made = cache.make(kind, name, {"name": name}, maker, sealed=kind == "template")
    then = time.time() - days * 86400 - 1
    os.utime(made.path / MANIFEST, (then, then))
    return made


def mof(*arguments: str) -> int:
    status = command.app(args=list(arguments), standalone_mode=False)
    assert isinstance(status, int)
    return status


def damage(made: Artifact) -> None:
    path = made.path / "data"
    path.chmod(0o600)
    path.write_bytes(b"y" + path.read_bytes()[1:])


def test_list(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = put(cache, "kernel", "6.12-mof", days=3)
    image = put(cache, "image", "trixie", size=500_000)
    (cache.root / "ccache").mkdir()
    (cache.root / "ccache/x").write_bytes(b"x" * 5000)
    with cache.using(image):
        assert mof("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"image   {image.id}")
    assert lines[0].endswith("just now        in use")
    assert lines[1].startswith(f"kernel  {kernel.id}")
    assert lines[1].endswith("3 days ago")
    assert "of 20.0 GiB (MOF_CACHE_LIMIT) | ccache " in lines[2]
    assert lines[2].endswith(str(cache.root))


def test_list_for_programs(cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOF_CACHE_LIMIT", "none")
    base = put(cache, "image-base", "trixie")
    saved = put(cache, "template", "t", needs=[base.id])
    (base.path / "data").write_text("")
    assert mof("list", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["limit"] is None
    rows = {row["kind"]: row for row in said["artifacts"]}
    assert rows["template"]["needs"] == [f"image-base/{base.id}"]
    assert rows["template"]["sealed"]
    assert rows["template"]["size"] == saved.size
    assert rows["image-base"]["damage"] == "data has 0 bytes and was made with 1000"
    assert said["total"] == base.size + saved.size


def test_an_empty_cache(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["list"], ["evict"], ["evict", "--all"], ["verify"]):
        assert mof(*arguments) == 0
    out = capsys.readouterr().out
    assert "nothing built yet" in out
    assert "nothing to evict" in out
    assert "nothing to verify" in out
    assert not cache.root.exists()


def test_evict_by_id_and_who_needs_it(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    base = put(cache, "image-base", "trixie")
    saved = put(cache, "template", "t", days=2, needs=[base.id])
    other = put(cache, "kernel", "k")
    assert mof("evict", base.id, "--dry-run") == 0
    assert base.path.exists()
    assert f"would remove  template/{saved.id}" in capsys.readouterr().out
    assert mof("evict", base.id) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"removed  template/{saved.id}  ")
    assert out[0].endswith("last used 2 days ago")
    assert out[1].startswith(f"removed  image-base/{base.id}")
    assert "freed" in out[2]
    assert not base.path.exists()
    assert other.path.exists()


def test_a_bad_id_is_told_with_near_ones(cache: Cache) -> None:
    made = put(cache, "kernel", "6.12-mof")
    with pytest.raises(UserError, match=f"6.12-mf: no such artifact in the cache .near it: kernel/{made.id}"):
        mof("evict", "6.12-mf")
    with pytest.raises(UserError, match=f"near it: kernel/{made.id}"):
        mof("verify", "6.12")
    with pytest.raises(UserError, match="mof cache list shows"):
        mof("verify", "zzzzzz")


def test_the_same_id_in_two_kinds(cache: Cache) -> None:
    one, two = put(cache, "a", "x"), put(cache, "b", "x")
    assert one.id == two.id
    with pytest.raises(UserError, match=f"say a/{one.id} or b/{one.id}"):
        mof("evict", one.id)
    assert mof("evict", f"a/{one.id}") == 0
    assert not one.path.exists()
    assert two.path.exists()


def test_evict_in_use_is_said(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    made = put(cache, "kernel", "k")
    with cache.using(made):
        assert mof("evict", made.id) == 0
    assert capsys.readouterr().out.strip().endswith("in use")
    assert made.path.exists()


def test_evict_by_age_kind_and_size(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = put(cache, "kernel", "old", days=9), put(cache, "kernel", "new", days=1)
    image = put(cache, "image", "i", days=5)
    assert mof("evict", "--older", "10") == 0
    assert "all that fits was used within the last 10 days" in capsys.readouterr().out
    assert mof("evict", "--older", "3", "--kind", "kernel") == 0
    assert [p.path.exists() for p in (old, new, image)] == [False, True, True]
    assert mof("evict", "--kind", "kernels") == 0
    assert "no artifact is a kernels; there are image, kernel" in capsys.readouterr().out
    assert mof("evict", "--to", "1M") == 0
    assert "are no more than 1.0 MiB" in capsys.readouterr().out
    assert mof("evict", "--to", str(new.size)) == 0
    assert [p.path.exists() for p in (new, image)] == [True, False]
    with pytest.raises(UserError, match="--to: 'much' is not a size"):
        mof("evict", "--to", "much")


def test_evict_alone_is_to_the_limit(
    cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put(cache, "kernel", "k")
    assert mof("evict") == 0
    assert "are no more than 20.0 GiB" in capsys.readouterr().out
    monkeypatch.setenv("MOF_CACHE_LIMIT", "0")
    assert mof("evict") == 0
    assert "sets no limit" in capsys.readouterr().out
    assert made.path.exists()
    monkeypatch.setenv("MOF_CACHE_LIMIT", "1K")
    assert mof("evict") == 0
    assert not made.path.exists()


def test_evict_all(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    made = put(cache, "kernel", "k")
    (cache.root / "ccache").mkdir()
    (cache.root / "ccache/x").write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="--all"):
        mof("evict", "--all", "--kind", "kernel")
    assert mof("evict", "--all", "--dry-run") == 0
    assert made.path.exists()
    with cache.lock("kernel-build"):
        assert mof("evict", "--all") == 0
    assert "a kernel is being built with it" in capsys.readouterr().out
    assert not made.path.exists()
    assert mof("evict", "--all") == 0
    assert not (cache.root / "ccache").exists()


def test_verify(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    saved, kernel = put(cache, "template", "t"), put(cache, "kernel", "k")
    assert mof("verify") == 0
    out = capsys.readouterr().out
    assert f"template/{saved.id}  intact" in out
    assert f"kernel/{kernel.id}  complete (not sealed: sizes only)" in out
    damage(saved)
    assert mof("verify") == 1
    out = capsys.readouterr().out
    assert f"template/{saved.id}  damaged: data has changed" in out
    assert f"mof cache evict template/{saved.id}" in out
    assert mof("verify", kernel.id) == 0


def test_help_is_not_slow() -> None:
    """What the commands need is imported when they run."""
    program = "import sys, controller.cli.cache; print('provision.host.cache' in sys.modules, 'difflib' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == "False"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86400, "1 day ago"),
        (1e7, "115 days ago"),
    ],
)
def test_ago(seconds: float, words: str) -> None:
    assert command.ago(seconds) == words
