"""The kernel's source: Debian's package `linux-source-VERSION`, found installed or fetched, and verified.

Debian signs its package lists, the lists carry each package's hash, and dpkg keeps the MD5 sum of each installed
file (dpkg(1), `--verify`). An installed tarball is checked against that sum; a fetched package has been checked by apt.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.host import process
from provision.host.cache import Artifact, Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

INSTALLED = Path("/usr/src")
DPKG_INFO = Path("/var/lib/dpkg/info")


@dataclass(frozen=True)
class Source:
    """A verified source tarball. `version` is Debian's package version, `sha256` that of the tarball."""

    base: str
    tarball: Path
    version: str
    sha256: str


def package(base: str) -> str:
    return f"linux-source-{base}"


def locate(cache: Cache, base: str, progress: Progress) -> Source:
    """The source of kernel `base`, verified once and remembered until the file changes.

    InfraError when it is neither installed nor to be had from apt, or when its content is not what the package says.
    """
    name = package(base)
    tarball = INSTALLED / f"{name}.tar.xz"
    if not tarball.is_file():
        return _fetched(cache, base, progress)
    state = tarball.stat()
    inputs = {"path": str(tarball), "size": state.st_size, "mtime_ns": state.st_mtime_ns}

    def verify(_: Path) -> Mapping[str, Any]:
        progress.step(f"verifying {name}")
        _check_md5(tarball, DPKG_INFO / f"{name}.md5sums")
        return {"version": _installed_version(name), "sha256": digest_file(tarball)}

    facts = cache.make("source", name, inputs, verify, progress=progress).facts
    return Source(base, tarball, str(facts["version"]), str(facts["sha256"]))


def _installed_version(name: str) -> str:
    asked = process.run(["dpkg-query", "-W", "-f", "${Version}", name], deadline=Deadline.after(30))
    return asked.output.strip()


def _check_md5(tarball: Path, sums: Path) -> None:
    """Compare with what dpkg recorded; InfraError when it differs or when there is no record."""
    relative = str(tarball).lstrip("/")
    try:
        lines = (line.split(maxsplit=1) for line in sums.read_text().splitlines())
        expected = {path: md5 for md5, path in lines}[relative]
    except (OSError, KeyError, ValueError) as wrong:
        raise InfraError(
            "dpkg has no checksum for the kernel's source", where=str(tarball), hint="reinstall its package"
        ) from wrong
    with tarball.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != expected:
        raise InfraError(
            "the kernel's source is not what its package contains",
            where=str(tarball),
            hint=f"apt-get install --reinstall {tarball.name.removesuffix('.tar.xz')}",
        )


def _fetched(cache: Cache, base: str, progress: Progress) -> Source:
    """Fetch the package without installing it, which needs no root; what was fetched before is used again."""
    name = package(base)

    def as_source(artifact: Artifact) -> Source:
        facts = artifact.facts
        return Source(base, artifact.path / f"{name}.tar.xz", str(facts["version"]), str(facts["sha256"]))

    def fetch(draft: Path) -> Mapping[str, Any]:
        progress.step(f"fetching {name} (150 MB)")
        try:
            process.run(
                [process.find("apt-get", "apt"), "-q", "download", name],
                cwd=draft,
                deadline=Deadline.after(900),
            )
        except InfraError as wrong:
            raise InfraError(
                f"{name} is neither installed nor can apt download it",
                hint=f"apt-get install {name}",
                detail=wrong.detail,
            ) from wrong
        deb = next(draft.glob("*.deb"))
        version = process.run(["dpkg-deb", "-f", str(deb), "Version"], deadline=Deadline.after(60)).output.strip()
        process.run(["dpkg-deb", "-x", str(deb), str(draft / "x")], deadline=Deadline.after(300))
        tarball = draft / f"{name}.tar.xz"
        (draft / "x/usr/src" / tarball.name).rename(tarball)
        shutil.rmtree(draft / "x")
        deb.unlink()
        return {"version": version, "sha256": digest_file(tarball)}

    made = cache.make("source", f"{name}-fetched", {"package": name}, fetch, need_bytes=2**30, progress=progress)
    return as_source(made)


def unpack(source: Source, into: Path) -> Path:
    """Unpack the tarball into the existing folder `into`; returns the tree (about 1.5 GB, 10 s)."""
    process.run([process.find("tar"), "-C", str(into), "-xJf", str(source.tarball)], deadline=Deadline.patient(600))
    return into / package(source.base)
