"""The BTF reader on a small blob made here: anonymous members, parameters, and what is not there."""

from __future__ import annotations

import struct

import pytest

from probes.btf import Btf, BtfError

INT, PTR, STRUCT, UNION, ENUM, TYPEDEF, CONST, FUNC, FUNC_PROTO = 1, 2, 4, 5, 6, 8, 10, 12, 13


class Blob:
    """Types in the order in which they are added; ids start at 1, as the format has it."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at < 0:
            at = len(self.strings) - 1
            self.strings += text.encode() + b"\0"
        return at + 1

    def add(self, kind: int, name: str, size: int, rest: bytes = b"", parts: int = 0, flag: bool = False) -> int:
        self.types.append(struct.pack("<III", self.name(name), kind << 24 | parts | flag << 31, size) + rest)
        return len(self.types)

    def members(self, kind: int, name: str, size: int, *parts: tuple[str, int, int]) -> int:
        rest = b"".join(struct.pack("<III", self.name(text), type_id, bits) for text, type_id, bits in parts)
        return self.add(kind, name, size, rest, len(parts))

    def function(self, name: str, returns: int, *params: tuple[str, int]) -> int:
        rest = b"".join(struct.pack("<II", self.name(text), type_id) for text, type_id in params)
        return self.add(FUNC, name, self.add(FUNC_PROTO, "", returns, rest, len(params)), parts=1)

    def build(self) -> bytes:
        types = b"".join(self.types)
        return (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
            + types
            + self.strings
        )


@pytest.fixture
def blob() -> Blob:
    made = Blob()
    u64 = made.add(INT, "unsigned long", 8, struct.pack("<I", 64))
    word = made.add(TYPEDEF, "word", u64)
    inner = made.members(UNION, "", 8, ("index", u64, 0), ("share", u64, 0))
    middle = made.members(STRUCT, "", 24, ("flags", u64, 0), ("", made.add(CONST, "", inner), 64), ("count", u64, 128))
    folio = made.members(STRUCT, "folio", 32, ("head", u64, 0), ("", middle, 64))
    entry = made.members(STRUCT, "entry", 16, ("a", u64, 0), ("b", u64, 64))
    made.add(ENUM, "pageflags", 4, struct.pack("<IiIi", made.name("PG_locked"), 0, made.name("PG_head"), 6), 2)
    pointer = made.add(PTR, "", folio)
    made.function("moves", u64, ("src", pointer), ("where", made.add(TYPEDEF, "entry_t", entry)), ("node", word))
    made.function("nothing", 0)
    handler = made.add(FUNC_PROTO, "", 0, struct.pack("<IIIIII", 0, pointer, 0, u64, 0, u64), 3)
    made.add(TYPEDEF, "btf_trace_seen", made.add(PTR, "", handler))
    made.function("__traceiter_seen", u64, ("__data", pointer), ("addr", u64), ("node", u64))
    return made


def btf(made: Blob) -> Btf:
    return Btf(made.build(), ["folio", "pageflags", "moves", "nothing", "absent", "btf_trace_seen", "__traceiter_seen"])


def test_offsets_reach_into_anonymous_members(blob: Blob) -> None:
    info = btf(blob)
    found = {member: info.offset("folio", member) for member in ("head", "flags", "index", "share", "count")}
    assert found == {"head": 0, "flags": 8, "index": 16, "share": 16, "count": 24}
    assert info.size("folio") == 32


def test_a_structure_by_value_takes_its_slots(blob: Blob) -> None:
    function = btf(blob).function("moves")
    assert function.slots == {"src": 0, "where": 1, "node": 3}
    assert function.slot_count == 4
    assert function.returns


def test_a_function_that_returns_nothing(blob: Blob) -> None:
    function = btf(blob).function("nothing")
    assert not function.returns
    assert function.slot_count == 0


def test_a_tracepoint_has_its_typedefs_id_and_its_callers_names(blob: Blob) -> None:
    found = btf(blob).tracepoint("seen")
    assert blob.types[found.type_id - 1][4:8] == struct.pack("<I", TYPEDEF << 24)
    assert found.slots == {"addr": 0, "node": 1}
    assert (found.slot_count, found.returns) == (2, False)
    with pytest.raises(BtfError, match="no such tracepoint"):
        btf(blob).tracepoint("unseen")


def test_enumerators(blob: Blob) -> None:
    assert btf(blob).enumerator("pageflags", "PG_head") == 6


def test_type_ids_count_from_one(blob: Blob) -> None:
    made = Blob()
    made.add(INT, "int", 4, struct.pack("<I", 32))
    last = made.function("f", 0)
    assert Btf(made.build(), ["f"]).function("f").type_id == last == 3


def test_what_is_not_there_is_named(blob: Blob) -> None:
    info = btf(blob)
    with pytest.raises(BtfError, match="no function absent"):
        info.function("absent")
    with pytest.raises(BtfError, match="no struct nowhere"):
        info.offset("nowhere", "x")
    with pytest.raises(BtfError, match="folio has no member colour"):
        info.offset("folio", "colour")
    with pytest.raises(BtfError, match="pageflags has no PG_tail"):
        info.enumerator("pageflags", "PG_tail")


def test_malformed_blobs(blob: Blob) -> None:
    good = blob.build()
    with pytest.raises(BtfError, match="too short"):
        Btf(good[:10], [])
    with pytest.raises(BtfError, match="not BTF"):
        Btf(b"\0\0" + good[2:], [])
    with pytest.raises(BtfError, match="cut short"):
        Btf(good[:-5], [])
