"""The verdict of a run: its cases' findings together, and verdict.json."""

from __future__ import annotations

from collections import Counter
from typing import Any

from controller.analysis import case as cases
from controller.analysis import conservation
from controller.analysis.model import (
    AccessFinding,
    CaseFinding,
    Contents,
    Evidence,
    Findings,
    Outcome,
    Waiting,
)

SCHEMA = 1

COUNTERS = (
    "pgmigrate_on_fault", "pgmigrate_on_fault_misplaced", "pgmigrate_on_fault_fail", "mpol_lazy_unmapped",
    "mpol_lazy_fail", "pgmigrate_success", "pgmigrate_fail", "numa_pages_migrated", "pswpin", "pswpout",
)  # fmt: skip
"""Of /proc/vmstat, those that tell of migration and swap; the first five are the series'. In pages."""


def findings(evidence: Evidence) -> Findings:
    """Everything that follows from the evidence of a run that came to its end."""
    issues = conservation.whole(evidence)
    found = tuple(cases.finding(case, evidence, issues) for case in evidence.cases)
    counters: Counter[str] = Counter()
    for case in evidence.cases:
        counters.update({name: case.counters[name] for name in COUNTERS if name in case.counters})
    probes = evidence.probes
    fired = sum(probes.fired.values()) if probes else 0
    received = sum(probes.received.values()) if probes else 0
    lost = sum(probes.lost.values()) if probes else 0
    outcome, reason = _together(found, evidence, lost)
    warnings = [*evidence.warnings, *evidence.undecided, *(issue.text for issue in issues), *_about_probes(evidence)]
    warnings += [f"{case.name}: {text}" for case in found for text in case.warnings]
    shown = tuple(dict.fromkeys(text for text in warnings if text != reason))
    ordered = {name: counters[name] for name in COUNTERS if name in counters}
    return Findings(evidence, found, outcome, reason, shown, ordered, fired, received, lost)


def _about_probes(evidence: Evidence) -> list[str]:
    from probes.registry import BY_NAME

    probes = evidence.probes
    if probes is None:
        return ["no probes: the verdict rests on memtoy's own results and the kernel's counters alone"]
    texts = []
    if not probes.recording:
        texts.append("probes only counted: the verdict rests on memtoy's own results and on counters")
    missing = [name for name in probes.unavailable if name not in BY_NAME or not BY_NAME[name].series]
    texts += [f"probe {name} is not available: {probes.unavailable[name]}" for name in missing]
    series = [name for name in probes.unavailable if name in BY_NAME and BY_NAME[name].series]
    if series:
        texts.append(f"{len(series)} probes on the series' functions are not available: this kernel lacks them")
    return texts


def _together(found: tuple[CaseFinding, ...], evidence: Evidence, lost: int) -> tuple[Outcome, str]:
    """A failed case fails the run, since nothing undecided elsewhere can mend it; else an undecided one decides."""
    if not found:
        return Outcome.UNDECIDED, "no case was run"
    for outcome in (Outcome.FAIL, Outcome.UNDECIDED):
        those = [case for case in found if case.outcome is outcome]
        if those:
            # Corrupt contents are the worst that a case can show: name them first.
            those.sort(key=lambda case: case.contents is not Contents.CORRUPT)
            same = len({case.why for case in those}) == 1
            if same and len(those) == len(found):
                return outcome, those[0].why
            more = f" (and {len(those) - 1} more)" if len(those) > 1 else ""
            return outcome, f"{those[0].name}: {those[0].why}{more}"
    return Outcome.PASS, _passed(found, evidence, lost)


def _passed(found: tuple[CaseFinding, ...], evidence: Evidence, lost: int) -> str:
    if len(found) == 1:
        text = found[0].why
    else:
        pages, moved = sum(case.pages for case in found), sum(case.migrated for case in found)
        text = f"{len(found)} cases, {moved} of {pages} pages moved"
        if all(case.contents is Contents.INTACT for case in found):
            text += ", contents intact"
    probes = evidence.probes
    if probes is not None and probes.recording and not lost:
        text += ", no event lost"
    return text


def case_json(case: CaseFinding) -> dict[str, Any]:
    """One element of verdict.json's `cases`."""
    return {
        "name": case.name,
        "title": case.title,
        "verdict": case.outcome.value,
        "reason": case.why,
        "mechanism": case.mechanism.value,
        "pages": case.pages,
        "migrated": case.migrated,
        "refused": dict(case.refused),
        "from_node": case.from_node,
        "to_node": case.to_node,
        "contents": case.contents.value,
        "cost_per_page": {
            "value": case.cost_per_page.value,
            "unit": case.cost_per_page.unit,
            "of": case.cost_per_page.of,
        },
        "accesses": _accesses_json(case.accesses),
    }


def _accesses_json(seen: AccessFinding | None) -> dict[str, Any] | None:
    """What the memory controller counted; None when it was not asked. By node: reads, writes."""
    if seen is None:
        return None
    return {
        "process": {str(node): list(counts) for node, counts in seen.by_node.items()},
        "kernel": {str(node): list(counts) for node, counts in seen.kernel.items()},
        "local": seen.local,
        "remote": seen.remote,
        "pages_judged": seen.judged,
        "pages_agree": seen.agree,
        "lost": seen.lost,
        "series": [list(sample) for sample in seen.series],
        "waiting": _waiting_json(seen.waiting),
    }


def _waiting_json(seen: Waiting | None) -> dict[str, Any] | None:
    """What the model has had processes wait for memory; None where memory takes no time."""
    if seen is None:
        return None
    return {
        "stall_ns": seen.stall_ns,
        "instructions": seen.instructions,
        "lines": {str(node): lines for node, lines in seen.lines.items()},
    }


def verdict_json(findings: Findings, *, lost: str = "") -> dict[str, Any]:
    """verdict.json, schema 1. `lost`: why the guest did not live to the end; then the verdict is that."""
    evidence = findings.evidence
    probes = evidence.probes
    return {
        "schema": SCHEMA,
        "run": evidence.run,
        "experiment": evidence.experiment,
        "verdict": (Outcome.LOST if lost else findings.outcome).value,
        "reason": lost or findings.reason,
        "kernel": {"id": evidence.kernel_id, "release": evidence.release, "build_id": evidence.build_id},
        "accelerator": evidence.accelerator,
        "clock": evidence.clock.value,
        "qemu": evidence.qemu,
        "topology": evidence.topology,
        "latency": evidence.latency.as_data() if evidence.latency is not None else None,
        "probes": {
            "attached": list(probes.attached) if probes else [],
            "unavailable": dict(probes.unavailable) if probes else {},
            "fired": findings.fired,
            "received": findings.received,
            "lost": findings.lost,
            "overhead": dict(evidence.overhead) if evidence.overhead else None,
        },
        "cases": [case_json(case) for case in findings.cases],
        "counters": dict(findings.counters),
        "warnings": list(findings.warnings),
    }
