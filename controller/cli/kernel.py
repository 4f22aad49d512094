"""`mof kernel`: build, list and check kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from controller.check.data import Step
from controller.cli.progress import for_stream

app = typer.Typer(
    help="Kernels by id: 6.12-base, 6.12-mof, 6.12-mof.3 (the first three patches), also with -debug or -cxl."
)


@app.callback()
def group() -> None:
    """Kernels by id: 6.12-base, 6.12-mof, 6.12-mof.3 (the first three patches), each also with -debug or -cxl."""


@app.command()
def build(ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Kernel ids to build.")]) -> int:
    """Build kernels into the cache; what is there already is left as it is."""
    from guest_kernel import build as kernels
    from guest_kernel import identity
    from provision.host.cache import Cache

    wanted = [identity.parse(text) for text in ids]
    cache = Cache()
    for one in wanted:
        with for_stream() as progress:
            made = kernels.ensure(cache, one, progress)
        print(f"{made.id}  {made.release}  {made.path}")
    return 0


@app.command("list")
def listing(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> int:
    """The kernels in the cache: id, release, build id, patches, folder."""
    from guest_kernel import build as kernels
    from guest_kernel import identity
    from provision.host.cache import Cache

    found = kernels.built(Cache())
    if as_json:
        rows = [{"id": k.id, "path": str(k.path), **k.facts} for k in found]
        print(json.dumps(rows, indent=1))
        return 0
    for k in found:
        print(f"{k.id:16} {k.release:22} {k.build_id[:12]}  {len(k.facts['patches'])} patches  {k.path}")
    if not found:
        print(f"none built yet; mof kernel build ID, where ID is {identity.known()}")
    return 0


@app.command()
def check(
    base: Annotated[str, typer.Option(metavar="VERSION", help="The kernel that the series is for.")] = "6.12",
    prefix: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", help="Only the first N patches; again for more. Default: every N.", show_default=False
        ),
    ] = None,
    only: Annotated[
        list[Step] | None,
        typer.Option(
            metavar="STEP",
            help=f"Only this step, again for more: {', '.join(step.value for step in Step)}.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also remember in this file what has passed, and go on from what another machine has put there.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do again what an earlier check has passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> int:
    """Apply, compile, boot and try every prefix of the series; status 1 when one does not do what it should.

    Goes on where an earlier check was stopped. A whole check of a series takes hours.
    """
    from controller.check import data, run, table
    from controller.check.memory import Memory, Record
    from guest_kernel import identity, series
    from provision.host.cache import Cache
    from provision.host.errors import UserError

    if base not in identity.bases():
        raise UserError(f"no series for kernel '{base}'", where="--base", hint=f"known: {', '.join(identity.bases())}")
    patches = series.load(identity.SERIES / base)
    if wrong := [n for n in prefix or () if not 1 <= n <= len(patches)]:
        raise UserError(
            f"the series on {base} has {len(patches)} patches, and no prefix of {wrong[0]}",
            where="--prefix",
            hint=f"N is 1 to {len(patches)}",
        )
    prefixes = sorted(set(prefix)) if prefix else list(range(1, len(patches) + 1))
    steps = [step for step in Step if not only or step in only]
    cache = Cache()
    memory = Memory(cache, Record(record) if record is not None else None)
    with for_stream() as progress:
        checked = run.run(cache, base, patches, prefixes, steps, progress, fresh=fresh, memory=memory, lean=True)
    print(json.dumps(data.to_json(checked), indent=1) if as_json else table.render(checked))
    return 1 if checked.failed else 0
