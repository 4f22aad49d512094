"""From the registry to attached probes: what this kernel has, the programs for it, and where each ended up."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from probes import compiler, kernel, programs
from probes.btf import BtfError
from probes.plan import only, plan
from probes.programs import Programs, Token, fill
from probes.records import RECORD_SIZE, Kind
from probes.registry import BY_NAME, Method, Probe, ProbeSet, probes_of
from probes.ring import Bell, Geometry, Ring

_THREADS = 4096  # that can be in a fault, or in a function under a kprobe, at once
_MOMENTS = {Kind.ENTER: kernel.TRACE_FENTRY, Kind.EXIT: kernel.TRACE_FEXIT, Kind.POINT: kernel.TRACE_RAW_TP}


class AttachError(Exception):
    """No probe at all can be attached."""


@dataclass
class Attached:
    """Probes at work, their maps, and what became of each probe asked for. Closing it detaches."""

    which: ProbeSet
    ring: Ring
    bell: Bell | None = None
    probes: list[Probe] = field(default_factory=list)
    how: dict[str, Method] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    programs: Programs | None = None
    """What has been loaded, to be handed to the next run on this kernel."""
    compiled: bool = False
    _fds: list[int] = field(default_factory=list)
    _programs: dict[str, int] = field(default_factory=dict)

    @property
    def recording(self) -> bool:
        """Whether there are records, and not counters alone."""
        return self.which is not ProbeSet.COUNTS

    def counters(self) -> dict[int, tuple[int, int]]:
        """For each attached probe's id: how often it fired, and how many of its records were lost."""
        return self.ring.counters([probe.id for probe in self.probes])

    def missed(self) -> dict[str, int]:
        """Runs that the kernel skipped, by name, where there were any: they are not in `fired`."""
        counts = {name: kernel.missed_runs(fd) for name, fd in self._programs.items()}
        return {name: count for name, count in counts.items() if count}

    def keep(self, fd: int) -> int:
        """Close this descriptor when closing."""
        self._fds.append(fd)
        return fd

    def note(self, probe: Probe, program: int, link: int, how: Method) -> None:
        """A probe has been attached."""
        self.keep(link)
        self._programs[probe.name] = program
        self.probes.append(probe)
        self.how[probe.name] = how

    def close(self) -> None:
        """Detach all probes and free the maps."""
        for fd in reversed(self._fds):
            with suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self.probes.clear()
        self.ring.close()
        if self.bell:
            self.bell.close()


def attach(which: ProbeSet, ring_pages: int, known: Programs | None = None, kprobes_only: bool = False) -> Attached:
    """Attach every probe of the set that this kernel lets be attached.

    `ring_pages`: pages of records, a power of two. `known` from an earlier run saves looking for what the kernel has,
    and compiling, if it fits. `kprobes_only`: as on a kernel without fentry. Raises AttachError if nothing can be
    attached, with the compiler's or the kernel's words.
    """
    started = time.monotonic()
    attached = None
    try:
        geometry = Geometry.of(1 if which is ProbeSet.COUNTS else ring_pages, kernel.possible_cpus())
        fd = kernel.create_map(kernel.MAP_ARRAY, 4, geometry.size, 1, "mof_ring", kernel.F_MMAPABLE)
        attached = Attached(which, Ring(fd, geometry))
        attached.keep(fd)
        _attach(attached, _values(attached, fd), known, kprobes_only, started)
    except (BtfError, kernel.BpfError, compiler.CompileError, OSError, ValueError) as error:
        if attached:
            attached.close()
        raise AttachError(str(error)) from error
    return attached


def _attach(
    attached: Attached, values: dict[Token, int], known: Programs | None, kprobes_only: bool, started: float
) -> None:
    def lap(name: str) -> None:
        attached.timing[name] = round(time.monotonic() - started - sum(attached.timing.values()), 3)

    which = attached.which
    identity = (kernel.identity(), which.value, programs.sources())
    lap("maps")
    if known is None or kprobes_only or (known.kernel, known.which, known.sources) != identity:
        found = plan(which)
        lap("plan")
        wanted = [BY_NAME[name].program for name in found.targets if not (kprobes_only and BY_NAME[name].fallback)]
        code = compiler.compile_programs(found.defines, wanted)
        known = Programs(*identity, found.targets, found.unavailable, code)
        attached.compiled = True
        lap("compile")
    attached.programs = known
    attached.unavailable |= known.unavailable
    refused: dict[str, str] = {}
    for probe in probes_of(which):
        if probe.name not in known.targets:
            continue
        try:
            if kprobes_only and probe.fallback:
                raise kernel.BpfError("not asked for")
            _attach_one(attached, probe, fill(known.code[probe.program], values), known.targets[probe.name])
        except (kernel.BpfError, KeyError) as error:
            refused[probe.name] = str(error)
    lap("attach")
    if refused:
        _fall_back(attached, refused, values)
        lap("fallback")


def _values(attached: Attached, ring: int) -> dict[Token, int]:
    """What is filled in for the tokens."""
    geometry = attached.ring.geometry
    values = {
        Token.FD_RING: ring,
        Token.STRIDE: geometry.stride,
        Token.SPAN_MASK: geometry.span - RECORD_SIZE,
        Token.AGENT: os.getpid(),
    }
    if attached.recording:
        bell = attached.keep(kernel.create_map(kernel.MAP_RINGBUF, 0, 0, mmap.PAGESIZE, "mof_bell"))
        values[Token.FD_BELL] = bell
        attached.bell = Bell(bell)
    if attached.which is ProbeSet.STEPS:
        values[Token.FD_NOTES] = attached.keep(kernel.create_map(kernel.MAP_HASH, 4, 16, _THREADS, "mof_notes"))
    return values


def _attach_one(attached: Attached, probe: Probe, code: bytes, target: int) -> None:
    program = kernel.load_program(kernel.PROG_TRACING, code, probe.program, _MOMENTS[probe.kind], target)
    attached.keep(program)
    attached.note(probe, program, kernel.attach_traced(program), probe.method)


def _fall_back(attached: Attached, refused: Mapping[str, str], values: Mapping[Token, int]) -> None:
    """Attach by kprobe what could not be attached otherwise; planned and compiled for itself, so only when needed."""
    probes = [BY_NAME[name] for name in refused]
    able = [probe for probe in probes if probe.fallback is not None]
    attached.unavailable |= {probe.name: refused[probe.name] for probe in probes if probe.fallback is None}
    if not able:
        return
    defines = only(plan(attached.which).defines, able)
    defines["MOF_KPROBE"] = None
    helpers = [f"{probe.function}_args" for probe in able if probe.kind is Kind.EXIT]
    compiled = compiler.compile_programs(defines, [probe.program for probe in able] + helpers)
    stash = attached.keep(kernel.create_map(kernel.MAP_HASH, 8, 64, _THREADS, "mof_stash"))
    values = {**values, Token.FD_STASH: stash}

    def load(name: str) -> int:
        return attached.keep(kernel.load_program(kernel.PROG_KPROBE, fill(compiled[name], values), name))

    for probe in able:
        try:
            _by_kprobe(attached, probe, load)
        except (kernel.BpfError, OSError) as error:
            attached.unavailable[probe.name] = f"{probe.method}: {refused[probe.name]}; {probe.fallback}: {error}"


def _by_kprobe(attached: Attached, probe: Probe, load: Callable[[str], int]) -> None:
    at_return = probe.kind is Kind.EXIT
    if at_return:
        keeper = load(f"{probe.function}_args")
        attached.keep(compiler.attach_kprobe(keeper, probe.function, False, f"mof_args_{probe.id}"))
    program = load(probe.program)
    link = compiler.attach_kprobe(program, probe.function, at_return, f"mof_{probe.id}")
    attached.note(probe, program, link, Method.KRETPROBE if at_return else Method.KPROBE)
