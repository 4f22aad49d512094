"""What goes when the cache is full, or when a person says so.

Choosing (`choose`) is a function of data. Taking away (`evict`) is atomic for readers: an artifact is renamed into
`tmp/` while its exclusive lock is held, and deleted there. One evictor is at work at a time; it holds the lock
`eviction`, under which the cache also puts what it made in its place: what is under an artifact's name does not change
between the look and the rename.

An artifact that another one names in its manifest is needed by that one, and goes with it or not at all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host import artifact, locks
from provision.host.artifact import MANIFEST
from provision.host.errors import UserError

LIMIT = "MOF_CACHE_LIMIT"
DEFAULT_LIMIT = 20 * 2**30
FRESH_SECONDS = 3600.0
"""What was used within this time does not go by itself: its user may hold a path and no lock yet."""

RESERVED = frozenset({"ccache", "host", "locks", "tmp"})
"""Folders of the cache that are no kinds."""

_ID = re.compile(r".+-[0-9a-f]{16}")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)


def parse_size(text: str, where: str, hint: str = "a size is a number of bytes, or 500M, or 20G") -> int:
    """Bytes from a person's text: 20G, 1.5 GiB, 500M, 4096; UserError, naming `where`, when it is none.

    K, M, G and T are powers of 1024, KB to TB powers of 1000: as the GNU programs have it (coreutils, block size).
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{text!r} is not a size", where=where, hint=hint)
    number, unit, rest = found.groups()
    base = 1000 if (rest or "").lower() == "b" else 1024
    scale = base ** ("kmgt".index(unit.lower()) + 1) if unit else 1
    return int(float(number) * scale) if "." in number else int(number) * scale


def limit() -> int | None:
    """The limit for all artifacts together, in bytes, from MOF_CACHE_LIMIT; None when there is none.

    UserError when it is not a size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return DEFAULT_LIMIT
    if text.lower() == "none":
        return None
    return parse_size(text, LIMIT, "set it to a size, such as 20G or 500M or a number of bytes, or to none") or None


def human(size: int) -> str:
    """A size for a person: 512 B, 1.5 KiB, 300.0 MiB, 20.0 GiB."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB"):
        value /= 1024
        if value < 1023.95:  # what would be shown as 1024.0 is one of the next
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} GiB"


@dataclass(frozen=True)
class Entry:
    """An artifact on disk, whole or damaged.

    `used`: last use, in seconds since the epoch. `blocks`: bytes on disk by (device, inode). `names`: all that
    its manifest says in inputs and facts, among it the ids of the artifacts that it needs.
    """

    kind: str
    id: str
    path: Path
    used: float
    blocks: Mapping[tuple[int, int], int]
    names: frozenset[str] = frozenset()
    sealed: bool = False
    in_use: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.id}"

    @property
    def size(self) -> int:
        return sum(self.blocks.values())

    def needs(self, other: Entry) -> bool:
        return self.name != other.name and not self.names.isdisjoint((other.id, other.name))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _entry(path: Path) -> Entry:
    names: frozenset[str] = frozenset()
    sealed = False
    try:
        manifest = artifact.Manifest.load(path)
        names = frozenset(_strings([manifest.inputs, manifest.facts]))
        sealed = manifest.sealed
    except (OSError, ValueError):
        pass  # damaged, and takes space all the same
    return Entry(
        path.parent.name,
        path.name,
        path,
        artifact.last_use(path),
        artifact.blocks(path),
        names,
        sealed,
        locks.in_use(path),
    )


def scan(root: Path) -> tuple[Entry, ...]:
    """All artifacts of a cache, by kind and id.

    Only what is named as artifacts are and has a manifest: MOF_CACHE may be set to a folder with other things in it.
    """
    try:
        kinds = sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink() and p.name not in RESERVED)
        paths = [p for kind in kinds for p in sorted(kind.iterdir()) if _ID.fullmatch(p.name)]
    except OSError:
        return ()
    return tuple(_entry(p) for p in paths if not p.is_symlink() and (p / MANIFEST).is_file())


def total(entries: Sequence[Entry]) -> int:
    """Bytes that they take together; a file linked into several of them counts once."""
    merged: dict[tuple[int, int], int] = {}
    for entry in entries:
        merged |= entry.blocks
    return sum(merged.values())


@dataclass(frozen=True)
class Wish:
    """What is to go: all that fits, or the least recently used of it until no more than `down_to` bytes are left.

    `names`: only these ("kind/id"); `kind`: only this kind; `idle`: only what was not used for so many seconds. `spare`:
    never these. Those who need what goes go with it, whether they fit or not.
    """

    names: frozenset[str] | None = None
    kind: str = ""
    idle: float = 0.0
    down_to: int | None = None
    spare: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """`removed` (or, in a dry run, what would be): those who need others before these. `kept`: with the reason.

    `freed` and `left`: bytes on disk. A file that an artifact which stays has a link to is not freed.
    """

    removed: tuple[Entry, ...]
    kept: tuple[tuple[Entry, str], ...]
    freed: int
    left: int


def _with_dependents(entry: Entry, dependents: Mapping[str, Sequence[Entry]]) -> tuple[Entry, ...]:
    """The entry after all who need it, directly or not. Manifests cannot name each other in a circle, but a damaged
    one can say anything."""
    ordered: list[Entry] = []
    seen: set[str] = set()

    def walk(one: Entry) -> None:
        if one.name not in seen:
            seen.add(one.name)
            for other in dependents[one.name]:
                walk(other)
            ordered.append(one)

    walk(entry)
    return tuple(ordered)


def _blocked(group: Sequence[Entry], spare: Set[str]) -> str:
    """Why the last of a group cannot go; empty when it can."""
    for entry in reversed(group):
        why = "in use" if entry.in_use else "just made" if entry.name in spare else ""
        if why:
            return why if entry is group[-1] else f"needed by {entry.name}, which is {why}"
    return ""


def choose(entries: Sequence[Entry], wish: Wish, now: float) -> Outcome:
    """What would go. `now`: seconds since the epoch.

    Least recently used first, where whoever uses an artifact uses what that one needs.
    """
    dependents = {e.name: [o for o in entries if o.needs(e)] for e in entries}
    groups = {e.name: _with_dependents(e, dependents) for e in entries}
    used = {name: max(e.used for e in group) for name, group in groups.items()}
    fitting = [
        e
        for e in entries
        if (wish.names is None or e.name in wish.names)
        and wish.kind in ("", e.kind)
        and (not wish.idle or now - used[e.name] >= wish.idle)
    ]
    going: dict[str, Entry] = {}
    kept: list[tuple[Entry, str]] = []

    def left() -> int:
        return total([e for e in entries if e.name not in going])

    for entry in sorted(fitting, key=lambda e: (used[e.name], len(groups[e.name]), e.name)):
        if wish.down_to is not None and left() <= wish.down_to:
            break
        if why := _blocked(groups[entry.name], wish.spare):
            kept.append((entry, why))
        else:
            going |= {e.name: e for e in groups[entry.name] if e.name not in going}
    return Outcome(tuple(going.values()), tuple(kept), total(entries) - left(), left())


def aside(root: Path, name: str) -> Path:
    """A new name under `tmp/`, which is swept when this process is gone."""
    return root / "tmp" / f"{name}.{os.urandom(4).hex()}.{os.getpid()}"


def _take(root: Path, entry: Entry, idle: float) -> Path | None:
    """Rename an artifact into tmp/; returns where it is now, None when somebody uses it (again) or it has gone."""
    with locks.unused(entry.path) as descriptor:
        if descriptor is None or (idle and time.time() - os.fstat(descriptor).st_mtime < idle):
            return None
        away = aside(root, entry.id)
        artifact.open_up(entry.path)
        entry.path.rename(away)
        return away


def evict(root: Path, wish: Wish, *, dry_run: bool = False) -> Outcome:
    """Take away what the wish says. `locks/` and `tmp/` exist. OSError when the cache cannot be written to.

    What somebody begins to use meanwhile stays, with all that it needs.
    """
    if dry_run:
        return choose(scan(root), wish, time.time())
    with locks.named(root / "locks" / "eviction.lock"):
        entries = scan(root)
        chosen = choose(entries, wish, time.time())
        gone: dict[str, Entry] = {}
        kept = list(chosen.kept)
        away: list[Path] = []
        for entry in chosen.removed:
            stays = next((e.name for e, _ in kept if e.needs(entry)), "")
            taken = None if stays else _take(root, entry, wish.idle)
            if taken is None:
                kept.append((entry, f"needed by {stays}, which stays" if stays else "in use"))
            else:
                gone[entry.name] = entry
                away.append(taken)
    for path in away:
        artifact.remove(path)
    left = total([e for e in entries if e.name not in gone])
    return Outcome(tuple(gone.values()), tuple(kept), total(entries) - left, left)


def ccache_bytes(root: Path) -> int:
    """What the compiler's cache takes on disk; it has a limit of its own."""
    return sum(artifact.blocks(root / "ccache").values())


def work_bytes(root: Path) -> int:
    """What makers at work, and those that died, have under tmp/."""
    return sum(artifact.blocks(root / "tmp").values())


def clear_ccache(root: Path) -> bool:
    """Remove the compiler's cache; False when a kernel is being built with it (its lock: guest_kernel.build)."""
    with locks.at_once(root / "locks" / "kernel-build.lock") as free:
        if not free:
            return False
        away = aside(root, "ccache")
        if (root / "ccache").exists():
            (root / "ccache").rename(away)
    artifact.remove(away)
    return True


def leftovers(root: Path) -> tuple[Path, ...]:
    """What is under tmp/ of processes that are gone: the suffix is the process id."""
    try:
        found = sorted((root / "tmp").iterdir())
    except OSError:
        return ()
    return tuple(p for p in found if not _alive(p.name.rpartition(".")[2]))


def _alive(pid: str) -> bool:
    return pid.isdigit() and (int(pid) == os.getpid() or Path(f"/proc/{pid}").exists())
