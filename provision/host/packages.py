"""The host packages that mof stands on: the list in packages.txt, and which of them are missing.

`provision/setup.sh` reads the same list, before there is a Python, and looks for the same things in the same way.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("packages.txt")
SETUP = Path(__file__).parents[1] / "setup.sh"


@dataclass(frozen=True)
class Package:
    """A Debian package. `look_for`: programs on PATH, or absolute paths with wildcards; it is there when all are."""

    name: str
    look_for: tuple[str, ...]
    why: str

    def there(self) -> bool:
        """Whether what it brings is on this host, wherever it came from."""
        return all(_there(what) for what in self.look_for)


def _there(what: str) -> bool:
    if what.startswith("/"):
        return any(Path("/").glob(what[1:]))
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(what, path=f"{path}:/usr/sbin:/sbin") is not None


def parse(text: str) -> list[Package]:
    """The packages of a list, in its order; ValueError for a line that has not four fields."""
    packages = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, look_for, why, _suites = (field.strip() for field in line.split("|"))
        packages.append(Package(name, tuple(look_for.split()), why))
    return packages


def needed() -> list[Package]:
    """All packages that mof needs."""
    return parse(LIST.read_text())
