"""`mof bench`: how fast we are, beside a peer, and whether we were faster."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.bench.groups import Group, chosen
from controller.cli.progress import for_stream

if TYPE_CHECKING:
    from controller.bench.baseline import Comparison, Kept
    from controller.bench.commands import Lab
    from controller.bench.figures import Figure
    from controller.bench.measure import Absent
    from controller.bench.peer import Peer
    from guest_kernel.build import Kernel
    from guest_kernel.identity import KernelId
    from provision.hardware.qemu import Accelerator
    from provision.hardware.topology import Topology
    from provision.host.cache import Cache
    from provision.host.progress import Progress


def bench(
    rounds: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="So many rounds; the median counts.")] = 3,
    only: Annotated[
        list[Group] | None,
        typer.Option(
            metavar="GROUP",
            help="start, pages, probes, drain, many; migration, which is not among all. Again for more.",
        ),
    ] = None,
    kernel: Annotated[str | None, typer.Option(metavar="ID", help="Kernel to measure on (mof kernel list).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs side by side, fewer boots beside them.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Figures to compare with. Default: the committed ones.")
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Make these figures the baseline; those not measured stay.")
    ] = False,
    history: Annotated[Path | None, typer.Option(metavar="FILE", help="Add the figures to a file, as a line.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON to a file too.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put the tables of migration into a document that has a place.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> int:
    """Measure start, a page that moves, probes and many runs; status 1 when a figure got worse than the baseline."""
    from controller import evidence, session
    from controller.bench import baseline as baselines
    from controller.bench import catalogue, commands, migration_guest, migration_tables, table
    from controller.bench.figures import to_json
    from controller.bench.migration import NOTE
    from controller.experiment import DEFAULT_KERNEL
    from guest_kernel import identity
    from provision.host.cache import Cache

    wanted = identity.parse(kernel or DEFAULT_KERNEL)
    against = baseline or baselines.DEFAULT
    old = _old(baseline, write_baseline)
    for option, path in (
        ("--history", history),
        ("--output", output),
        ("--baseline", against if write_baseline else None),
    ):
        _writable(option, path)
    groups = chosen(only)
    if Group.MIGRATION in groups:
        migration_guest.kernels(wanted)
    if markdown is not None:
        _has_place(markdown, groups)
    began = time.monotonic()
    with for_stream() as progress, commands.lab(str(wanted)) as lab:
        bed, measured = _measure(
            lab, wanted, groups, rounds, catalogue.QUICK if quick else catalogue.FULL, Cache(), progress
        )
    figures = [one for block in measured.values() for one in block]
    comparisons = {one.name: one for one in baselines.compare_all(figures, old)}
    worse = [one.name for one in comparisons.values() if one.outcome is baselines.Outcome.WORSE]
    failed = [one.name for one in figures if one.failed]
    head: dict[str, Any] = {
        "time": evidence.now(),
        "rounds": rounds,
        "quick": quick,
        "seconds": round(time.monotonic() - began, 1),
        "machine": bed,
        "host": session.facts_of_host(),
    }
    if Group.MIGRATION in groups:
        head["note"] = NOTE
    told = {
        "schema": baselines.SCHEMA,
        **head,
        "figures": [_compared(to_json(one), comparisons[one.name]) for one in figures],
        "worse": worse,
        "failed": failed,
    }
    text = json.dumps(told, indent=1)
    if output is not None:
        evidence.write_atomically(output, text + "\n")
    if history is not None:
        baselines.append(history, baselines.history_line(head, figures))
    if write_baseline:
        baselines.write(against, baselines.text(figures, old))
    title = (
        f"mof bench: {rounds} round{'s' if rounds > 1 else ''}, kernel {bed['kernel']} ({bed['release']}), "
        f"QEMU {bed['qemu']}, {bed['accelerator']}, {bed['cpus']} CPUs, {head['seconds']:.0f} s"
    )
    migration = measured.get(Group.MIGRATION.value, ())
    if migration:
        # Of its hundreds, those that are to be a certain way; the rest is in tables of its own.
        measured[Group.MIGRATION.value] = tuple(one for one in migration if one.target is not None or one.name in worse)
    if markdown is not None:
        migration_tables.write(markdown, migration_tables.tables(migration))
    print(text if as_json else table.render(title, measured, comparisons))
    if migration and not as_json:
        print(f"\n{migration_tables.tables(migration)}", end="")
    return 1 if failed or (worse and not write_baseline) else 0


def _old(baseline: Path | None, write: bool) -> dict[str, Kept]:
    """What to compare with: {} when there is nothing. One that was named has to be there, unless it is to be made."""
    from controller.bench import baseline as baselines

    path = baseline or baselines.DEFAULT
    if not path.exists() and (baseline is None or write):
        return {}
    return baselines.read(path)


def _writable(option: str, path: Path | None) -> None:
    """UserError when there is no folder for a file that we shall write; told before the minutes, not after."""
    import os

    from provision.host.errors import UserError

    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", where=option, hint="make it first")
    if path.is_dir():
        raise UserError(f"{path} is a folder", where=option, hint="name a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UserError(f"{path} cannot be written", where=option, hint="name a file that you may write")


def _has_place(document: Path, groups: list[Group]) -> None:
    """UserError when the tables could not be written into the document in the end."""
    from controller.bench import migration_tables
    from provision.host.errors import UserError

    if Group.MIGRATION not in groups:
        raise UserError("only migration has tables", where="--markdown", hint="add --only migration")
    migration_tables.check(document)
    _writable("--markdown", document)


def _compared(told: dict[str, Any], comparison: Comparison) -> dict[str, Any]:
    if comparison.baseline is None:
        return told
    found = {"value": comparison.baseline, "outcome": comparison.outcome.value}
    if comparison.change is not None:
        found["change"] = round(comparison.change, 5)
    if comparison.why:
        found["why"] = comparison.why
    return {**told, "baseline": found}


def _measure(
    lab: Lab,
    wanted: KernelId,
    groups: list[Group],
    rounds: int,
    count: int,
    cache: Cache,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, tuple[Figure, ...]]]:
    """On what was measured, and the figures by group."""
    import os
    from functools import partial

    from controller import machine, overhead
    from controller.bench import measure, memory, migration_guest, probe_guest
    from controller.experiment import DEFAULT_TOPOLOGY
    from provision.guest import accelerator
    from provision.hardware import topology as topologies
    from provision.hardware.qemu import Accelerator

    topology = topologies.load(DEFAULT_TOPOLOGY)
    topologies.check_host(topology)
    with machine.ensured(cache, wanted, progress) as parts:
        kernel, qemu = parts.kernel, accelerator.find_qemu()
        accel = accelerator.resolve(accelerator.from_environment(), qemu, kernel.bzimage, cache, progress).accelerator
        facts = {"kernel": kernel.id, "source": _source(kernel), "qemu": qemu.version}
        cpus = str(len(os.sched_getaffinity(0)))
        timed = {**facts, "accelerator": accel.value, "cpus": cpus}
        # Counted by TCG on any host, one instruction after the other: processors do not matter.
        counted = {**facts, "accelerator": Accelerator.TCG.value}
        costs = measure.Costs(lab, progress)
        found: dict[str, tuple[Figure, ...]] = {}
        for group in groups:
            match group:
                case Group.START:
                    samples = measure.start(lab, _peer(kernel, topology, accel), rounds, progress)
                case Group.PAGES:
                    samples = measure.pages(costs)
                case Group.PROBES:
                    samples, overheads = probe_guest.measured(wanted, rounds, costs, cache, progress)
                    for probe_set, one in overheads.items():
                        overhead.keep(cache, kernel, probe_set, one)
                case Group.DRAIN:
                    samples = measure.drain(lab, rounds, progress)
                case Group.MANY:
                    samples = measure.many(lab, count, rounds, progress)
                case Group.MEMORY:
                    samples = memory.measured(wanted, rounds, cache, progress)
                case Group.MIGRATION:
                    described = partial(_counted, counted)
                    found[group.value] = migration_guest.measured(wanted, rounds, cache, described, progress)
                    continue
            same = counted if group in (Group.PAGES, Group.PROBES) else timed
            found[group.value] = measure.filled(group, count, samples, same)
    return {**timed, "release": kernel.release, "build_id": kernel.build_id}, found


def _counted(facts: Mapping[str, str], kernel: Kernel) -> dict[str, str]:
    """The same facts of another kernel."""
    return {**facts, "kernel": kernel.id, "source": _source(kernel)}


def _source(kernel: Kernel) -> str:
    said: Mapping[str, Any] = kernel.facts.get("source", {})
    return str(said.get("version", "unknown"))


def _peer(kernel: Kernel, topology: Topology, accel: Accelerator) -> Peer | Absent:
    from controller.bench import measure, peer

    program = peer.find()
    if program is None:
        return measure.Absent(peer.INSTALL, failed=False)
    return peer.Peer(program, kernel.bzimage, topology, accel)
