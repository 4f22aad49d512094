"""The list of host packages covers what the code starts."""

from __future__ import annotations

import ast
from pathlib import Path

from provision.host import packages

ROOT = Path(__file__).parents[2]

ESSENTIAL = {"tar", "apt-get", "dpkg-query", "dpkg-deb", "sha256sum"}
"""Programs of Debian packages that are essential or apt itself: on every Debian."""


def started() -> dict[str, str]:
    """Program -> file, for every call of process.find with a literal name."""
    found = {}
    for room in ("provision", "guest_kernel", "controller"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and ast.unparse(node.func) in ("find", "process.find")
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    found[str(node.args[0].value)] = str(file.relative_to(ROOT))
    return found


def test_every_program_that_the_code_looks_for_is_in_the_list() -> None:
    programs = {what for package in packages.needed() for what in package.look_for if not what.startswith("/")}
    unlisted = {name: file for name, file in started().items() if name not in programs | ESSENTIAL}
    assert started()
    assert not unlisted, "add the package that brings it to provision/host/packages.txt"


def test_each_package_is_listed_once_with_a_reason() -> None:
    names = [package.name for package in packages.needed()]
    assert len(names) == len(set(names))
    assert all(package.why and package.look_for for package in packages.needed())
