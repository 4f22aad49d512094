"""From a kernel id to a kernel in the cache.

The artifact holds bzImage, vmlinux, config, System.map, the headers that bcc wants (kheaders.tar.xz) and, of all but lean
kernels, the BTF (btf.bin), under a hash of the source, the patches, the configuration, the compiler and this recipe. One
build runs at a time on a host: two would only take turns on its cores.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest_kernel import kconfig, series, source
from guest_kernel.identity import KernelId
from provision.host import process
from provision.host.cache import Artifact, Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

KIND = "kernel"
RECIPE = 1
"""Raised when the steps below change in a way that changes what comes out."""

NEED_BYTES = 6 * 2**30
"""A built tree takes 3.5 GB, ccache's part of one build 0.4 GB, the artifact 0.2 GB."""

BUILD_SECONDS = 3 * 3600.0
_STEP = re.compile(r"^  (?:CC|AS|LD|AR|HOSTCC|HOSTLD|BTF|GEN|OBJCOPY|KSYMS|CHK|UPD)\s+(?:\[M\]\s+)?(\S+)")


@dataclass(frozen=True)
class Kernel:
    """A built kernel. `build_id` is the GNU build id of vmlinux in hex, the same that /sys/kernel/notes shows."""

    id: str
    path: Path
    release: str
    build_id: str
    facts: Mapping[str, Any]

    @property
    def bzimage(self) -> Path:
        return self.path / "bzImage"

    @property
    def vmlinux(self) -> Path:
        return self.path / "vmlinux"

    @property
    def config(self) -> Path:
        return self.path / "config"


def _kernel(artifact: Artifact) -> Kernel:
    facts = artifact.facts
    return Kernel(facts["id"], artifact.path, facts["release"], facts["build_id"], facts)


def _version(argv: list[str], package: str) -> str:
    path = process.find(argv[0], package)
    return process.run([path, *argv[1:]], deadline=Deadline.after(30)).output.splitlines()[0]


def inputs(kernel: KernelId, origin: source.Source) -> dict[str, Any]:
    """Everything that decides what comes out."""
    return {
        "recipe": RECIPE,
        "id": str(kernel),
        "source": {"version": origin.version, "sha256": origin.sha256},
        "patches": [{"name": p.name, "sha256": p.sha256} for p in series.of(kernel)],
        "config": {p.name: digest_file(p) for p in kconfig.fragments(kernel)},
        "compiler": _version(["gcc", "--version"], "gcc"),
        "pahole": _version(["pahole", "--version"], "dwarves"),
    }


def built(cache: Cache) -> list[Kernel]:
    """The kernels in the cache, oldest first."""
    return [_kernel(artifact) for artifact in cache.list(KIND)]


def ensure(cache: Cache, kernel: KernelId, progress: Progress) -> Kernel:
    """The kernel, built if it is not in the cache (10-12 minutes on two cores; 2 with a warm ccache).

    UserError when a patch does not apply; InfraError when an option is not accepted, the compiler fails (with the
    end of its output) or there is no space.
    """
    origin = source.locate(cache, kernel.base, progress)
    what = inputs(kernel, origin)
    # Removed when others may already build: where a disk is told of every freed block, 90,000 files take minutes.
    with ExitStack() as stack:

        def maker(draft: Path) -> Mapping[str, Any]:
            work = cache.scratch("linux")
            stack.callback(_remove, work, progress)
            return _build(cache, kernel, origin, work, draft, progress)

        made = cache.make(KIND, str(kernel), what, maker, need_bytes=NEED_BYTES, lock="kernel-build", progress=progress)
    return _kernel(made)


def _remove(work: Path, progress: Progress) -> None:
    progress.step("removing the tree that it was built in")
    shutil.rmtree(work, ignore_errors=True)


def environment(cache: Cache) -> dict[str, str]:
    """For make: ccache in our cache folder, and nothing of the moment or the host in the result.

    `hash_dir` is off because each build has a folder of its own and the kernel compiles with relative paths
    (ccache(1), CCACHE_NOHASHDIR). In depend mode ccache learns from the compiler's list what a file includes, and does not
    preprocess it once more for that: what it has not is a fifth sooner compiled. The date is that of the original series'
    announcement.
    """
    return {
        "CCACHE_DIR": str(cache.root / "ccache"),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_DEPEND": "1",
        "CCACHE_MAXSIZE": "4G",
        "CCACHE_COMPRESS": "1",
        "KBUILD_BUILD_TIMESTAMP": "Thu Mar  9 18:28:25 UTC 2006",
        "KBUILD_BUILD_USER": "mof",
        "KBUILD_BUILD_HOST": "mof",
        "KBUILD_BUILD_VERSION": "1",
    }


def make_arguments(*targets: str, localversion: str = "") -> list[str]:
    """make's command line; one job more than there are cores, since some wait for the disk."""
    compiler = "ccache gcc" if shutil.which("ccache") else "gcc"
    jobs = len(os.sched_getaffinity(0)) + 1
    return [
        process.find("make"),
        f"-j{jobs}",
        f"CC={compiler}",
        f"HOSTCC={compiler}",
        f"LOCALVERSION={localversion}",
        *targets,
    ]


def configure(cache: Cache, kernel: KernelId, tree: Path) -> None:
    """allnoconfig with our fragments; InfraError unless every option came out as asked."""
    asked = kconfig.merge(kconfig.fragments(kernel))
    wish = tree / ".mof-fragment"
    wish.write_text(kconfig.render(asked))
    process.run(
        make_arguments(f"KCONFIG_ALLCONFIG={wish.name}", "allnoconfig"),
        cwd=tree,
        env=environment(cache),
        deadline=Deadline.after(300),
    )
    kconfig.check(asked, kconfig.parse((tree / ".config").read_text(), where=".config"))


def _build(
    cache: Cache, kernel: KernelId, origin: source.Source, work: Path, draft: Path, progress: Progress
) -> dict[str, Any]:
    began = time.monotonic()
    progress.step(f"kernel {kernel}: unpacking {source.package(kernel.base)} {origin.version}")
    tree = source.unpack(origin, work)
    patches = series.of(kernel)
    if patches:
        progress.step(f"kernel {kernel}: applying {len(patches)} patches")
        series.apply(patches, tree)
    configure(cache, kernel, tree)
    progress.step(f"kernel {kernel}: compiling")
    total = next((k.facts["steps"] for k in reversed(built(cache)) if k.facts.get("steps")), None)
    steps = 0

    def line(text: str) -> None:
        nonlocal steps
        if found := _STEP.match(text):
            steps += 1
            progress.advance(found[1], steps, total)

    try:
        process.run(
            make_arguments("bzImage", localversion=kernel.localversion),
            cwd=tree,
            env=environment(cache),
            deadline=Deadline.after(BUILD_SECONDS),
            line=line,
        )
    except InfraError as wrong:
        raise InfraError(
            "the kernel does not build", where=f"kernel {kernel}", hint=wrong.message, detail=wrong.detail
        ) from wrong
    _collect(kernel, tree, draft)
    return {**_facts(kernel, origin, tree, draft), "steps": steps, "seconds": round(time.monotonic() - began)}


def keep(cache: Cache, kernel: KernelId, origin: source.Source, tree: Path, progress: Progress) -> Kernel:
    """The kernel, taken from the tree in which it has just been built if it is not in the cache.

    Built as ensure() does: configure(), then make_arguments() with the kernel's localversion; but the tree may have been
    that of another prefix before, of which make has left what does not change. The next make in it links anew. Takes no lock
    of those who build: it is called by one of them.
    """

    def maker(draft: Path) -> Mapping[str, Any]:
        _collect(kernel, tree, draft)
        return _facts(kernel, origin, tree, draft)

    return _kernel(cache.make(KIND, str(kernel), inputs(kernel, origin), maker, progress=progress))


def _facts(kernel: KernelId, origin: source.Source, tree: Path, draft: Path) -> dict[str, Any]:
    return {
        "id": str(kernel),
        "release": (tree / "include/config/kernel.release").read_text().strip(),
        "build_id": build_id(draft / "vmlinux"),
        "config_sha256": digest_file(draft / "config"),
        "patches": [{"name": p.name, "subject": p.subject, "sha256": p.sha256} for p in series.of(kernel)],
        "source": {
            "package": source.package(kernel.base),
            "version": origin.version,
            "sha256": origin.sha256,
        },
    }


def _collect(kernel: KernelId, tree: Path, draft: Path) -> None:
    """Move out of the tree what users of the kernel want; of the configuration a copy, for what is built there next."""
    for name, origin in {
        "bzImage": "arch/x86/boot/bzImage",
        "vmlinux": "vmlinux",
        "System.map": "System.map",
        "kheaders.tar.xz": "kernel/kheaders_data.tar.xz",
    }.items():
        (tree / origin).resolve().rename(draft / name)
    shutil.copy2(tree / ".config", draft / "config")
    if kernel.lean:
        return
    process.run(
        [
            process.find("objcopy", "binutils"),
            "-O",
            "binary",
            "--only-section=.BTF",
            "--set-section-flags",
            ".BTF=alloc",
            str(draft / "vmlinux"),
            str(draft / "btf.bin"),
        ],
        deadline=Deadline.after(120),
    )


def build_id(vmlinux: Path) -> str:
    """The GNU build id in an ELF file's notes, in hex (elf(5), NT_GNU_BUILD_ID)."""
    shown = process.run(
        [process.find("readelf", "binutils"), "-n", str(vmlinux)], deadline=Deadline.after(60), check=False
    ).output
    found = re.search(r"Build ID: ([0-9a-f]+)", shown)
    if found is None:
        raise InfraError("the kernel has no build id", where=str(vmlinux))
    return found[1]
