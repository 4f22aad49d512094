"""Sealed artifacts: a changed byte is found before use, and what nothing touched is not hashed again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.host import artifact, seal
from provision.host.artifact import MANIFEST, Artifact
from provision.host.cache import Cache, Check
from provision.host.deadline import Deadline

GIB = 2**30


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def advance(self, text: str, done: int, total: int | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def guest(draft: Path) -> Mapping[str, Any]:
    """Like a saved guest: data, holes, data at an odd place, and a private key."""
    with (draft / "memory").open("wb") as stream:
        stream.write(b"first" * 1000)
        stream.seek(2 * GIB - 3)
        stream.write(b"end")
    (draft / "in").mkdir()
    (draft / "in/key").write_text("secret")
    (draft / "in/key").chmod(0o600)
    return {"release": "6.12", "pair": (1, 2)}


def never(draft: Path) -> Mapping[str, Any]:
    raise AssertionError("made again")


def make(cache: Cache, maker: Callable[[Path], Mapping[str, Any]] = guest) -> Artifact:
    return cache.make("template", "name", {"a": 1}, maker, sealed=True)


def find(cache: Cache, progress: Notes | None = None) -> Artifact | None:
    return cache.find("template", "name", {"a": 1}, progress)


def trusted(cache: Cache, made: Artifact, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let it lie until a verification is remembered; returns where."""
    monkeypatch.setattr(seal, "SETTLED_SECONDS", 0.05)
    record = seal.record(cache.root, made.path)

    def remembered() -> bool:
        assert find(cache) is not None
        return record.exists()

    assert Deadline.after(10).poll(remembered)
    return record


def flip(path: Path, offset: int = 0) -> None:
    """Change a byte and set the times back, as far as one can."""
    state = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))
    path.chmod(stat.S_IMODE(state.st_mode))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return seal.contents(stream.fileno())


def test_what_is_sealed_is_read_only_and_nothing_is_opened_to_others(tmp_path: Path) -> None:
    made = make(Cache(tmp_path))
    modes = {str(p.relative_to(made.path)): stat.S_IMODE(p.stat().st_mode) for p in made.path.rglob("*")}
    assert modes["in/key"] == 0o400
    assert all(mode & 0o222 == 0 for mode in modes.values())
    assert stat.S_IMODE(made.path.stat().st_mode) & 0o222 == 0
    said = json.loads((made.path / MANIFEST).read_text())
    assert set(said["sha256"]) == {"memory", "in/key"} == set(said["files"])
    assert made.sealed
    assert made.facts == {"release": "6.12", "pair": [1, 2]}


def test_digest_is_of_what_reading_gives(tmp_path: Path) -> None:
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    with sparse.open("wb") as stream:
        stream.seek(300_000)
        stream.write(b"x" * 70_000)
        stream.truncate(2**20 + 5)
    dense.write_bytes(sparse.read_bytes())
    assert digest_of(sparse) == digest_of(dense)
    moved = tmp_path / "moved"
    moved.write_bytes(bytes(65536) + sparse.read_bytes()[:-65536])
    longer = tmp_path / "longer"
    longer.write_bytes(dense.read_bytes() + b"\0")
    shorter = tmp_path / "shorter"
    shorter.write_bytes(dense.read_bytes()[:-1])
    assert len({digest_of(p) for p in (dense, moved, longer, shorter)}) == 4


def test_digest_is_as_defined(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "file"
    content = b"a" * 65536 + bytes(65536) + b"b" * 10
    path.write_bytes(content)
    stream = (0).to_bytes(8, "little") + content[:65536]
    stream += (131072).to_bytes(8, "little") + content[131072:]
    stream += len(content).to_bytes(8, "little")
    assert digest_of(path) == hashlib.sha256(stream).hexdigest()
    path.write_bytes(b"")
    assert digest_of(path) == hashlib.sha256(bytes(8)).hexdigest()


def test_holes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with path.open("wb") as stream:
        stream.write(b"x")
        stream.truncate(64 * GIB)
    read = 0
    pread = os.pread

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal read
        read += count
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", counting)
    digest_of(path)
    assert read <= 2**20


def test_a_file_system_without_holes_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with path.open("wb") as stream:
        stream.seek(200_000)
        stream.write(b"x")
    with_holes = digest_of(path)

    def refuses(descriptor: int, offset: int, whence: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", refuses)
    assert digest_of(path) == with_holes


def test_untouched_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    trusted(cache, made, monkeypatch)
    monkeypatch.setattr(seal, "contents", lambda descriptor: pytest.fail("hashed again"))
    progress = Notes()
    assert find(cache, progress) is not None
    assert make(cache, never).path == made.path
    assert progress.steps == progress.notes == []


def test_what_has_just_been_touched_is_not_trusted(tmp_path: Path) -> None:
    """A second write within one tick of the clock would not show in the times."""
    cache = Cache(tmp_path)
    made = make(cache)
    progress = Notes()
    assert find(cache, progress) is not None
    assert progress.steps == ["verifying template name"]
    assert not seal.record(tmp_path, made.path).exists()


@pytest.mark.parametrize("file", ["memory", "in/key"])
@pytest.mark.parametrize("settled", [True, False])
def test_a_flipped_byte_is_found_and_the_artifact_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, settled: bool
) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    if settled:
        trusted(cache, made, monkeypatch)
    before = (made.path / file).stat()
    flip(made.path / file, 2)
    after = (made.path / file).stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)
    progress = Notes()
    assert find(cache, progress) is None
    assert len(progress.notes) == 1
    assert f"template/{made.id} in the cache is not used: {file} has changed" in progress.notes[0]
    assert cache.refusal(made.path).startswith(f"{file} has changed")
    assert make(cache).path == made.path
    assert find(cache) is not None
    assert cache.refusal(made.path, check=Check.FULL) == ""


def test_a_byte_written_into_a_hole_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    flip(made.path / "memory", GIB)
    assert find(cache) is None


def test_each_flipped_byte_of_the_manifest_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    manifest = made.path / MANIFEST
    whole = manifest.read_bytes()
    manifest.chmod(0o600)
    for offset in range(len(whole)):
        changed = bytearray(whole)
        changed[offset] ^= 1
        manifest.write_bytes(changed)
        if find(cache) is not None:  # white space between values says nothing
            assert json.loads(changed) == json.loads(whole), offset
    manifest.write_bytes(whole)
    assert find(cache) is not None


def test_truncated_missing_and_additional_files_are_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    key = made.path / "in/key"
    key.chmod(0o600)
    key.write_text("secre")
    assert cache.refusal(made.path) == "in/key has 5 bytes and was made with 6"
    key.parent.chmod(0o755)
    key.unlink()
    assert cache.refusal(made.path) == "in/key: No such file or directory"
    key.write_text("secret")
    assert cache.refusal(made.path) == ""
    (key.parent / "more").write_text("")
    assert cache.refusal(made.path) == "in/more was not made with it"
    assert cache.refusal(made.path, check=Check.SIZES) == ""
    assert cache.refusal(tmp_path / "template/none") == "there is no artifact"


def test_a_copy_without_holes_verifies_and_is_hashed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(draft: Path) -> Mapping[str, Any]:
        with (draft / "memory").open("wb") as stream:
            stream.seek(2**20)
            stream.write(b"end")
        return {}

    cache = Cache(tmp_path / "one")
    made = make(cache, small)
    trusted(cache, made, monkeypatch)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copied = tmp_path / "two/template" / made.id / "memory"
    copied.chmod(0o600)
    copied.write_bytes(copied.read_bytes())
    progress = Notes()
    assert find(Cache(tmp_path / "two"), progress) is not None
    assert progress.steps == ["verifying template name"]


def test_after_a_boot_all_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    trusted(cache, made, monkeypatch)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(seal, "_BOOT_ID", boot)
    progress = Notes()
    assert find(cache, progress) is not None
    assert find(cache, progress) is not None
    assert len(progress.steps) == 1


def test_rot_under_an_unchanged_inode_is_found_by_a_full_check_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    record = trusted(cache, made, monkeypatch)
    flip(made.path / "memory")
    said = json.loads(record.read_text())
    state = (made.path / "memory").stat()
    said["files"]["memory"] = [state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    record.write_text(json.dumps(said))  # as if nothing had touched it
    assert find(cache) is not None
    assert cache.refusal(made.path, check=Check.FULL).startswith("memory has changed")
    assert not record.exists()
    assert find(cache) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"artifact": 1}', "\udcff"])
def test_a_damaged_record_is_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    record = trusted(cache, made, monkeypatch)
    record.write_bytes(text.encode(errors="surrogateescape"))
    progress = Notes()
    assert find(cache, progress) is not None
    assert len(progress.steps) == 1
    seal.sweep(tmp_path)


def test_what_was_not_sealed_is_made_anew_when_it_is_to_be(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    plain = cache.make("template", "name", {"a": 1}, guest)
    assert not plain.sealed
    assert make(cache).sealed
    assert cache.make("template", "name", {"a": 1}, never).sealed


def test_what_cannot_be_sealed_is_a_defect(tmp_path: Path) -> None:
    def linking(draft: Path) -> Mapping[str, Any]:
        (draft / "link").symlink_to("/etc/passwd")
        return {}

    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="only files and folders"):
        make(cache, linking)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_records_of_what_has_gone_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    made = make(cache)
    record = trusted(cache, made, monkeypatch)
    (tmp_path / "host/kvm-1.json").write_text("{}")
    seal.sweep(tmp_path)
    assert record.exists()
    artifact.open_up(made.path)  # or it cannot get another parent
    made.path.rename(tmp_path / "away")
    seal.sweep(tmp_path)
    assert [p.name for p in (tmp_path / "host").iterdir()] == ["kvm-1.json"]


def _finder(root: Path) -> None:
    seal.SETTLED_SECONDS = 0.0
    for _ in range(20):
        assert find(Cache(root)) is not None


def test_many_verify_at_once(tmp_path: Path) -> None:
    make(Cache(tmp_path))
    context = multiprocessing.get_context("fork")
    finders = [context.Process(target=_finder, args=(tmp_path,)) for _ in range(6)]
    for finder in finders:
        finder.start()
    for finder in finders:
        finder.join(60)
        assert finder.exitcode == 0
    assert list((tmp_path / "tmp").iterdir()) == []
    assert len(list((tmp_path / "host").iterdir())) == 1
