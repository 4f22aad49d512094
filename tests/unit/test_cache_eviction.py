"""Eviction: what goes first, what stays, and that nobody is left with half an artifact."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.host import eviction, locks
from provision.host.artifact import MANIFEST, Artifact
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import UserError
from provision.host.eviction import Entry, Wish, choose, human, limit, parse_size

NOW = 1_000_000.0
DAY = 86400.0


def entry(name: str, used: float, size: int = 10, needs: tuple[str, ...] = (), in_use: bool = False) -> Entry:
    kind, _, id = name.partition("/")
    blocks = {(1, hash(name)): size}
    return Entry(kind, id, Path(name), NOW - used, blocks, frozenset(needs), in_use=in_use)


def gone(entries: list[Entry], wish: Wish) -> list[str]:
    return [e.name for e in choose(entries, wish, NOW).removed]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20G", 20 * 2**30),
        ("500M", 500 * 2**20),
        ("4096", 4096),
        ("4096B", 4096),
        ("1.5 GiB", 3 * 2**29),
        ("2gb", 2 * 10**9),
        (" 1k ", 1024),
        ("1T", 2**40),
        ("0", 0),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text, "--to") == size


@pytest.mark.parametrize("text", ["", "G", "-1", "20X", "20 GG", "1e9", "1.G", "none", "½G", "٣G"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"--to: .* is not a size"):
        parse_size(text, "--to")


@pytest.mark.parametrize(
    ("text", "size"), [("", 20 * 2**30), ("0", None), ("none", None), ("NONE", None), ("5G", 5 * 2**30), ("1", 1)]
)
def test_limit(monkeypatch: pytest.MonkeyPatch, text: str, size: int | None) -> None:
    monkeypatch.setenv("MOF_CACHE_LIMIT", text)
    assert limit() == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (300 * 2**20, "300.0 MiB"),
        (20 * 2**30, "20.0 GiB"),
        (5000 * 2**30, "5000.0 GiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


def test_least_recently_used_goes_first_and_no_more_than_has_to() -> None:
    entries = [entry("a/new", 1), entry("b/old", 3), entry("a/older", 5), entry("c/mid", 2)]
    assert gone(entries, Wish(down_to=40)) == []
    assert gone(entries, Wish(down_to=39)) == ["a/older"]
    assert gone(entries, Wish(down_to=15)) == ["a/older", "b/old", "c/mid"]
    assert gone(entries, Wish(down_to=0)) == ["a/older", "b/old", "c/mid", "a/new"]


def test_what_is_in_use_fresh_or_just_made_stays() -> None:
    entries = [entry("a/used", 50, in_use=True), entry("a/made", 40), entry("a/fresh", 1), entry("a/other", 30)]
    wish = Wish(down_to=0, idle=10, spare=frozenset({"a/made"}))
    assert gone(entries, wish) == ["a/other"]
    assert {e.name: why for e, why in choose(entries, wish, NOW).kept} == {
        "a/used": "in use",
        "a/made": "just made",
    }


def test_who_needs_it_goes_before_it() -> None:
    base, image = entry("image-base/b", 90), entry("image/i", 60, needs=("b",))
    saved = entry("template/t", 30, needs=("image/i", "k"))
    kernel = entry("kernel/k", 80)
    entries = [base, image, saved, kernel]
    assert gone(entries, Wish(names=frozenset({"image-base/b"}))) == ["template/t", "image/i", "image-base/b"]
    assert gone(entries, Wish(names=frozenset({"kernel/k"}))) == ["template/t", "kernel/k"]
    # The base was used when the template was: all of them are as fresh as the template.
    assert gone(entries, Wish(idle=50)) == []
    assert gone(entries, Wish(down_to=30)) == ["template/t"]
    assert gone(entries, Wish(down_to=20)) == ["template/t", "image/i"]


def test_one_of_two_images_goes_and_their_base_stays() -> None:
    entries = [entry("base/b", 90), entry("image/1", 50, needs=("b",)), entry("image/2", 10, needs=("b",))]
    assert gone(entries, Wish(down_to=20)) == ["image/1"]


def test_what_is_needed_by_one_in_use_stays() -> None:
    entries = [entry("image/i", 60), entry("template/t", 30, needs=("i",), in_use=True)]
    done = choose(entries, Wish(), NOW)
    assert done.removed == ()
    assert [why for e, why in done.kept if e.kind == "image"] == ["needed by template/t, which is in use"]


def test_a_circle_ends() -> None:
    entries = [entry("a/1", 2, needs=("2", "1")), entry("a/2", 1, needs=("1",))]
    assert sorted(gone(entries, Wish(names=frozenset({"a/1"})))) == ["a/1", "a/2"]


def test_kinds_and_names_and_age_narrow() -> None:
    entries = [entry("a/1", 3 * DAY), entry("a/2", DAY), entry("b/3", 5 * DAY)]
    assert gone(entries, Wish(kind="a")) == ["a/1", "a/2"]
    assert gone(entries, Wish(idle=2 * DAY)) == ["b/3", "a/1"]
    assert gone(entries, Wish(kind="a", idle=2 * DAY)) == ["a/1"]
    assert gone(entries, Wish(names=frozenset({"a/2", "b/3"}), down_to=20)) == ["b/3"]


def test_links_count_once() -> None:
    one = Entry("a", "1", Path("1"), NOW - 9, {(1, 1): 100, (1, 2): 5})
    two = Entry("a", "2", Path("2"), NOW - 8, {(1, 1): 100, (1, 3): 5})
    done = choose([one, two], Wish(names=frozenset({"a/1"})), NOW)
    assert eviction.total([one, two]) == 110
    assert (done.freed, done.left) == (5, 105)


def kilobytes(count: int, **facts: Any) -> Any:
    def maker(draft: Path) -> Mapping[str, Any]:
        (draft / "data").write_bytes(os.urandom(count * 1024))
        with (draft / "data").open("rb") as stream:
            os.fsync(stream.fileno())
        return facts

    return maker


def put(cache: Cache, kind: str, name: str, used_days: float = 2.0, **facts: Any) -> Artifact:
    """An artifact of 100 KiB that was used some days ago."""
    made = cache.make(kind, name, {"name": name}, kilobytes(100, **facts))
    age(made, used_days)
    return made


def age(made: Artifact, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(made.path / MANIFEST, (then, then))


def ids(cache: Cache) -> set[str]:
    return {e.name.rpartition("-")[0] for e in cache.entries()}


def test_making_keeps_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    base = put(cache, "base", "b", 9)
    put(cache, "image", "i", 4, base=base.id)
    put(cache, "kernel", "old", 5)
    put(cache, "kernel", "fresh", 0.01)
    held = put(cache, "kernel", "held", 8)
    monkeypatch.setenv("MOF_CACHE_LIMIT", "580K")
    with cache.using(held):
        age(held, 8)
        new = cache.make("kernel", "new", {}, kilobytes(100))
        assert ids(cache) == {"base/b", "image/i", "kernel/fresh", "kernel/held", "kernel/new"}
        monkeypatch.setenv("MOF_CACHE_LIMIT", "1K")
        cache.make("kernel", "newer", {}, kilobytes(100))
        assert ids(cache) == {"kernel/fresh", "kernel/held", "kernel/new", "kernel/newer"}
    assert new.path.exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    monkeypatch.setenv("MOF_CACHE_LIMIT", "none")
    age(held, 8)
    cache.make("kernel", "newest", {}, kilobytes(100))
    assert "kernel/held" in ids(cache)


def test_what_an_image_names_it_needs(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    base = put(cache, "base", "b")
    put(cache, "template", "t", needs=[base.id])
    done = cache.evict(Wish(names=frozenset({f"base/{base.id}"})))
    assert [e.kind for e in done.removed] == ["template", "base"]
    assert done.left == 0
    assert done.freed > 200 * 1024


def test_other_things_in_the_folder_are_let_be(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "kernel", "k")
    others = [
        tmp_path / "kernel/notes/manifest.json",
        tmp_path / "photos/holiday-0123456789abcdef/one.jpg",
        tmp_path / "ccache/0/x-0123456789abcdef/manifest.json",
        tmp_path / "host/x-0123456789abcdef/manifest.json",
        tmp_path / "file",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (tmp_path / "kernel/link-0123456789abcdef").symlink_to(tmp_path / "photos")
    assert [e.id.partition("-")[0] for e in cache.evict(Wish()).removed] == ["k"]
    assert all(path.exists() for path in others)


def test_a_damaged_artifact_can_be_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = put(cache, "kernel", "k")
    (made.path / MANIFEST).write_text("{")
    assert [e.path for e in cache.evict(Wish()).removed] == [made.path]


def test_what_is_used_between_the_look_and_the_rename_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    needed = put(cache, "base", "b")
    made = put(cache, "kernel", "k", needs=[needed.id])
    look = eviction.choose

    def choose_and_use(entries: Any, wish: Wish, now: float) -> Any:
        chosen = look(entries, wish, now)
        assert len(chosen.removed) == 2
        cache.find("kernel", "k", {"name": "k"})
        return chosen

    monkeypatch.setattr(eviction, "choose", choose_and_use)
    done = cache.evict(Wish(idle=3600))
    assert done.removed == ()
    assert [why for _, why in done.kept] == ["in use", f"needed by kernel/{made.id}, which stays"]
    assert made.path.exists()
    assert needed.path.exists()


def test_what_is_found_while_it_is_taken_is_not_found(tmp_path: Path) -> None:
    """find() had opened the manifest, and then it was renamed away."""
    cache = Cache(tmp_path)
    made = put(cache, "kernel", "k")
    with locks.shared(made.path) as descriptor:
        assert descriptor is not None
    with (made.path / MANIFEST).open("rb") as stream:
        made.path.rename(tmp_path / "away")
        assert not locks._still(stream, made.path)
        put(cache, "kernel", "k")
        assert not locks._still(stream, made.path)


def _user(root: Path, path: Path, ready: Any) -> None:
    cache = Cache(root)
    found = cache.read(path)
    assert found is not None
    with cache.using(found):
        ready.set()
        signal.pause()


def test_a_users_lock_holds_until_it_is_killed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = put(cache, "kernel", "k")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    user = context.Process(target=_user, args=(tmp_path, made.path, ready))
    user.start()
    try:
        assert ready.wait(30)
        assert [e.in_use for e in cache.entries()] == [True]
        assert [why for _, why in cache.evict(Wish()).kept] == ["in use"]
        assert made.path.exists()
    finally:
        user.kill()
        user.join(30)
    assert Deadline.after(10).poll(lambda: not cache.entries()[0].in_use)
    assert len(cache.evict(Wish()).removed) == 1
    assert not made.path.exists()


def test_several_may_use_the_same(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = put(cache, "kernel", "k")
    with cache.using(made):
        with cache.using(made):
            pass
        assert cache.entries()[0].in_use
        assert cache.find("kernel", "k", {"name": "k"}) is not None
    assert not cache.entries()[0].in_use
    assert made.used > time.time() - 60


def _worker(root: Path, seconds: float, evicts: bool) -> None:
    """Make, use and evict the same few artifacts as fast as possible; whatever is held is whole."""
    cache = Cache(root)
    deadline = Deadline.after(seconds)
    turn = 0
    while not deadline.passed:
        turn += 1
        if evicts:
            cache.evict(Wish())
            continue
        name = f"n{turn % 3}"
        made = cache.make("kind", name, {}, kilobytes(4), sealed=turn % 2 == 0)
        with locks.shared(made.path) as descriptor:
            if descriptor is not None:
                assert len((made.path / "data").read_bytes()) == 4096


def test_makers_users_and_evictors_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(tmp_path, 1.5, n < 2)) for n in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    Cache(tmp_path).evict(Wish())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = put(cache, "kernel", "k")
    used = made.used
    assert [e.path for e in cache.evict(Wish(), dry_run=True).removed] == [made.path]
    assert made.used == used


def test_the_compilers_cache_goes_unless_a_kernel_is_being_built(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / "ccache/0").mkdir(parents=True)
    (tmp_path / "ccache/0/object").write_bytes(b"x" * 10000)
    assert eviction.ccache_bytes(tmp_path) >= 10000
    with cache.lock("kernel-build"):
        assert not cache.clear_ccache()
    assert (tmp_path / "ccache/0/object").exists()
    assert cache.clear_ccache()
    assert not (tmp_path / "ccache").exists()
    assert cache.clear_ccache()
