"""One record as one line of the trace: aligned columns, numbers in words where the kernel has words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.analysis import names, pageflags
from controller.analysis.decode import NO_NODE, PTE_PRESENT, Columns, Events, state_of_destination
from probes.records import Kind
from probes.registry import BY_ID, BY_NAME, Probe

HEADER = (
    f"{'time':>11} {'cpu':>3} {'task':>5}  {'function':<34} {'address':<12} {'frame':<11} {'node':<4} {'refs':>4}  "
    f"{'result':<22} flags"
)

SPECIAL_SWAP_TYPE = 28
"""Swap types from here on are no swap devices but migration entries and markers (MAX_SWAPFILES, linux/swap.h)."""
SWAP_TYPE_SHIFT = 59
"""Of a page table entry on x86-64 (__swp_type(), arch/x86/include/asm/pgtable_64.h)."""

DEEPER = {"__folio_migrate_mapping": 2, "move_to_new_folio": 1}
"""Functions that are called by others of which, too, only the return is probed (migrate_folio_replace())."""

_PAIRED = {probe.function for probe in BY_ID.values() if probe.kind is Kind.ENTER}


@dataclass(frozen=True)
class Rows:
    """The columns of some records as plain lists: a trace looks at few of them, and one at a time."""

    time: list[int]
    cpu: list[int]
    pid: list[int]
    tid: list[int]
    probe: list[int]
    kind: list[int]
    address: list[int]
    arg: list[int]
    flags: list[int]
    refs: list[int]
    result: list[int]
    aux: list[int]
    pfn: list[int]
    node: list[int]
    dst_pfn: list[int]
    dst_node: list[int]
    has_flags: list[bool]

    @staticmethod
    def of(events: Events, columns: Columns) -> Rows:
        raw: dict[str, Any] = {name: events[name].tolist() for name in events.dtype.names or () if name != "folio"}
        derived = ("pfn", "node", "dst_pfn", "dst_node", "has_flags")
        return Rows(**raw, **{name: getattr(columns, name).tolist() for name in derived})

    def __len__(self) -> int:
        return len(self.time)

    def name(self, i: int) -> str:
        """The probe's name, as in reports."""
        probe = BY_ID.get(self.probe[i])
        return probe.name if probe else f"probe {self.probe[i]}"


def entry_is_special(pte: int) -> bool:
    """Whether the entry that a fault found is for a page under migration, or a marker, and not for a swap slot."""
    return pte >> SWAP_TYPE_SHIFT >= SPECIAL_SWAP_TYPE


def _policy(rows: Rows, i: int, *, length: bool) -> str:
    mode, move = rows.aux[i] & 0xFFFF, rows.aux[i] >> 16
    parts = [names.policy(mode), names.nodes_in(rows.flags[i])]
    text = " ".join(part for part in parts if part)
    if length:
        text += f", {rows.arg[i] // 4096} pages"
    words = names.move_flags(move)
    return f"{text}, {words}" if words else text


def _number(result: int, good: str) -> str:
    return good if result == 0 else f"= {names.error(result)}" if result < 0 else f"= {result}"


def result_words(rows: Rows, i: int) -> str:
    """What the function was asked or answered."""
    name, result, aux = rows.name(i), rows.result[i], rows.aux[i]
    match name:
        case "__x64_sys_mbind" | "do_mbind":
            return _policy(rows, i, length=True)
        case "__x64_sys_mbind.exit" | "do_mbind.exit" | "__x64_sys_migrate_pages.exit" | "__x64_sys_move_pages.exit":
            return _number(result, "= 0")
        case "__x64_sys_move_pages":
            target = aux & 0xFFFF
            return f"{rows.arg[i]} pages, {'where?' if target == 0xFFFF else f'to node {target} ...'}"
        case "__x64_sys_migrate_pages":
            return f"from {names.nodes_in(rows.flags[i])} to {names.nodes_in(rows.arg[i])}"
        case "__x64_sys_get_mempolicy":
            return "|".join(word for bit, word in ((names.F_NODE, "NODE"), (names.F_ADDR, "ADDR")) if aux & bit)
        case "__x64_sys_get_mempolicy.exit":
            answer = f"= 0, node {rows.arg[i]}" if aux & names.F_NODE and aux & names.F_ADDR else "= 0"
            return _number(result, answer)
        case "migrate_pages":
            mode = aux >> 16
            mode_name = names.MIGRATE_MODES[mode] if mode < len(names.MIGRATE_MODES) else str(mode)
            return f"reason {names.reason(aux & 0xFFFF)}, {mode_name}"
        case "migrate_pages.exit":
            return "all migrated" if result == 0 else _number(result, "") + (" left" if result > 0 else "")
        case "folio_isolate_lru.exit":
            return "isolated" if result else "not on the LRU"
        case "try_to_migrate.exit" | "try_to_unmap.exit":
            return "unmapped" if result == 0 else f"{result} mappings left"
        case "__folio_migrate_mapping.exit":
            return _number(result, f"replaced, {aux} ref{'s' if aux != 1 else ''} due")
        case "move_to_new_folio.exit":
            return _number(result, "copied")
        case "migrate_folio_replace.exit":
            return _number(result, "new page on LRU")
        case "migrate_folio_move.exit":
            return _number(result, "moved, mapped again")
        case "remove_migration_pte.exit":
            return "mapped" if result else "stopped"
        case "add_to_swap.exit":
            return f"swap entry {rows.arg[i]:x}" if result else "no swap space"
        case "do_swap_page":
            kind = "write fault" if aux & names.FAULT_WRITE else "read fault"
            return f"{kind}, migrating" if entry_is_special(rows.arg[i]) else kind
        case "do_swap_page.exit":
            words = [word for bit, word in names.VM_FAULT_NAMES if result & bit]
            mapped = ["mapped"] if rows.arg[i] & PTE_PRESENT else ["not mapped"]
            return ", ".join(words + mapped)
        case "swap_cache_get_folio.exit":
            return "found in swap cache" if result else "not in swap cache"
        case "mpol_vma_misplaced.exit":
            return "well placed" if result == NO_NODE else f"belongs on node {result}"
        case "check_migrate_misplaced_folio.exit" | "migrate_folio_on_fault.exit":
            return "goes on with new page" if result == 2 else "page as it was"
        case "migrate_folio_on_fault":
            return f"to node {aux}"
        case "unmap_range_lazy":
            return f"{(rows.arg[i] - rows.address[i]) // 4096} pages"
        case "unmap_range_lazy.exit":
            return f"{result} unmapped"
        case "unmap_folios_lazy.exit":
            return "all unmapped" if result == 0 else f"{result} stay mapped"
        case "migrate:mm_migrate_on_fault":
            origin = aux >> 16 & 0xFF
            whose = names.ORIGINS[origin] if origin < len(names.ORIGINS) else str(origin)
            asked = f"; {names.policy(aux & 0xFFFF)}, set by {whose}" if origin else ""
            return names.mof_result(result) + asked
    return "" if rows.kind[i] == Kind.ENTER else _number(result, "= 0")


def _pair(one: str, other: str) -> str:
    return f"{one}>{other}" if one and other else one or other


def _function(probe: Probe | None, rows: Rows, i: int, depth: int) -> str:
    if probe is None:
        return f"? probe {rows.probe[i]}"
    if probe.kind is Kind.POINT:
        mark = "*"
    elif probe.kind is Kind.ENTER:
        mark = ">"
    else:
        mark = "<" if probe.function in _PAIRED else " "
    return f"{' ' * (depth + DEEPER.get(probe.function, 0))}{mark} {probe.function}"


def line(rows: Rows, i: int, *, zero: int, depth: int) -> str:
    """One record. `zero`: the time (ns) that counts as 0; `depth`: how deep the function is nested."""
    probe = BY_ID.get(rows.probe[i])
    pfn, dst = rows.pfn[i], rows.dst_pfn[i]
    frames = _pair(f"{pfn:x}" if pfn else "", f"{dst:x}" if dst else "")
    node, dst_node = rows.node[i], rows.dst_node[i]
    if rows.probe[i] == BY_NAME["migrate:mm_migrate_on_fault"].id and not dst:
        dst_node = NO_NODE
    nodes = _pair(str(node) if node >= 0 else "", str(dst_node) if dst_node >= 0 else "")
    flags = pageflags.text(rows.flags[i]) if rows.has_flags[i] and probe else ""
    if flags and pfn and dst and probe:
        flags = ("new: " if state_of_destination(probe) else "old: ") + flags
    refs = str(rows.refs[i]) if rows.refs[i] >= 0 else ""
    address = f"{rows.address[i]:x}" if rows.address[i] else ""
    text = (
        f"{(rows.time[i] - zero) / 1000:>11.1f} {rows.cpu[i]:>3} {rows.tid[i]:>5}  "
        f"{_function(probe, rows, i, depth):<34} {address:<12} {frames:<11} {nodes:<4} {refs:>4}  "
        f"{result_words(rows, i):<22} {flags}"
    )
    return text.rstrip()
