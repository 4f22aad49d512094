"""A patch series: its order, its prefixes, and its application without fuzz."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from guest_kernel.identity import SERIES, KernelId
from provision.host import process
from provision.host.deadline import Deadline
from provision.host.errors import UserError


@dataclass(frozen=True)
class Patch:
    """One patch file. `sha256` covers its bytes."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def subject(self) -> str:
        """The first line of its changelog, without the bracketed prefix."""
        found = re.search(r"^Subject: (?:\[[^]]*\] )?(.+(?:\n .+)*)", self.path.read_text(), re.MULTILINE)
        return re.sub(r"\n\s*", " ", found[1]) if found else self.name

    @property
    def touches(self) -> tuple[str, ...]:
        """The files that it changes, relative to the kernel's tree."""
        return tuple(dict.fromkeys(re.findall(r"^\+\+\+ b/(\S+)", self.path.read_text(), re.MULTILINE)))


def load(folder: Path) -> tuple[Patch, ...]:
    """The patches that `folder/series` names, in its order (quilt(1): a name a line, `#` comments).

    UserError when the file names a patch that is not there.
    """
    order = folder / "series"
    patches = []
    for number, line in enumerate(order.read_text().splitlines(), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        path = folder / name
        try:
            patches.append(Patch(path, hashlib.sha256(path.read_bytes()).hexdigest()))
        except OSError as wrong:
            raise UserError(
                f"patch '{name}' is not there",
                where=f"{order}:{number}",
                hint="add the file or remove the line",
            ) from wrong
    return tuple(patches)


def of(kernel: KernelId) -> tuple[Patch, ...]:
    """The patches that this kernel carries: none, the first N, or all."""
    return load(SERIES / kernel.base)[: kernel.patches] if kernel.series else ()


def apply(patches: tuple[Patch, ...], tree: Path) -> None:
    """Apply to an unpacked kernel, in order, without fuzz.

    UserError names the patch and the first hunk or file that does not fit; the tree is then of no further use.
    """
    for patch in patches:
        done = process.run(
            [process.find("patch"), "-p1", "-N", "-F0", "--no-backup-if-mismatch", "-i", str(patch.path)],
            cwd=tree,
            deadline=Deadline.after(120),
            check=False,
        )
        if done.status != 0:
            raise UserError(
                f"patch does not apply: {_complaint(done.output + done.errors)}",
                where=patch.name,
                hint=f"rebase it on the source of {tree.name}",
            )


def _complaint(output: str) -> str:
    """The first hunk that failed, with its file, from patch(1)'s output."""
    file = ""
    for line in output.splitlines():
        if line.startswith(("patching file ", "checking file ")):
            file = line.split(" ", 2)[2]
        if "FAILED" in line or "can't find file" in line or "malformed" in line or "Reversed" in line:
            return f"{file}: {line.strip()}" if file else line.strip()
    return output.strip().splitlines()[-1] if output.strip() else "patch(1) gave no reason"
