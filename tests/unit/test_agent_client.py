"""The controller's end of the agent's port, against a socket pair that plays the agent."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.agent import Agent
from provision.host.deadline import Deadline
from provision.host.errors import GuestLost, InfraError, Loss

Reply = Callable[[dict[str, Any]], bytes | None]


@pytest.fixture
def agent_with() -> Iterator[Callable[[Reply], Agent]]:
    ours, theirs = socket.socketpair()

    def serve(reply: Reply) -> None:
        with theirs, theirs.makefile("rb") as lines:
            for line in lines:
                if not line.strip():
                    continue
                answer = reply(json.loads(line))
                if answer is None:
                    return
                for part in (answer[:5], answer[5:]):  # answers arrive in pieces
                    theirs.sendall(part)

    def start(reply: Reply) -> Agent:
        threading.Thread(target=serve, args=(reply,), daemon=True).start()
        return Agent(ours, lambda: None)

    yield start
    ours.close()


def test_counts_come_back_per_probe(agent_with: Callable[[Reply], Agent]) -> None:
    told = {"ok": True, "probes": {"a": {"fired": 3, "received": 2, "lost": 1}}}
    agent = agent_with(lambda request: json.dumps(told).encode() + b"\n")
    count = agent.flush(Deadline.after(5))["a"]
    assert (count.fired, count.received, count.lost) == (3, 2, 1)


def test_the_agent_s_own_words_are_in_the_error(agent_with: Callable[[Reply], Agent]) -> None:
    told = {"ok": False, "error": "the verifier refuses\nline 1\nline 2"}
    agent = agent_with(lambda request: json.dumps(told).encode() + b"\n")
    with pytest.raises(InfraError, match="agent: attach: the verifier refuses") as caught:
        agent.ask({"do": "attach"}, Deadline.after(5))
    assert caught.value.detail == "line 1\nline 2"


def test_a_closed_port_is_a_lost_guest(agent_with: Callable[[Reply], Agent]) -> None:
    agent = agent_with(lambda request: None)
    with pytest.raises(GuestLost) as caught:
        agent.ask({"do": "hello"}, Deadline.after(5))
    assert caught.value.loss is Loss.CONNECTION


def test_an_agent_that_never_answers_is_a_hang(agent_with: Callable[[Reply], Agent]) -> None:
    agent = agent_with(lambda request: b" ")
    with pytest.raises(GuestLost) as caught:
        agent.ask({"do": "flush"}, Deadline.after(0.3))
    assert caught.value.loss is Loss.HANG


def test_a_guest_that_panics_meanwhile_is_told_as_that() -> None:
    ours, theirs = socket.socketpair()

    def check() -> None:
        raise GuestLost(Loss.PANIC, "sysrq triggered crash")

    with ours, theirs, pytest.raises(GuestLost, match="panic"):
        Agent(ours, check).ask({"do": "flush"}, Deadline.after(5))


def test_a_new_controller_passes_over_what_another_left(agent_with: Callable[[Reply], Agent]) -> None:
    def reply(request: dict[str, Any]) -> bytes:
        stale = b'lf an answer"}\n{"ok": true, "token": "of another"}\n'
        return stale + json.dumps({"ok": True, "token": request["token"]}).encode() + b"\n"

    agent = agent_with(reply)
    agent.sync(Deadline.after(5))
    assert agent._buffer == b""
