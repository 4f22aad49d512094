"""Locks between processes: flock(2), which the kernel drops when the holder dies, however it dies.

Two sorts. A named lock is a file of its own; one process holds it. An artifact's lock is on its manifest: shared by
those who use the artifact, exclusive for the moment in which it is taken away. A lock on the manifest goes where the
artifact goes, needs no write access to the cache, and leaves nothing behind.

On a file system without flock nobody can take the exclusive lock: there nothing is evicted, and users need no lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from provision.host.artifact import MANIFEST


@contextmanager
def named(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock in this file, whose folder exists. The holder's process id is in the file.

    `waiting` is told the holder ("process 12", or "another process") when it has to be waited for.
    """
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip()
            if waiting is not None:
                waiting(f"process {holder}" if holder else "another process")
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


@contextmanager
def at_once(path: Path) -> Iterator[bool]:
    """Hold the lock in this file if it is free, and say whether it was. Makes no file: where there is none, it is."""
    try:
        stream = path.open("rb")
    except OSError:
        yield True
        return
    with stream:
        yield _exclusive(stream)


def _exclusive(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _still(stream: IO[bytes], folder: Path) -> bool:
    """Is the manifest under this name the one that was opened? It may have been evicted before the lock was had."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), (folder / MANIFEST).stat())
    except OSError:
        return False


@contextmanager
def shared(folder: Path) -> Iterator[int | None]:
    """Keep an artifact from being evicted; yields its manifest's descriptor, None when there is no artifact.

    Waits only for an evictor between its lock and its rename: no longer than a few system calls.
    """
    try:
        stream = (folder / MANIFEST).open("rb")
    except OSError:
        yield None
        return
    with stream:
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_SH)
        yield stream.fileno() if _still(stream, folder) else None


@contextmanager
def unused(folder: Path) -> Iterator[int | None]:
    """Keep an artifact from being used; yields its manifest's descriptor, None when it is in use or has gone.

    To be held for moments: those who want the artifact wait.
    """
    try:
        stream = (folder / MANIFEST).open("rb")
    except OSError:
        yield None
        return
    with stream:
        yield stream.fileno() if _exclusive(stream) and _still(stream, folder) else None


def in_use(folder: Path) -> bool:
    """Does anybody hold this artifact now?"""
    try:
        stream = (folder / MANIFEST).open("rb")
    except OSError:
        return False
    with stream:
        return not _exclusive(stream)


def note_use(descriptor: int) -> None:
    """Set the manifest's mtime to now. In a cache that one may not write to, use is not noted, and that is all."""
    with suppress(OSError):
        os.utime(descriptor)
