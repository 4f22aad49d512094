"""Builds without the series' option are spared what changes only under it, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from guest_kernel.check_headers import Headers

BEFORE = "int one;\n#ifdef CONFIG_NUMA\nint two;\n#endif\n"
UNDER = "#ifdef CONFIG_MIGRATE_ON_FAULT\nint three;\n#endif\n"

# What unifdef does, for a symbol that is not defined and directives that stand alone.
TOOL = """\
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
	char line[256];
	int skip = 0, changed = 0;
	FILE *in = fopen(argv[2], "r");

	while (fgets(line, sizeof(line), in)) {
		if (strncmp(line, "#ifdef CONFIG_MIGRATE_ON_FAULT", 30) == 0)
			skip = changed = 1;
		else if (skip && strncmp(line, "#endif", 6) == 0)
			skip = 0;
		else if (!skip)
			fputs(line, stdout);
	}
	return changed;
}
"""


class Tree:
    """A header, an object that make builds from it in two folders, and a clock of our own."""

    def __init__(self, root: Path) -> None:
        self.path = root / "tree"
        (self.path / "scripts").mkdir(parents=True)
        (self.path / "scripts" / "unifdef.c").write_text(TOOL)
        self.header = self.path / "a.h"
        self.now = 1_000_000_000
        self.write(BEFORE)
        rules = "".join(f"{out}/a.o: a.h\n\t@echo made; touch -d @$(NOW) $@\n" for out in ("off", "on"))
        (self.path / "Makefile").write_text(rules)
        for out in ("off", "on"):
            (self.path / out).mkdir()
        self.headers = Headers(self.path)

    def write(self, text: str) -> None:
        self.now += 10
        self.header.write_text(text)
        os.utime(self.header, (self.now, self.now))

    def made(self, out: str) -> bool:
        """Build in the folder as that configuration sees the header; whether anything was done."""
        self.now += 10
        self.headers.show(out, ["a.h", "missing.h"], off=out == "off")
        argv = ["make", "-s", "-C", str(self.path), f"{out}/a.o", f"NOW={self.now}"]
        return "made" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_what_changes_under_the_option_is_made_anew_only_with_it(tree: Tree) -> None:
    assert tree.made("off")
    assert tree.made("on")
    tree.write(UNDER + BEFORE)
    assert not tree.made("off")
    assert tree.made("on")
    assert not tree.made("off"), "also when the other one was built between"
    assert not tree.made("on")


@pytest.mark.parametrize(
    "text",
    [
        BEFORE + "int four;\n",
        UNDER + BEFORE.replace("two", "other"),
        BEFORE.replace("CONFIG_NUMA", "CONFIG_SMP"),
        UNDER.replace("CONFIG_MIGRATE_ON_FAULT", "CONFIG_MIGRATE") + BEFORE,
    ],
)
def test_what_changes_elsewhere_is_made_anew_by_all(tree: Tree, text: str) -> None:
    assert tree.made("off")
    assert tree.made("on")
    tree.write(text)
    assert tree.made("off")
    assert tree.made("on")
    assert not tree.made("off")


def test_a_change_that_counts_after_one_that_does_not(tree: Tree) -> None:
    tree.made("off")
    tree.write(UNDER + BEFORE)
    assert tree.headers.show("off", ["a.h"], off=True) == ["a.h"]
    tree.write(UNDER + BEFORE + "int four;\n")
    assert tree.headers.show("off", ["a.h"], off=True) == []
    assert tree.made("off")


def test_a_header_that_unifdef_cannot_read_is_as_it_is(tree: Tree) -> None:
    (tree.path / "scripts" / "unifdef.c").write_text("int main(void)\n{\n\treturn 2;\n}\n")
    tree.made("off")
    tree.write(UNDER + BEFORE)
    assert tree.made("off")
