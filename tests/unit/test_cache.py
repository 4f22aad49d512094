"""The cache: whole artifacts or none."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.host import artifact
from provision.host.artifact import MANIFEST
from provision.host.cache import Artifact, Cache
from provision.host.errors import InfraError, UserError
from provision.host.eviction import Wish


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


def test_use_is_noted_and_looking_is_not_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.make("kind", "name", {}, fill("x"))
    os.utime(made.path / MANIFEST, (1000, 1000))
    cache.list("kind")
    cache.entries()
    assert made.used == 1000
    assert cache.find("kind", "name", {}) is not None
    assert made.used > time.time() - 60
    os.utime(made.path / MANIFEST, (1000, 1000))
    cache.make("kind", "name", {}, never)
    assert made.used > time.time() - 60


def test_size_is_what_the_disk_holds(tmp_path: Path) -> None:
    def maker(draft: Path) -> Mapping[str, Any]:
        with (draft / "sparse").open("wb") as stream:
            stream.truncate(2**31)
        (draft / "data").write_bytes(bytes(range(256)) * 4096)
        (draft / "link").hardlink_to(draft / "data")
        return {}

    made = Cache(tmp_path).make("kind", "name", {}, maker)
    with (made.path / "data").open("rb") as stream:
        os.fsync(stream.fileno())  # some file systems allocate blocks when they are written back
    assert 2**20 <= made.size < 2**20 + 2**18
    assert Artifact(tmp_path / "none", {}, {}).size == 0


def test_list_is_by_making_and_not_by_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = [cache.make("kind", name, {}, fill(name)).path for name in ("b", "a")]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    cache.find("kind", "b", {})
    assert [a.path for a in cache.list("kind")] == paths


def as_nobody(root: Path, work: Callable[[], None]) -> None:
    """Run `work` in another process, as a user for whom permissions count."""

    def child() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    if os.getuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder whose parents another user may pass: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="mof-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        artifact.remove(Path(folder) / "cache")


@pytest.mark.parametrize("sealed", [False, True])
def test_a_cache_that_one_may_not_write_to_works(open_path: Path, sealed: bool) -> None:
    root = open_path / "cache"
    made = Cache(root).make("kind", "name", {}, fill("x"), sealed=sealed)
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def work() -> None:
        cache = Cache(root)
        found = cache.make("kind", "name", {}, never, sealed=sealed)
        with cache.using(found):
            assert (found.path / "file").read_text() == "x"
        with pytest.raises(InfraError, match="cannot be written to: Permission denied"):
            cache.evict(Wish())
        assert cache.evict(Wish(), dry_run=True).removed
        assert found.path.exists()

    as_nobody(root, work)
    assert made.path.exists()


def test_a_sealed_artifact_of_an_ordinary_user_can_be_made_and_removed(open_path: Path) -> None:
    root = open_path / "cache"
    root.mkdir()

    def nested(draft: Path) -> Mapping[str, Any]:
        (draft / "in/side").mkdir(parents=True)
        (draft / "in/side/file").write_text("x")
        return {}

    def work() -> None:
        cache = Cache(root)
        made = cache.make("kind", "name", {}, nested, sealed=True)
        assert not os.access(made.path / "in/side", os.W_OK)
        assert not os.access(made.path, os.W_OK)
        with pytest.raises(PermissionError):
            (made.path / "in/side/file").write_text("y")
        assert [e.path for e in cache.evict(Wish()).removed] == [made.path]
        assert not made.path.exists()
        assert list((root / "tmp").iterdir()) == []
        made = cache.make("kind", "name", {}, nested, sealed=True)
        made.path.chmod(0o755)
        (made.path / "more").write_text("")
        assert cache.make("kind", "name", {}, nested, sealed=True).path == made.path  # put in place of a read-only one
        assert list((root / "tmp").iterdir()) == []

    as_nobody(root, work)


def test_what_is_in_use_is_made_anew_beside_its_user(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.make("kind", "name", {}, fill("whole"))
    with cache.using(made), (made.path / "file").open() as stream:
        (made.path / "file").unlink()
        assert (cache.make("kind", "name", {}, fill("other")).path / "file").read_text() == "other"
        assert stream.read() == "whole"


def test_use_of_what_has_gone_is_told(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.make("kind", "name", {}, fill("x"))
    cache.evict(Wish())
    with (
        pytest.raises(InfraError, match=r"kind/name-\w+: it has been removed from the cache.*made again"),
        cache.using(made),
    ):
        pass


def test_a_bad_limit_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOF_CACHE_LIMIT", "plenty")
    with pytest.raises(UserError, match=r"MOF_CACHE_LIMIT: 'plenty' is not a size.*such as 20G"):
        Cache(tmp_path).make("kind", "name", {}, never)
