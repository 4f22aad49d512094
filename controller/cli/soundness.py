"""`mof kernel selftest` and `mof kernel leaks`: has the series broken something, does it leave something behind?"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from controller.cli.progress import for_stream
from provision.host.errors import UserError


def selftest(
    base: Annotated[str, typer.Option(help="The kernel to compare with.")] = "6.12-base",
    patched: Annotated[str, typer.Option(help="The kernel under test.")] = "6.12-mof",
    append: Annotated[str, typer.Option(help="More parameters for the kernel under test, such as page_owner=on.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Only the quicker ones.")] = False,
    only: Annotated[str, typer.Option(help="Only cases whose name this regular expression is found in.")] = "",
) -> int:
    """Run the kernel's own tests of its memory management on two kernels.

    1 when something differs, a test of the series fails, or a kernel complains in its log.
    """
    from controller import selftests
    from controller.analysis.ktap import Outcome
    from controller.bare import opened
    from guest_kernel import identity
    from guest_kernel.selftests import ensure
    from provision.host.cache import Cache

    try:
        wanted = re.compile(only)
    except re.error as wrong:
        raise UserError(f"not a regular expression: {wrong}", where="--only", hint="try a program's name") from wrong
    kernels = identity.parse(base), identity.parse(patched)
    cases = [case for case in selftests.chosen(quick=quick) if wanted.search(case.name)]
    if not cases:
        raise UserError(f"no test has '{only}' in its name", where="--only", hint="the names are in docs/selftests.md")
    with for_stream() as progress:
        programs = ensure(Cache(), kernels[1], progress)
        found = selftests.compared(
            lambda kernel: opened(kernel, progress, append if kernel == patched else ""),
            programs,
            cases,
            base=base,
            patched=patched,
            progress=progress,
        )
    print(selftests.table(found))
    for one in found.unsteady:
        print(f"\nunsteady: {one}")
    for one in found.differences:
        print(f"\ndifferent: {one}")
    for line in found.complaints:
        print(f"\ncomplaint: {line}")
    failed = [one for one in found.added if one.outcome is not Outcome.PASSED]
    for result in failed:
        print(f"\nfailed: {result.case}, of the series\n{result.tail}")
    return 1 if found.differences or found.complaints or failed else 0


def leaks(
    kernel: Annotated[str, typer.Option(help="The kernel under test.")] = "6.12-mof",
    append: Annotated[str, typer.Option(help="More kernel parameters, such as page_owner=on.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="How long, at least.")] = 600,
    migrations: Annotated[int, typer.Option(min=1, help="How many pages are moved, at least.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the load's choices.")] = 1,
) -> int:
    """Run a mixed load, and count before and after; 1 when something is lost or wrong."""
    import json
    from dataclasses import fields

    from controller import leaks as measured
    from controller.bare import opened
    from guest_kernel import identity
    from provision.host.cache import Cache

    identity.parse(kernel)
    with for_stream() as progress, opened(kernel, progress, append) as shell:
        measured.prepare(shell, Cache())
        found = measured.run(shell, Cache(), seconds=seconds, migrations=migrations, seed=seed)
    print(json.dumps(dict(found.load)))
    for field in fields(measured.Counters):
        print(f"{field.name:16} {getattr(found.before, field.name):10} {getattr(found.after, field.name):10}")
    for name in ("oom_kill", "max", "pswpin", "pswpout", "pgfault", "thp_fault_alloc"):
        if name in found.group:
            print(f"group {name:16} {found.group[name]:10}")
    for failure in found.failures:
        print(failure)
    return 1 if found.failures else 0
