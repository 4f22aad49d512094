"""What to run, as data: a built-in experiment, a TOML file, or a memtoy script.

An experiment file::

    name = "two-ways"             # default: the file's stem
    kernel = "6.12-mof"           # default; --kernel wins
    topology = "4node"            # default; --topology wins
    probes = "steps"              # default by the size of the scripts; --probes wins
    [[case]]
    name = "lazy"
    script = "lazy.memtoy"        # beside the experiment file
    expect = { pages = 8, migrated = 8, from_node = 1, to_node = 2, mechanism = "lazy" }   # optional
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.analysis.model import Expectation, Mechanism
from provision.host.errors import UserError

BUILT_IN = Path(__file__).parent / "experiments"
SCRIPTS = Path(__file__).parent / "workloads" / "memtoy" / "scripts"
DEFAULT_KERNEL = "6.12-mof"
DEFAULT_TOPOLOGY = "4node"


class ProbeSet(StrEnum):
    """What is attached: probes on every step, those that tell what became of each page, counters only, or nothing."""

    STEPS = "steps"
    FULL = "full"
    COUNTS = "counts"
    NONE = "none"

    @property
    def records(self) -> bool:
        """Whether each event leaves a record, and not only a count."""
        return self in (ProbeSet.STEPS, ProbeSet.FULL)


@dataclass(frozen=True)
class Case:
    """One memtoy script, run in a process of its own. `path` is what messages about it name."""

    name: str
    title: str
    script: str
    path: Path
    expect: Expectation | None


@dataclass(frozen=True)
class Experiment:
    """Cases that run one after the other in one guest."""

    name: str
    kernel: str
    topology: str
    cases: tuple[Case, ...]
    probes: ProbeSet | None = None


def names() -> list[str]:
    """The built-in experiments."""
    return sorted(p.stem for p in BUILT_IN.glob("*.toml"))


def load(what: str) -> Experiment:
    """The experiment that a built-in name, a TOML file or a memtoy script gives.

    UserError when there is no such thing, when the TOML does not say what it must, or a script is missing.
    """
    path = Path(what)
    if what in names():
        return _from_toml(BUILT_IN / f"{what}.toml")
    if not path.is_file():
        raise UserError(
            f"no experiment '{what}'",
            hint=f"a memtoy script, a TOML file, or one of: {', '.join(names())}",
        )
    if path.suffix == ".toml":
        return _from_toml(path)
    return _from_script(path)


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not a text file"
        raise UserError(f"script '{path}' cannot be read: {reason}", where=where, hint="check its path") from wrong


def _safe(name: str) -> str:
    """A name that can stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def _from_script(path: Path) -> Experiment:
    name = _safe(path.stem)
    case = Case(name, f"memtoy script {path.name}", _text(path, str(path)), path, None)
    return Experiment(name, DEFAULT_KERNEL, DEFAULT_TOPOLOGY, (case,))


def _from_toml(path: Path) -> Experiment:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class ExpectText(BaseModel):
        model_config = ConfigDict(extra="forbid")
        pages: int = Field(ge=1)
        migrated: int = Field(ge=0)
        from_node: int = Field(ge=0)
        to_node: int = Field(ge=0)
        mechanism: Mechanism

    class CaseText(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
        title: str = ""
        script: str
        expect: ExpectText | None = None

    class ExperimentText(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str = Field(default=_safe(path.stem), pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
        kernel: str = DEFAULT_KERNEL
        topology: str = DEFAULT_TOPOLOGY
        probes: ProbeSet | None = None
        case: list[CaseText] = Field(min_length=1)

    try:
        read = ExperimentText.model_validate(tomllib.loads(_text(path, str(path))))
    except tomllib.TOMLDecodeError as wrong:
        raise UserError(f"not valid TOML: {wrong}", where=str(path), hint="see docs/experiments.md") from wrong
    except ValidationError as wrong:
        first = wrong.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{key}: {first['msg']}", where=str(path), hint="see docs/experiments.md") from wrong
    folder = SCRIPTS if path.parent == BUILT_IN else path.parent
    cases = tuple(
        Case(
            c.name,
            c.title or c.name,
            _text(folder / c.script, str(path)),
            folder / c.script,
            Expectation(**c.expect.model_dump()) if c.expect else None,
        )
        for c in read.case
    )
    if len({c.name for c in cases}) < len(cases):
        raise UserError("two cases have the same name", where=str(path), hint="give each its own")
    return Experiment(read.name, read.kernel, read.topology, cases, read.probes)
