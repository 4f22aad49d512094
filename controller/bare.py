"""A guest for commands that are no experiment: no probes, no run folder, only a shell."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller import machine
from controller.plan import check_kernel
from controller.shell import Shell
from guest_kernel import identity
from provision.guest import cxl
from provision.guest.guest import GuestSpec, launched
from provision.guest.network import Net
from provision.hardware import topology as topologies
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.progress import Progress


@contextmanager
def opened(
    kernel: str, progress: Progress, append: str = "", *, topology: topologies.Topology | None = None
) -> Iterator[Shell]:
    """A guest with that kernel, of four nodes if nothing else is said, and a shell in it; `append`: more kernel parameters."""
    cache = Cache()
    wanted, machine_of = identity.parse(kernel), topology or topologies.load("4node")
    check_kernel(wanted, machine_of)
    with (
        tempfile.TemporaryDirectory(prefix="mof-bare-") as work,
        machine.ensured(cache, wanted, progress) as parts,
    ):
        spec = GuestSpec(
            kernel=parts.kernel.bzimage,
            image=parts.image,
            topology=machine_of,
            work=Path(work),
            net=Net.USER,
            append=append,
        )
        with launched(spec, cache, progress) as guest, Shell(guest, parts.image, Deadline.patient(120)) as shell:
            cxl.online(shell, machine_of)
            yield shell
