"""One prefix's kernel in a guest: booted once for the steps that need it, and its log read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import complaints, machine
from controller.check import trial
from controller.check.claims import Claim
from controller.check.data import Found
from controller.check.trial import Broken, Trial
from controller.experiment import DEFAULT_TOPOLOGY
from controller.shell import Shell
from controller.workloads import program
from guest_kernel.identity import KernelId
from provision.guest.guest import Guest, GuestSpec, launched
from provision.hardware import topology as topologies
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

CONNECT_SECONDS = 60.0
LOG_LINES = 30


@dataclass(frozen=True)
class Booted:
    """A guest that accepts logins."""

    guest: Guest
    trial: Trial
    parts: machine.Parts

    def log(self) -> list[str]:
        return self.trial.run("dmesg").expect().out.splitlines()


@contextmanager
def booted(cache: Cache, kernel: KernelId, progress: Progress) -> Iterator[Booted]:
    """Builds the kernel if it is not in the cache. UserError, InfraError, GuestLost as building and booting have them."""
    topology = topologies.load(DEFAULT_TOPOLOGY)
    topologies.check_host(topology)
    with (
        machine.ensured(cache, kernel, progress) as parts,
        tempfile.TemporaryDirectory(prefix="mof-check-") as work,
    ):
        progress.step(f"{kernel}: booting")
        spec = GuestSpec(kernel=parts.kernel.bzimage, image=parts.image, topology=topology, work=Path(work))
        with (
            launched(spec, cache, progress) as guest,
            Shell(guest, parts.image, Deadline.patient(CONNECT_SECONDS)) as shell,
        ):
            yield Booted(guest, Trial(shell), parts)


def boot(one: Booted) -> Found:
    """What the log says after the boot. The right kernel has to run: its release is compared."""
    log = one.log()
    said = complaints.wrong(log)
    release = one.trial.run("uname -r").expect().out.strip()
    if release != one.parts.kernel.release:
        said.append(f"the guest runs {release}, not {one.parts.kernel.release}")
    notes = [f"stalls, which may be the host's doing: {text}" for text in complaints.stalls(log)]
    figures: dict[str, Any] = {
        "kernel": one.parts.kernel.id,
        "release": release,
        "build_id": one.parts.kernel.build_id,
        "accelerator": one.guest.accelerator.value,
        "ready_seconds": one.guest.timings.get("ready"),
        "log_lines": len(log),
    }
    return Found(tuple(said[:LOG_LINES]), tuple(notes), figures)


def promise(one: Booted, claims: Sequence[Claim], cache: Cache, progress: Progress) -> Found:
    """Try each claim, also after one that fails; what the log says of it all counts too."""
    for name in dict.fromkeys(name for claim in claims for name in claim.programs):
        trial.put(one.trial.shell, name, program.ensure(cache, name, progress))
    words: list[str] = []
    figures: dict[str, Any] = {}
    before = len(one.log())
    for claim in claims:
        progress.step(f"{one.parts.kernel.id}: {claim.title}")
        try:
            figures[claim.name] = {"title": claim.title, "holds": True, **claim.holds(one.trial)}
        except (Broken, InfraError) as wrong:
            why = "; ".join([str(wrong), *getattr(wrong, "detail", "").splitlines()[-2:]])
            figures[claim.name] = {"title": claim.title, "holds": False, "why": why}
            words.append(f"{claim.name}: {claim.title}: {why}")
    words += [f"the log: {line}" for line in complaints.wrong(one.log()[before:])[:LOG_LINES]]
    return Found(tuple(words), (), {"claims": figures})
