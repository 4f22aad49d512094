"""ext4 images written as ordinary files: no mount, no loop device, no root. e2fsprogs 1.47 or newer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from provision.host import process
from provision.host.cache import digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError, UserError

BLOCK = 4096
SPARE_BYTES = 96 << 20
"""Room for what is added later. It costs nothing: blocks never written are holes in the image."""
SPARE_INODES = 2048

_FIRST_INODE = 11
_ROOT_INODE = 2
_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How large a file system has to be: `bytes` is a multiple of a MiB."""

    bytes: int
    inodes: int


def size_of(root: Path) -> Size:
    """For a tree and the spare room: files in whole blocks, a block a folder, 1/16 for the file system's own use."""
    used = inodes = 0
    for path in root.rglob("*"):
        inodes += 1
        used += -(-path.lstat().st_size // BLOCK) * BLOCK if not path.is_dir() or path.is_symlink() else BLOCK
    inodes += SPARE_INODES
    total = used + used // 16 + inodes * 256 + SPARE_BYTES
    return Size(-(-total // (1 << 20)) << 20, inodes)


def make_command(root: Path, image: Path, size: Size) -> list[str]:
    """The mke2fs call. No journal and no checksums: the guest mounts it read-only, and we verify by content."""
    return [
        process.find("mke2fs", "e2fsprogs"),
        *("-q", "-F", "-t", "ext4", "-L", "mof-root", "-m", "0"),
        *("-b", str(BLOCK), "-I", "256", "-N", str(size.inodes)),
        *("-O", "^has_journal,^resize_inode,^metadata_csum"),
        *("-E", "root_owner=0:0"),
        *("-d", str(root)),
        str(image),
        str(size.bytes // BLOCK),
    ]


def owner_script(inodes: int) -> str:
    """debugfs commands that give every inode to root.

    mke2fs copies the owner from the tree, which is whoever unpacked it. All packages' files that matter here are
    root's, so this is right for a tree that root unpacked too, and makes both alike.
    """
    numbers = (_ROOT_INODE, *range(_FIRST_INODE, inodes + 1))
    return "".join(f"sif <{n}> uid 0\nsif <{n}> gid 0\n" for n in numbers)


def make(root: Path, image: Path) -> None:
    """A raw sparse image of the tree, everything in it root's."""
    process.run(make_command(root, image, size_of(root)), deadline=Deadline.after(_SECONDS))
    _debugfs(image, owner_script(_inodes(image)))
    check(image)


def _inodes(image: Path) -> int:
    header = process.run([process.find("dumpe2fs", "e2fsprogs"), "-h", str(image)], deadline=Deadline.after(30)).output
    found = re.search(r"^Inode count:\s+(\d+)$", header, re.MULTILINE)
    if found is None:
        raise InfraError("dumpe2fs told no inode count", where=str(image))
    return int(found[1])


def check(image: Path) -> None:
    """InfraError unless e2fsck finds the file system whole."""
    argv = [process.find("e2fsck", "e2fsprogs"), "-f", "-n", str(image)]
    done = process.run(argv, deadline=Deadline.after(_SECONDS), check=False)
    if done.status != 0:
        raise InfraError(
            "the image's file system is damaged", where=str(image), detail=process.tail(done.output + done.errors)
        )


def _debugfs(image: Path, script: str, cwd: Path | None = None) -> str:
    """Run debugfs commands; what it says on standard error. It exits with 0 whatever fails: verify afterwards."""
    argv = [process.find("debugfs", "e2fsprogs"), "-w", "-f", "-", str(image)]
    return process.run(argv, deadline=Deadline.after(_SECONDS), cwd=cwd, stdin=script).errors


def valid_target(path: str) -> str:
    """The path if it can be one of a file in the guest; UserError otherwise."""
    pure = PurePosixPath(path)
    if not re.fullmatch(r"(/[A-Za-z0-9._+@-]+)+", path) or ".." in pure.parts or str(pure) != path:
        raise UserError("not a path in the guest that a file can be put at", where=path, hint="an absolute, plain path")
    return path


def folders_of(targets: Iterable[str]) -> list[str]:
    """Every folder above the targets, parents first, without "/"."""
    return sorted({str(p) for t in targets for p in PurePosixPath(t).parents if str(p) != "/"})


def add_script(staged: Mapping[str, tuple[str, int]]) -> str:
    """debugfs commands that put files in: guest path to (name of the staged file, permission bits).

    Making a folder that is there, and removing a file that is not, fails without harm.
    """
    lines = [f"mkdir {folder}" for folder in folders_of(staged)]
    for target, (name, mode) in sorted(staged.items()):
        lines += [f"rm {target}", f"write {name} {target}"]
        lines += [f"sif {target} mode 0{0o100000 | mode:o}", f"sif {target} uid 0", f"sif {target} gid 0"]
    return "\n".join(lines) + "\n"


def mode_of(path: Path) -> int:
    """0755 for what its owner may execute, else 0644."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def add(image: Path, files: Mapping[str, Path], work: Path) -> None:
    """Put files of the host into the image, and read each back; InfraError when one is not what it was.

    `work` is an empty folder to stage in.
    """
    staged: dict[str, tuple[str, int]] = {}
    for number, (target, source) in enumerate(sorted(files.items())):
        (work / f"in{number}").symlink_to(source.absolute())  # debugfs splits its commands at blanks
        staged[valid_target(target)] = (f"in{number}", mode_of(source))
    said = _debugfs(image, add_script(staged), work)
    back = "".join(f"dump {target} out{name}\n" for target, (name, _) in staged.items())
    said += _debugfs(image, back, work)
    for target, (name, _) in staged.items():
        copy = work / f"out{name}"
        if not copy.exists() or digest_file(copy) != digest_file(work / name):
            raise InfraError("a file did not get into the image", where=target, detail=process.tail(said))
    check(image)
