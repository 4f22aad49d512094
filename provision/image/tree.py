"""From unpacked packages to a root file system that starts: less of it, configured, and compiled."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
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
    modules = [root / "usr/lib" / python(root).name, root / "usr/lib/python3/dist-packages"]
    try:
        process.run([str(root / "usr/sbin/ldconfig"), "-X", "-r", str(root)], deadline=Deadline.after(60))
        _compile(root, root, "unchecked-hash", modules)
    except (InfraError, OSError) as wrong:
        progress.note(f"the guest's Python modules are not compiled beforehand, it will start slower: {wrong}")


def _compile(compiler: Path, stripped: Path, mode: str, modules: Iterable[Path]) -> None:
    """Compile folders of modules with the tree `compiler`; `stripped` is what they say instead of "/" here."""
    argv = in_root(compiler, str(python(compiler)), "-S", "-m", "compileall", "-q", "-q", "--invalidation-mode", mode)
    argv += ["-s", str(stripped), "-p", "/", "-x", _NOT_COMPILED, *map(str, modules)]
    process.run(argv, deadline=Deadline.after(300), env={"PYTHONHOME": str(compiler / "usr"), "PYTHONPATH": ""})


def keep_compiler(root: Path, kept: Path, progress: Progress) -> None:
    """Copy of the tree what compile_extras needs, in the same places: Python, its libraries, its own modules."""
    interpreter = python(root)
    try:
        listed = process.run(
            [str(root / LOADER), "--library-path", str(root / LIBRARIES), "--list", str(root / interpreter)],
            deadline=Deadline.after(30),
        ).output
    except (InfraError, OSError) as wrong:
        progress.note(f"the agent will not be compiled beforehand, it will start slower: {wrong}")
        return
    libraries = [word for line in listed.splitlines() if (word := line.split(" => ")[-1].split()[0]).startswith("/")]
    for source in [root / LOADER, root / interpreter, *map(Path, libraries)]:
        target = kept / (LOADER if source == root / LOADER else source.relative_to(root))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    skipped = shutil.ignore_patterns("test", "tests", "idlelib", "ensurepip", "pydoc_data")
    modules = f"usr/lib/{interpreter.name}"
    shutil.copytree(root / modules, kept / modules, ignore=skipped, ignore_dangling_symlinks=True)


def compile_extras(compiler: Path, files: Mapping[str, Path], work: Path, progress: Progress) -> dict[str, Path]:
    """Bytecode for those of `files` (path in the guest to file here) that are Python modules, as more of the same.

    Empty where the base kept no compiler. "checked-hash": a module edited in a guest is compiled anew there. One that
    does not compile is left to be reported by the import in the guest. `work` is an empty folder.
    """
    modules = {target: path for target, path in files.items() if target.endswith(".py")}
    if not modules or not (compiler / LOADER).exists():
        return {}
    for target, path in modules.items():
        copy = work / target.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    failed = ""
    try:
        _compile(compiler, work, "checked-hash", [work])
    except InfraError as wrong:
        failed = wrong.detail or str(wrong)
    made = {f"/{path.relative_to(work)}": path for path in sorted(work.rglob("*.pyc"))}
    if len(made) < len(modules):
        progress.note(f"{len(modules) - len(made)} Python modules for the guest do not compile: {failed}")
    return made
