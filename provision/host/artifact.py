"""An artifact: a folder `KIND/NAME-HASH/` with `manifest.json`, which says what went in and what came out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of what goes into an artifact, in hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: its folder and what its manifest says. `sealed`: its content is verified, not only sizes."""

    path: Path
    inputs: Mapping[str, Any]
    facts: Mapping[str, Any]
    sealed: bool = False

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes that it takes on disk, looked up now; 0 when it has gone."""
        return sum(blocks(self.path).values())

    @property
    def used(self) -> float:
        """When it was last handed out, in seconds since the epoch, looked up now; 0 when it has gone."""
        return last_use(self.path)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    `made`: seconds since the epoch. `files`: every file with its size in bytes. Only a sealed artifact has `sha256`
    (every file with the digest of its content, provision.host.seal) and `seal`, the digest of all the rest: a
    manifest that has changed is found out too.
    """

    made: int
    inputs: Mapping[str, Any]
    facts: Mapping[str, Any]
    files: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""

    @property
    def sealed(self) -> bool:
        # Either is enough: a manifest that lost one of them is a damaged one, not one that was never sealed.
        return bool(self.seal or self.sha256)

    def _plain(self) -> dict[str, Any]:
        """What is common to all artifacts."""
        return {
            "made": self.made,
            "inputs": dict(self.inputs),
            "facts": dict(self.facts),
            "files": dict(self.files),
        }

    def expected_seal(self) -> str:
        """What `seal` has to be."""
        return digest({**self._plain(), "sha256": dict(self.sha256)})

    def text(self) -> str:
        """The content of manifest.json."""
        more = {"sha256": dict(self.sha256), "seal": self.seal} if self.sealed else {}
        return json.dumps({**self._plain(), **more}, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def parse(text: str) -> Manifest:
        """ValueError when the text is not a manifest."""
        try:
            said = json.loads(text)
            manifest = Manifest(
                said["made"],
                dict(said["inputs"]),
                dict(said["facts"]),
                dict(said["files"]),
                dict(said.get("sha256", {})),
                str(said.get("seal", "")),
            )
        except (KeyError, TypeError, AttributeError) as wrong:
            raise ValueError(f"not a manifest: {wrong}") from wrong
        return manifest

    @staticmethod
    def load(folder: Path) -> Manifest:
        """OSError when the manifest cannot be read, ValueError when it is not one."""
        return Manifest.parse((folder / MANIFEST).read_text())


def misfit(folder: Path, manifest: Manifest) -> str:
    """The first file that has gone or has another size than when it was made, in words; empty when there is none."""
    for name, size in manifest.files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as wrong:
            return f"{name}: {wrong.strerror}"
        if found != size:
            return f"{name} has {found} bytes and was made with {size}"
    return ""


def blocks(folder: Path) -> dict[tuple[int, int], int]:
    """What a folder takes on disk: bytes by (device, inode), so that a file with several links counts once.

    st_blocks counts units of 512 bytes whatever the file system's blocks are (stat(3type)): holes are not in it.
    """
    found: dict[tuple[int, int], int] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            with suppress(OSError):  # removed meanwhile
                state = Path(place, name).lstat()
                found[state.st_dev, state.st_ino] = state.st_blocks * 512
    return found


def last_use(folder: Path) -> float:
    """Seconds since the epoch; 0 when the artifact has gone. The time of last use is the manifest's mtime."""
    try:
        return (folder / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def changed(folder: Path) -> float:
    """When something was last put into a folder or taken out: for an artifact, when it was made. 0 when it has gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def open_up(folder: Path) -> None:
    """Make a folder writable to its owner: a sealed one cannot be emptied, nor moved to another parent, otherwise.

    rename(2), EACCES: a folder that gets another parent must be writable itself, for its "..".
    """
    with suppress(OSError):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, read-only folders too. What cannot be removed is left, silently."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    open_up(path)
    for place, folders, _ in os.walk(path):  # top down: each folder is opened before it is walked
        for name in folders:
            if not (inner := Path(place, name)).is_symlink():
                open_up(inner)
    shutil.rmtree(path, ignore_errors=True)
