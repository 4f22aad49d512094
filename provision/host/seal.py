"""Seals: is every byte of an artifact still what was made?

Hashing some hundred megabytes at each use is too slow, and sizes tell little. So a full verification is remembered,
outside of the artifact, in `host/trusted-HASH.json`: for each file its inode, size, mtime and ctime, with the boot id
of the host (random(4), /proc/sys/kernel/random/boot_id) and the seal of the manifest. While all of these agree, the
artifact is trusted; otherwise it is hashed in full.

What that sees: everything that is done to a file through the file system. Each write, truncation, chmod, rename and
utime sets the ctime to now (inode(7)), and no call sets it to another time. Times are kept in the kernel's ticks, or
in seconds on some file systems, so that a write within the same tick would not show; therefore a verification is only
remembered when the files had lain still for SETTLED_SECONDS before it began.

What it does not see, until the next boot or `mof cache verify`: a disk that rots under an unchanged inode; writes to
the block device past the file system; stores through a shared mapping that was dirty already (the kernel sets the
times when a page is first written to, not at each store); and root, who can set the clock. It is a guard against
accidents. Who may write to the cache can replace an artifact, manifest and all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from provision.host.artifact import MANIFEST, Manifest, digest

BLOCK = 64 * 1024
_ZEROS = bytes(BLOCK)

SETTLED_SECONDS = 2.0
"""Coarsest time stamps in use: FAT's two seconds; one in ext4 with small inodes; else the kernel's tick, 1 to 10 ms."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: (start, end) in bytes, ascending (lseek(2), SEEK_DATA). The rest is holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as wrong:
            if wrong.errno != errno.ENXIO:  # a file system that does not know of holes: all of it is data
                yield end, size
            return
        yield start, end


def contents(descriptor: int) -> str:
    """The digest of an open regular file's content, in hex.

    It is SHA-256 over, for each aligned block of 64 KiB that is not all zeros, in ascending order: the block's offset
    (8 bytes, little endian) and its bytes (fewer in the file's last block); then the file's size (8 bytes, little
    endian). So it depends on what reading the file gives and on nothing else: zeros are left out whether they are a
    hole or written, a copy that lost its holes has the same digest, and holes cost nothing since they are not read.
    OSError when the file cannot be read or shrinks meanwhile.
    """
    size = os.fstat(descriptor).st_size
    found = hashlib.sha256()
    offset = 0
    for start, end in _data(descriptor, size):
        offset = max(offset, start - start % BLOCK)
        while offset < min(end, size):
            block = os.pread(descriptor, BLOCK, offset)
            if len(block) != min(BLOCK, size - offset):
                raise OSError(errno.EIO, "it shrinks while it is read")
            if block != _ZEROS[: len(block)]:
                found.update(offset.to_bytes(8, "little"))
                found.update(block)
            offset += BLOCK
    found.update(size.to_bytes(8, "little"))
    return found.hexdigest()


def _inside(folder: Path) -> dict[str, Path]:
    """All that is no folder, by its path from `folder`; without the manifest."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {name: path for path in sorted(found) if (name := str(path.relative_to(folder))) != MANIFEST}


def _links(folder: Path) -> Iterator[Path]:
    return (path for place, names, _ in os.walk(folder) for name in names if (path := Path(place, name)).is_symlink())


def _write_protect(path: Path) -> None:
    """Takes the right to write from all and leaves the others: a private key stays private."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def apply(folder: Path) -> dict[str, str]:
    """Make each file and each folder in `folder` read-only; returns the files' digests.

    `folder` itself is left writable: it has still to get its manifest and its place (see close()). ValueError when
    there is anything else than files and folders, whose content a digest would not cover.
    """
    found: dict[str, str] = {}
    if link := next(_links(folder), None):
        raise ValueError(f"a sealed artifact holds only files and folders: {link}")
    for name, path in _inside(folder).items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"a sealed artifact holds only files and folders: {path}")
        _write_protect(path)
        with path.open("rb", buffering=0) as stream:
            found[name] = contents(stream.fileno())
    for place, _, _ in os.walk(folder):
        if Path(place) != folder:
            _write_protect(Path(place))
    return found


def close(folder: Path) -> None:
    """The last step, when the artifact is in its place: manifest and folder read-only."""
    _write_protect(folder / MANIFEST)
    _write_protect(folder)


def record(root: Path, artifact: Path) -> Path:
    """Where the last full verification of an artifact of the cache `root` is remembered."""
    return root / "host" / f"trusted-{digest({'artifact': f'{artifact.parent.name}/{artifact.name}'})[:16]}.json"


def sweep(root: Path) -> None:
    """Remove what is remembered of artifacts that are no more."""
    for path in (root / "host").glob("trusted-*.json"):
        try:
            kept = (root / json.loads(path.read_text())["artifact"] / MANIFEST).exists()
        except (OSError, ValueError, KeyError, TypeError):
            kept = False
        if not kept:
            with suppress(OSError):
                path.unlink()


def _marks(state: os.stat_result) -> list[int]:
    return [state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _claim(artifact: Path, manifest: Manifest, files: dict[str, list[int]]) -> dict[str, Any]:
    """What a record says: these files had what this manifest says, in this boot."""
    return {
        "artifact": f"{artifact.parent.name}/{artifact.name}",
        "boot": _boot(),
        "seal": manifest.seal,
        "files": files,
    }


def _trusted(root: Path, artifact: Path, manifest: Manifest) -> bool:
    try:
        now = {name: _marks((artifact / name).stat()) for name in manifest.sha256}
        said = json.loads(record(root, artifact).read_text())
    except (OSError, ValueError):
        return False
    return bool(_boot()) and bool(said == _claim(artifact, manifest, now))


def _remember(root: Path, artifact: Path, manifest: Manifest, files: dict[str, list[int]]) -> None:
    """Write the record in one piece; in a cache that one may not write to there is none, and each use hashes."""
    target = record(root, artifact)
    draft = root / "tmp" / f"{target.name}.{os.urandom(4).hex()}.{os.getpid()}"  # swept when this process is gone
    with suppress(OSError):
        for folder in (target.parent, draft.parent):
            folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(_claim(artifact, manifest, files)) + "\n")
        draft.replace(target)


def fault(
    root: Path,
    artifact: Path,
    manifest: Manifest,
    *,
    full: bool = False,
    hashing: Callable[[], None] = lambda: None,
) -> str:
    """What is wrong with a sealed artifact, in words and naming the file; empty when it is what was made.

    `full`: hash whatever is remembered, and from the disk rather than from memory. `hashing` is called before anything
    is hashed. Two of these at once do not disturb each other; while one runs, the caller keeps the artifact from being
    evicted (locks.shared).
    """
    if manifest.seal != manifest.expected_seal():
        return f"{MANIFEST} has changed"
    if strange := sorted(_inside(artifact).keys() - manifest.sha256.keys()):
        return f"{strange[0]} was not made with it"
    if not full and _trusted(root, artifact, manifest):
        return ""
    hashing()
    marks: dict[str, list[int]] = {}
    settled = True
    began = time.time_ns()
    for name, made in manifest.sha256.items():
        try:
            with (artifact / name).open("rb", buffering=0) as stream:
                before = os.fstat(stream.fileno())
                if full:  # clean pages are dropped, unless somebody has them mapped (posix_fadvise(2))
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found = contents(stream.fileno())
                marks[name] = _marks(os.fstat(stream.fileno()))
        except OSError as wrong:
            why = f"{name}: {wrong.strerror}"
        else:
            why = "" if found == made else f"{name} has changed: its digest was {made[:12]} and is {found[:12]}"
        if why:
            with suppress(OSError):  # rotten under an unchanged inode: nobody is to trust it any more
                record(root, artifact).unlink()
            return why
        settled = settled and marks[name] == _marks(before)
        settled = settled and before.st_ctime_ns + int(SETTLED_SECONDS * 1e9) <= began
    if settled:
        _remember(root, artifact, manifest, marks)
    return ""
