"""A kernel tree that gets one patch of a series after the other, so that a prefix costs what its last patch changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from guest_kernel import series, source
from guest_kernel.series import Patch
from provision.host.cache import Cache
from provision.host.errors import UserError
from provision.host.progress import Progress


class Stage:
    """Unpacked when it is first needed; gone when the block is left. `name` tells stages of one process apart."""

    def __init__(
        self, cache: Cache, origin: source.Source, patches: tuple[Patch, ...], name: str, progress: Progress
    ) -> None:
        self._cache = cache
        self._origin = origin
        self._patches = patches
        self._name = name
        self._progress = progress
        self._work: Path | None = None
        self._tree: Path | None = None
        self._applied = 0
        self._broken: UserError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
        self._work = self._tree = None
        self._applied = 0

    def at(self, count: int) -> Path:
        """The tree with the first `count` patches. UserError for the first that does not apply, and ever after.

        Going back means unpacking anew.
        """
        if self._tree is not None and count < self._applied:
            self._drop()
        if self._tree is None:
            self._progress.step(f"unpacking {source.package(self._origin.base)} {self._origin.version}")
            self._work = self._cache.scratch(self._name)
            self._tree = source.unpack(self._origin, self._work)
        while self._applied < count:
            if self._broken is not None:
                raise self._broken
            try:
                series.apply(self._patches[self._applied : self._applied + 1], self._tree)
            except UserError as wrong:
                self._broken = wrong
                raise
            self._applied += 1
        return self._tree
