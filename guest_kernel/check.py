"""What a kernel's own tools say of a patch: checkpatch.pl, the compiler on the files it touches, and a whole build.

Each function works on a tree that has the patch (guest_kernel.check_stage) and returns what was said; none judges by
anything but the tools' own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from guest_kernel import build, check_warnings, kconfig
from guest_kernel.series import Patch
from provision.host import process
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

IGNORED: Mapping[str, str] = {
    "FILE_PATH_CHANGES": "a patch that adds a file need not change MAINTAINERS: whoever merges the series decides who "
    "maintains it, and the directories' present entries cover new files in them",
}
"""Types of checkpatch.pl that are not asked for, with the reason. Everything else that it says is a failure."""

OBJECT_SECONDS = 1800.0

NO_OBJECTS = ("tools/", "samples/", "scripts/", "Documentation/")
"""C files there are programs of the host or of user space, with build systems of their own."""

# What kbuild would build in a folder, asked of the folder's own Makefile: `make DIR/x.o` compiles whatever it is asked
# for, whether the configuration has it or not (scripts/Makefile.build, single targets).
_QUERY = """\
_all: ;
include include/config/auto.conf
include $(srctree)/scripts/Kbuild.include
obj := $(DIR)
src := $(srctree)/$(DIR)
include $(firstword $(wildcard $(src)/Kbuild $(src)/Makefile))
parts = $(foreach o,$(obj-y) $(obj-m) $(lib-y),$(o) $($(o:.o=-y)) $($(o:.o=-objs)) $($(o:.o=-m)))
$(info mof: $(sort $(parts) $(foreach o,$(parts),$($(o:.o=-y)) $($(o:.o=-objs)))))
"""

_SAID = re.compile(r"^\S*?:(?P<line>\d+): (?P<level>ERROR|WARNING):(?P<type>\w+): (?P<text>.*)$")
_STEP = re.compile(r"^  (?:CC|AS|LD|AR)\s+(?:\[M\]\s+)?(\S+)")


@dataclass(frozen=True)
class Said:
    """One complaint of checkpatch.pl. `line` counts in the patch file."""

    line: int
    level: str
    type: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.level}:{self.type}: {self.text}"


@dataclass(frozen=True)
class Built:
    """A run of make: the warnings in order, what failed (empty when nothing did), and how much was compiled."""

    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    steps: int
    objects: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Touched C files that this configuration does not compile, or that no Makefile of the kernel does."""


def checkpatch(patch: Patch, tree: Path) -> list[Said]:
    """Errors and warnings of the tree's scripts/checkpatch.pl (without --strict), those of IGNORED types left out.

    InfraError when it does not run.
    """
    done = process.run(
        [
            process.find("perl"),
            "scripts/checkpatch.pl",
            "--terse",
            "--show-types",
            "--no-summary",
            "--color=never",
            "--ignore",
            ",".join(IGNORED),
            str(patch.path),
        ],
        cwd=tree,
        deadline=Deadline.after(300),
        check=False,
    )
    said = [
        Said(int(found["line"]), found["level"], found["type"], found["text"])
        for line in done.output.splitlines()
        if (found := _SAID.match(line))
    ]
    if done.status != 0 and not said:
        raise InfraError(
            f"checkpatch.pl failed with status {done.status} and said nothing of the patch",
            where=patch.name,
            detail=process.tail(done.errors or done.output),
        )
    return said


def touched(patch: Patch) -> list[str]:
    """The objects of the C files that the patch touches and that a kernel could be made of."""
    return [
        str(PurePosixPath(name).with_suffix(".o"))
        for name in patch.touches
        if name.endswith(".c") and not name.startswith(NO_OBJECTS)
    ]


def configures(patch: Patch) -> bool:
    """Whether the patch may change what a configuration comes to: Kconfig's files, and what they ask of compiler and host."""
    return any(
        PurePosixPath(name).name.startswith("Kconfig")
        or name.startswith("scripts/")
        or name in ("Makefile", "arch/x86/Makefile")
        for name in patch.touches
    )


def enabled(cache: Cache, folder: Path, srctree: str, objects: Sequence[str]) -> list[str]:
    """Those objects that the configuration in `folder` compiles. `srctree` is the source as seen from there.

    `make prepare` has to have been there. A folder whose Makefile cannot be read by itself counts as compiled: the
    compiler will say more.
    """
    found = []
    parents = dict.fromkeys(str(PurePosixPath(name).parent) for name in objects)
    for parent in parents:
        said = process.run(
            [process.find("make"), "-s", "-f", "-", f"DIR={parent}", f"srctree={srctree}"],
            cwd=folder,
            env=build.environment(cache),
            stdin=_QUERY,
            deadline=Deadline.after(60),
            check=False,
        )
        names = next((line[5:].split() for line in said.output.splitlines() if line.startswith("mof: ")), None)
        for name in objects:
            path = PurePosixPath(name)
            if str(path.parent) == parent and (names is None or said.status != 0 or path.name in names):
                found.append(name)
    return found


def _make(cache: Cache, tree: Path, arguments: Sequence[str], seconds: float, progress: Progress) -> tuple[int, Built]:
    steps = 0

    def line(text: str) -> None:
        nonlocal steps
        if found := _STEP.match(text):
            steps += 1
            progress.advance(found[1], steps)

    done = process.run(
        list(arguments),
        cwd=tree,
        # objtool and resolve_btfids are compiled with absolute paths, which differ from check to check (ccache(1)).
        env={**build.environment(cache), "CCACHE_BASEDIR": str(tree)},
        deadline=Deadline.patient(seconds),
        check=False,
        line=line,
    )
    lines = done.output.splitlines()
    wrong = check_warnings.errors(lines) if done.status else []
    return done.status, Built(tuple(check_warnings.warnings(lines)), tuple(wrong), steps)


def objects(
    cache: Cache,
    wanted: Sequence[str],
    tree: Path,
    progress: Progress,
    *,
    out: str = "",
    localversion: str = "",
    prepared: bool = False,
) -> Built:
    """Compile these objects with W=1, in the configuration of the tree or of its output folder `out`.

    What has to be there before (generated headers, objtool) is made first, and what that says is not counted. `prepared`: it
    is there, since the whole has just been built.
    """
    if not wanted:
        return Built((), (), 0)
    where = [f"O={out}"] if out else []
    if not prepared:
        before = build.make_arguments(*where, "prepare", localversion=localversion)
        status, made = _make(cache, tree, before, OBJECT_SECONDS, progress)
        if status:
            return Built((), made.errors, made.steps, tuple(wanted))
    # Not before: `prepare` makes the auto.conf that Makefiles read.
    chosen = enabled(cache, tree / out, ".." if out else ".", wanted)
    left_out = tuple(name for name in wanted if name not in chosen)
    if not chosen:
        return Built((), (), 0, (), left_out)
    command = build.make_arguments(*where, "-k", "W=1", *chosen, localversion=localversion)
    _, done = _make(cache, tree, command, OBJECT_SECONDS, progress)
    return Built(done.warnings, done.errors, done.steps, tuple(chosen), left_out)


def whole(
    cache: Cache, tree: Path, progress: Progress, *, target: str = "bzImage", out: str = "", localversion: str = ""
) -> Built:
    """Build `target`, in the configuration of the tree or of its output folder `out`.

    What is not to be booted is whole as `vmlinux`: linked, and seen by modpost. bzImage only packs that.
    """
    where = [f"O={out}"] if out else []
    command = build.make_arguments(*where, target, localversion=localversion)
    return _make(cache, tree, command, build.BUILD_SECONDS, progress)[1]


def configure(cache: Cache, tree: Path, out: str, asked: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """allnoconfig with what is asked for, in the output folder `out`; the configuration that it came to.

    InfraError when make fails. Options that were not accepted are for the caller to see (kconfig.dropped).
    """
    folder = tree / out
    folder.mkdir(exist_ok=True)
    wish = folder / ".mof-fragment"
    wish.write_text(kconfig.render(asked))
    process.run(
        build.make_arguments(f"O={out}", f"KCONFIG_ALLCONFIG={wish}", "allnoconfig"),
        cwd=tree,
        env=build.environment(cache),
        deadline=Deadline.patient(300),
    )
    return kconfig.parse((folder / ".config").read_text(), where=".config")
