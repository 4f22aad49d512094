"""`mof kernel`: build and list kernels."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from controller.cli.progress import for_stream

app = typer.Typer(help="Kernels by id: 6.12-base, 6.12-mof, 6.12-mof.3 (the first three patches), also with -debug.")


@app.callback()
def group() -> None:
    """Kernels by id: 6.12-base, 6.12-mof, 6.12-mof.3 (the first three patches), each also with -debug."""


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
