"""virtme-ng beside us: the same kernel, accelerator and size of machine, booted on the host's own files.

It is an optional extra. It puts the host's file system into its guest and lets udev name the ports through which the
command's status comes back, so a host without udev gets no status from it (virtme/guest/virtme-init, run_user_script).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from controller.bench import commands
from provision.hardware.qemu import Accelerator
from provision.hardware.topology import Topology

INSTALL = "not installed (pip install 'mof-lab[bench]')"
UDEV = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/usr/sbin/udevd", "/sbin/udevd")
NO_UDEV = "this host has no udev, without which vng cannot tell a command's status (apt-get install udev)"
TRIES = 3
"""Under emulation its guest now and then ends before it has found the port for its command's status (1.42: one run in
four)."""
NO_STATUS = 255
"""Its exit status when none came back from the guest."""


class NoPeer(Exception):
    """It is not there, or does not work here; the message says why."""


@dataclass(frozen=True)
class Peer:
    """A virtme-ng to be measured: its program, and what it is to boot."""

    program: Path
    bzimage: Path
    topology: Topology
    accelerator: Accelerator

    def argv(self) -> list[str]:
        """Pure. It takes KVM by itself where it finds it."""
        return [
            str(self.program),
            *("-r", str(self.bzimage)),
            *(["--disable-kvm"] if self.accelerator is Accelerator.TCG else []),
            *("--cpus", str(self.topology.cpu_count), "--memory", f"{self.topology.total_memory_mb}M"),
            *("--", "true"),
        ]

    def seconds(self) -> float:
        """Run it once, from command to end. NoPeer when the command in the guest did not end with 0."""
        # Its helper programs are beside it and are looked for on the path.
        path = f"{self.program.parent}:{os.environ.get('PATH', os.defpath)}"
        with tempfile.TemporaryDirectory(prefix="mof-vng-") as folder:
            for _ in range(TRIES):
                ran = commands.run(self.argv(), env={"PATH": path}, cwd=Path(folder))
                if ran.status != NO_STATUS:
                    break
        if ran.status == NO_STATUS and not any(Path(one).exists() for one in UDEV):
            raise NoPeer(NO_UDEV)
        if ran.status != 0:
            said = (ran.errors or ran.output).strip().splitlines()
            raise NoPeer(f"vng: exit status {ran.status}" + (f": {said[-1].strip()}" if said else ""))
        return ran.seconds


def find() -> Path | None:
    """Its program on the path, or beside the Python that runs us; None when it is not installed."""
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    found = shutil.which("vng", path=path)
    return None if found is None else Path(found).absolute()
