"""The cache: whole artifacts or none."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.host.cache import Cache
from provision.host.errors import InfraError


def fill(text: str) -> Any:
    def maker(draft: Path) -> Mapping[str, Any]:
        (draft / "file").write_text(text)
        return {"fact": text}

    return maker


def never(draft: Path) -> Mapping[str, Any]:
    raise AssertionError("made again")


def test_what_is_made_once_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.make("kind", "name", {"a": 1}, fill("x"))
    again = cache.make("kind", "name", {"a": 1}, never)
    assert again.path == made.path
    assert again.facts == {"fact": "x"}
    assert cache.find("kind", "name", {"a": 2}) is None
    assert [a.path for a in cache.list("kind")] == [made.path]


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fails(draft: Path) -> Mapping[str, Any]:
        (draft / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.make("kind", "name", {}, fails)
    assert cache.find("kind", "name", {}) is None
    assert list((tmp_path / "tmp").iterdir()) == []
    assert cache.make("kind", "name", {}, fill("x")).facts == {"fact": "x"}


def test_a_file_that_lost_bytes_is_noticed_and_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.make("kind", "name", {}, fill("whole"))
    (made.path / "file").write_text("who")
    assert cache.find("kind", "name", {}) is None
    assert (cache.make("kind", "name", {}, fill("whole")).path / "file").read_text() == "whole"


def test_what_a_dead_maker_left_is_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    # The largest process id that Linux gives out is 2^22 - 1 (proc(5), pid_max).
    left = tmp_path / "tmp" / "name-0123.4194304"
    left.mkdir(parents=True)
    cache.make("kind", "name", {}, fill("x"))
    assert not left.exists()


def test_no_space_is_one_line_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    with pytest.raises(InfraError, match=r"no space in the cache: 1\.0 GiB free, 6\.0 GiB are needed.*MOF_CACHE"):
        Cache(tmp_path).make("kind", "name", {}, never, need_bytes=6 * 2**30)


def _maker_in_process(root: Path, log: Path) -> None:
    def slow(draft: Path) -> Mapping[str, Any]:
        with log.open("a") as stream:
            stream.write("made\n")
        time.sleep(0.3)
        return {}

    Cache(root).make("kind", "name", {}, slow)


def test_two_makers_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_maker_in_process, args=(tmp_path, tmp_path / "log")) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(30)
        assert maker.exitcode == 0
    assert (tmp_path / "log").read_text() == "made\n"
