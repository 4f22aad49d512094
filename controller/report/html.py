"""report.html: the run in one file that opens without a network, in light and dark, and prints."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from controller.analysis.model import AccessFinding, Clock, Findings, Outcome
from controller.report import figures, picture, shares, trace

MOST_TRACE_LINES = 20_000


def _facts(findings: Findings, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the machine was, as pairs; those that are not known are left out."""
    evidence = findings.evidence
    probes = evidence.probes
    host = manifest.get("host")
    told = "" if probes is None else f"{findings.fired:,} fired, {findings.received:,} received, {findings.lost:,} lost"
    pairs = [
        ("run", evidence.run),
        ("experiment", evidence.experiment),
        ("kernel", " ".join(x for x in (evidence.kernel_id, f"({evidence.release})" if evidence.release else "") if x)),
        ("build id", evidence.build_id),
        ("topology", evidence.topology),
        ("QEMU", evidence.qemu),
        ("accelerator", evidence.accelerator),
        ("clock", "instructions" if evidence.clock is Clock.INSN else "wall"),
        ("latency", "" if evidence.latency is None else figures.latency(evidence.latency)),
        ("probes", "none" if probes is None else f"{len(probes.attached)} attached"),
        ("not available", "" if probes is None else ", ".join(probes.unavailable)),
        ("events", told),
        ("cost of the probes", "" if probes is None else figures.overhead(evidence.overhead)),
        ("counters", ", ".join(f"{name} {count:,}" for name, count in findings.counters.items())),
        ("host", " ".join(str(v) for v in host.values()) if isinstance(host, Mapping) else ""),
        ("started", str(manifest.get("started", ""))),
        ("ended", str(manifest.get("ended", ""))),
    ]
    return [(name, value) for name, value in pairs if value]


def _repeat(findings: Findings, manifest: Mapping[str, Any]) -> str:
    """The command that runs the same again."""
    evidence = findings.evidence
    experiment = str(manifest.get("experiment") or evidence.experiment or "EXPERIMENT")
    parts = ["mof", "run", experiment]
    if evidence.kernel_id:
        parts += ["--kernel", evidence.kernel_id]
    if evidence.topology:
        parts += ["--topology", evidence.topology]
    probes = manifest.get("probes")
    if evidence.probes is None:
        parts += ["--probes", "none"]
    elif isinstance(probes, Mapping) and "set" in probes:
        parts += ["--probes", str(probes["set"])]
    if evidence.clock is Clock.INSN:
        parts += ["--clock", "insn"]
    if evidence.latency is not None:
        parts.append("--latency")
    elif any(case.accesses is not None for case in evidence.cases):
        parts.append("--memory")
    return " ".join(parts)


def _cases(findings: Findings, story: str) -> list[dict[str, Any]]:
    told = {chapter.name: chapter for chapter in trace.chapters(story)}
    left = MOST_TRACE_LINES
    cases = []
    for case, finding in zip(findings.evidence.cases, findings.cases, strict=True):
        chapter = told.get(case.name)
        sections = []
        for section in chapter.sections if chapter else ():
            lines = _trimmed(section.lines)
            left -= len(lines)
            if left >= 0:
                # Commands in which the kernel had something to do are what a reader comes for.
                sections.append({"title": section.title, "text": "\n".join(lines), "open": len(lines) > 12})
        cases.append(
            {
                "name": finding.name,
                "title": finding.title,
                "outcome": finding.outcome.value,
                "why": finding.why,
                "mechanism": finding.mechanism.value,
                "moved": f"{finding.migrated:,} of {finding.pages:,}",
                "nodes": figures.nodes(finding),
                "contents": finding.contents.value,
                "refused": figures.refused(finding),
                "cost": figures.cost(finding.cost_per_page),
                "cost_of": finding.cost_per_page.of,
                "picture": picture.picture(case, finding),
                "drawn": len(finding.steps),
                "pages": finding.pages,
                "script": case.script_text,
                "warnings": finding.warnings,
                "accesses": _accesses(finding.accesses),
                "sections": [section for section in sections if section["title"] or section["text"]],
            }
        )
    return cases


def _accesses(seen: AccessFinding | None) -> dict[str, Any] | None:
    """What the memory controller saw, and what the kernel says, page by page."""
    if seen is None:
        return None
    return {
        "told": figures.accesses(seen),
        "kernel": figures.by_node(seen.kernel),
        "pages": [
            {
                "address": f"{page.address:#x}",
                "kernel": f"{page.before} to {page.after}" if page.before not in (-1, page.after) else str(page.after),
                "counted": figures.by_node(page.counted),
                "agrees": page.agrees,
            }
            for page in seen.pages
        ],
        "judged": seen.judged,
        "picture": shares.line(seen.series),
        "chart": shares.chart(seen.ranges),
    }


def _trimmed(lines: tuple[str, ...]) -> list[str]:
    """Without the blank lines at both ends."""
    kept = list(lines)
    while kept and not kept[0]:
        kept.pop(0)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def render(findings: Findings, story: str, manifest: Mapping[str, Any], *, lost: str = "") -> str:
    """The whole page. `story` is trace.txt; `manifest` is manifest.json; `lost`: how the guest was lost, if it was."""
    import jinja2

    source = resources.files("controller.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    outcome = Outcome.LOST if lost else findings.outcome
    evidence = findings.evidence
    return environment.from_string(source).render(
        run=evidence.run,
        experiment=evidence.experiment,
        outcome=outcome.value,
        reason=lost or findings.reason,
        facts=_facts(findings, manifest),
        cases=_cases(findings, story),
        warnings=findings.warnings,
        emulated=evidence.clock is Clock.WALL and evidence.accelerator == "tcg",
        instructions=evidence.unit == "instructions",
        repeat=_repeat(findings, manifest),
        command=" ".join(str(word) for word in manifest.get("qemu_command", ())),
    )
