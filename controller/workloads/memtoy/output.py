"""What `memtoy -j` wrote: one JSON object a line, one line a command, as typed results.

Every object has `line`, `cmd`, `text`, `ok`, `errno`, `error`, `pid`, `child`, `start_ns`, `end_ns`, `cpu_ns` and
`result`. Times are CLOCK_MONOTONIC nanoseconds, the clock of the event records; between them lies the
command's own work and none of its parsing or printing. `cpu_ns` is how long of that the thread was on a CPU
(CLOCK_THREAD_CPUTIME_ID); 0 for commands that are not timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from provision.host.errors import InfraError


class WhereMethod(StrEnum):
    """How `where` located pages: get_mempolicy(2) faults them in, move_pages(2) leaves them as they are."""

    GET_MEMPOLICY = "get_mempolicy"
    MOVE_PAGES = "move_pages"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first word that was not what the pattern says.

    `page` counts from the start of the mapping, `offset` is in bytes within the page; `belongs_to` is the
    page whose word of this pattern it is, None when it belongs to none (a lost page reads as zeros, say).
    """

    page: int
    offset: int
    expected: int
    found: int
    belongs_to: int | None


@dataclass(frozen=True, slots=True)
class TouchResult:
    """`touch`: `pages` touched in `ns`; `mismatches` counts 64-bit words, `bad_pages` the pages of them."""

    segment: str
    address: int
    pages: int
    page_size: int
    ns: int
    write: bool
    pattern: int | None
    mismatches: int
    bad_pages: int
    first: Mismatch | None


@dataclass(frozen=True, slots=True)
class MbindResult:
    """`mbind`: what was asked for; `flags` in the script's words (shared, strict, move, all, lazy)."""

    segment: str
    address: int
    length: int
    policy: str
    flags: tuple[str, ...]
    nodes: tuple[int, ...]
    ns: int


@dataclass(frozen=True, slots=True)
class WhereResult:
    """`where`: for each page from address `start` its node, or minus the errno (-2, ENOENT: not mapped)."""

    segment: str
    start: int
    page_size: int
    nodes: tuple[int, ...]
    method: WhereMethod


@dataclass(frozen=True, slots=True)
class MigrateResult:
    """`migrate`: pages that migrate_pages(2) did not move, -1 when the call failed; the nodes; its time."""

    not_migrated: int
    to_nodes: tuple[int, ...]
    from_nodes: tuple[int, ...]
    ns: int


@dataclass(frozen=True, slots=True)
class MapResult:
    """`map`: where the segment is now, and how many bytes of it."""

    segment: str
    address: int
    length: int
    shared: bool


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """`anon`, `file`, `shmem`: the segment that was defined, `length` in bytes."""

    segment: str
    kind: str
    length: int


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """One node as `numa` shows it, in kB as /sys/devices/system/node says it."""

    node: int
    total_kb: int
    free_kb: int


@dataclass(frozen=True, slots=True)
class NumaResult:
    """`numa`: the nodes that the process may allocate from."""

    nodes: tuple[NodeMemory, ...]


@dataclass(frozen=True, slots=True)
class OtherResult:
    """Any other command, or one that failed before it had a result: the bare values."""

    values: Mapping[str, Any]


Result = TouchResult | MbindResult | WhereResult | MigrateResult | MapResult | SegmentResult | NumaResult | OtherResult


@dataclass(frozen=True, slots=True)
class CommandResult:
    """One command of a script, done.

    `line` is the script's line (from 1); `cmd` the full command word; `text` the command as written. `ok` is
    false with `errno` from the system call (0 when none failed, as for contents that differ) and `error` in
    words. `child` is "" for memtoy itself and "/NAME" for a child of it. `raw` is `result` as read.
    """

    line: int
    cmd: str
    text: str
    ok: bool
    errno: int
    error: str
    pid: int
    child: str
    start_ns: int
    end_ns: int
    result: Result
    cpu_ns: int = 0
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _mismatch(value: Mapping[str, Any] | None) -> Mismatch | None:
    if value is None:
        return None
    belongs = value["belongs_to"]
    return Mismatch(
        page=int(value["page"]),
        offset=int(value["offset"]),
        expected=int(value["expected"], 16),
        found=int(value["found"], 16),
        belongs_to=None if belongs is None else int(belongs),
    )


def _touch(raw: Mapping[str, Any]) -> Result:
    pattern = raw["pattern"]
    return TouchResult(
        segment=str(raw["seg"]),
        address=int(raw["start"], 16),
        pages=int(raw["pages"]),
        page_size=int(raw["page_size"]),
        ns=int(raw["ns"]),
        write=bool(raw["write"]),
        pattern=None if pattern is None else int(pattern),
        mismatches=int(raw["mismatches"]),
        bad_pages=int(raw["bad_pages"]),
        first=_mismatch(raw["first"]),
    )


def _mbind(raw: Mapping[str, Any]) -> Result:
    return MbindResult(
        segment=str(raw["seg"]),
        address=int(raw["start"], 16),
        length=int(raw["length"]),
        policy=str(raw["policy"]),
        flags=tuple(str(flag) for flag in raw["flags"]),
        nodes=tuple(int(node) for node in raw["nodes"]),
        ns=int(raw["ns"]),
    )


def _where(raw: Mapping[str, Any]) -> Result:
    return WhereResult(
        segment=str(raw["seg"]),
        start=int(raw["start"], 16),
        page_size=int(raw["page_size"]),
        nodes=tuple(int(node) for node in raw["nodes"]),
        method=WhereMethod(raw["method"]),
    )


def _migrate(raw: Mapping[str, Any]) -> Result:
    return MigrateResult(
        not_migrated=int(raw["not_migrated"]),
        to_nodes=tuple(int(node) for node in raw["to"]),
        from_nodes=tuple(int(node) for node in raw["from"]),
        ns=int(raw["ns"]),
    )


def _map(raw: Mapping[str, Any]) -> Result:
    return MapResult(
        segment=str(raw["seg"]),
        address=int(raw["address"], 16),
        length=int(raw["length"]),
        shared=bool(raw["shared"]),
    )


def _segment(raw: Mapping[str, Any]) -> Result:
    return SegmentResult(segment=str(raw["seg"]), kind=str(raw["kind"]), length=int(raw["length"]))


def _numa(raw: Mapping[str, Any]) -> Result:
    return NumaResult(
        tuple(NodeMemory(int(node["node"]), int(node["total_kb"]), int(node["free_kb"])) for node in raw["nodes"])
    )


_TYPED: Mapping[str, Callable[[Mapping[str, Any]], Result]] = MappingProxyType(
    {
        "touch": _touch,
        "mbind": _mbind,
        "where": _where,
        "migrate": _migrate,
        "map": _map,
        "anon": _segment,
        "file": _segment,
        "shmem": _segment,
        "numa": _numa,
    }
)


def decode(line: str) -> CommandResult:
    """Decode one line.

    Raises ValueError (json.JSONDecodeError is one), KeyError or TypeError when it is not one of memtoy's.
    """
    value = json.loads(line)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    raw: Mapping[str, Any] = MappingProxyType(value["result"])
    cmd = str(value["cmd"])
    # A command that failed before it had anything to tell has an empty result.
    build = _TYPED.get(cmd) if raw else None
    return CommandResult(
        line=int(value["line"]),
        cmd=cmd,
        text=str(value["text"]),
        ok=bool(value["ok"]),
        errno=int(value["errno"]),
        error=str(value["error"]),
        pid=int(value["pid"]),
        child=str(value["child"]),
        start_ns=int(value["start_ns"]),
        end_ns=int(value["end_ns"]),
        result=build(raw) if build else OtherResult(raw),
        cpu_ns=int(value.get("cpu_ns", 0)),  # recordings from before 0.2 have none
        raw=raw,
    )


def _foreign(number: int, error: Exception) -> InfraError:
    return InfraError(
        "not a line that memtoy -j writes",
        where=f"memtoy output, line {number}",
        hint="something else wrote to its standard output",
        detail=f"{type(error).__name__}: {error}",
    )


def read(lines: Iterable[str]) -> list[CommandResult]:
    """Decode all that memtoy wrote, in the order written.

    A last line that a crash cut short is left out: what was written before it stands. Blank lines are
    skipped.
    Raises InfraError for a broken line anywhere else, which memtoy cannot have written.
    """
    results: list[CommandResult] = []
    cut_short: InfraError | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if cut_short is not None:
            raise cut_short
        try:
            results.append(decode(line))
        except json.JSONDecodeError as error:
            # Only the last line may be so, and whether it is the last shows in the next turn.
            cut_short = _foreign(number, error)
            cut_short.__cause__ = error
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(number, error) from error
    return results
