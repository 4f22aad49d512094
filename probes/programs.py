"""Bytecode that does not depend on the run: what differs from run to run is a token, filled in before loading.

Compiling takes some seconds where there is no hardware virtualization, and its result depends on nothing but the
kernel's types and our source. So the controller may keep what the agent compiled, under the kernel it was for, and
hand it back the next time; the key says whether it still fits.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_64 = 0x18
"""BPF_LD | BPF_DW | BPF_IMM: the one instruction that takes two slots, and names maps."""


class Token(IntEnum):
    """What stands in the bytecode for a value that is known at load time only."""

    FD_RING = 0x4D4F4601
    FD_COUNTERS = 0x4D4F4602
    FD_NOTES = 0x4D4F4603
    FD_STASH = 0x4D4F4604
    AGENT = 0x4D4F4605


def fill(code: bytes, values: Mapping[Token, int]) -> bytes:
    """`code` with each token replaced by its value. Raises ValueError for a token without one."""
    out = bytearray(code)
    tokens = {int(token): token for token in Token}
    for at in range(0, len(out) - 8, 8):
        operation, registers, offset, value = _INSTRUCTION.unpack_from(out, at)
        if operation == _LOAD_64 and value in tokens:
            token = tokens[value]
            if token not in values:
                raise ValueError(f"no value for {token.name}")
            _INSTRUCTION.pack_into(out, at, operation, registers, offset, values[token])
    return bytes(out)


def key_of(defines: Mapping[str, int | None], source: str) -> str:
    """A hash of all that the bytecode depends on."""
    return hashlib.sha256(json.dumps([sorted(defines.items()), source]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Programs:
    """Bytecode by program name, and the key of what it was made from."""

    key: str
    code: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"key": self.key, "code": {name: code.hex() for name, code in self.code.items()}}

    @classmethod
    def from_json(cls, data: Any) -> Programs:
        """The reverse. Raises ValueError if it is not that."""
        try:
            return cls(str(data["key"]), {str(k): bytes.fromhex(v) for k, v in data["code"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("programs: not what an agent gave out") from error
