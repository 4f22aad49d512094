"""Which QEMU there is, and whether KVM really runs a guest kernel here."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from provision.guest.console import Console
from provision.hardware.qemu import CPU_KVM, Accelerator, Clock
from provision.host import process
from provision.host.cache import Cache, digest
from provision.host.deadline import Deadline
from provision.host.doctor import KvmAnswer as KvmAnswer
from provision.host.errors import InfraError, UserError
from provision.host.progress import Progress

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
OLDEST = (7, 2)

KVM_DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 10.0
PROBE_MB = 256
PROBE_CPUS = 2
_BOOTED = re.compile(r"Unable to mount root fs|VFS: Cannot open root device|Run \S+ as init process")
"""The last thing that a kernel without a root disk says: it has come all the way."""


@dataclass(frozen=True)
class Qemu:
    """The QEMU in use; `version` as it says itself: "10.0.2". `build`: with what its packager added."""

    path: str
    version: str
    build: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """For comparing: (10, 0, 2)."""
        return tuple(int(part) for part in self.version.split("."))


@dataclass(frozen=True)
class Choice:
    """The accelerator that a guest gets; `why` says why it is not KVM, "" otherwise."""

    accelerator: Accelerator
    why: str = ""


def parse_version(text: str) -> str:
    """The version in `qemu-system-x86_64 --version`; InfraError when there is none or it is older than OLDEST."""
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise InfraError(f"{PROGRAM} does not say its version", hint=f"apt-get install {PACKAGE}", detail=text)
    version = ".".join(part for part in found.groups() if part is not None)
    if (int(found[1]), int(found[2])) < OLDEST:
        raise InfraError(
            f"QEMU {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed",
            where=PROGRAM,
            hint="install it from your distribution's backports",
        )
    return version


def find_qemu() -> Qemu:
    """The QEMU on the path. InfraError when it is missing or too old."""
    path = process.find(PROGRAM, PACKAGE)
    said = process.run([path, "--version"], deadline=Deadline.patient(20)).output
    return Qemu(path, parse_version(said), said.splitlines()[0])


def from_environment() -> Accelerator:
    """MOF_ACCEL, AUTO when it is unset or empty. UserError when it is none of the three."""
    text = os.environ.get("MOF_ACCEL", "") or Accelerator.AUTO.value
    try:
        return Accelerator(text)
    except ValueError as wrong:
        names = ", ".join(a.value for a in Accelerator)
        raise UserError(f"{text!r} is no accelerator", where="MOF_ACCEL", hint=f"one of {names}") from wrong


def cannot_count() -> UserError:
    """What to say to somebody who wants both KVM and a clock of instructions."""
    return UserError("KVM cannot count instructions", where="--clock insn", hint="unset MOF_ACCEL, or --clock wall")


def cannot_watch() -> UserError:
    """What to say to somebody who wants both KVM and accesses counted."""
    return UserError(
        "KVM cannot count accesses to memory", where="--memory", hint="unset MOF_ACCEL, or leave --memory out"
    )


def cannot_be_cxl() -> UserError:
    """What to say to somebody who wants both KVM and CXL memory: to QEMU that is registers, of which each access leaves KVM,
    and from which it cannot fetch an instruction."""
    return UserError(
        "KVM cannot run from CXL memory", where="--topology", hint="unset MOF_ACCEL, or choose a topology without cxl"
    )


def resolve(
    wish: Accelerator,
    qemu: Qemu,
    kernel: Path,
    cache: Cache,
    progress: Progress,
    clock: Clock = Clock.WALL,
    *,
    count_accesses: bool = False,
    cxl: bool = False,
) -> Choice:
    """The accelerator to use. AUTO falls back to TCG with one note; KVM that does not work is an InfraError.

    Instructions and accesses are counted by TCG alone, and CXL memory is there with it alone: then KVM is not looked for, and
    wishing for it is a UserError.
    """
    if wish is Accelerator.KVM and cxl:
        raise cannot_be_cxl()
    if wish is Accelerator.KVM and (clock is Clock.INSN or count_accesses):
        raise cannot_count() if clock is Clock.INSN else cannot_watch()
    if wish is Accelerator.TCG or clock is Clock.INSN or count_accesses or cxl:
        return Choice(Accelerator.TCG)
    answer = kvm_works(qemu, kernel, cache, progress)
    if answer.works:
        return Choice(Accelerator.KVM)
    if wish is Accelerator.KVM:
        raise InfraError(
            f"KVM was asked for and does not work: {answer.why}",
            where="MOF_ACCEL",
            hint="unset MOF_ACCEL; TCG emulates instead",
        )
    progress.note(f"no KVM, so TCG emulates: {answer.why}")
    return Choice(Accelerator.TCG, answer.why)


def kvm_works(qemu: Qemu, kernel: Path, cache: Cache, progress: Progress, *, again: bool = False) -> KvmAnswer:
    """Whether a guest kernel boots under KVM: asked once for a host kernel, CPU and QEMU, then remembered.

    `again` asks anew. Whether the device can be opened is cheap and is looked at every time.
    """
    if not KVM_DEVICE.exists():
        return KvmAnswer(False, f"there is no {KVM_DEVICE}")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return KvmAnswer(False, f"{KVM_DEVICE} may not be opened; join the group kvm")
    with cache.lock("kvm-probe", progress):
        memory = _memory(qemu, cache)
        if not again and (known := _recall(memory)) is not None:
            return known
        progress.step("does KVM work here? booting a kernel to see")
        answer = _probe(qemu, kernel)
        _remember(memory, answer)
        return answer


def remembered(qemu: Qemu, cache: Cache) -> KvmAnswer | None:
    """What an earlier probe found on this host; None when there was none. Boots nothing."""
    return _recall(_memory(qemu, cache))


def _memory(qemu: Qemu, cache: Cache) -> Path:
    """Where the answer for this host is kept: it changes with the host's kernel, its CPU and QEMU."""
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        if line.startswith(("model name", "flags", "microcode"))
    ]
    how = probe_arguments(Path("kernel"), Path("console"))
    host = [platform.release(), platform.version()]
    key = digest({"kernel": host, "cpu": cpu, "qemu": [qemu.path, qemu.version], "how": how})
    return cache.root / "host" / f"kvm-{key[:16]}.json"


def _recall(memory: Path) -> KvmAnswer | None:
    try:
        kept = json.loads(memory.read_text())
        return KvmAnswer(bool(kept["works"]), str(kept["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memory: Path, answer: KvmAnswer) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    draft = memory.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"works": answer.works, "why": answer.why}) + "\n")
    draft.replace(memory)


def probe_arguments(kernel: Path, console: Path) -> list[str]:
    """QEMU's arguments for a kernel with two CPUs and nothing else, which boots until it misses its root disk."""
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35,usb=off,vmport=off,smbus=off,sata=off", "-accel", "kvm", "-cpu", CPU_KVM),
        *("-smp", str(PROBE_CPUS), "-m", f"size={PROBE_MB}M"),
        *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"),
        *("-chardev", f"file,id=console,path={str(console).replace(',', ',,')}", "-serial", "chardev:console"),
    ]


def _probe(qemu: Qemu, kernel: Path) -> KvmAnswer:
    """Boot. Firmware that runs proves nothing; a kernel that has come to its end without a root disk does."""
    deadline = Deadline.after(PROBE_SECONDS)
    with tempfile.TemporaryDirectory(prefix="mof-kvm-") as folder:
        console = Console(Path(folder) / "console")
        said = Path(folder) / "qemu"
        argv = [qemu.path, *probe_arguments(kernel, console.path)]
        with said.open("wb") as stream, process.started(argv, stdout=stream, stderr=stream, grace=0.5) as child:
            deadline.poll(lambda: _BOOTED.search(console.tail()) is not None or child.poll() is not None)
            ended = child.poll()
        if _BOOTED.search(console.tail()):
            return KvmAnswer(True, "")
        words = said.read_text(errors="replace").strip()
        if ended and words:
            return KvmAnswer(False, f"QEMU says {words.splitlines()[0].removeprefix(f'{PROGRAM}: ')!r}")
        if last := console.last_line():
            return KvmAnswer(False, f"a guest kernel came no further than {last!r} in {PROBE_SECONDS:.0f} s")
        return KvmAnswer(False, f"{KVM_DEVICE} opens, but a guest kernel said nothing in {PROBE_SECONDS:.0f} s")
