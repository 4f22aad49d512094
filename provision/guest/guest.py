"""A running guest: QEMU with its console, monitor, ports and network, for as long as a block lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.guest import accelerator, network, qmp
from provision.guest.accelerator import Accelerator
from provision.guest.console import Console
from provision.guest.network import Net
from provision.hardware import qemu
from provision.hardware.topology import Topology
from provision.host import process
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss
from provision.host.progress import Progress
from provision.image.image import Image

BOOT_SECONDS = 90.0
"""Until init says ready; 3-6 s under TCG on an idle host, several times that on a loaded one."""

DYING_SECONDS = 1.5
"""How long the console gets to say why, once something else has failed."""

BASE_APPEND = (
    "console=ttyS0 root=/dev/vda ro init=/usr/lib/mof/init numa_balancing=disable nokaslr tsc=reliable "
    "oops=panic panic=0 loglevel=6"
)


@dataclass(frozen=True)
class GuestSpec:
    """What to start. `work` is an existing folder that gets console.log and events.raw."""

    kernel: Path
    image: Image
    topology: Topology
    work: Path
    net: Net = Net.USER
    ssh_port: int | None = None
    append: str = ""
    name: str = "mof"
    boot_seconds: float = BOOT_SECONDS


class Guest:
    """A started guest. Everything here raises GuestLost rather than waiting for a guest that is gone."""

    def __init__(
        self,
        spec: GuestSpec,
        program: accelerator.Qemu,
        kind: Accelerator,
        argv: list[str],
        child: subprocess.Popen[bytes],
        console: Console,
        monitor: qmp.Monitor,
        link: network.Link,
        control: Path,
    ) -> None:
        self.spec = spec
        self.accelerator = kind
        self.qemu_version = program.version
        self.argv = tuple(argv)
        self.console = console
        self.monitor = monitor
        self._child = child
        self._link = link
        self._control = control

    @property
    def records(self) -> Path:
        """The file that QEMU writes the agent's records to."""
        return self.spec.work / "events.raw"

    def check(self) -> None:
        """GuestLost when the console or QEMU itself says that the guest is gone."""
        if (sign := self.console.sign) is not None:
            raise self.lost(sign.loss, sign.text)
        if (status := self._child.poll()) is not None:
            raise self.lost(Loss.EXIT, f"QEMU ended with status {status}")

    def lost(self, loss: Loss, message: str) -> GuestLost:
        """The error, with the console's last lines."""
        return GuestLost(loss, message, console_tail=self.console.tail(), hint=str(self.console.path))

    def explain(self, loss: Loss, message: str) -> GuestLost:
        """As `lost`, after giving the console a moment to name the real cause."""
        try:
            Deadline.after(DYING_SECONDS).poll(lambda: self.console.sign is not None or self._child.poll() is not None)
            self.check()
        except GuestLost as cause:
            return cause
        return self.lost(loss, message)

    def open_socket(self, timeout: float = 10.0) -> socket.socket:
        """A TCP connection to the guest's sshd."""
        return self._link.connect(timeout)

    def control_socket(self) -> socket.socket:
        """A stream to whoever has the port mof.control open in the guest."""
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(self._control))
        return stream


def _swap_disk(spec: GuestSpec, folder: Path) -> Path | None:
    """A sparse file; InfraError when the disk cannot hold what the guest may write to it."""
    if not spec.topology.swap_mb:
        return None
    path = folder / "swap.img"
    size = spec.topology.swap_mb * 2**20
    if shutil.disk_usage(folder).free < size:
        raise InfraError(
            f"no space for a swap disk of {spec.topology.swap_mb} MiB",
            where=str(folder),
            hint="free some, or set TMPDIR",
        )
    with path.open("wb") as stream:
        os.truncate(stream.fileno(), size)
    return path


@contextmanager
def launched(spec: GuestSpec, cache: Cache, progress: Progress) -> Iterator[Guest]:
    """Start a guest, wait until its init says that it is up, and end it when the block is left.

    InfraError when QEMU does not start (with its words); GuestLost when the guest does not come up. Nothing stays
    behind, however the block is left: QEMU dies with us even when we are killed.
    """
    program = accelerator.qemu()
    kind = accelerator.choose(cache, program, spec.kernel, progress)
    with ExitStack() as stack:
        # Short on purpose: a unix socket's path is limited to 107 bytes (unix(7)).
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mof-")))
        link = stack.enter_context(network.prepared(spec.net, spec.ssh_port))
        console = Console(spec.work / "console.log")
        machine = qemu.Machine(
            name=spec.name,
            accelerator=kind.value,
            topology=spec.topology,
            kernel=spec.kernel,
            append=" ".join(filter(None, [BASE_APPEND, link.init_parameter, spec.append])),
            root=spec.image.root,
            swap=_swap_disk(spec, folder),
            console=console.path,
            records=spec.work / "events.raw",
            control=folder / "control",
            monitor=folder / "qmp",
            netdev=link.netdev,
        )
        argv = [program.path, *qemu.arguments(machine)]
        words = folder / "qemu.err"
        with words.open("wb") as errors:
            child = stack.enter_context(
                process.started(argv, stdout=errors, stderr=errors, pass_fds=link.pass_fds, grace=1.0)
            )
        deadline = Deadline.after(spec.boot_seconds)
        deadline.poll(lambda: machine.monitor.exists() or child.poll() is not None, 0.01)
        if child.poll() is not None:
            said = words.read_text(errors="replace").strip()
            raise InfraError(
                f"QEMU does not start: {said.splitlines()[-1] if said else f'status {child.returncode}'}",
                where=program.path,
                hint="mof doctor",
                detail=said,
            )
        monitor = stack.enter_context(qmp.connected(machine.monitor, deadline))
        guest = Guest(spec, program, kind, argv, child, console, monitor, link, machine.control)
        _await_ready(guest, deadline)
        yield guest


def _await_ready(guest: Guest, deadline: Deadline) -> None:
    def settled() -> bool:
        guest.check()
        return guest.console.ready

    if not deadline.poll(settled, 0.02):
        what = "printed nothing" if guest.console.silent else "did not come up"
        raise guest.lost(Loss.NO_BOOT, f"the guest {what} within {deadline.seconds:.0f} s")
