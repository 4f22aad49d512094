"""For the tests in this folder: files of a guest. What is put there, and settings that are put back."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provision.host import process
from provision.host.deadline import Deadline
from tests.guest.conftest import Lab


def ext4_image(path: Path, megabytes: int) -> Path:
    """An empty file system in a file: the guest has nothing to make one with. Its blocks are as large as pages."""
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    mke2fs = process.find("mke2fs", "e2fsprogs")
    process.run([mke2fs, "-q", "-t", "ext4", "-b", "4096", str(path)], deadline=Deadline.after(60))
    return path


def put_compressed(lab: Lab, source: Path, target: str) -> None:
    packed = source.with_name(source.name + ".gz")
    packed.write_bytes(gzip.compress(source.read_bytes(), 1))
    lab.shell.put(packed, f"{target}.gz")
    lab.run(f"gzip -d {target}.gz").expect()


@contextmanager
def setting(lab: Lab, path: str, value: int) -> Iterator[None]:
    """A file of /proc or /sys with this value, and then with that which it had."""
    before = lab.run(f"cat {path}").expect().out.strip()
    lab.run(f"echo {value} > {path}").expect()
    try:
        yield
    finally:
        lab.run(f"echo {before} > {path}").expect()
