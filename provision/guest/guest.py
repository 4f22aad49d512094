"""A running guest: started, watched, and gone when the block is left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from provision.guest import accelerator, memctl, network, snapshot
from provision.guest.accelerator import Qemu
from provision.guest.console import Console
from provision.guest.memctl import MemoryController
from provision.guest.network import Net, Network
from provision.guest.qmp import Monitor, MonitorError, MonitorGone, connected
from provision.guest.snapshot import Saved
from provision.hardware import qemu as command_line
from provision.hardware.qemu import Accelerator, Clock, Latency, MachineSpec, MemoryPlugin, RamFiles, check_version
from provision.hardware.topology import Topology
from provision.host import process
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss
from provision.host.progress import Progress

BOOT_SECONDS = 60.0
START_SECONDS = 20.0
"""From QEMU's start to its monitor's greeting."""
QUIT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""A guest that answers nothing for so long, on an idle host, hangs."""
EXIT_NOTICE_SECONDS = 0.5
"""QEMU's end and the console's last words may become visible in either order."""
RESTORE_SECONDS = 30.0
"""From the monitor's greeting until the state of a saved guest has been read."""

CONSOLE_LOG = "console.log"
RECORDS = "events.raw"
LINES = "lines.raw"
QEMU_LOG = "qemu.log"

RUNTIME_PREFIX = "mof-"


class RootImage(Protocol):
    """What a guest needs of an image: its raw root file system, never written to."""

    @property
    def root(self) -> Path: ...


@dataclass(frozen=True)
class GuestSpec:
    """What to start. `work`: the run folder; console, records and QEMU's own words go there. `accelerator` AUTO follows
    MOF_ACCEL. `port`: on the host's loopback, 0 for any. `append`: more kernel parameters. `features`: more of the
    processor's, in QEMU's words.

    `keep`: a folder for the guest's memory and swap, which then can be saved (provision.guest.snapshot). `saved`: go on
    with a guest that was, instead of booting; all else has to be as it was then. `count_accesses`: with the memory-controller
    plugin, which only TCG can have; with `latency` it also has them take their time.
    """

    kernel: Path
    image: RootImage
    topology: Topology
    work: Path
    net: Net = Net.USER
    accelerator: Accelerator = Accelerator.AUTO
    append: str = ""
    name: str = "mof"
    port: int = 0
    boot_seconds: float = BOOT_SECONDS
    clock: Clock = Clock.WALL
    keep: Path | None = None
    saved: Saved | None = None
    features: tuple[str, ...] = ()
    count_accesses: bool = False
    latency: Latency | None = None


class Guest:
    """A guest that has booted, or that goes on with the life of another. Made by launched()."""

    def __init__(
        self,
        spec: GuestSpec,
        qemu: Qemu,
        choice: accelerator.Choice,
        argv: tuple[str, ...],
        console: Console,
        net: Network,
        control: Path,
        child: subprocess.Popen[bytes],
        memory: MemoryController | None = None,
    ) -> None:
        self.spec = spec
        self.accelerator = choice.accelerator
        self.accelerator_why = choice.why
        self.qemu = qemu
        self.argv = argv
        self.console = console
        self.records = spec.work / RECORDS
        self.lines = spec.work / LINES
        self.timings: dict[str, float] = {}
        """Seconds from QEMU's start to its `monitor`'s greeting, and to the guest being `ready` or `forked`."""
        self.monitor: Monitor | None = None
        self.memory = memory
        """Where accesses are counted."""
        self._network = net
        self._control = control
        self._child = child

    @property
    def qmp(self) -> Monitor:
        """QEMU's monitor."""
        assert self.monitor is not None
        return self.monitor

    def open_socket(self, deadline: Deadline | None = None) -> socket.socket:
        """A TCP socket that is connected to the guest's sshd, or to QEMU on its behalf. OSError when there is none."""
        return self._network.open_socket(deadline or Deadline.patient(ANSWER_SECONDS))

    def control_socket(self) -> socket.socket:
        """A unix stream to the port mof.control. QEMU serves one at a time; a second one waits for its end."""
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(self._control))
        except BaseException:
            stream.close()
            raise
        return stream

    def processor_ns(self) -> int:
        """Processor time that QEMU has taken so far, all its threads together, in ns (/proc/PID/task/TID/schedstat)."""
        total = 0
        for thread in Path(f"/proc/{self._child.pid}/task").iterdir():
            with suppress(OSError):  # it has just ended
                total += int((thread / "schedstat").read_text().split()[0])
        return total

    def check(self) -> None:
        """GuestLost when the console or QEMU says that the guest is lost. Cheap: call it while waiting for anything."""
        ended = self._child.poll() is not None
        found = self.console.poll()
        if found.fault is None and not ended:
            return
        found = self.console.settle()
        if found.fault is not None:
            where = f", at {found.at}" if found.at else ""
            raise self.lost(found.fault.loss, found.fault.line + where)
        raise self.lost(Loss.EXIT, self._how_it_ended())

    def require_alive(self, doing: str) -> None:
        """GuestLost (hang) unless the guest still answers; `doing` says what it was to do when it fell silent."""
        self.check()
        deadline = Deadline.patient(ANSWER_SECONDS)
        if not self.answers(deadline):
            self.check()
            stalls = self.console.poll().stalls
            hint = f"; the kernel said: {stalls[-1]}" if stalls else ""
            raise self.lost(Loss.HANG, f"{doing}, and the guest has not answered for {deadline.seconds:.0f} s{hint}")

    def answers(self, deadline: Deadline) -> bool:
        """Whether QEMU runs the guest and its sshd greets, for which scheduler, memory, network and disk must work."""
        try:
            if self.qmp.execute("query-status", deadline=deadline).get("status") != "running":
                return False
            with self.open_socket(deadline) as stream:
                stream.settimeout(max(0.1, deadline.remaining()))
                return stream.recv(4) != b""
        except (OSError, MonitorError, MonitorGone):
            return False

    def lost(self, loss: Loss, message: str) -> GuestLost:
        """The error, with the console's last lines."""
        return GuestLost(loss, message, console_tail=self.console.tail(), hint=f"all of it: {self.console.path}")

    def _how_it_ended(self) -> str:
        events = self.monitor.events if self.monitor is not None else ()
        reasons = [str(event.data.get("reason", "")) for event in events if event.name == "SHUTDOWN"]
        told = {
            "guest-shutdown": "the guest powered itself off",
            "guest-reset": "the guest reset itself",
            "guest-panic": "the guest panicked",
        }
        if reasons and reasons[-1] in told:
            return told[reasons[-1]]
        status = self._child.poll()
        words = process.tail((self.spec.work / QEMU_LOG).read_text(errors="replace"), 1) if self._has_words() else ""
        how = f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return f"QEMU {how}" + (f": {words}" if words else "")

    def _has_words(self) -> bool:
        with suppress(OSError):
            return (self.spec.work / QEMU_LOG).stat().st_size > 0
        return False

    def _go_on(self, saved: Saved, monitor: Monitor) -> None:
        try:
            snapshot.restore(monitor, saved, self.qemu, Deadline.patient(RESTORE_SECONDS))
        except snapshot.Unusable as wrong:
            # A state that does not fit ends QEMU, with a word in its log; a signal has nothing to do with it.
            Deadline.after(EXIT_NOTICE_SECONDS).poll(lambda: self._child.poll() is not None)
            status = self._child.poll()
            if status is not None and status < 0:
                raise self.lost(Loss.EXIT, self._how_it_ended()) from wrong
            if status:
                raise snapshot.Unusable(self._how_it_ended(), where=wrong.where) from wrong
            raise

    def _await_ready(self, began: float) -> None:
        deadline = Deadline.patient(self.spec.boot_seconds)

        def ready() -> bool:
            self.check()
            return self.console.ready

        if not deadline.poll(ready):
            last = self.console.last_line()
            words = f"its last words: {last}" if last else "it said nothing at all"
            raise self.lost(Loss.NO_BOOT, f"not up within {deadline.seconds:.0f} s; {words}")
        self.timings["ready"] = round(time.monotonic() - began, 3)


def _runtime_base() -> Path:
    """Where the private folder of sockets goes: a unix path has 108 bytes at most, and work folders may be deep."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base and len(base) <= 60 and os.access(base, os.W_OK | os.X_OK):
        return Path(base)
    return Path("/tmp")


def _sweep(base: Path) -> None:
    """Remove the folders of guests whose process was killed: the process id is in the name."""
    for path in base.glob(f"{RUNTIME_PREFIX}[0-9]*-*"):
        pid = path.name.split("-")[1]
        with suppress(OSError):
            if pid.isdigit() and path.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _runtime_folder() -> Iterator[Path]:
    base = _runtime_base()
    _sweep(base)
    prefix = f"{RUNTIME_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A unix socket that listens before QEMU inherits it: whoever connects needs not wait for QEMU."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(path))
        stream.listen(4)
        yield stream


@contextmanager
def _swap_file(spec: GuestSpec) -> Iterator[int | None]:
    """The swap disk's descriptor: a sparse file without a name, so that nothing stays of it, or the one to be kept.

    A fork gets a layer of its own, filled with what little its template had written.
    """
    if not spec.topology.swap_mb:
        yield None
        return
    if spec.keep is not None:
        with (spec.keep / snapshot.SWAP).open("w+b") as kept:
            kept.truncate(spec.topology.swap_mb << 20)
            yield kept.fileno()
        return
    with tempfile.TemporaryFile(dir=spec.work) as stream:
        stream.truncate(spec.topology.swap_mb << 20)
        if spec.saved is not None:
            snapshot.copy_data(spec.saved.swap, stream)
        yield stream.fileno()


def _ram(spec: GuestSpec, qemu: Qemu) -> RamFiles | None:
    if spec.saved is not None:
        return RamFiles(spec.saved.folder, private=True, readable=qemu.number >= snapshot.READS_WITHOUT_WRITING)
    return RamFiles(spec.keep, private=False) if spec.keep is not None else None


@contextmanager
def launched(spec: GuestSpec, cache: Cache, progress: Progress) -> Iterator[Guest]:
    """A guest that accepts logins; gone, with everything it needed, when the block is left, however it is left.

    InfraError when QEMU is missing or does not start, GuestLost when the guest does not come up, snapshot.Unusable when
    the state of a saved one cannot be read. Call it in the main thread: QEMU ends with the thread that started it
    (provision.host.process).
    """
    qemu = accelerator.find_qemu()
    check_version(spec.topology, qemu.number)
    wish = spec.accelerator if spec.accelerator is not Accelerator.AUTO else accelerator.from_environment()
    choice = accelerator.resolve(
        wish,
        qemu,
        spec.kernel,
        cache,
        progress,
        spec.clock,
        count_accesses=spec.count_accesses,
        cxl=bool(spec.topology.cxl_nodes),
    )
    built = memctl.ensure(cache, qemu.number, progress) if spec.count_accesses else None
    log = spec.work / QEMU_LOG
    console = Console(spec.work / CONSOLE_LOG)
    console.path.write_bytes(spec.saved.console.read_bytes() if spec.saved is not None else b"")
    with ExitStack() as stack:
        net = stack.enter_context(network.opened(spec.net, spec.port))
        folder = stack.enter_context(_runtime_folder())
        swap = stack.enter_context(_swap_file(spec))
        stack.callback(_remove_if_empty, log)
        words = stack.enter_context(log.open("wb"))
        plugin = MemoryPlugin(built, folder / "memctl", spec.latency) if built is not None else None
        with _listening(folder / "qmp") as qmp, _listening(folder / "control") as control:
            machine = MachineSpec(
                name=spec.name,
                topology=spec.topology,
                accelerator=choice.accelerator,
                kernel=spec.kernel,
                root=spec.image.root,
                console=console.path,
                records=spec.work / RECORDS,
                lines=spec.work / LINES,
                control_fd=control.fileno(),
                qmp_fd=qmp.fileno(),
                swap_fd=swap,
                net=net.backend,
                clock=spec.clock,
                ram=_ram(spec, qemu),
                incoming=spec.saved is not None,
                append=spec.append,
                features=spec.features,
                plugin=plugin,
            )
            argv = (qemu.path, *command_line.arguments(machine))
            fds = [qmp.fileno(), control.fileno(), *net.fds, *([swap] if swap is not None else [])]
            began = time.monotonic()
            child = stack.enter_context(process.started(argv, stdout=words, stderr=words, pass_fds=fds))
        # Our ends of the listeners are closed: when QEMU ends, connecting fails instead of waiting.
        memory = MemoryController(plugin.socket) if plugin is not None else None
        guest = Guest(spec, qemu, choice, argv, console, net, folder / "control", child, memory)
        guest.monitor = _greeted(stack, folder / "qmp", child, log)
        guest.timings["monitor"] = round(time.monotonic() - began, 3)
        stack.callback(_quit, guest.monitor, child)
        net.started(guest.monitor)
        if spec.saved is None:
            guest._await_ready(began)
        else:
            guest._go_on(spec.saved, guest.monitor)
            guest.timings["forked"] = round(time.monotonic() - began, 3)
        yield guest


def _greeted(stack: ExitStack, path: Path, child: subprocess.Popen[bytes], log: Path) -> Monitor:
    """The monitor. InfraError, with what QEMU said, when it did not start."""
    deadline = Deadline.patient(START_SECONDS)
    try:
        return stack.enter_context(connected(str(path), deadline))
    except MonitorGone as gone:
        Deadline.after(EXIT_NOTICE_SECONDS).poll(lambda: child.poll() is not None)
        said = log.read_text(errors="replace").strip()
        how = "did not start" if child.poll() is not None else f"did not answer within {deadline.seconds:.0f} s"
        reason = said.splitlines()[-1].partition(": ")[2] if said else ""
        raise InfraError(
            f"QEMU {how}" + (f": {reason}" if reason else ""),
            where=accelerator.PROGRAM,
            hint=_mend(said),
            detail=process.tail(said),
        ) from gone


def _mend(said: str) -> str:
    """A hint for what QEMU most often says when it does not start."""
    for words, mend in (
        ("Could not set up host forwarding rule", "the port is taken: choose another, or leave the choice to us"),
        ("annot allocate memory", "choose a smaller topology, or end something that uses memory"),
        ("annot set up guest memory", "choose a smaller topology, or end something that uses memory"),
        ("Failed to get", "another program has the file locked"),
        ("Could not load plugin", "this QEMU's plugins are of another kind: take 7.2 to 10, or leave --memory out"),
        ("-plugin: invalid option", "this QEMU was built without plugins: take Debian's, or leave --memory out"),
    ):
        if words in said:
            return mend
    return "what it said is below"


def _quit(monitor: Monitor, child: subprocess.Popen[bytes]) -> None:
    """Ask QEMU to end; process.started() ends it surely."""
    if child.poll() is not None:
        return
    with suppress(MonitorError, MonitorGone):
        monitor.execute("quit", deadline=Deadline.after(QUIT_SECONDS))
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=QUIT_SECONDS)


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()
