"""Debian packages, unpacked into a folder.

mmdebstrap's variant `extract` in the mode `chrootless` resolves, verifies and unpacks, and runs no maintainer script.
So it needs no root, no user namespace, no subordinate ids, no mount and no /proc: one way that works for root, for
an ordinary user, in a container and in a bare chroot, and gives the same files in each. (The modes `root` and
`unshare` do not: the first wants CAP_SYS_ADMIN, the second cannot be used inside a chroot, user_namespaces(7).) What
the scripts would have configured is in provision.image.tree.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from provision.host import process
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress
from provision.image import sources
from provision.image.sources import Mirror

SUITE = "trixie"
ARCHITECTURE = "amd64"

PACKAGES = (
    # The guest's own: login, BPF, placement tools, network.
    "openssh-server",
    "python3-bpfcc",
    "numactl",
    "iproute2",
    "procps",
    # What a person expects at a shell prompt. `Essential: yes` packages are not implied in the variant `extract`.
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "less",
    "libc-bin",
    "mawk",
    "mount",
    "ncurses-base",
    "ncurses-bin",
    "sed",
    "tar",
    "util-linux",
)

SECONDS = 900.0
"""Enough for 200 MB over a slow line; without network it fails by itself long before."""

_NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "gpgv": "gpgv",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
"""The second name is newer (Debian 13). The archive signs `trixie` with the keys of Debian 12 too: either's will do."""


def missing(which: dict[str, str] | None = None, keyrings: Path = Path("/usr/share/keyrings")) -> list[str]:
    """Debian packages that this host lacks for making an image, sorted."""
    lacking = set()
    for program, package in (_NEEDED if which is None else which).items():
        try:
            process.find(program, package)
        except InfraError:
            lacking.add(package)
    if not any((keyrings / name).exists() for name in _KEYRINGS):
        lacking.add("debian-archive-keyring")
    return sorted(lacking)


def require() -> None:
    """InfraError that names the one apt command when a package is missing."""
    if lacking := missing():
        raise InfraError(
            f"making the guest's image needs {', '.join(lacking)}", hint=f"apt-get install {' '.join(lacking)}"
        )


def command(target: Path, mirror: Mirror | None, options: Sequence[str]) -> list[str]:
    """The mmdebstrap call that unpacks PACKAGES into `target`; without a mirror it uses its own default."""
    # A parent of the target may be closed to the user _apt, to whom apt run by root drops.
    wanted = ['Acquire::Languages "none"', 'APT::Sandbox::User "root"', *options]
    return [
        "mmdebstrap",
        "--mode=chrootless",
        "--variant=extract",
        "--format=directory",
        f"--architectures={ARCHITECTURE}",
        *(f"--aptopt={option}" for option in wanted),
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(target),
        *([mirror.line(SUITE)] if mirror is not None else []),
    ]


def unpack(target: Path, progress: Progress) -> None:
    """Fill the new folder `target`. The host's mirrors are tried in order, then mmdebstrap's own default.

    InfraError, with the end of the last try's output, when none has what is wanted.
    """
    dump = process.run(["apt-config", "dump"], deadline=Deadline.after(30), check=False).output
    options = [*sources.options(dump), *sources.credentials()]
    deadline = Deadline.after(SECONDS)
    ways: list[Mirror | None] = [*sources.mirrors(), None]
    for number, mirror in enumerate(ways, 1):
        try:
            steps = 0

            def line(text: str) -> None:
                nonlocal steps
                if text.startswith("I: ") and "://" not in text:
                    steps += 1
                    progress.advance(text[3:], steps)

            process.run(command(target, mirror, options), deadline=deadline, line=line)
            return
        except InfraError as wrong:
            shutil.rmtree(target, ignore_errors=True)
            if number == len(ways) or deadline.passed:
                raise InfraError(
                    "the packages of the guest's image could not be had",
                    hint="check the network and this host's apt sources",
                    detail=wrong.detail,
                ) from wrong
            progress.note(f"a mirror of this host has no {SUITE} that can be used; trying the next")
