"""From unpacked packages to a root file system that starts: less of it, configured, and compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

from provision.host import process
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress
from provision.image import configuration
from provision.image.keys import KeyPair

LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

_NOT_COMPILED = r"/(test|tests|idlelib|lib2to3|ensurepip|pydoc_data|tkinter|turtledemo)/"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def prune(root: Path) -> None:
    """Remove what configuration.PRUNED names."""
    for pattern in configuration.PRUNED:
        for path in sorted(root.glob(pattern)):
            _remove(path)


def write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    """A file of the guest, with its folders; what stands there is replaced, never followed."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.write_text(text)
    path.chmod(mode)


def configure(root: Path, host: KeyPair, login: KeyPair) -> None:
    """Write configuration.FILES and LINKS, the host's key, and who may log in."""
    for folder in configuration.FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in configuration.FILES.items():
        write(root, name, text, configuration.MODES.get(name, 0o644))
    for name, target in configuration.LINKS.items():
        path = root / name
        if path.is_symlink() or path.exists():
            _remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    for name in ("dot.bashrc", "dot.profile"):
        if (source := root / "usr/share/base-files" / name).is_file():
            shutil.copyfile(source, root / "root" / name.removeprefix("dot"))
    write(root, "etc/ssh/ssh_host_ed25519_key", host.private, 0o600)
    write(root, "etc/ssh/ssh_host_ed25519_key.pub", f"{host.public}\n")
    write(root, "etc/ssh/authorized_keys", f"{login.public}\n")


def open_folders(root: Path) -> None:
    """Let everyone into every folder but root's home: the maker's umask may have closed those that are ours."""
    for path in [root, *root.rglob("*")]:
        if path.is_dir() and not path.is_symlink() and path != root / "root":
            path.chmod(path.stat().st_mode & 0o7777 | 0o755)


def in_root(root: Path, program: str, *arguments: str) -> list[str]:
    """Run a program of the tree without chroot(2), through the tree's own loader and libraries.

    Needs no privilege, only a host of the guest's architecture.
    """
    return [str(root / LOADER), "--library-path", str(root / LIBRARIES), str(root / program), *arguments]


def python(root: Path) -> Path:
    """The tree's Python interpreter, relative to it ("usr/bin/python3.13")."""
    found = sorted((root / "usr/bin").glob("python3.[0-9]*"))
    if not found:
        raise InfraError("the packages brought no Python", where=str(root))
    return found[-1].relative_to(root)


def compile_all(root: Path, progress: Progress) -> None:
    """Put bytecode beside every module and fill the loader's cache.

    The root file system is read-only, so the guest would compile what it imports at every start (bcc's imports: seconds
    under TCG). "unchecked-hash": no comparison of times that a copy might lose. Without it the guest is slower and not
    wrong: a host that cannot run the tree's programs gets a note.
    """
    interpreter = python(root)
    modules = [str(root / "usr/lib" / interpreter.name), str(root / "usr/lib/python3/dist-packages")]
    compiler = in_root(root, str(interpreter), "-S", "-m", "compileall", "-q", "-q")
    compiler += ["--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", "-x", _NOT_COMPILED, *modules]
    linker = [str(root / "usr/sbin/ldconfig"), "-X", "-r", str(root)]
    try:
        process.run(linker, deadline=Deadline.after(60))
        process.run(compiler, deadline=Deadline.after(300), env={"PYTHONHOME": str(root / "usr")})
    except (InfraError, OSError) as wrong:
        progress.note(f"the guest's Python modules are not compiled beforehand, it will start slower: {wrong}")
