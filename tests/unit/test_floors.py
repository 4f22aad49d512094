"""The floors of the house: what each room may import. Read from the syntax tree, so that no import hides."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("provision", "guest_kernel", "probes", "controller")

ALLOWED = {
    "provision": ("provision",),
    "guest_kernel": ("guest_kernel", "provision.host"),
    "probes": ("probes",),
    "controller": ROOMS,
}


def files() -> list[Path]:
    return sorted(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(f): f for f in files()}


def imports(file: Path, *, top_only: bool = False) -> set[str]:
    """The modules that a file imports, wherever in it; with `top_only`, only when it is itself imported."""
    tree = ast.parse(file.read_text())
    found: set[str] = set()
    nodes = list(tree.body) if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            base = node.module or ""
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return found


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.mark.parametrize("file", files(), ids=name_of)
def test_a_file_imports_only_from_floors_below(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    ours = {m for m in imports(file) if m.partition(".")[0] in ROOMS}
    above = {m for m in ours if not any(inside(m, allowed) for allowed in ALLOWED[room])}
    assert not above, f"{name_of(file)} imports {above}"


@pytest.mark.parametrize("file", sorted((ROOT / "provision/host").glob("*.py")), ids=name_of)
def test_floor_zero_is_standard_library_only(file: Path) -> None:
    foreign = {
        m
        for m in imports(file)
        if m.partition(".")[0] not in sys.stdlib_module_names and not inside(m, "provision.host")
    }
    assert not foreign


def test_bcc_is_imported_in_probes_alone() -> None:
    users = {name_of(f).partition(".")[0] for f in files() if "bcc" in {m.partition(".")[0] for m in imports(f)}}
    assert users == {"probes"}


def test_fabric_and_paramiko_are_imported_in_the_shell_alone() -> None:
    users = {
        name_of(f) for f in files() if {"fabric", "paramiko", "invoke"} & {m.partition(".")[0] for m in imports(f)}
    }
    assert users == {"controller.shell"}


def test_only_the_command_line_prints_or_exits() -> None:
    def speaks(file: Path) -> bool:
        return any(
            isinstance(node, ast.Call)
            and (
                (isinstance(node.func, ast.Name) and node.func.id == "print")
                or (
                    isinstance(node.func, ast.Attribute)
                    and node.func.attr == "exit"
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "sys"
                )
            )
            for node in ast.walk(ast.parse(file.read_text()))
        )

    # The agent is a program of its own, in the guest.
    speakers = {name_of(f) for f in files() if speaks(f) and name_of(f).partition(".")[0] != "probes"}
    assert {s for s in speakers if not inside(s, "controller.cli")} == set()


def test_no_circles() -> None:
    graph = {name: {m for m in imports(file) if m in MODULES and m != name} for name, file in MODULES.items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())
