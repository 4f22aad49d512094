"""Figures as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping

from controller.analysis.model import AccessFinding, CaseFinding, Cost, LatencyProof


def cost(one: Cost) -> str:
    """`12.3 us` or `8,700 insn`; a dash for none."""
    if one.value is None:
        return "-"
    if one.unit != "ns":
        return f"{one.value:,.0f} insn"
    return f"{one.value / 1000:,.1f} us"


def overhead(found: Mapping[str, float] | None) -> str:
    """`234 insn an event, 490 a page that moves lazily (4.2 %), 283 directly (4.5 %)`; what to do when it is not known."""
    if found is None:
        return "not measured on this kernel: mof bench --only probes"
    lazy, direct = f"{100 * found['share_lazy']:.1f} %", f"{100 * found['share_direct']:.1f} %"
    return (
        f"{found['per_event']:,.0f} insn an event, {found['per_page_lazy']:,.0f} a page that moves lazily ({lazy}), "
        f"{found['per_page_direct']:,.0f} directly ({direct})"
    )


def nodes(case: CaseFinding) -> str:
    """`1 > 2`; where pages were and are; a dash where none is known."""
    if case.from_node is None or case.to_node is None:
        return "-"
    return f"{case.from_node} > {case.to_node}"


def refused(case: CaseFinding) -> str:
    """`extra_refs 1, no_memory 2`."""
    return ", ".join(f"{reason} {count:,}" for reason, count in case.refused.items())


def by_node(counts: Mapping[int, tuple[int, int]]) -> str:
    """Reads and writes by node: `1: 4,096/0, 2: 8/0`; -1 is nowhere known."""
    return ", ".join(
        f"{'elsewhere' if node < 0 else node}: {reads:,}/{writes:,}" for node, (reads, writes) in counts.items()
    )


def accesses(seen: AccessFinding) -> str:
    """What the memory controller shows of a case, in one sentence, what matters most first."""
    total = seen.local + seen.remote
    parts = [f"{100 * seen.local / total:.1f} % local"] if total else []
    if seen.judged:
        parts.append(f"{seen.agree:,} of {seen.judged:,} pages where the kernel says")
    if seen.waiting is not None:
        parts.append(f"waited {seen.waiting.stall_ns / 1e6:,.3f} ms for {sum(seen.waiting.lines.values()):,} lines")
    return "; ".join([*parts, f"reads/writes by node {by_node(seen.by_node) or 'none'}"])


def latency(proof: LatencyProof) -> str:
    """What the guest felt of the memory's latency when that was tried, and what its times are therefore."""
    tried = ", ".join(
        f"node {one.initiator} to {one.target} {one.felt_ns:.2f} of {one.configured_ns:g} ns" for one in proof.pairs
    )
    if proof.felt:
        return f"felt: {tried}"
    return f"modelled stall time only, not felt: {proof.why}"
