"""Content-addressed artifacts.

An artifact is a folder `KIND/NAME-HASH/` whose hash covers everything that went into it. It is made in a folder
beside and renamed into place when complete, so what is found under its name is whole: there is no state
between. `manifest.json` inside lists what went in and every file with its size; in a sealed artifact also with the
digest of its content.

Two makers of the same thing wait for each other; the second finds it made. When the artifacts take more than
`MOF_CACHE_LIMIT` (20 GiB), those that were not used for the longest time go (provision.host.eviction).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from provision.host import artifact, eviction, locks, seal
from provision.host.artifact import MANIFEST, Manifest
from provision.host.artifact import Artifact as Artifact
from provision.host.artifact import digest as digest
from provision.host.errors import InfraError
from provision.host.progress import Progress, Silent


def default_root() -> Path:
    """`MOF_CACHE`, or `mof` in the user's cache folder (XDG base directory specification)."""
    if named := os.environ.get("MOF_CACHE"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mof"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Check(StrEnum):
    """How closely an artifact is looked at."""

    SIZES = "sizes"  # is every file there, as long as it was?
    USE = "use"  # as find() does: also the content of sealed ones, unless it is remembered and nothing touched it
    FULL = "full"  # the content of sealed ones, whatever is remembered


class Cache:
    """The folder that everything built goes to."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    def _folder(self, name: str) -> Path:
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as wrong:
            raise InfraError(
                f"the cache folder cannot be made: {wrong.strerror}",
                where=str(path),
                hint="set MOF_CACHE to a folder that you may write to",
            ) from wrong
        return path

    def path(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Path:
        """Where the artifact is or would be."""
        return self.root / kind / f"{name}-{digest(inputs)[:16]}"

    def find(
        self, kind: str, name: str, inputs: Mapping[str, Any], progress: Progress | None = None
    ) -> Artifact | None:
        """The artifact, or None when it has not been made or is not what was made; `progress` is told why not.

        Notes the use, which keeps the artifact from being evicted for an hour; who needs it for longer says so with
        using(). A sealed artifact is hashed in full unless nothing has touched it since that was last done.
        """
        progress = progress or Silent()
        path = self.path(kind, name, inputs)
        with locks.shared(path) as descriptor:
            if descriptor is None:
                return None
            if why := self._fault(path, Check.USE, lambda: progress.step(f"verifying {kind} {name}")):
                progress.note(f"{kind}/{path.name} in the cache is not used: {why}")
                return None
            found = self.read(path)
            locks.note_use(descriptor)
        return found

    def refusal(self, path: Path, *, check: Check = Check.USE) -> str:
        """Why the artifact in this folder is refused, in words and naming the file; empty when it is not.

        Notes no use. Of an artifact that is not sealed only sizes are known, however it is checked.
        """
        with locks.shared(path) as descriptor:
            return "there is no artifact" if descriptor is None else self._fault(path, check)

    def _fault(self, path: Path, check: Check, hashing: Callable[[], None] = lambda: None) -> str:
        try:
            manifest = Manifest.load(path)
        except (OSError, ValueError):
            return f"{MANIFEST} cannot be read"
        why = artifact.misfit(path, manifest)
        if why or not manifest.sealed or check is Check.SIZES:
            return why
        return seal.fault(self.root, path, manifest, full=check is Check.FULL, hashing=hashing)

    def read(self, path: Path) -> Artifact | None:
        """The artifact in this folder; None when it is absent, or when a file has gone or changed its size.

        Only looks: it verifies no content and notes no use.
        """
        try:
            manifest = Manifest.load(path)
        except (OSError, ValueError):
            return None
        if artifact.misfit(path, manifest):
            return None
        return Artifact(path, manifest.inputs, manifest.facts, manifest.sealed)

    @contextmanager
    def using(self, wanted: Artifact) -> Iterator[Artifact]:
        """Keep an artifact from being evicted, as long as this lasts or until this process is gone.

        Counts as a use at its beginning and at its end. InfraError when it was evicted before this began. The lock is
        not inherited by programs that are started meanwhile (open(2), O_CLOEXEC).
        """
        with locks.shared(wanted.path) as descriptor:
            if descriptor is None:
                raise InfraError(
                    "it has been removed from the cache since it was found",
                    where=f"{wanted.path.parent.name}/{wanted.id}",
                    hint="run the same again, and it is made again",
                )
            locks.note_use(descriptor)
            try:
                yield wanted
            finally:
                locks.note_use(descriptor)

    def list(self, kind: str) -> list[Artifact]:
        """All complete artifacts of a kind, oldest first."""
        folder = self.root / kind
        paths = sorted(folder.iterdir(), key=artifact.changed) if folder.is_dir() else []
        return [found for path in paths if (found := self.read(path)) is not None]

    @contextmanager
    def lock(self, name: str, progress: Progress | None = None) -> Iterator[None]:
        """Hold the lock `name`; says whom it waits for. The holder's process id is in the file."""

        def waiting(holder: str) -> None:
            if progress is not None:
                progress.note(f"waiting for {holder}, which is making {name}")

        with locks.named(self._folder("locks") / f"{name}.lock", waiting):
            yield

    def make(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        need_bytes: int = 0,
        lock: str = "",
        sealed: bool = False,
        progress: Progress | None = None,
    ) -> Artifact:
        """The artifact, made by `maker` if it is not there.

        `maker` fills the empty folder that it is handed and returns facts for the manifest. `need_bytes` is what must
        be free before it starts. `sealed`: made read-only, and verified by content and not only by sizes from then on
        (ValueError when there are other things in it than files and folders). InfraError when there is no space, before
        or while it is made; UserError when MOF_CACHE_LIMIT is not a size. Whatever is raised, the half-made folder is
        removed. When more than the limit is in the cache afterwards, what was not used for long is removed.
        """
        limit = eviction.limit()  # a bad one is told before the hours of work, not after

        def there(progress: Progress | None) -> Artifact | None:
            found = self.find(kind, name, inputs, progress)
            return found if found is not None and (found.sealed or not sealed) else None

        if (found := there(progress)) is not None:
            return found
        with self.lock(lock or f"{kind}-{name}", progress):
            if (found := there(None)) is not None:
                return found
            self._sweep()
            self.require_space(need_bytes)
            final = self.path(kind, name, inputs)
            draft = self._folder("tmp") / f"{final.name}.{os.getpid()}"
            try:
                draft.mkdir()
                facts = dict(maker(draft))
                manifest = self._manifest(draft, inputs, facts, sealed)
                (draft / MANIFEST).write_text(manifest.text())
                self._put(draft, final, sealed)
            except OSError as wrong:
                if wrong.errno == errno.ENOSPC:
                    raise self._no_space(need_bytes) from wrong
                raise
            finally:
                artifact.remove(draft)
        self._trim(final, limit, progress or Silent())
        said = Manifest.parse(manifest.text())  # what a later find() will say
        return Artifact(final, said.inputs, said.facts, said.sealed)

    def _manifest(self, draft: Path, inputs: Mapping[str, Any], facts: Mapping[str, Any], sealed: bool) -> Manifest:
        sha256 = seal.apply(draft) if sealed else {}
        files = {
            str(f.relative_to(draft)): f.stat().st_size
            for f in sorted(draft.rglob("*"))
            if f.is_file() and not f.is_symlink()
        }
        manifest = Manifest(int(time.time()), inputs, facts, files, sha256)
        # As read back from JSON, where a tuple is a list: the seal is of what will be read.
        manifest = Manifest.parse(manifest.text())
        return replace(manifest, seal=manifest.expected_seal()) if sealed else manifest

    def _put(self, draft: Path, final: Path, sealed: bool) -> None:
        """Rename a complete draft into its place. What was there was refused; it goes aside and then away."""
        away = eviction.aside(self.root, final.name)
        self._folder(final.parent.name)
        with self.lock("eviction"):
            if final.exists():
                artifact.open_up(final)
                final.rename(away)
            draft.rename(final)
            if sealed:  # not before: a read-only folder cannot get another parent
                seal.close(final)
        artifact.remove(away)

    def _trim(self, made: Path, limit: int | None, progress: Progress) -> None:
        """Come down to the limit. The artifact is made, whatever happens here."""
        if limit is None:
            return
        wish = eviction.Wish(
            down_to=limit,
            idle=eviction.FRESH_SECONDS,
            spare=frozenset({f"{made.parent.name}/{made.name}"}),
        )
        with suppress(OSError):
            done = eviction.evict(self.root, wish)
            if done.removed:
                names = ", ".join(e.name for e in done.removed)
                freed = eviction.human(done.freed)
                within = eviction.human(limit)
                progress.note(f"removed from the cache, {freed}, to stay within {within} ({eviction.LIMIT}): {names}")

    def entries(self) -> tuple[eviction.Entry, ...]:
        """All artifacts, whole or damaged, with their sizes and last uses; by kind and id."""
        return eviction.scan(self.root)

    def evict(self, wish: eviction.Wish, *, dry_run: bool = False) -> eviction.Outcome:
        """Remove artifacts, and what dead processes left. InfraError when the cache cannot be written to."""
        if dry_run:
            return eviction.evict(self.root, wish, dry_run=True)
        with self._writing():
            self._folder("locks")
            self._sweep()
            return eviction.evict(self.root, wish)

    def clear_ccache(self) -> bool:
        """Remove the compiler's cache; False when a kernel is being built with it. InfraError as in evict()."""
        with self._writing():
            self._folder("tmp")
            return eviction.clear_ccache(self.root)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as wrong:
            raise InfraError(
                f"the cache cannot be written to: {wrong.strerror}",
                where=str(wrong.filename or self.root),
                hint="evict as the user whom the cache belongs to",
            ) from wrong

    def require_space(self, need: int) -> None:
        """InfraError unless `need` bytes are free where the cache is."""
        if need and shutil.disk_usage(self._folder("")).free < need:
            raise self._no_space(need)

    def _no_space(self, need: int) -> InfraError:
        free = shutil.disk_usage(self.root).free
        wanted = f", {need / 2**30:.1f} GiB are needed" if need else ""
        return InfraError(
            f"no space in the cache: {free / 2**30:.1f} GiB free{wanted}",
            where=str(self.root),
            hint="free some, or set MOF_CACHE to a folder on a larger disk",
        )

    def scratch(self, name: str) -> Path:
        """A work folder for a maker, on the cache's disk; swept when its process is gone."""
        path = self._folder("tmp") / f"{name}.{os.getpid()}"
        artifact.remove(path)
        path.mkdir()
        return path

    def _sweep(self) -> None:
        """Remove what makers that died left under tmp/, and what is remembered of artifacts that are gone."""
        self._folder("tmp")
        for path in eviction.leftovers(self.root):
            artifact.remove(path)
        seal.sweep(self.root)
