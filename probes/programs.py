"""Bytecode that does not depend on the run, and the plan it was made by, to be kept for the next run on the kernel.

What differs from run to run is a token, filled in before loading. Finding out what a kernel has takes a second where
there is no hardware virtualization, and compiling takes some; the result depends on nothing but the kernel's build, the
set of probes and our sources. So the controller may keep what the agent found and made, and hand it back the next
time: whether it still fits is told by the three together.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_64 = 0x18
"""BPF_LD | BPF_DW | BPF_IMM: the one instruction of that size, and the one that names maps."""
_HERE = Path(__file__).parent


class Token(IntEnum):
    """What stands in the bytecode for a value that is known at load time only."""

    FD_RING = 0x4D4F4601
    FD_NOTES = 0x4D4F4602
    FD_STASH = 0x4D4F4603
    AGENT = 0x4D4F4604
    """The thread group that is not recorded, the agent's own."""
    STRIDE = 0x4D4F4605
    """Bytes from one CPU's part of the ring to the next one's."""
    FD_BELL = 0x4D4F4607
    """The map that the agent is woken through."""
    SPAN_MASK = 0x4D4F4606
    """What of a position in bytes is the offset of its slot."""


def fill(code: bytes, values: Mapping[Token, int]) -> bytes:
    """`code` with each token replaced by its value. Raises ValueError for a token without one."""
    out = bytearray(code)
    tokens = {int(token): token for token in Token}
    mark = bytes([_LOAD_64])
    at = out.find(mark)
    while 0 <= at <= len(out) - _INSTRUCTION.size:
        if at % 8 == 0:
            operation, registers, offset, value = _INSTRUCTION.unpack_from(out, at)
            if value in tokens:
                token = tokens[value]
                if token not in values:
                    raise ValueError(f"no value for {token.name}")
                _INSTRUCTION.pack_into(out, at, operation, registers, offset, values[token])
        at = out.find(mark, at + 1)
    return bytes(out)


def sources() -> str:
    """A hash of all that decides, besides the kernel, what is planned and compiled."""
    found = hashlib.sha256()
    for file in sorted((*_HERE.glob("*.py"), *_HERE.glob("bpf/*"))):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


@dataclass(frozen=True)
class Programs:
    """What was found and made for one kernel and one set of probes.

    `kernel`: kernel.identity(); `targets`: by probe, the type id it is attached by; `unavailable`: by probe, why not;
    `code`: bytecode by program.
    """

    kernel: str
    which: str
    sources: str
    targets: Mapping[str, int]
    unavailable: Mapping[str, str]
    code: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "kernel": self.kernel,
            "set": self.which,
            "sources": self.sources,
            "targets": dict(self.targets),
            "unavailable": dict(self.unavailable),
            "code": {name: code.hex() for name, code in self.code.items()},
        }

    @classmethod
    def from_json(cls, data: Any) -> Programs:
        """The reverse. Raises ValueError if it is not that."""
        try:
            return cls(
                str(data["kernel"]),
                str(data["set"]),
                str(data["sources"]),
                {str(k): int(v) for k, v in data["targets"].items()},
                {str(k): str(v) for k, v in data["unavailable"].items()},
                {str(k): bytes.fromhex(v) for k, v in data["code"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("programs: not what an agent gave out") from error
