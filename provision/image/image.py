"""The guest's image, from the cache or made.

Two layers, so that a change of the agent costs a second and not a minute: the base (Debian's packages,
configuration, keys), and a copy of it with init and the extras written in.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.host import process
from provision.host.cache import Artifact, Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import UserError
from provision.host.progress import Progress
from provision.image import bootstrap, filesystem, keys, tree

KIND = "image"
BASE_KIND = "image-base"

INIT = "/usr/lib/mof/init"
_HERE = Path(__file__).parent
_BASE_SCRIPTS = ("bootstrap.py", "configuration.py", "filesystem.py", "tree.py")
"""What decides the base; a change of tree.py can change how extras are compiled, and so makes both anew."""

_ROOT = "root.img"
_KEY = "key"
_HOST_KEY = "host_key.pub"
_COMPILER = "compiler"

BASE_BYTES = 2 << 30
"""Free space asked for before the base is made: the packages, the tree and the image, at their largest together."""


@dataclass(frozen=True)
class Image:
    """A guest's root file system and how to log in.

    `root`: raw ext4, never written to. `key`: private login key, mode 0600. `host_key`: public, "ssh-ed25519 AAAA...".
    """

    root: Path
    key: Path
    host_key: str
    id: str


def base_inputs() -> dict[str, object]:
    """What the base depends on. No mirror: the same packages from another place are the same packages."""
    return {
        "suite": bootstrap.SUITE,
        "architecture": bootstrap.ARCHITECTURE,
        "packages": sorted(bootstrap.PACKAGES),
        "scripts": {name: digest_file(_HERE / name) for name in _BASE_SCRIPTS},
    }


def inputs(base: str, files: Mapping[str, Path]) -> dict[str, object]:
    """What the final image depends on: the base's id, and every file with its mode and content."""
    return {
        "base": base,
        "files": {target: [f"{filesystem.mode_of(p):o}", digest_file(p)] for target, p in sorted(files.items())},
    }


def _make_base(cache: Cache, draft: Path, progress: Progress) -> dict[str, object]:
    progress.step(f"image: getting and unpacking Debian {bootstrap.SUITE}")
    bootstrap.require()
    scratch = cache.scratch("image-tree")
    root = scratch / "root"
    try:
        bootstrap.unpack(root, progress)
        progress.step("image: configuring it and compiling its Python modules")
        host, login = keys.generate(), keys.generate()
        tree.prune(root)
        tree.configure(root, host, login)
        tree.compile_all(root, progress)
        tree.open_folders(root)
        tree.keep_compiler(root, draft / _COMPILER, progress)
        progress.step("image: writing the file system")
        filesystem.make(root, draft / _ROOT)
        tree.write(draft, _KEY, login.private, 0o600)
        tree.write(draft, _HOST_KEY, f"{host.public}\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"suite": bootstrap.SUITE}


def _base(cache: Cache, progress: Progress) -> Artifact:
    return cache.make(
        BASE_KIND,
        bootstrap.SUITE,
        base_inputs(),
        lambda draft: _make_base(cache, draft, progress),
        need_bytes=BASE_BYTES,
        progress=progress,
    )


def _copy_sparse(source: Path, target: Path) -> None:
    argv = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    process.run(argv, deadline=Deadline.after(120))


def _make(
    cache: Cache, base: Artifact, files: Mapping[str, Path], draft: Path, progress: Progress
) -> dict[str, object]:
    _copy_sparse(base.path / _ROOT, draft / _ROOT)
    work = cache.scratch("image-files")
    try:
        (work / "python").mkdir()
        (work / "files").mkdir()
        compiled = tree.compile_extras(base.path / _COMPILER, files, work / "python", progress)
        filesystem.add(draft / _ROOT, {**files, **compiled}, work / "files")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name in (_KEY, _HOST_KEY):
        shutil.copy(base.path / name, draft / name)  # with its mode
    return {"base": base.id}


def contents(extras: Mapping[str, Path]) -> dict[str, Path]:
    """Init and the extras, checked: guest path to host file. UserError for a path or a file that will not do."""
    for target, path in extras.items():
        filesystem.valid_target(target)
        if not path.is_file():
            raise UserError("no such file to put into the image", where=str(path))
    return {INIT: _HERE / "init", **extras}


def ensure(cache: Cache, extras: Mapping[str, Path], progress: Progress) -> Image:
    """The image with `extras` (path in the guest to a file here) in it, made if it is not in the cache.

    Files that their owner may execute are executable in the guest; all are root's. UserError for bad extras, InfraError
    when a package is missing here, the mirror fails, or there is no space.
    """
    files = contents(extras)
    base = _base(cache, progress)
    need = 2 * sum(path.stat().st_size for path in files.values()) + 2 * (base.path / _ROOT).stat().st_size
    made = cache.make(
        KIND,
        bootstrap.SUITE,
        inputs(base.id, files),
        lambda draft: _make(cache, base, files, draft, progress),
        need_bytes=need,
        progress=progress,
    )
    return Image(made.path / _ROOT, made.path / _KEY, (made.path / _HOST_KEY).read_text().strip(), made.id)
