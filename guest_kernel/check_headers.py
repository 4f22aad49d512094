"""Headers that change only under the series' own option: builds without that option need not be made anew for them.

A header that everything includes makes everything be compiled again. Where all that a patch changes in it stands between
`#ifdef CONFIG_MIGRATE_ON_FAULT` and `#endif`, a configuration without the option sees the header that it saw before, whoever
includes it; only the numbers of the lines below are others. So make, which goes by time, is shown the earlier time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from guest_kernel.check_variants import SYMBOL
from provision.host import process
from provision.host.cache import digest_file
from provision.host.deadline import Deadline

UNIFDEF = "scripts/unifdef.c"
"""The kernel's copy of unifdef(1): a header without what is for a symbol that is not defined."""


class Headers:
    """The headers of one tree as several configurations built from it see them. Make one anew with each tree."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._tool: Path | None = None
        self._times: dict[tuple[str, str], int] = {}
        """By header and content: when it came to be so, in ns."""
        self._texts: dict[tuple[str, str], str] = {}
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}
        """By configuration and header: what it saw of it, and since when."""

    def show(self, configuration: str, names: Sequence[str], *, off: bool) -> list[str]:
        """Give these headers the times that make is to see for this configuration; those that it need not mind.

        `off`: the configuration is without the option. What is not there is passed over.
        """
        spared = []
        for name in names:
            path = self._tree / name
            if not path.is_file():
                continue
            content = digest_file(path)
            since = self._times.setdefault((name, content), path.stat().st_mtime_ns)
            text = self._without(name, content) if off else content
            before = self._seen.get((configuration, name))
            if before is not None and before[0] == text:
                if since != before[1]:
                    spared.append(name)
                since = before[1]
            self._seen[configuration, name] = text, since
            os.utime(path, ns=(since, since))
        return spared

    def _without(self, name: str, content: str) -> str:
        """The header without what is for the option; two texts are equal only if all other lines are."""
        if (name, content) not in self._texts:
            done = process.run(
                [str(self._unifdef()), f"-U{SYMBOL}", str(self._tree / name)], deadline=Deadline.after(60), check=False
            )
            # 0 and 1: unchanged and changed. Otherwise it could not make sense of the file: then only the same is the same.
            self._texts[name, content] = done.output if done.status in (0, 1) else content
        return self._texts[name, content]

    def _unifdef(self) -> Path:
        if self._tool is None:
            self._tool = self._tree.parent / "unifdef"
            argv = [process.find("gcc"), "-O1", "-o", str(self._tool), str(self._tree / UNIFDEF)]
            process.run(argv, deadline=Deadline.patient(120))
        return self._tool
