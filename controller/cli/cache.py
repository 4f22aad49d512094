"""`mof cache`: what is in the cache, what may go, and whether it is still what was made."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.progress import for_stream

if TYPE_CHECKING:
    from provision.host.cache import Cache
    from provision.host.eviction import Entry, Outcome, Wish

app = typer.Typer(help="What was built and kept: kernels, images, saved guests. MOF_CACHE says where.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids, or KIND/ID (mof cache list).")]


@app.callback()
def group() -> None:
    """What was built and kept: kernels, images, saved guests. MOF_CACHE says where, MOF_CACHE_LIMIT how much."""


def ago(seconds: float) -> str:
    """How long ago, in words."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // size)) >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _by_size(entries: Sequence[Entry]) -> list[Entry]:
    """The kind that takes most first, and in it the largest artifact: that is what one looks for in a full cache."""
    kinds: dict[str, int] = {}
    for entry in entries:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + entry.size
    return sorted(entries, key=lambda e: (-kinds[e.kind], e.kind, -e.size, e.id))


def _state(entry: Entry, damage: str) -> str:
    return ", ".join(
        text for text in ("in use" if entry.in_use else "", f"damaged: {damage}" if damage else "") if text
    )


@app.command("list")
def listing(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> int:
    """What is in the cache: sizes on disk, last use, and whether a running guest has it."""
    from provision.host import eviction
    from provision.host.cache import Cache, Check
    from provision.host.eviction import human

    cache = Cache()
    limit = eviction.limit()
    entries = cache.entries()
    damage = {e.name: cache.refusal(e.path, check=Check.SIZES) for e in entries}
    ccache, work = eviction.ccache_bytes(cache.root), eviction.work_bytes(cache.root)
    if as_json:
        rows = [
            {
                "kind": e.kind,
                "id": e.id,
                "path": str(e.path),
                "size": e.size,
                "used": round(e.used),
                "in_use": e.in_use,
                "sealed": e.sealed,
                "damage": damage[e.name],
                "needs": [o.name for o in entries if e.needs(o)],
            }
            for e in _by_size(entries)
        ]
        whole = {"root": str(cache.root), "limit": limit, "total": eviction.total(entries)}
        print(json.dumps({**whole, "ccache": ccache, "tmp": work, "artifacts": rows}, indent=1))
        return 0
    kinds = max((len(e.kind) for e in entries), default=0)
    ids = max((len(e.id) for e in entries), default=0)
    now = time.time()
    for e in _by_size(entries):
        line = (
            f"{e.kind:{kinds}}  {e.id:{ids}}  {human(e.size):>10}  {ago(now - e.used):14}  {_state(e, damage[e.name])}"
        )
        print(line.rstrip())
    if not entries:
        print("nothing built yet")
    taken = human(eviction.total(entries))
    print(f"{taken} of {human(limit)} ({eviction.LIMIT})" if limit is not None else f"{taken}, no limit", end="")
    print(f" | ccache {human(ccache)}, limited by itself" if ccache else "", end="")
    print(f" | being made {human(work)}" if work > 2**20 else "", end="")
    print(f" | {cache.root}")
    return 0


def _near(entries: Sequence[Entry], text: str) -> list[str]:
    """Artifacts whose name begins like this or resembles it; compared also without their hash, which nobody types."""
    from difflib import get_close_matches

    found = [e.name for e in entries if e.id.startswith(text) or e.name.startswith(text)]
    known: dict[str, list[str]] = {}
    for e in entries:
        for form in (e.id, e.name, e.id.rpartition("-")[0], e.name.rpartition("-")[0]):
            known.setdefault(form, []).append(e.name)
    for form in get_close_matches(text, list(known)):
        found += known[form]
    return list(dict.fromkeys(found))[:4]


def pick(entries: Sequence[Entry], ids: Sequence[str]) -> list[Entry]:
    """The artifacts that a person named, by id or KIND/ID. UserError for one that is not there, with near ones."""
    from provision.host.errors import UserError

    picked: dict[str, Entry] = {}
    for text in ids:
        found = [e for e in entries if text in (e.id, e.name)]
        if not found:
            near = _near(entries, text)
            hint = f"near it: {', '.join(near)}" if near else "mof cache list shows what there is"
            raise UserError("no such artifact in the cache", where=text, hint=hint)
        if len(found) > 1:
            names = " or ".join(e.name for e in found)
            raise UserError("several kinds have an artifact of this id", where=text, hint=f"say {names}")
        picked[found[0].name] = found[0]
    return list(picked.values())


def _wish(
    entries: Sequence[Entry], ids: Sequence[str], to: str | None, older: float | None, kind: str | None
) -> Wish | None:
    """What the arguments ask for; None when they ask for the limit and there is none."""
    from provision.host import eviction

    down_to = eviction.parse_size(to, "--to") if to is not None else None
    if not ids and to is None and older is None and kind is None:
        if (limit := eviction.limit()) is None:
            return None
        down_to = limit
    names = frozenset(e.name for e in pick(entries, ids)) if ids else None
    return eviction.Wish(names, kind or "", (older or 0.0) * 86400, down_to)


def _tell(done: Outcome, dry_run: bool, now: float) -> None:
    from provision.host.eviction import human

    for entry in done.removed:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb}  {entry.name}  {human(entry.size)}, last used {ago(now - entry.used)}")
    for entry, why in done.kept:
        print(f"kept  {entry.name}  {human(entry.size)}, {why}")


@app.command()
def evict(
    ids: Ids = None,
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Least recently used first, until this much is left.")
    ] = None,
    older: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0.0, help="Only what was not used for so long.")
    ] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only this kind, such as kernel.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it, the compiler's cache too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> int:
    """Remove artifacts: those named, or those that the options fit, or what is beyond MOF_CACHE_LIMIT.

    What needs a removed artifact goes with it; what a running guest uses stays. All can be made again.
    """
    from provision.host import eviction
    from provision.host.cache import Cache
    from provision.host.errors import UserError
    from provision.host.eviction import human

    if everything and (ids or to is not None or older is not None or kind is not None):
        raise UserError("it goes with no other choice", where="--all", hint="leave out --all, or the others")
    cache = Cache()
    entries = cache.entries()
    wish = eviction.Wish() if everything else _wish(entries, ids or (), to, older, kind)
    if wish is None:
        print(f"nothing to evict: {eviction.LIMIT} sets no limit")
        return 0
    ccache = eviction.ccache_bytes(cache.root) if everything else 0
    if not entries and not ccache:
        print(f"nothing to evict: there is nothing in {cache.root}")
        return 0
    done = cache.evict(wish, dry_run=dry_run)
    _tell(done, dry_run, time.time())
    freed = done.freed
    if ccache:
        if dry_run or cache.clear_ccache():
            freed += ccache
            print(f"{'would remove' if dry_run else 'removed'}  ccache  {human(ccache)}")
        else:
            print(f"kept  ccache  {human(ccache)}, a kernel is being built with it")
    if freed or done.removed:
        print(f"{human(freed)} {'would be ' if dry_run else ''}freed, {human(done.left)} left")
    elif not done.kept:
        print(f"nothing to evict: {_why_nothing(cache, wish, entries, done)}")
    return 0


def _why_nothing(cache: Cache, wish: Wish, entries: Sequence[Entry], done: Outcome) -> str:
    from provision.host.eviction import human

    kinds = sorted({e.kind for e in entries})
    if wish.kind and wish.kind not in kinds:
        return f"no artifact is a {wish.kind}; there are {', '.join(kinds)}"
    if wish.down_to is not None and done.left <= wish.down_to:
        return f"{human(done.left)} are no more than {human(wish.down_to)}"
    if wish.idle:
        return f"all that fits was used within the last {wish.idle / 86400:g} days"
    return f"nothing of it is left in {cache.root}"


@app.command()
def verify(ids: Ids = None) -> int:
    """Hash sealed artifacts in full and look at the sizes of the others. Status 1 when one is damaged."""
    from provision.host.cache import Cache, Check
    from provision.host.eviction import human

    cache = Cache()
    entries = cache.entries()
    chosen = pick(entries, ids) if ids else list(entries)
    lines: list[str] = []
    damaged: list[str] = []
    with for_stream() as progress:
        for entry in chosen:
            if entry.sealed:
                progress.step(f"hashing {entry.name} ({human(entry.size)})")
            why = cache.refusal(entry.path, check=Check.FULL)
            if why and not entry.path.exists():  # evicted since it was listed
                continue
            if why:
                damaged.append(entry.name)
            result = f"damaged: {why}" if why else "intact" if entry.sealed else "complete (not sealed: sizes only)"
            lines.append(f"{entry.name}  {result}")
    print("\n".join(lines) if lines else f"nothing to verify in {cache.root}")
    if damaged:
        print(f"{len(damaged)} damaged; to be made again when needed: mof cache evict {' '.join(damaged)}")
    return 1 if damaged else 0
