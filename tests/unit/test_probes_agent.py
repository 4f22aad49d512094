"""What of the agent needs no kernel: requests and answers, tokens in bytecode, and reading /proc and tracefs."""

from __future__ import annotations

import json
import struct

import pytest

from probes import kernel
from probes.agent import Agent
from probes.attach import parse_format
from probes.programs import Programs, Token, fill, key_of
from probes.records import Kind
from probes.registry import Probe
from probes.selftest import TIMES, _judge

FORMAT = """name: mm_migrate_on_fault
ID: 512
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long addr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:16;\tsize:16;\tsigned:0;
\tfield:int dst_nid;\toffset:36;\tsize:4;\tsigned:1;
"""

ZONEINFO = """Node 0, zone      DMA
  per-node stats
        spanned  4095
  start_pfn:           1
Node 0, zone  Movable
        spanned  0
  start_pfn:           0
Node 1, zone    DMA32
  pages free     126000
        spanned  131072
        present  131072
  start_pfn:           196608
"""


def test_tracepoint_fields() -> None:
    assert parse_format(FORMAT) == {"common_type": 0, "common_pid": 4, "addr": 8, "comm": 16, "dst_nid": 36}


def test_node_spans_leave_empty_zones_out() -> None:
    assert kernel.node_spans(ZONEINFO) == [
        {"node": 0, "zone": "DMA", "start_pfn": 1, "spanned": 4095},
        {"node": 1, "zone": "DMA32", "start_pfn": 196608, "spanned": 131072},
    ]


def instruction(operation: int, registers: int, value: int) -> bytes:
    return struct.pack("<BBhi", operation, registers, 0, value)


def test_tokens_are_filled_in_only_where_64_bits_are_loaded() -> None:
    ring = int(Token.FD_RING)
    code = instruction(0x18, 0x11, ring) + instruction(0, 0, 0) + instruction(0xB7, 0x01, ring)
    filled = fill(code, {Token.FD_RING: 9})
    assert filled == instruction(0x18, 0x11, 9) + instruction(0, 0, 0) + instruction(0xB7, 0x01, ring)
    with pytest.raises(ValueError, match="FD_RING"):
        fill(code, {})


def test_programs_survive_json() -> None:
    programs = Programs("k", {"f_enter": b"\x18\x00\xff" * 8})
    assert Programs.from_json(json.loads(json.dumps(programs.to_json()))) == programs
    with pytest.raises(ValueError, match="programs"):
        Programs.from_json({"key": 1})


def test_the_key_depends_on_macros_and_source() -> None:
    keys = {key_of({"A": 1}, "x"), key_of({"A": 2}, "x"), key_of({"A": 1}, "y"), key_of({"A": 1, "B": None}, "x")}
    assert len(keys) == 4
    assert key_of({"A": 1, "B": 2}, "") == key_of({"B": 2, "A": 1}, "")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"no json", "not a request"),
        (b"[1]", "not a request"),
        (b"{}", "cannot do None"),
        (b'{"do": "sing"}', "one of hello, attach"),
        (b'{"do": "status"}', "nothing is attached"),
        (b'{"do": "flush"}', "nothing is attached"),
        (b'{"do": "attach", "set": "some"}', "'some' is not a valid ProbeSet"),
        (b'{"do": "attach", "ring_pages": 3}', "power of two"),
        (b'{"do": "attach", "programs": {"key": "k"}}', "programs"),
    ],
)
def test_bad_requests_are_answered(line: bytes, error: str) -> None:
    answer = Agent(None).answer(line)
    assert answer["ok"] is False
    assert error in answer["error"]


def test_quit() -> None:
    agent = Agent(None)
    assert agent.answer(b'{"do": "quit"}') == {"ok": True}
    assert agent.done


EXACT = Probe(60, "f", Kind.ENTER, "")
AT_LEAST = Probe(61, "g", Kind.ENTER, "", exact=False)


@pytest.mark.parametrize(
    ("probe", "fired", "own", "ok"),
    [
        (EXACT, TIMES, True, True),
        (EXACT, TIMES + 1, True, False),
        (EXACT, TIMES + 1, False, True),
        (EXACT, 0, True, False),
        (AT_LEAST, TIMES * 2, True, True),
        (AT_LEAST, TIMES - 1, True, False),
    ],
)
def test_judging_the_self_test(probe: Probe, fired: int, own: bool, ok: bool) -> None:
    assert _judge(probe, fired, "", 0, own)["ok"] is ok


def test_a_stage_that_could_not_be_acted_out_is_no_pass() -> None:
    verdict = _judge(EXACT, TIMES, "no swap device is on", 0, True)
    assert verdict == {"expected": TIMES, "fired": TIMES, "ok": False, "why": "no swap device is on"}
    assert "5 events were lost" in _judge(EXACT, 3, "", 5, True)["why"]
