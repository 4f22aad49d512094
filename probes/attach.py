"""From the registry to attached probes: what this kernel has, the programs for it, and where each ended up."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from probes import compiler, kernel
from probes.btf import Btf, BtfError, Function
from probes.programs import Programs, Token, fill, key_of
from probes.records import PAGE_STRUCT_SIZE, VMEMMAP, Kind
from probes.registry import MAX_PROBES, Method, Probe, ProbeSet, probes_of
from probes.ring import Ring

MEMBERS: dict[str, tuple[str, ...]] = {
    "folio": ("flags", "mapping", "index", "_refcount", "_mapcount", "_large_mapcount", "_flags_1", "swap"),
    "vm_fault": ("vma", "address", "flags", "orig_pte", "pte"),
    "vm_area_struct": ("vm_flags",),
    "pt_regs": ("di", "si", "dx", "r10", "r8", "r9"),
}
_NOTES = 4096  # threads that can be in a fault, or in a function under a kprobe, at once
_TRACING = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


class AttachError(Exception):
    """No probe at all can be attached."""


@dataclass
class Attached:
    """Probes at work, their maps, and what became of each probe asked for. Closing it detaches."""

    which: ProbeSet
    probes: list[Probe] = field(default_factory=list)
    how: dict[str, Method] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    ring: Ring | None = None
    programs: Programs | None = None
    """What has been loaded, to be handed to the next run on this kernel."""
    compiled: bool = False
    _counters: int = -1
    _cpus: int = 1
    _fds: list[int] = field(default_factory=list)
    _programs: dict[str, int] = field(default_factory=dict)

    def counters(self) -> dict[int, tuple[int, int]]:
        """For each attached probe's id: how often it fired, and how many of its records were lost."""
        values = (ctypes.c_uint64 * (2 * MAX_PROBES * self._cpus))()
        kernel.lookup(self._counters, 0, values)
        per_cpu = [values[i * 2 * MAX_PROBES : (i + 1) * 2 * MAX_PROBES] for i in range(self._cpus)]
        return {
            probe.id: (sum(v[2 * probe.id] for v in per_cpu), sum(v[2 * probe.id + 1] for v in per_cpu))
            for probe in self.probes
        }

    def missed(self) -> dict[str, int]:
        """Runs that the kernel skipped, by name, where there were any: they are not in `fired`."""
        counts = {name: kernel.missed_runs(fd) for name, fd in self._programs.items()}
        return {name: count for name, count in counts.items() if count}

    def close(self) -> None:
        """Detach all probes and free the maps."""
        if self.ring:
            self.ring.close()
        for fd in reversed(self._fds):
            with suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self.probes.clear()


def _tracepoint_file(category: str, event: str, name: str) -> str:
    for root in _TRACING:
        with suppress(OSError):
            return (root / "events" / category / event / name).read_text()
    raise BtfError("no such tracepoint, or tracefs is not mounted")


def parse_format(text: str) -> dict[str, int]:
    """Offset of each field that a tracepoint's format file declares."""
    found = re.findall(r"field:[^;]*?(\w+)(?:\[[^;]*\])?;\s*offset:(\d+);", text)
    return {name: int(offset) for name, offset in found}


class _Plan:
    """What of the kernel each probe needs, as macros; probes whose needs are not met are left out with a reason."""

    def __init__(self, probes: Iterable[Probe], unavailable: dict[str, str]) -> None:
        self.probes: list[Probe] = []
        self.targets: dict[str, Function] = {}
        self.defines: dict[str, int | None] = {
            "VMEMMAP": VMEMMAP,
            "PAGE_STRUCT_SIZE": PAGE_STRUCT_SIZE,
            **{token.name: int(token) for token in Token},
        }
        asked = list(probes)
        functions = {probe.function for probe in asked if probe.kind is not Kind.POINT}
        symbols = kernel.kernel_symbols(functions)
        btf = Btf.of_kernel((*functions, *MEMBERS, "pageflags"))
        for structure, members in MEMBERS.items():
            for member in members:
                self.defines[f"OFF_{structure}_{member}"] = btf.offset(structure, member)
        self.defines["PG_HEAD"] = btf.enumerator("pageflags", "PG_head")
        for probe in asked:
            try:
                if probe.kind is Kind.POINT:
                    self._add_tracepoint(probe)
                else:
                    self._add_function(probe, btf, symbols[probe.function])
            except BtfError as error:
                hint = " (needs the series)" if probe.series else ""
                unavailable[probe.name] = f"{error}{hint}"
                continue
            self.defines[f"ID_{probe.program}"] = probe.id
            self.probes.append(probe)

    def _add_tracepoint(self, probe: Probe) -> None:
        fields = parse_format(_tracepoint_file(probe.category, probe.function, "format"))
        missing = [name for name in probe.params if name not in fields]
        if missing:
            raise BtfError(f"the tracepoint has no field {', '.join(missing)}")
        for name in probe.params:
            self.defines[f"OFF_{probe.function}_{name}"] = fields[name]

    def _add_function(self, probe: Probe, btf: Btf, symbols: list[str]) -> None:
        if probe.function not in symbols:
            inlined = f"only as {', '.join(symbols)}" if symbols else "not in kallsyms: not built, or inlined"
            raise BtfError(inlined)
        try:
            function = btf.function(probe.function)
        except BtfError as error:
            raise BtfError("in kallsyms but not in BTF: its arguments are unknown") from error
        missing = [name for name in probe.params if name not in function.slots]
        if missing:
            raise BtfError(f"has no parameter {', '.join(missing)}, only {', '.join(function.slots)}")
        self.targets[probe.function] = function
        for name in (*probe.params, *probe.optional):
            self.defines[f"A_{probe.function}_{name}"] = function.slots.get(name, -1)
        self.defines[f"N_{probe.function}"] = function.slot_count


def attach(which: ProbeSet, ring_pages: int, programs: Programs | None = None, kprobes_only: bool = False) -> Attached:
    """Attach every probe of the set that this kernel lets be attached.

    `ring_pages`: pages of the ring buffer, a power of two. `programs` from an earlier run save compiling if they
    fit. `kprobes_only`: as on a kernel without fentry. Raises AttachError if nothing can be attached, with the
    compiler's or the kernel's words.
    """
    if ring_pages < 1 or ring_pages & (ring_pages - 1):
        raise AttachError(f"ring_pages is {ring_pages}, and must be a power of two")
    attached = Attached(which)
    try:
        _attach(attached, ring_pages, programs, kprobes_only)
    except (BtfError, kernel.BpfError, compiler.CompileError, OSError, ValueError) as error:
        attached.close()
        raise AttachError(str(error)) from error
    return attached


def _attach(attached: Attached, ring_pages: int, programs: Programs | None, kprobes_only: bool) -> None:
    started = time.monotonic()

    def lap(name: str) -> None:
        attached.timing[name] = round(time.monotonic() - started - sum(attached.timing.values()), 3)

    plan = _Plan(probes_of(attached.which), attached.unavailable)
    if attached.which is ProbeSet.COUNTS:
        plan.defines["MOF_COUNTS"] = None
    lap("btf")
    values = _make_maps(attached, ring_pages)
    key = key_of(plan.defines, compiler.source())
    if programs is None or programs.key != key:
        wanted = [probe.program for probe in plan.probes if not (kprobes_only and probe.fallback)]
        programs = Programs(key, compiler.compile_programs(plan.defines, wanted))
        attached.compiled = True
    attached.programs = programs
    lap("compile")
    refused: dict[str, str] = {}
    for probe in plan.probes:
        try:
            if kprobes_only and probe.fallback:
                raise kernel.BpfError("not asked for")
            code = fill(programs.code[probe.program], values)
            _attach_one(attached, probe, code, plan.targets.get(probe.function))
        except (kernel.BpfError, BtfError, KeyError) as error:
            refused[probe.name] = str(error)
    lap("attach")
    _fall_back(attached, [probe for probe in plan.probes if probe.name in refused], plan, refused, values)
    lap("fallback")


def _make_maps(attached: Attached, ring_pages: int) -> dict[Token, int]:
    attached._cpus = kernel.possible_cpus()

    def make(kind: int, key: int, value: int, entries: int, name: str) -> int:
        fd = kernel.create_map(kind, key, value, entries, name)
        attached._fds.append(fd)
        return fd

    attached._counters = make(kernel.MAP_PERCPU_ARRAY, 4, 16 * MAX_PROBES, 1, "mof_counters")
    values = {
        Token.FD_COUNTERS: attached._counters,
        Token.FD_NOTES: make(kernel.MAP_HASH, 4, 16, _NOTES, "mof_notes"),
        Token.FD_STASH: make(kernel.MAP_HASH, 8, 64, _NOTES, "mof_stash"),
        Token.AGENT: os.getpid(),
    }
    if attached.which is ProbeSet.FULL:
        size = ring_pages * os.sysconf("SC_PAGESIZE")
        ring = make(kernel.MAP_RINGBUF, 0, 0, size, "mof_ring")
        attached.ring = Ring(ring, size)
        values[Token.FD_RING] = ring
    return values


def _attach_one(attached: Attached, probe: Probe, code: bytes, target: Function | None) -> None:
    if probe.kind is Kind.POINT:
        program = kernel.load_program(kernel.PROG_TRACEPOINT, code, probe.program)
        attached._fds.append(program)
        link = kernel.attach_tracepoint(program, int(_tracepoint_file(probe.category, probe.function, "id")))
    else:
        if target is None:
            raise kernel.BpfError("not in BTF")
        moment = kernel.TRACE_FENTRY if probe.kind is Kind.ENTER else kernel.TRACE_FEXIT
        program = kernel.load_program(kernel.PROG_TRACING, code, probe.program, moment, target.type_id)
        attached._fds.append(program)
        link = kernel.attach_traced(program)
    _note(attached, probe, program, link, probe.method)


def _note(attached: Attached, probe: Probe, program: int, link: int, how: Method) -> None:
    attached._fds.append(link)
    attached._programs[probe.name] = program
    attached.probes.append(probe)
    attached.how[probe.name] = how


def _fall_back(
    attached: Attached, probes: list[Probe], plan: _Plan, refused: dict[str, str], values: dict[Token, int]
) -> None:
    """Attach by kprobe what could not be attached otherwise; a second compilation, so only when needed."""
    able = [probe for probe in probes if probe.fallback is not None]
    attached.unavailable |= {probe.name: refused[probe.name] for probe in probes if probe.fallback is None}
    if not able:
        return
    wanted = {f"ID_{probe.program}" for probe in able}
    defines = {name: value for name, value in plan.defines.items() if not name.startswith("ID_") or name in wanted}
    defines["MOF_KPROBE"] = None
    helpers = [f"{probe.function}_args" for probe in able if probe.kind is Kind.EXIT]
    compiled = compiler.compile_programs(defines, [probe.program for probe in able] + helpers)
    code = {name: fill(program, values) for name, program in compiled.items()}
    for probe in able:
        at_return = probe.kind is Kind.EXIT
        try:
            if at_return:
                keeper = kernel.load_program(kernel.PROG_KPROBE, code[f"{probe.function}_args"], "args")
                attached._fds.append(keeper)
                link = compiler.attach_kprobe(keeper, probe.function, False, f"mof_args_{probe.id}")
                attached._fds.append(link)
            program = kernel.load_program(kernel.PROG_KPROBE, code[probe.program], probe.program)
            attached._fds.append(program)
            link = compiler.attach_kprobe(program, probe.function, at_return, f"mof_{probe.id}")
        except (kernel.BpfError, OSError) as error:
            attached.unavailable[probe.name] = f"{probe.method}: {refused[probe.name]}; {probe.fallback}: {error}"
            continue
        _note(attached, probe, program, link, Method.KRETPROBE if at_return else Method.KPROBE)
