"""Plain language for the phases of the trace: what the kernel is doing, and why.

The statements about reference counts and the order of steps are those of 6.12 with the series (mm/migrate.c,
mm/mempolicy.c, mm/memory.c).
"""

from __future__ import annotations

from controller.analysis import names, pageflags
from controller.report.rows import Rows, entry_is_special
from controller.report.units import Phase, Unit


def pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count:,} pages"


def _target(rows: Rows, i: int) -> str:
    mask = names.nodes_in(rows.flags[i])
    return f"'{names.policy(rows.aux[i] & 0xFFFF)}{', ' + mask if mask else ''}'"


def call(rows: Rows, unit: Unit) -> str:
    """Over a system call that is entered."""
    i = unit.indices[0]
    name, move = rows.name(i), rows.aux[i] >> 16
    if name in ("__x64_sys_mbind", "do_mbind"):
        policy = _target(rows, i)
        if move & names.MF_LAZY:
            return (
                f"mbind() is to make the range's policy {policy}. With MPOL_MF_MOVE alone it would bring pages that sit "
                "elsewhere along at once; because of MPOL_MF_LAZY it only unmaps them, so that whoever touches a page "
                "next moves it."
            )
        if move & (names.MF_MOVE | names.MF_MOVE_ALL):
            return (
                f"mbind() is to make the range's policy {policy}. Because of MPOL_MF_MOVE, pages that sit elsewhere "
                "have to be there before it returns."
            )
        return f"mbind() is to make the range's policy {policy}. Nothing is asked for the pages that exist already."
    if name == "__x64_sys_migrate_pages":
        return (
            f"migrate_pages(2): whatever pages of the process are on {names.nodes_in(rows.flags[i])} go to "
            f"{names.nodes_in(rows.arg[i])}, be they the segment's or the program's own. Policies are left as they are."
        )
    return ""


def gather(rows: Rows, unit: Unit, count: int, *, mbind: bool) -> str:
    nodes = sorted({rows.node[i] for i in unit.indices if rows.node[i] >= 0})
    where = f" on node {nodes[0]}" if nodes else ""
    return (
        f"{'mbind' if mbind else 'The kernel'} walks the page tables of {'the range' if mbind else 'the process'} "
        f"and gathers the pages that are to move: {pages(count)}, the first{where}. Each is isolated, that is, "
        "taken off its LRU list, so that reclaim leaves it alone; the isolation holds one reference."
    )


def batch(rows: Rows, unit: Unit) -> str:
    i = unit.indices[0]
    return f"The gathered pages are handed to page migration, for the reason '{names.reason(rows.aux[i] & 0xFFFF)}'."


def unmap(count: int) -> str:
    return (
        f"Unmapping, {pages(count)}: each gets a new page on the target node, is locked, and every page table "
        "entry for it becomes a migration entry, on which a touch would wait. That takes the mapping's reference "
        "away; the isolation's is left."
    )


def copy(count: int) -> str:
    return (
        f"The copy, {pages(count)}, one by one: if the old page has just the references that are due, so that nobody "
        "else can be looking, its contents are copied and the new page takes over mapping and flags; it goes to the "
        "LRU, the migration entries become page table entries for it, and the old page is freed."
    )


LAZY_WALK = (
    "Instead of being migrated, the pages of the range that this process alone uses are unmapped where the walk of the "
    "page table finds them: each gets a swap slot and with it a place in the swap cache (one reference more), and its "
    "page table entry becomes a swap entry (one less). It never leaves the LRU. No contents are copied, and nothing is "
    "written to the swap device."
)

LAZY_REST = (
    "What could not be unmapped in its place, because it is shared, large, or in use, has been isolated and goes the "
    "longer way: into the swap cache, unmapped wherever it is mapped, and back to the LRU."
)

LAZY_BEGIN = (
    "Instead of being migrated, the gathered pages are put into the swap cache and unmapped: each gets a swap "
    "slot and with it a place in the swap cache (one reference more), and its page table entry becomes a swap "
    "entry (one less). Then it goes back to the LRU, and the isolation's reference is dropped. No contents are "
    "copied, and nothing is written to the swap device."
)


def done(rows: Rows, unit: Unit, seen: set[Phase], *, gathering: bool) -> str:
    """Over a call that returns. `gathering`: whether pages being gathered is recorded, so that none means something."""
    name, result = rows.name(unit.indices[0]), rows.result[unit.indices[0]]
    if result < 0:
        return f"The call fails with {names.error(result)}."
    if name == "unmap_range_lazy.exit":
        return f"{pages(result)} unmapped: still where they were, but no page table points to them."
    if name.startswith("unmap_folios_lazy") and Phase.LAZY_WALK in seen and Phase.LAZY not in seen and not result:
        return "There was nothing of that kind."
    if name.startswith("unmap_folios_lazy"):
        left = f" {pages(result)} could not be unmapped and stay where they are." if result else ""
        return f"All has been unmapped: the pages are where they were, but no page table points to them.{left}"
    if seen & {Phase.LAZY, Phase.LAZY_WALK}:
        return "mbind returns; not a single page has moved yet."
    if Phase.COPY in seen:
        return "The call returns; the pages are on the other node and mapped."
    asked = rows.aux[unit.indices[0]] >> 16 & names.MF_MOVE and "mbind" in name
    if asked and not seen & {Phase.GATHER, Phase.BATCH, Phase.LAZY_BEGIN}:
        if gathering:
            return "No page of the range was in the wrong place: nothing to do."
        return "The call returns; no page of the range was handed to page migration."
    return "The call returns."


def query(rows: Rows, unit: Unit) -> str:
    i = unit.indices[0]
    if rows.aux[i] & 0xFFFF != 0xFFFF:
        return "move_pages(2) moves single pages."
    return (
        "move_pages(2) without target nodes looks where the pages are. It faults nothing in, so looking changes "
        "nothing."
    )


def fault_parts(rows: Rows, unit: Unit) -> list[tuple[str, list[int]]]:
    """A fault step by step: each step's heading, and the positions within the unit of its records."""
    parts: list[tuple[str, list[int]]] = []
    seen: set[str] = set()
    for position, i in enumerate(unit.indices):
        heading = _step(rows, i, unit, seen)
        seen.add(rows.name(i))
        if heading or not parts:
            parts.append((heading, []))
        parts[-1][1].append(position)
    return parts


def _step(rows: Rows, i: int, unit: Unit, seen: set[str]) -> str:
    """The heading over a fault's record if a new step begins with it, else nothing."""
    name, result = rows.name(i), rows.result[i]
    match name:
        case "__x64_sys_get_mempolicy":
            return (
                "get_mempolicy(MPOL_F_NODE|MPOL_F_ADDR) is asked which node the page at the address is on. To know, it "
                "has to have the page mapped, and so it faults it in: asking counts as touching."
            )
        case "do_swap_page":
            return _found_entry(rows, i, asked="__x64_sys_get_mempolicy" in seen)
        case "swap_cache_get_folio.exit":
            if not result:
                return "The swap cache does not have the page any more: it has to be read from the swap device."
            return (
                "The page is still in memory: the fault finds it in the swap cache, "
                f"frame {rows.pfn[i]:x} on node {rows.node[i]}. "
                f"References: {rows.refs[i]}, that is {_holders(rows, i)}."
            )
        case "mpol_vma_misplaced.exit":
            if result < 0:
                return "Nobody maps it and it is not being written. The policy is content with the node it is on."
            return (
                "Nobody maps it and it is not being written: this is the cheap moment to move it. What does the "
                f"policy of this address say? The policy says node {result}, and the page is on node "
                f"{rows.node[i]}: misplaced."
            )
        case "migrate_folio_on_fault":
            return _moving(rows, i, unit)
        case "migrate:mm_migrate_on_fault":
            return _outcome(rows, i) if "do_swap_page" in seen else _whole_fault(rows, i)
        case "do_swap_page.exit":
            moved = unit.shape == "migrated"
            tail = ", and its swap slot, which has served its purpose, is given back" if moved else ""
            if rows.dst_pfn[i]:
                now = f"frame {rows.dst_pfn[i]:x} on node {rows.dst_node[i]}"
                cached = {rows.pfn[k] for k in unit.indices if rows.pfn[k]}
                if cached and not moved and rows.dst_pfn[i] not in cached:
                    return f"A copy is mapped: the page table entry now names {now}."
                return f"The page is mapped: its page table entry now names {now}{tail}."
            return "The fault is over; nothing was mapped, the access will be tried again."
    return ""


def _moving(rows: Rows, i: int, unit: Unit) -> str:
    """How the fault moves a page, by what else was recorded of it."""
    within = {rows.name(k) for k in unit.indices}
    begins = f"So the fault moves it. A page is allocated on node {rows.aux[i]}"
    if within & {"folio_isolate_lru.exit", "move_to_new_folio.exit"}:
        return (
            f"{begins}; the old one is isolated from the LRU, and that reference stands in for the fault's; contents are "
            "copied, references frozen, and the new page takes the old one's place in the swap cache. There are no "
            "page table entries to be replaced."
        )
    return (
        f"{begins}, and the contents are copied. If this entry is the only one for the page, the copy needs no place "
        "in the swap cache: it is mapped, and the old page and its swap slot are given up together."
    )


def _whole_fault(rows: Rows, i: int) -> str:
    """All of a fault that its tracepoint tells, where no other step of it was recorded."""
    found = (
        "The page's table entry is a swap entry, so the access faults; and the page is still in memory: the fault finds "
        f"it in the swap cache, frame {rows.pfn[i]:x} on node {rows.node[i]}."
    )
    if rows.result[i] != names.MOF_MIGRATED:
        return f"{found} {_outcome(rows, i)}"
    target = rows.flags[i] >> 32
    return (
        f"{found} Nobody maps it, it is not being written, and its policy says node {target}: misplaced. So the fault "
        f"moves it to a new page there. {_outcome(rows, i)}"
    )


def _holders(rows: Rows, i: int) -> str:
    """Whose the references of a folio in the swap cache are. One that is off the LRU is referenced by who will put it there."""
    ours = "one of the swap cache"
    others = rows.refs[i] - 2
    if others > 0 and not rows.flags[i] >> pageflags.LRU & 1:
        ours, others = f"{ours}, one of the batch in which it waits for the LRU,", others - 1
    return f"{ours} and one of this fault{', and others' if others > 0 else ''}"


def _found_entry(rows: Rows, i: int, *, asked: bool) -> str:
    if entry_is_special(rows.arg[i]):
        return "The page is being migrated by somebody else: the fault finds a migration entry, and waits for it."
    if asked:
        return "There is a swap entry at that address, so the fault handler for those is called."
    verb = "write to" if rows.aux[i] & names.FAULT_WRITE else "read"
    return f"The task tries to {verb} the page. Its page table entry is a swap entry, so the access faults."


WHY_NOT = {
    "well_placed": "it is on a node that its policy is content with",
    "mapped": "somebody maps it, so that it cannot be moved without unmapping it first",
    "writeback": "it is being written to the swap device",
    "not_uptodate": "it could not be read",
    "foreign": "the fault is on behalf of another process, whose policy this is not",
    "mlocked": "it is locked into memory",
    "ksm": "it is shared by content",
    "will_copy": "the write is about to copy it anyway, to a page on the right node",
    "default_policy": "nobody set a policy explicitly, and vm.migrate_on_fault is 1",
    "off_lru": "somebody else has isolated it",
    "extra_refs": "somebody else holds a reference to it",
    "no_memory": "there is no free memory on the target node",
    "failed": "somebody was quicker, or the copy failed",
    "hwpoison": "it has a memory error",
    "shared_exec": "it is code that other processes map as well",
    "cpuset_off": "the cpuset of the task forbids it",
}
"""Why a fault leaves a page where it is, by enum mof_result."""


def _outcome(rows: Rows, i: int) -> str:
    word = names.mof_result(rows.result[i])
    if rows.result[i] == names.MOF_MIGRATED_AROUND:
        return f"A neighbour has been moved along, to frame {rows.dst_pfn[i]:x}."
    if rows.result[i] == names.MOF_MIGRATED:
        return f"The old page is given up. The fault goes on with the new one, frame {rows.dst_pfn[i]:x}."
    return f"The page stays where it is: {WHY_NOT.get(word, word)}. The fault goes on with it, as it was found."


def same_fault(rows: Rows, unit: Unit, number: int, total: int) -> str:
    """Over a fault that went like one that has been told."""
    last = unit.indices[-1]
    asked = rows.name(unit.indices[0]) == "__x64_sys_get_mempolicy"
    what = "Located" if asked else "Touched"
    node = next((rows.dst_node[i] for i in reversed(unit.indices) if rows.dst_node[i] >= 0), rows.node[last])
    old = next((rows.node[i] for i in unit.indices if rows.node[i] >= 0), -1)
    went = f"node {old} > {node}" if unit.shape == "migrated" else unit.shape.replace("_", " ")
    took = unit.took(rows)
    time = f", {took / 1000:.1f} us" if took is not None else ""
    return f"{what} likewise, {number} of {total}: {unit.address(rows):x}, {went}{time}"
