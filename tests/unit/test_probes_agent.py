"""What of the agent needs no kernel: requests and answers, tokens in bytecode, kept programs, reading /proc."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import struct
import time
from dataclasses import replace
from typing import Any

import pytest

from probes import attach, compiler, identity, kernel, plan, programs
from probes.agent import Agent, serve
from probes.drain import Drain, DrainError
from probes.programs import Programs, Token, fill
from probes.records import RECORD_SIZE, Kind
from probes.registry import Probe, ProbeSet
from probes.ring import NOTHING, Geometry, Span
from probes.selftest import TIMES, _judge

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


PROGRAMS = Programs("k", "full", "s", {"f": 7}, {"g": "inlined"}, {"f_enter": b"\x18\x00\xff" * 8})


def test_programs_survive_json() -> None:
    assert Programs.from_json(json.loads(json.dumps(PROGRAMS.to_json()))) == PROGRAMS
    with pytest.raises(ValueError, match="programs"):
        Programs.from_json({"kernel": 1})


def test_sources_are_the_same_each_time() -> None:
    assert programs.sources() == programs.sources()
    assert len(programs.sources()) == 64


def fake_kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A kernel that lets everything be attached; what was planned, compiled and loaded, by number."""
    did = {"plan": 0, "compile": 0, "load": 0}

    def count(what: str, answer: Any) -> Any:
        did[what] += 1
        return answer

    def create_map(kind: int, key: int, size: int, *_: Any) -> int:
        fd = os.memfd_create("map")
        os.truncate(fd, size or 2 * mmap.PAGESIZE)  # a ring buffer has no size of values
        return fd

    found = plan.Plan({"do_mbind": 5}, {"do_mbind.exit": "no"}, {"ID_do_mbind_enter": 10})
    monkeypatch.setattr(kernel, "possible_cpus", lambda: 2)
    monkeypatch.setattr(kernel, "identity", lambda: "k")
    monkeypatch.setattr(kernel, "create_map", create_map)
    monkeypatch.setattr(kernel, "load_program", lambda *_: count("load", os.memfd_create("program")))
    monkeypatch.setattr(kernel, "attach_traced", lambda *_: os.memfd_create("link"))
    monkeypatch.setattr(attach, "plan", lambda _: count("plan", found))
    monkeypatch.setattr(compiler, "compile_programs", lambda *_: count("compile", {"do_mbind_enter": b""}))
    return did


def test_kept_programs_save_planning_and_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    did = fake_kernel(monkeypatch)
    first = attach.attach(ProbeSet.FULL, 4)
    kept = first.programs
    assert kept is not None and first.compiled
    assert did == {"plan": 1, "compile": 1, "load": 1}
    second = attach.attach(ProbeSet.FULL, 4, kept)
    assert did == {"plan": 1, "compile": 1, "load": 2}
    assert not second.compiled
    assert [p.name for p in second.probes] == ["do_mbind"] and second.unavailable == {"do_mbind.exit": "no"}
    for other in (replace(kept, kernel="x"), replace(kept, which="steps"), replace(kept, sources="x")):
        assert attach.attach(ProbeSet.FULL, 4, other).compiled
    for one in (first, second):
        one.close()


def test_counters_alone_need_no_room_for_records(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernel(monkeypatch)
    counting = attach.attach(ProbeSet.COUNTS, 4096)
    assert not counting.recording
    assert counting.ring.geometry.size < 1 << 16
    assert counting.counters() == {10: (0, 0)}
    counting.close()


def test_forgetting_starts_the_account_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernel(monkeypatch)
    attached = attach.attach(ProbeSet.COUNTS, 1)
    monkeypatch.setattr(kernel, "missed_runs", lambda _: 3)
    monkeypatch.setattr(attached.ring, "counters", lambda ids: dict.fromkeys(ids, (9, 0)))
    drain = Drain(attached, None)
    assert drain.report() == {"do_mbind": {"fired": 9, "lost": 0, "received": 9}}
    assert drain.missed() == {"do_mbind": 3}
    drain.forget()
    assert drain.report() == {"do_mbind": {"fired": 0, "lost": 0, "received": 0}}
    assert drain.missed() == {}
    attached.close()


def test_what_fires_at_that_very_moment_is_in_the_account_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernel(monkeypatch)
    attached = attach.attach(ProbeSet.FULL, 1)
    monkeypatch.setattr(kernel, "missed_runs", lambda _: 0)
    drain = Drain(attached, None)
    drain.received[10] = 5
    # One has fired whose record is still in the ring, and one was lost.
    monkeypatch.setattr(attached.ring, "counters", lambda ids: dict.fromkeys(ids, (7, 1)))
    drain.forget()
    drain.received[10] = 6
    assert drain.report() == {"do_mbind": {"fired": 1, "lost": 0, "received": 1}}
    attached.close()


def test_what_fires_after_a_flush_is_not_in_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernel(monkeypatch)
    attached = attach.attach(ProbeSet.FULL, 1)
    monkeypatch.setattr(kernel, "missed_runs", lambda _: 0)
    drain = Drain(attached, None)
    drain.received[10] = 5
    moments = iter([(5, 0), (6, 0), (7, 0)])
    monkeypatch.setattr(attached.ring, "counters", lambda ids: dict.fromkeys(ids, next(moments)))
    settled = drain.flush(1)
    assert drain.report(settled) == {"do_mbind": {"fired": 5, "lost": 0, "received": 5}}
    assert drain.flush(0) is None
    attached.close()


def test_a_fork_does_not_answer_for_what_its_template_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernel(monkeypatch)
    monkeypatch.setattr(kernel, "missed_runs", lambda _: 0)
    monkeypatch.setattr(identity, "become", lambda *_: None)
    attached = attach.attach(ProbeSet.FULL, 1)
    agent = Agent(None)
    agent.drain = Drain(attached, None)
    agent.drain.received[10] = 5
    monkeypatch.setattr(attached.ring, "counters", lambda ids: dict.fromkeys(ids, (5, 0)))
    assert agent.answer(b'{"do": "become", "host": "fork", "realtime_ns": 5, "entropy": ""}')["ok"]
    assert agent.drain.report() == {"do_mbind": {"fired": 0, "lost": 0, "received": 0}}
    attached.close()


def following(monkeypatch: pytest.MonkeyPatch, cpu: int | None, *taken: int) -> list[Any]:
    """What an agent on `cpu` does about its class and its CPU when it looks at a ring with these slots taken, by CPU."""
    fake_kernel(monkeypatch)
    did: list[Any] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda _, policy, param: did.append((policy, param.sched_priority)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: did.append(cpus))
    agent = Agent(None)
    assert agent.answer(json.dumps({"do": "attach", "ring_pages": 16, "cpu": cpu}).encode())["ok"]
    assert agent.drain is not None
    monkeypatch.setattr(agent.drain.attached.ring, "waiting", lambda cpu: taken[cpu])
    monkeypatch.setattr(agent.drain, "once", lambda: did.append("drain"))
    agent.tick()
    agent.close()
    return did


def test_it_goes_where_the_slots_run_out_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [(os.SCHED_FIFO, 1), {1}]
    quarter = Geometry.of(16, 2).slots // 4
    assert following(monkeypatch, 1, quarter, 3) == [*first, {0}, "drain"]
    assert following(monkeypatch, 1, quarter, 2 * quarter) == [*first, "drain"]
    assert following(monkeypatch, 1, quarter - 1, 3) == [*first, "drain"]
    assert following(monkeypatch, None, 4 * quarter, 3) == ["drain"]


def drained(monkeypatch: pytest.MonkeyPatch, sink: int, *spans: Span) -> Drain:
    """A drain of a ring that gives these spans, one a look."""
    fake_kernel(monkeypatch)
    left = iter(spans)
    attached = attach.attach(ProbeSet.FULL, 1)
    # Of two CPUs, each look takes one span of the first.
    monkeypatch.setattr(attached.ring, "take", lambda cpu: NOTHING if cpu else next(left, NOTHING))
    monkeypatch.setattr(kernel, "missed_runs", lambda _: 0)
    return Drain(attached, sink)


def test_records_wait_for_a_sink_that_takes_nothing_and_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    size = fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    # Twice what fits into the pipe, and some; all of the one probe that is attached.
    records = [bytes([n]) * RECORD_SIZE for n in range(2 * size // RECORD_SIZE + 3)]
    half = len(records) // 2
    spans = [Span(b"".join(part), bytes([10]) * len(part), True) for part in (records[:half], records[half:])]
    drain = drained(monkeypatch, theirs, *spans)
    assert drain.once() == half
    assert drain.once() == len(records) - half
    assert drain.waiting == len(records) * RECORD_SIZE - size
    assert drain.written == size // RECORD_SIZE
    monkeypatch.setattr(drain.attached.ring, "counters", lambda ids: dict.fromkeys(ids, (len(records), 0)))
    assert drain.flush(0) is None
    read = b""
    while drain.waiting:
        read += os.read(ours, 1 << 20)
        drain.push()
    assert read + os.read(ours, 1 << 20) == b"".join(records)
    assert drain.flush(0) == {10: (len(records), 0)}
    assert drain.written == len(records)
    drain.attached.close()
    os.close(ours)
    os.close(theirs)


def test_the_ring_is_left_alone_when_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr("probes.drain.MOST_WAITING", 8192)
    one = Span(bytes(4096), bytes([10]) * (4096 // RECORD_SIZE), True)
    drain = drained(monkeypatch, theirs, *[one] * 9)
    taken = [drain.once() for _ in range(5)]
    assert taken == [4096 // RECORD_SIZE] * 3 + [0, 0]
    drain.attached.close()
    os.close(ours)
    os.close(theirs)


def test_a_sink_that_is_gone_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    os.close(ours)
    drain = drained(monkeypatch, theirs, Span(bytes(RECORD_SIZE), bytes([10]), False))
    with pytest.raises(DrainError, match="Broken pipe"):
        drain.once()
    drain.attached.close()
    os.close(theirs)


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
        (b'{"do": "attach", "programs": {"kernel": "k"}}', "programs"),
        (b'{"do": "attach", "interval": 0}', "interval"),
        (b'{"do": "attach", "interval": "soon"}', "soon"),
        (b'{"do": "attach", "cpu": "last"}', "last"),
        (b'{"do": "forget"}', "nothing is attached"),
        (b'{"do": "become", "host": "x"}', "become needs 'realtime_ns'"),
        (b'{"do": "become", "host": "x", "realtime_ns": 1, "entropy": "no hex"}', "hex"),
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


def test_sync_gives_the_token_back() -> None:
    assert Agent(None).answer(b'{"do": "sync", "token": [1, "x"]}') == {"ok": True, "token": [1, "x"]}


def test_becoming_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[tuple[Any, ...]] = []
    monkeypatch.setattr(socket, "sethostname", lambda name: did.append(("host", name)))
    monkeypatch.setattr(time, "clock_settime_ns", lambda clock, ns: did.append(("time", clock, ns)))
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, data=b"": did.append((request, data)))
    answer = Agent(None).answer(b'{"do": "become", "host": "fork", "realtime_ns": 5, "entropy": "00ff0102"}')
    assert answer["ok"] and answer.keys() == {"ok", "realtime_minus_monotonic_ns"}
    assert did == [
        ("host", "fork"),
        ("time", time.CLOCK_REALTIME, 5),
        (0x40085203, struct.pack("ii", 32, 4) + b"\x00\xff\x01\x02"),
        (0x5207, b""),
    ]


def served(*lines: bytes) -> list[dict[str, Any]]:
    """What an agent answers to lines that come in one piece, until they end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(lines))
        ours.shutdown(socket.SHUT_WR)
        serve(Agent(None), theirs.fileno(), theirs.fileno(), True)
        theirs.close()
        return [json.loads(line) for line in ours.makefile()]


def test_what_a_predecessor_left_unfinished_does_not_spoil_what_follows() -> None:
    half, synced = served(b'{"do": "hel', b"\n", b'{"do": "sync", "token": 7}\n', b'{"do": "fl')
    assert not half["ok"] and "not a request" in half["error"]
    assert synced == {"ok": True, "token": 7}


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
