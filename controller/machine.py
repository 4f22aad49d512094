"""What a run needs before it starts, made or found: kernel, workload programs, root file system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.workloads import program
from guest_kernel import build, identity
from provision.host.cache import Cache
from provision.host.progress import Progress
from provision.image.image import Image
from provision.image.image import ensure as ensure_image

PROBES = Path(__file__).parents[1] / "probes"
IN_GUEST = "/usr/lib/mof/probes"


@dataclass(frozen=True)
class Parts:
    """A kernel and a root file system that belong to one run."""

    kernel: build.Kernel
    image: Image


def agent_files() -> dict[str, Path]:
    """The probes room as the guest gets it: path in the guest to file here."""
    files = [*PROBES.glob("*.py"), *PROBES.glob("bpf/*.[ch]")]
    return {f"{IN_GUEST}/{f.relative_to(PROBES)}": f for f in sorted(files)}


@contextmanager
def ensured(cache: Cache, kernel: identity.KernelId, progress: Progress) -> Iterator[Parts]:
    """Both, kept from being evicted for as long as the block lasts."""
    parts = ensure(cache, kernel, progress)
    with ExitStack() as stack:
        for folder in (parts.kernel.path, parts.image.root.parent):
            if (found := cache.read(folder)) is not None:
                stack.enter_context(cache.using(found))
        yield parts


def ensure(cache: Cache, kernel: identity.KernelId, progress: Progress) -> Parts:
    """Build or find both. The programs are part of the image, so a changed memtoy makes a new one in a second."""
    built = build.ensure(cache, kernel, progress)
    memtoy = program.ensure(cache, "memtoy", progress)
    image = ensure_image(cache, {"/usr/local/bin/memtoy": memtoy, **agent_files()}, progress)
    return Parts(built, image)
