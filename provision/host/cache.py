"""Content-addressed artifacts.

An artifact is a folder `KIND/NAME-HASH/` whose hash covers everything that went into it. It is made in a folder
beside and renamed into place when complete, so what is found under its name is whole: there is no state
between. `manifest.json` inside lists what went in and every file with its size.

Locks are flock(2) on files under `locks/`: the kernel drops them when their holder dies, however it dies. Two makers of
the same thing wait for each other; the second finds it made.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host.errors import InfraError
from provision.host.progress import Progress

MANIFEST = "manifest.json"


def default_root() -> Path:
    """`MOF_CACHE`, or `mof` in the user's cache folder (XDG base directory specification)."""
    if named := os.environ.get("MOF_CACHE"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mof"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of what goes into an artifact, in hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: its folder and what its manifest says."""

    path: Path
    inputs: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.path.name


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

    def find(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Artifact | None:
        """The artifact, or None when it has not been made."""
        return self.read(self.path(kind, name, inputs))

    def read(self, path: Path) -> Artifact | None:
        """The artifact in this folder; None when it is absent, or when a file has gone or changed its size."""
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            whole = all((path / f).stat().st_size == size for f, size in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return Artifact(path, manifest["inputs"], manifest["facts"]) if whole else None

    def list(self, kind: str) -> list[Artifact]:
        """All complete artifacts of a kind, oldest first."""
        folder = self.root / kind
        paths = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime) if folder.is_dir() else []
        return [found for path in paths if (found := self.read(path)) is not None]

    @contextmanager
    def lock(self, name: str, progress: Progress | None = None) -> Iterator[None]:
        """Hold the lock `name`; says whom it waits for. The holder's process id is in the file."""
        path = self._folder("locks") / f"{name}.lock"
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "another process"
                if progress is not None:
                    progress.note(f"waiting for process {holder}, which is making {name}")
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            stream.truncate()
            stream.write(str(os.getpid()))
            stream.flush()
            try:
                yield
            finally:
                stream.seek(0)
                stream.truncate()

    def make(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        need_bytes: int = 0,
        lock: str = "",
        progress: Progress | None = None,
    ) -> Artifact:
        """The artifact, made by `maker` if it is not there.

        `maker` fills the empty folder that it is handed and returns facts for the manifest. `need_bytes` is what must
        be free before it starts. InfraError when there is no space, before or while it is made; whatever
        is raised, the half-made folder is removed.
        """
        if (found := self.find(kind, name, inputs)) is not None:
            return found
        with self.lock(lock or f"{kind}-{name}", progress):
            if (found := self.find(kind, name, inputs)) is not None:
                return found
            self._sweep()
            self.require_space(need_bytes)
            final = self.path(kind, name, inputs)
            draft = self._folder("tmp") / f"{final.name}.{os.getpid()}"
            try:
                draft.mkdir()
                facts = dict(maker(draft))
                files = {
                    str(f.relative_to(draft)): f.stat().st_size
                    for f in sorted(draft.rglob("*"))
                    if f.is_file() and not f.is_symlink()
                }
                manifest = {"made": int(time.time()), "inputs": dict(inputs), "facts": facts, "files": files}
                (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
                self._folder(kind)
                if final.exists():  # an incomplete one: read() refused it
                    shutil.rmtree(final)
                draft.rename(final)
            except OSError as wrong:
                if wrong.errno == errno.ENOSPC:
                    raise self._no_space(need_bytes) from wrong
                raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        made = self.read(final)
        assert made is not None
        return made

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
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def _sweep(self) -> None:
        """Remove what makers that died left under tmp/: the suffix is the maker's process id."""
        for path in self._folder("tmp").iterdir():
            pid = path.name.rpartition(".")[2]
            if not pid.isdigit() or (int(pid) != os.getpid() and not Path(f"/proc/{pid}").exists()):
                shutil.rmtree(path, ignore_errors=True)
