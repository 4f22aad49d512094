"""The probes: where each stands, and what the fields of its record mean. Declared once, for guest and host.

A probe is one attachment: the entry of a function (`do_swap_page`), its return (`do_swap_page.exit`), or a
tracepoint. Many functions have the return alone: fexit sees the arguments as well as the result, at half the
cost. Numbers are part of the record format and are never used twice.

Common to all: `address` is a user virtual address; where a function only has a folio, it is the folio's
index shifted by the page size, which is its address for private anonymous memory that mremap() has not moved, or,
if the folio has no mapping yet, the address on which this thread is in do_swap_page(). `flags` are the folio's unless
something else is said; their top bits are its node (`records.node_of`). `refs` is the folio's reference count at
that moment. In the set `full`, no `refs` are read, nor the `aux` of `do_swap_page.exit`: reading costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from probes.records import Kind


class Method(StrEnum):
    """How a probe is attached, cheapest first."""

    FENTRY = "fentry"
    FEXIT = "fexit"
    TRACEPOINT = "tracepoint"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"


class ProbeSet(StrEnum):
    """What an experiment asks for. What one page adds to the cost of its migration decides which of the three it is."""

    STEPS = "steps"
    """Every step of every page: for the annotated trace, and dear."""
    FULL = "full"
    """Every page, each event that decides what became of it, and every call."""
    COUNTS = "counts"
    """Counters only, of calls and of what faults decided."""


class Stage(StrEnum):
    """What the self-test does to make probes fire."""

    MBIND = "mbind"
    MOVE_PAGES = "move_pages"
    MIGRATE_PAGES = "migrate_pages"
    GET_MEMPOLICY = "get_mempolicy"
    PAGEOUT = "pageout"
    SWAPIN = "swapin"
    LAZY = "lazy"
    TOUCH = "touch"


@dataclass(frozen=True)
class Probe:
    """One attachment. The texts say what a field of its record holds; an empty one: nothing (0, or -1 for refs)."""

    id: int
    function: str
    kind: Kind
    what: str
    params: tuple[str, ...] = ()
    """Parameters the program needs, by the names the kernel's BTF has for them."""
    optional: tuple[str, ...] = ()
    """Parameters that read as 0 where the kernel has none of that name."""
    address: str = ""
    folio: str = ""
    arg: str = ""
    flags: str = ""
    result: str = ""
    refs: str = ""
    aux: str = ""
    category: str = ""
    """Category of a tracepoint."""
    void: bool = False
    """The function returns nothing, so that `result` is something else."""
    series: bool = False
    """Only in kernels with the series: elsewhere it is missing rightly."""
    stage: Stage | None = None
    """What of the self-test fires it; None: it cannot be provoked there."""
    exact: bool = True
    """Whether the stage fires it exactly as often as it acts, or at least that often."""
    sets: frozenset[ProbeSet] = frozenset({ProbeSet.STEPS})

    @property
    def name(self) -> str:
        """Unique name in reports: `function`, `function.exit`, `category:tracepoint`."""
        if self.kind is Kind.POINT:
            return f"{self.category}:{self.function}"
        return self.function if self.kind is Kind.ENTER else f"{self.function}.exit"

    @property
    def program(self) -> str:
        """Name of the C function that is its program."""
        return f"{self.function}_{self.kind.name.lower()}"

    @property
    def method(self) -> Method:
        """How it is attached if the kernel lets it be."""
        return {Kind.ENTER: Method.FENTRY, Kind.EXIT: Method.FEXIT, Kind.POINT: Method.TRACEPOINT}[self.kind]

    @property
    def fallback(self) -> Method | None:
        """How it is attached otherwise; None: not at all."""
        return {Kind.ENTER: Method.KPROBE, Kind.EXIT: Method.KRETPROBE, Kind.POINT: None}[self.kind]


class _Call(TypedDict):
    """Texts that the entry and the return of a system call share."""

    address: str
    arg: str
    flags: str
    aux: str


class _OfFolio(TypedDict):
    """Texts of all probes that record the state of one folio."""

    address: str
    folio: str
    flags: str
    refs: str


_ALL = frozenset(ProbeSet)
"""Sets of what fires once a call or batch, and of what is cheap and decides."""
_EACH = frozenset({ProbeSet.STEPS, ProbeSet.FULL})
"""Sets of what tells of every page what became of it."""
_SRC_FLAGS = "flags of folio"
_REASON = "migrate reason, | migrate mode << 16"
_REASON_ORDER = "migrate reason, | order << 8, | migrate mode << 16"
_MBIND: _Call = {
    "address": "start of the range",
    "arg": "length of the range in bytes",
    "flags": "first 64 nodes of the node mask",
    "aux": "policy mode with its flags, | MPOL_MF_* << 16",
}
_MOVE_PAGES: _Call = {
    "address": "first page asked for",
    "arg": "number of pages",
    "flags": "process asked about (0: caller)",
    "aux": "first target node (0xffff: a query), | MPOL_MF_* << 16",
}
_MIGRATE_PAGES: _Call = {
    "address": "",
    "arg": "first 64 target nodes",
    "flags": "first 64 source nodes",
    "aux": "process (0: caller)",
}
_FOLIO: _OfFolio = {"address": "of the folio", "folio": "the folio", "flags": _SRC_FLAGS, "refs": "of folio"}
_LEFT = "the function returns nothing; mappings that are left"
_RESULT = "0 or -errno"
_BOOL = "1 done, 0 not"
_SAME = "1 the folio itself, 2 another one"

PROBES: tuple[Probe, ...] = (
    # System calls
    Probe(1, "__x64_sys_mbind", Kind.ENTER, "mbind() is called", **_MBIND, stage=Stage.MBIND, sets=_ALL),
    Probe(2, "__x64_sys_mbind", Kind.EXIT, "mbind() returns", **_MBIND, result=_RESULT, stage=Stage.MBIND, sets=_ALL),
    Probe(3, "__x64_sys_move_pages", Kind.ENTER, "move_pages() is called", **_MOVE_PAGES,
          stage=Stage.MOVE_PAGES, sets=_ALL),
    Probe(4, "__x64_sys_move_pages", Kind.EXIT, "move_pages() returns", **_MOVE_PAGES,
          result="pages not moved, or -errno", stage=Stage.MOVE_PAGES, sets=_ALL),
    Probe(5, "__x64_sys_migrate_pages", Kind.ENTER, "migrate_pages() is called", **_MIGRATE_PAGES,
          stage=Stage.MIGRATE_PAGES, sets=_ALL),
    Probe(6, "__x64_sys_migrate_pages", Kind.EXIT, "migrate_pages() returns", **_MIGRATE_PAGES,
          result="pages not moved, or -errno", stage=Stage.MIGRATE_PAGES, sets=_ALL),
    Probe(7, "__x64_sys_get_mempolicy", Kind.ENTER, "get_mempolicy() is called",
          address="asked about", aux="MPOL_F_*", stage=Stage.GET_MEMPOLICY, sets=_ALL),
    Probe(8, "__x64_sys_get_mempolicy", Kind.EXIT, "get_mempolicy() returns",
          address="asked about", arg="what it stored as mode: the node, with MPOL_F_NODE | MPOL_F_ADDR", aux="MPOL_F_*",
          result=_RESULT, stage=Stage.GET_MEMPOLICY, sets=_ALL),
    Probe(10, "do_mbind", Kind.ENTER, "mbind sets the policy and gathers the pages",
          ("start", "len", "mode", "nmask", "flags"), **_MBIND, stage=Stage.MBIND, sets=_ALL),
    Probe(11, "do_mbind", Kind.EXIT, "mbind has dealt with the pages",
          ("start", "len", "mode", "nmask", "flags"), **_MBIND, result=_RESULT, stage=Stage.MBIND, sets=_ALL),
    # Direct migration
    Probe(12, "migrate_pages", Kind.ENTER, "a list of folios is to be migrated", ("mode", "reason"), ("private",),
          arg="private argument of the allocator", aux=_REASON, stage=Stage.MBIND, sets=_ALL),
    Probe(13, "migrate_pages", Kind.EXIT, "the list has been dealt with", ("mode", "reason"), ("private",),
          arg="private argument of the allocator", aux=_REASON, result="folios not migrated, or -errno",
          stage=Stage.MBIND, sets=_ALL),
    Probe(14, "migrate_folio_move", Kind.ENTER, "an unmapped folio is moved to its copy",
          ("src", "dst", "mode", "reason"), **_FOLIO, arg="destination folio", aux=_REASON, stage=Stage.MBIND),
    Probe(15, "migrate_folio_move", Kind.EXIT, "the folio has been moved", ("src", "dst", "mode", "reason"),
          address="of the destination, or of the source if it stays", folio="source, freed by now if all went well",
          arg="destination folio", flags="flags of the destination", refs="of the destination", aux=_REASON_ORDER,
          result=_RESULT, stage=Stage.MBIND, sets=_EACH),
    Probe(16, "move_to_new_folio", Kind.EXIT, "contents and state are copied", ("src", "dst", "mode"),
          **_FOLIO, arg="destination folio", aux="order, | migrate mode << 16", result=_RESULT, stage=Stage.MBIND),
    Probe(17, "__folio_migrate_mapping", Kind.EXIT, "the folio is replaced where it is cached",
          ("newfolio", "folio", "expected_count"), **_FOLIO, arg="destination folio",
          aux="references expected", result=_RESULT, stage=Stage.MBIND),
    Probe(18, "try_to_migrate", Kind.EXIT, "page table entries become migration entries", ("folio", "flags"), **_FOLIO,
          aux="TTU_*, | order << 24", result=_LEFT, void=True, stage=Stage.MBIND),
    Probe(19, "try_to_unmap", Kind.EXIT, "page table entries become swap entries", ("folio", "flags"), **_FOLIO,
          aux="TTU_*, | order << 24", result=_LEFT, void=True, stage=Stage.PAGEOUT, sets=_EACH),
    Probe(20, "remove_migration_pte", Kind.EXIT, "a migration entry becomes a page table entry again",
          ("folio", "addr", "arg"), address="mapped at", folio="folio the entry was made for", arg="folio mapped now",
          flags="flags of the folio mapped now", refs="of the folio mapped now", result=_BOOL, stage=Stage.MBIND),
    # LRU and swap
    Probe(21, "folio_isolate_lru", Kind.EXIT, "the folio is taken off its LRU list", ("folio",), **_FOLIO, result=_BOOL,
          stage=Stage.MBIND),
    Probe(22, "add_to_swap", Kind.EXIT, "the folio is put into the swap cache", ("folio",), **_FOLIO, arg="swap entry",
          aux="order", result=_BOOL, stage=Stage.PAGEOUT),
    Probe(23, "do_swap_page", Kind.ENTER, "a fault finds a swap or migration entry", ("vmf",), address="fault address",
          arg="page table entry found", flags="vm_flags of the area", aux="FAULT_FLAG_*", stage=Stage.SWAPIN,
          exact=False),
    Probe(24, "do_swap_page", Kind.EXIT, "the fault has been dealt with", ("vmf",), address="fault address",
          arg="page table entry now (frame in bits 12 to 51)", aux="FAULT_FLAG_*", result="VM_FAULT_*",
          stage=Stage.SWAPIN, exact=False),
    Probe(25, "swap_cache_get_folio", Kind.EXIT, "the swap cache is looked up", ("entry", "addr"),
          address="fault address", folio="folio found", arg="swap entry", flags=_SRC_FLAGS, refs="of folio",
          result="0 nothing found, 2 a folio", stage=Stage.SWAPIN, exact=False),
    # The series
    Probe(30, "migrate_folio_replace", Kind.EXIT, "the folio is replaced by its copy, not mapped",
          ("src", "dst", "mode"), **_FOLIO, arg="destination folio", aux="migrate mode << 16",
          result=_RESULT, series=True, stage=Stage.MBIND),
    Probe(31, "mpol_vma_misplaced", Kind.EXIT, "the policy says where the folio belongs", ("folio", "vma", "addr"),
          address="fault address", folio="the folio", arg="vm_area_struct", flags=_SRC_FLAGS, refs="of folio",
          result="node it belongs to, -1 if it is well placed", series=True,
          stage=Stage.TOUCH),
    Probe(32, "check_migrate_misplaced_folio", Kind.EXIT, "the fault knows which folio to map", ("folio", "vmf"),
          address="fault address", folio="folio found", arg="folio to go on with",
          flags="flags of the folio to go on with", refs="of the folio to go on with", aux="FAULT_FLAG_*",
          result=_SAME, series=True, stage=Stage.TOUCH),
    Probe(33, "migrate_folio_on_fault", Kind.ENTER, "the fault moves the folio", ("src", "nid"), **_FOLIO,
          aux="target node", series=True,
          stage=Stage.TOUCH),
    Probe(34, "migrate_folio_on_fault", Kind.EXIT, "the folio has been moved, or stays", ("src", "nid"),
          address="of the folio to go on with", folio="source, freed by now if it was moved", arg="folio to go on with",
          flags="flags of the folio to go on with", refs="of the folio to go on with", aux="target node",
          result=_SAME, series=True,
          stage=Stage.TOUCH),
    Probe(35, "unmap_folios_lazy", Kind.ENTER, "mbind unmaps the folios it has gathered", series=True,
          stage=Stage.LAZY, sets=_ALL),
    Probe(36, "unmap_folios_lazy", Kind.EXIT, "all folios have been unmapped", series=True,
          result="folios that stay mapped", stage=Stage.LAZY, sets=_ALL),
    Probe(37, "mm_migrate_on_fault", Kind.POINT, "what became of the folio", category="migrate",
          params=("addr", "src_pfn", "dst_pfn", "dst_nid", "order", "how", "result"),
          address="fault address", folio="source folio", arg="destination folio, 0 if it was not moved",
          flags="node of the policy << 32 (i32, -1 none)",
          aux="policy mode, | its origin << 16, | order << 24", result="enum mof_result, 0 moved",
          series=True,
          stage=Stage.TOUCH, sets=_ALL),
    Probe(38, "unmap_range_lazy", Kind.ENTER, "mbind unmaps pages in their places", ("start", "end"),
          address="start of the range", arg="end of the range", series=True, stage=Stage.LAZY, sets=_ALL),
    Probe(39, "unmap_range_lazy", Kind.EXIT, "the range has been gone through", ("start", "end"),
          address="start of the range", arg="end of the range", result="pages unmapped", series=True,
          stage=Stage.LAZY, sets=_ALL),
)  # fmt: skip

BY_ID: dict[int, Probe] = {probe.id: probe for probe in PROBES}
BY_NAME: dict[str, Probe] = {probe.name: probe for probe in PROBES}
MAX_PROBES = 64
"""Counters in a header of the ring; every id is below."""


def probes_of(which: ProbeSet) -> tuple[Probe, ...]:
    """The probes of a set, by rising id."""
    return tuple(probe for probe in PROBES if which in probe.sets)
