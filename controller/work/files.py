"""Workloads that are built in, and files of them: what may be in one, and that it is.

A workload file::

    name = "far"                  # default: the file's stem
    title = "what it is about"    # optional, for people
    kernel = "6.12-mof"           # default; --kernel wins
    topology = "4node"            # default; --topology wins
    clock = "wall"                # default; --clock wins
    [[case]]
    name = "local"
    work = "stream"               # chase, stream, update or parts
    megabytes = 8                 # of the area, of each array of stream
    cpu = 1
    node = 1
    rounds = 3                    # default 1

docs/workloads.md has the keys of each kind.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.experiment import DEFAULT_KERNEL, DEFAULT_TOPOLOGY
from controller.work.cases import MAX_MEGABYTES, MAX_ROUNDS, MAX_STEPS, Case, Kind, Parts, Placement, Single, Workload
from controller.workloads import locality
from provision.hardware.qemu import Clock, Latency
from provision.hardware.topology import MAX_CPUS, MAX_NODES
from provision.host.errors import UserError

BUILT_IN = Path(locality.__file__).parent
HINT = "see docs/workloads.md"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Cpu = Annotated[int, Field(strict=True, ge=0, lt=MAX_CPUS)]
Count = Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)]


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _CaseText(_Text):
    name: str = Field(pattern=NAME)
    title: str = ""
    megabytes: int = Field(strict=True, ge=1, le=MAX_MEGABYTES)
    rounds: int = Field(default=1, strict=True, ge=1, le=MAX_ROUNDS)


class _SingleText(_CaseText):
    cpu: Cpu
    node: int = Field(strict=True, ge=0, lt=MAX_NODES)

    def single(self, kind: Kind, steps: int = 0) -> Single:
        return Single(kind, self.megabytes, self.cpu, self.node, self.rounds, steps)


class _ChaseText(_SingleText):
    work: Literal["chase"]
    steps: Count

    def made(self) -> Single:
        return self.single(Kind.CHASE, self.steps)


class _StreamText(_SingleText):
    work: Literal["stream"]

    def made(self) -> Single:
        return self.single(Kind.STREAM)


class _UpdateText(_SingleText):
    work: Literal["update"]
    updates: Count

    def made(self) -> Single:
        return self.single(Kind.UPDATE, self.updates)


class _PartsText(_CaseText):
    work: Literal["parts"]
    init_cpu: Cpu
    cpus: list[Cpu] = Field(min_length=1, max_length=MAX_CPUS)
    placement: Placement
    touched_percent: int = Field(default=100, strict=True, ge=1, le=100)
    writes: bool = Field(default=False, strict=True)

    def made(self) -> Parts:
        return Parts(
            self.megabytes,
            self.init_cpu,
            tuple(self.cpus),
            self.placement,
            self.rounds,
            self.touched_percent,
            self.writes,
        )


AnyCase = Annotated[_ChaseText | _StreamText | _UpdateText | _PartsText, Field(discriminator="work")]


class _LatencyText(_Text):
    cache_kb: int = Field(default=Latency().cache_kb, strict=True, ge=1)
    ways: int = Field(default=Latency().ways, strict=True, ge=1)


class _WorkloadText(_Text):
    name: str | None = Field(default=None, pattern=NAME)
    title: str = ""
    kernel: str = DEFAULT_KERNEL
    topology: str = DEFAULT_TOPOLOGY
    clock: Clock = Clock.WALL
    latency: _LatencyText | None = None
    case: list[AnyCase] = Field(min_length=1)


def names() -> list[str]:
    """The workloads that are built in."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load(what: str) -> Workload:
    """The workload that a built-in name or a TOML file gives. UserError names the file, the key and the mend."""
    path = BUILT_IN / f"{what}.toml" if what in names() else Path(what)
    if not path.is_file():
        raise UserError(f"no workload '{what}'", hint=f"a TOML file, or one of: {', '.join(names())}")
    return _read(path)


def _read(path: Path) -> Workload:
    where = str(path)
    text = _validated(_parsed(path), where)
    cases = tuple(Case(one.name, one.title or one.name, one.made()) for one in text.case)
    if len({case.name for case in cases}) < len(cases):
        raise UserError("two cases have the same name", where=where, hint="give each its own")
    for case in cases:
        _check_alone(case, f"{where}: case '{case.name}'")
    name = text.name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "unnamed"
    latency = _latency(text.latency, where) if text.latency is not None else None
    return Workload(name, text.title or name, text.kernel, text.topology, text.clock, cases, where, latency)


def _latency(text: _LatencyText, where: str) -> Latency:
    try:
        return Latency(text.cache_kb, text.ways)
    except ValueError as wrong:
        raise UserError(f"latency: {wrong}", where=where, hint="such as cache_kb = 1024, ways = 8") from wrong


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise UserError(f"it cannot be read: {wrong.strerror}", where=str(path), hint="check its path") from wrong
    except UnicodeDecodeError as wrong:
        raise UserError("not a text file", where=str(path), hint="a workload is TOML, in UTF-8") from wrong
    except tomllib.TOMLDecodeError as wrong:
        raise UserError(f"not valid TOML: {wrong}", where=str(path), hint=HINT) from wrong


def _validated(data: dict[str, Any], where: str) -> _WorkloadText:
    try:
        return _WorkloadText.model_validate(data)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        kinds = {kind.value for kind in Kind}
        # Which of the models was tried is no key of the file.
        key = ".".join(str(part) for part in first["loc"] if part not in kinds)
        raise UserError(f"{key}: {first['msg']}", where=where, hint=HINT) from wrong


def _check_alone(case: Case, where: str) -> None:
    """What is wrong with a case on any machine."""
    work = case.work
    if work.kind is Kind.UPDATE and work.megabytes & (work.megabytes - 1):
        raise UserError(
            f"{work.megabytes} is not a power of two", where=where, hint="a table of update has 1, 2, 4, ... megabytes"
        )
    if isinstance(work, Parts) and len(set(work.cpus)) < len(work.cpus):
        raise UserError("two workers on one CPU", where=where, hint="cpus names each once")
