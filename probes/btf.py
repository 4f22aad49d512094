"""What the probes ask of the kernel's type information: offsets, positions of arguments, ids of functions.

The format is Documentation/bpf/btf.rst. One pass over the types notes where each starts, which takes a
second even where an instruction costs fifty; everything else is looked up when it is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_PAIR = struct.Struct("<II")
_TRIPLE = struct.Struct("<III")

_PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO = 8, 9, 10, 11, 12, 13
_TYPE_TAG, _ENUM64 = 18, 19
_MODIFIERS = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))

TRACEPOINT_TYPE, TRACEPOINT_CALLER = "btf_trace_", "__traceiter_"
"""What precedes a tracepoint's name in the types that it has."""

# Bytes of a type: 12, and by kind so many more, and so many for each of its vlen parts.
_FIXED = [12] * 32
for _kind, _more in ((1, 4), (_ARRAY, 12), (14, 4), (17, 4)):
    _FIXED[_kind] += _more
_EACH = [0] * 32
for _kind, _more in ((_STRUCT, 12), (_UNION, 12), (_ENUM, 8), (_FUNC_PROTO, 8), (15, 12), (_ENUM64, 12)):
    _EACH[_kind] = _more


class BtfError(Exception):
    """The type information is malformed, or does not have what was asked for."""


@dataclass(frozen=True)
class Function:
    """A function that can be attached to: its type id, and its parameters with the first slot of each."""

    type_id: int
    slots: dict[str, int]
    slot_count: int
    returns: bool


class Btf:
    """Type information of a kernel, of which the types called `names` can be asked for."""

    def __init__(self, blob: bytes, names: Iterable[str]) -> None:
        """Raises BtfError if `blob` is not BTF. Names that it does not have are no error here."""
        try:
            magic, version, _, header, types, types_len, strings, strings_len = _HEADER.unpack_from(blob)
        except struct.error as error:
            raise BtfError("too short to be BTF") from error
        if magic != _MAGIC or version != 1:
            raise BtfError(f"not BTF version 1: magic {magic:#x}, version {version}")
        if header + max(types + types_len, strings + strings_len) > len(blob):
            raise BtfError("BTF is cut short")
        self._blob = blob
        self._strings = blob[header + strings : header + strings + strings_len]
        self._named: dict[tuple[int, str], int] = {}
        self._starts = [0]
        self._index(header + types, header + types + types_len, set(names))

    @classmethod
    def of_kernel(cls, names: Iterable[str]) -> Btf:
        """The running kernel's; raises BtfError if it has none."""
        try:
            return cls(VMLINUX.read_bytes(), names)
        except OSError as error:
            raise BtfError(f"the kernel shows no type information: {error}") from error

    def _index(self, start: int, end: int, names: set[str]) -> None:
        # A name stands in the strings once, so comparing offsets does for comparing names.
        wanted = {at + 1: name for name in names if (at := self._strings.find(b"\0" + name.encode() + b"\0")) >= 0}
        blob, unpack, fixed, each, add = self._blob, _TYPE.unpack_from, _FIXED, _EACH, self._starts.append
        at = start
        try:
            while at < end:
                name, info, _ = unpack(blob, at)
                kind = info >> 24 & 31
                if name in wanted:
                    self._named[kind, wanted[name]] = len(self._starts)
                add(at)
                at += fixed[kind] + each[kind] * (info & 0xFFFF)
        except struct.error as error:
            raise BtfError("BTF is cut short") from error

    def _type(self, type_id: int) -> tuple[int, int, bool, int]:
        """Kind, number of parts, the flag that changes what parts mean, and size or type."""
        _, info, size = _TYPE.unpack_from(self._blob, self._starts[type_id])
        return info >> 24 & 31, info & 0xFFFF, bool(info >> 31), size

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _strip(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while type_id and self._type(type_id)[0] in _MODIFIERS:
            type_id = self._type(type_id)[3]
        return type_id

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name, type and offset in bits of each member."""
        _, count, packed, _ = self._type(type_id)
        for i in range(count):
            name, kind, offset = _TRIPLE.unpack_from(self._blob, self._starts[type_id] + 12 + 12 * i)
            yield self._text(name), kind, offset & 0xFFFFFF if packed else offset

    def size(self, struct_name: str) -> int:
        """Bytes of a structure; BtfError if there is none of that name."""
        return self._type(self._structure(struct_name))[3]

    def _structure(self, name: str) -> int:
        type_id = self._named.get((_STRUCT, name))
        if type_id is None:
            raise BtfError(f"no struct {name}")
        return type_id

    def offset(self, struct_name: str, member: str) -> int:
        """Offset in bytes of a member, which may be in anonymous members; BtfError if there is none."""
        found = self._find(self._structure(struct_name), member)
        if found is None:
            raise BtfError(f"struct {struct_name} has no member {member}")
        return found // 8

    def _find(self, type_id: int, member: str) -> int | None:
        for name, kind, offset in self._members(type_id):
            if name == member:
                return offset
            inner = self._strip(kind)
            if not name and self._type(inner)[0] in (_STRUCT, _UNION):
                found = self._find(inner, member)
                if found is not None:
                    return offset + found
        return None

    def enumerator(self, enum_name: str, name: str) -> int:
        """The value of an enumerator; BtfError if there is none."""
        type_id = self._named.get((_ENUM, enum_name))
        if type_id is None:
            raise BtfError(f"no enum {enum_name}")
        for i in range(self._type(type_id)[1]):
            text, value = _PAIR.unpack_from(self._blob, self._starts[type_id] + 12 + 8 * i)
            if self._text(text) == name:
                return int(value)
        raise BtfError(f"enum {enum_name} has no {name}")

    def function(self, name: str) -> Function:
        """A function; BtfError if the kernel has none of that name that can be attached to.

        A structure passed by value takes a slot for each 8 bytes, as the kernel's trampolines pass it.
        """
        type_id = self._named.get((_FUNC, name))
        if type_id is None:
            raise BtfError(f"no function {name}")
        proto = self._type(type_id)[3]
        _, count, _, returned = self._type(proto)
        slots: dict[str, int] = {}
        slot = 0
        for i in range(count):
            text, kind = _PAIR.unpack_from(self._blob, self._starts[proto] + 12 + 8 * i)
            slots[self._text(text)] = slot
            inner = self._type(self._strip(kind)) if self._strip(kind) else (0, 0, False, 0)
            slot += (inner[3] + 7) // 8 if inner[0] in (_STRUCT, _UNION) else 1
        return Function(type_id, slots, slot, returned != 0)

    def tracepoint(self, name: str) -> Function:
        """A tracepoint as BPF_TRACE_RAW_TP wants it; BtfError if the kernel has none of that name.

        It is attached to by its typedef's id (check_attach_btf_id(), kernel/bpf/verifier.c). Parameters have names only
        in the function that calls what is attached; its first one is not passed on (include/trace/bpf_probe.h).
        """
        type_id = self._named.get((_TYPEDEF, f"{TRACEPOINT_TYPE}{name}"))
        if type_id is None:
            raise BtfError("no such tracepoint")
        caller = self.function(f"{TRACEPOINT_CALLER}{name}")
        slots = {param: slot - 1 for param, slot in caller.slots.items() if slot}
        return Function(type_id, slots, caller.slot_count - 1, False)
