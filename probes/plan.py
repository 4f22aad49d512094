"""What of the kernel each probe needs: where it can be attached, and as macros, what its program has to know."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from probes import kernel
from probes.btf import TRACEPOINT_CALLER, TRACEPOINT_TYPE, Btf, BtfError, Function
from probes.programs import Token
from probes.records import PAGE_STRUCT_SIZE, VMEMMAP, Kind
from probes.registry import Probe, ProbeSet, probes_of
from probes.ring import COUNTS_OFFSET, HEADER_SIZE

Defines: TypeAlias = dict[str, int | None]
"""Macros; None: defined as nothing."""

MEMBERS: dict[str, tuple[str, ...]] = {
    "folio": ("flags", "mapping", "index", "_refcount", "_mapcount", "_large_mapcount", "_flags_1", "swap"),
    "vm_fault": ("vma", "address", "flags", "orig_pte", "pte"),
    "vm_area_struct": ("vm_flags",),
    "task_struct": ("pid", "tgid"),
    "pt_regs": ("di", "si", "dx", "r10", "r8", "r9"),
}
MEMBERS_OF_SERIES: dict[str, tuple[str, ...]] = {"mpol_decision": ("mode", "origin")}
"""Only in kernels with the series, as are the probes that read them."""


@dataclass(frozen=True)
class Plan:
    """Type ids of the probes that can be attached, by name; why the others cannot; and the macros."""

    targets: dict[str, int]
    unavailable: dict[str, str]
    defines: Defines


def plan(which: ProbeSet) -> Plan:
    """Look what of a set the running kernel has; reading its symbols and types takes a second under emulation.

    Raises BtfError if it has none of the structures that all programs need.
    """
    asked = probes_of(which)
    functions = {probe.function for probe in asked if probe.kind is not Kind.POINT}
    points = {probe.function for probe in asked if probe.kind is Kind.POINT}
    symbols = kernel.kernel_symbols(functions)
    of_points = (prefix + name for name in points for prefix in (TRACEPOINT_TYPE, TRACEPOINT_CALLER))
    btf = Btf.of_kernel((*functions, *of_points, *MEMBERS, *MEMBERS_OF_SERIES, "pageflags"))
    found = Plan({}, {}, _of_all(btf))
    found.defines[f"MOF_{which.name}"] = None
    for probe in asked:
        try:
            target = btf.tracepoint(probe.function) if probe.kind is Kind.POINT else _function(probe, btf, symbols)
            _check(probe, target)
        except BtfError as error:
            hint = " (needs the series)" if probe.series else ""
            found.unavailable[probe.name] = f"{error}{hint}"
            continue
        found.targets[probe.name] = target.type_id
        found.defines[f"ID_{probe.program}"] = probe.id
        found.defines[f"N_{probe.function}"] = target.slot_count
        for name in (*probe.params, *probe.optional):
            found.defines[f"A_{probe.function}_{name}"] = target.slots.get(name, -1)
    return found


def _of_all(btf: Btf) -> Defines:
    """What does not depend on the probe."""
    defines: Defines = {
        "VMEMMAP": VMEMMAP,
        "PAGE_STRUCT_SIZE": PAGE_STRUCT_SIZE,
        "HEADER_SIZE": HEADER_SIZE,
        "COUNTS_OFFSET": COUNTS_OFFSET,
        **{token.name: int(token) for token in Token},
    }
    for structure, members in MEMBERS.items():
        for member in members:
            defines[f"OFF_{structure}_{member}"] = btf.offset(structure, member)
    for structure, members in MEMBERS_OF_SERIES.items():
        with suppress(BtfError):
            for member in members:
                defines[f"OFF_{structure}_{member}"] = btf.offset(structure, member)
    # A structure of one member, which has no name but that of its type: the verifier lets it be read through a pointer.
    defines["OFF_pte_t_pte"] = 0
    defines["PG_HEAD"] = btf.enumerator("pageflags", "PG_head")
    return defines


def _function(probe: Probe, btf: Btf, symbols: dict[str, list[str]]) -> Function:
    found = symbols[probe.function]
    if probe.function not in found:
        inlined = f"only as {', '.join(found)}" if found else "not in kallsyms: not built, or inlined"
        raise BtfError(inlined)
    try:
        return btf.function(probe.function)
    except BtfError as error:
        raise BtfError("in kallsyms but not in BTF: its arguments are unknown") from error


def _check(probe: Probe, target: Function) -> None:
    missing = [name for name in probe.params if name not in target.slots]
    if missing:
        raise BtfError(f"has no parameter {', '.join(missing)}, only {', '.join(target.slots)}")


def only(defines: Defines, probes: Iterable[Probe]) -> Defines:
    """The macros with which only the programs of these probes are compiled."""
    wanted = {f"ID_{probe.program}" for probe in probes}
    return {name: value for name, value in defines.items() if not name.startswith("ID_") or name in wanted}
