"""The shape of a topology file: the one edge where pydantic looks at text that a person wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provision.hardware.performance import Indexing, Writing
from provision.host.errors import UserError

Count = Annotated[int, Field(ge=0, strict=True)]


class CacheModel(BaseModel):
    """A [[node.cache]] table: a cache on the side of this node's memory."""

    model_config = ConfigDict(extra="forbid")
    level: Annotated[int, Field(ge=1, le=3, strict=True)] = 1
    size_kb: Annotated[int, Field(ge=1, strict=True)]
    line: Annotated[int, Field(ge=1, le=65535, strict=True)] = 64
    indexing: Indexing = Indexing.DIRECT
    writing: Writing = Writing.BACK


class NodeModel(BaseModel):
    """A [[node]] table."""

    model_config = ConfigDict(extra="forbid")
    id: Count
    memory_mb: Count = 0
    cpus: list[Count] = []
    initiator: Count | None = None
    hotplug_mb: Count = 0
    cxl: Annotated[bool, Field(strict=True)] = False
    cache: list[CacheModel] = []


class TopologyModel(BaseModel):
    """The whole file. `cpus`: how many the machine has, if not as many as the nodes say. `title` and `source`: what it is
    like, and where its figures are from."""

    model_config = ConfigDict(extra="forbid")
    title: str = ""
    source: str = ""
    cpus: Annotated[int, Field(ge=1, strict=True)] | None = None
    swap_mb: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] = 1024
    distances: list[list[Count]] | None = None
    latency_ns: list[list[Count]] | None = None
    bandwidth_mb: list[list[Count]] | None = None
    node: Annotated[list[NodeModel], Field(min_length=1)]


def validate(data: Mapping[str, Any], where: str) -> TopologyModel:
    """The file's content as a model; UserError about the first thing that is wrong with it."""
    try:
        return TopologyModel.model_validate(data)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        key = _key(first["loc"])
        raise UserError(f"{key}: {_plain(first)}", where=where, hint=_mend(first["type"], key)) from wrong


def _key(location: Sequence[int | str]) -> str:
    """("node", 1, "cpus") -> "node[1].cpus"; tables count from 0."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _plain(error: Any) -> str:
    given = error["input"]
    texts = {
        "missing": "it is missing",
        "extra_forbidden": "there is no such key",
        "too_short": "there is none",
    }
    return texts.get(error["type"]) or f"{str(error['msg']).removeprefix('Input ')}, not {str(given)[:40]!r}"


def _mend(kind: str, key: str) -> str:
    if kind == "extra_forbidden":
        parts = key.count(".")
        model = (TopologyModel, NodeModel, CacheModel)[parts] if key.startswith("node[") else TopologyModel
        return f"the keys are {', '.join(model.model_fields)}"
    if kind in ("missing", "too_short"):
        if key == "node":
            return "add [[node]] tables with id, memory_mb and cpus"
        return f"add {key.rpartition('.')[2]} = ..."
    return "correct the value"
