"""Evidence that is whole carries a verdict; evidence that is not never passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import arming
from controller.agent import Agent
from controller.experiment import SCRIPTS
from probes.records import RECORD_SIZE
from provision.guest.guest import RECORDS
from provision.host.deadline import Deadline
from tests.guest.conftest import Lab, Ran, opened

LARGE = str(SCRIPTS / "lazy-16384.memtoy")
PAGES = 16_384


def test_16384_pages_move_lazily_and_no_event_is_lost(once: Callable[..., Ran]) -> None:
    ran = once("run", LARGE, "--json")
    assert ran.status == 0, ran.explain()
    (case,) = ran.verdict["cases"]
    assert (case["pages"], case["migrated"], case["mechanism"]) == (PAGES, PAGES, "lazy")
    assert case["contents"] == "intact"
    probes = ran.verdict["probes"]
    assert probes["lost"] == 0
    assert probes["fired"] == probes["received"] > PAGES  # each one moved; marked they are by the range


def test_lost_events_make_the_verdict_undecided(once: Callable[..., Ran]) -> None:
    ran = once("run", LARGE, "--ring-pages", "1", "--json")
    assert ran.status == 1, ran.explain()
    verdict = ran.verdict
    assert verdict["verdict"] == "undecided"
    assert "lost" in verdict["reason"]
    probes = verdict["probes"]
    assert probes["lost"] > 0
    assert probes["fired"] == probes["received"] + probes["lost"]


@pytest.mark.parametrize("probes", ["counts", "none"])
def test_a_run_without_records_rests_on_the_workload_and_says_so(once: Callable[..., Ran], probes: str) -> None:
    ran = once("run", "demo", "--probes", probes, "--json")
    assert ran.status == 0, ran.explain()
    assert [c["migrated"] for c in ran.verdict["cases"]] == [8] * 4
    assert any("memtoy's own results" in warning for warning in ran.verdict["warnings"])
    if probes == "counts":
        assert ran.verdict["probes"]["fired"] > 0


@contextmanager
def serving(lab: Lab) -> Iterator[Agent]:
    lab.shell.run(arming.AGENT_COMMAND, Deadline.after(30)).expect()
    with lab.guest.control_socket() as stream:
        agent = Agent(stream, lab.guest.check)
        yield agent
        agent.ask({"do": "quit"}, Deadline.after(30))
    # A port can be opened once at a time: the next agent needs this one gone.
    lab.run("while pgrep -f 'probes[.]agent' > /dev/null; do sleep 0.1; done", 30).expect()


@pytest.fixture
def agent(lab: Lab) -> Iterator[Agent]:
    with serving(lab) as found:
        yield found


@pytest.mark.parametrize(("which", "fewest"), [("steps", 30), ("full", 17), ("counts", 15)])
def test_each_probe_that_can_be_provoked_fires_a_known_number_of_times(agent: Agent, which: str, fewest: int) -> None:
    attached = agent.ask({"do": "attach", "set": which}, Deadline.after(120))
    assert attached["unavailable"] == {}
    told = agent.ask({"do": "selftest"}, Deadline.after(120))["probes"]
    assert set(told) == set(attached["attached"])
    assert {name: row for name, row in told.items() if not row["ok"]} == {}
    provoked = [row for row in told.values() if row["expected"]]
    assert len(provoked) >= fewest
    assert all(row["fired"] >= row["expected"] == 23 for row in provoked)


@pytest.mark.parametrize("which", ["steps", "full"])
def test_everything_is_accounted_for_and_on_the_host(lab: Lab, agent: Agent, which: str) -> None:
    agent.ask({"do": "attach", "set": which, "interval": 0.5}, Deadline.after(120))
    before = lab.guest.records.stat().st_size
    status, _ = lab.memtoy((SCRIPTS / "lazy-touch.memtoy").read_text())
    assert status == 0
    counts = agent.flush(Deadline.after(60))
    assert all(c.fired == c.received + c.lost for c in counts.values())
    assert counts["unmap_range_lazy.exit"].fired >= 1
    assert counts["migrate:mm_migrate_on_fault"].fired >= 8
    written = sum(c.received for c in counts.values()) * 64
    assert Deadline.after(10).poll(lambda: lab.guest.records.stat().st_size - before == written)
    forgotten = agent.ask({"do": "forget"}, Deadline.after(60))
    assert all(row["fired"] == row["received"] == 0 for row in forgotten["probes"].values())


TWICE = "cpus 0x8\nanon foo 4096p\nmap foo\nmbind foo preferred 1\ntouch foo write=1\n" + (
    "mbind foo 0 * bind+move+lazy 2\ntouch foo read=1\n"
)


def test_the_agent_goes_to_its_producer_which_then_waits_for_it(lab: Lab, agent: Agent) -> None:
    """4,096 slots a CPU, half of which are enough for what the kernel does between two chances to be preempted."""
    agent.ask({"do": "attach", "set": "steps", "ring_pages": 256, "interval": 0.1, "cpu": 0}, Deadline.after(120))
    # At first the agent is on another CPU, and what is lost before it has come is lost.
    for losing in (True, False):
        agent.ask({"do": "forget"}, Deadline.after(60))
        status, _ = lab.memtoy(TWICE)
        assert status == 0
        counts = agent.flush(Deadline.after(60))
        assert sum(c.fired for c in counts.values()) > 8 * 4_096
        assert losing or {name: c.lost for name, c in counts.items() if c.lost} == {}
    assert lab.run("ps -o psr= -p $(pgrep -f 'probes[.]agent')").out.split() == ["3"]


@contextmanager
def read_late(path: Path, seconds: float) -> Iterator[list[int]]:
    """Reads what is written to a new pipe at `path`, but for so long after the first of it; the lengths of what came."""
    os.mkfifo(path)
    lengths: list[int] = []

    def read() -> None:
        with path.open("rb", buffering=0) as stream:
            while chunk := stream.read(1 << 20):
                if not lengths:
                    time.sleep(seconds)
                lengths.append(len(chunk))

    reader = threading.Thread(target=read)
    reader.start()
    yield lengths
    reader.join()


@contextmanager
def starved(pid: int, records: Path, seconds: float) -> Iterator[None]:
    """QEMU's first thread, which has its timers, gets no processor for so long after the first records have come."""

    def starve() -> None:
        if not Deadline.after(60).poll(lambda: records.stat().st_size > 1 << 18):
            return
        cpu, allowed = max(os.sched_getaffinity(0)), os.sched_getaffinity(pid)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        os.sched_setaffinity(busy.pid, {cpu})
        os.sched_setaffinity(pid, {cpu})
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(seconds)
        busy.kill()
        busy.wait()
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(pid, allowed)
        done.append(True)

    done: list[bool] = []
    hindrance = threading.Thread(target=starve)
    hindrance.start()
    yield
    hindrance.join()
    assert done


def test_an_emulator_whose_timers_do_not_come_loses_no_event(tmp_path: Path) -> None:
    with opened(tmp_path) as lab, serving(lab) as agent:
        agent.ask({"do": "attach", "set": "steps", "ring_pages": 4096, "interval": 0.1, "cpu": 3}, Deadline.after(120))
        agent.ask({"do": "forget"}, Deadline.after(60))
        with starved(lab.guest._child.pid, lab.guest.records, 4):
            status, _ = lab.memtoy(TWICE.replace("4096p", "65536p"))
        assert status == 0
        counts = agent.flush(Deadline.after(60))
    assert {name: c.lost for name, c in counts.items() if c.lost} == {}
    assert sum(c.received for c in counts.values()) > 8 * 65_536


def test_a_host_that_does_not_take_the_records_for_seconds_gets_them_later(tmp_path: Path) -> None:
    """They are 16 MB, and there is room for 4 in the ring and for 4 on their way. The others wait in the agent."""
    with read_late(tmp_path / RECORDS, 4) as lengths, opened(tmp_path) as lab, serving(lab) as agent:
        agent.ask({"do": "attach", "set": "steps", "ring_pages": 4096, "interval": 0.1, "cpu": 3}, Deadline.after(120))
        agent.ask({"do": "forget"}, Deadline.after(60))
        status, _ = lab.memtoy(TWICE.replace("4096p", "32768p"))
        assert status == 0
        counts = agent.flush(Deadline.after(60))
    assert {name: c.lost for name, c in counts.items() if c.lost} == {}
    assert sum(lengths) == RECORD_SIZE * sum(c.received for c in counts.values()) > 16 << 20


def test_kept_programs_spare_the_kernel_being_looked_at(agent: Agent, lab: Lab) -> None:
    attached = agent.ask({"do": "attach", "set": "full"}, Deadline.after(120))
    assert attached["compiled"] and "plan" in attached["timing"]
    kept = agent.ask({"do": "programs"}, Deadline.after(60))
    agent.ask({"do": "quit"}, Deadline.after(30))
    lab.run("while pgrep -f 'probes[.]agent' > /dev/null; do sleep 0.1; done", 30).expect()
    lab.shell.run(arming.AGENT_COMMAND, Deadline.after(30)).expect()
    again = agent.ask({"do": "attach", "set": "full", "programs": kept}, Deadline.after(60))
    assert not again["compiled"] and "plan" not in again["timing"]
    assert again["attached"] == attached["attached"]
    told = agent.ask({"do": "selftest"}, Deadline.after(120))["probes"]
    assert all(row["ok"] for row in told.values())


def test_a_controller_that_comes_after_another_finds_its_bearings(agent: Agent) -> None:
    agent._stream.sendall(b'{"do": "hel')
    agent._stream.sendall(b'\n{"do": "sync", "token": 1}\n')
    assert "not a request" in json.loads(agent._line("nothing", Deadline.after(30)))["error"]
    assert json.loads(agent._line("sync", Deadline.after(30))) == {"ok": True, "token": 1}


def test_the_manifest_says_what_it_takes_to_repeat_the_run(demo: Ran) -> None:
    assert demo.folder is not None
    manifest = json.loads((demo.folder / "manifest.json").read_text())
    for key in (
        "kernel",
        "image",
        "host",
        "qemu",
        "qemu_command",
        "accelerator",
        "topology",
        "clock",
        "probes",
        "timings",
    ):
        assert manifest[key], key
    assert manifest["kernel"]["build_id"] == demo.verdict["kernel"]["build_id"]
    assert Path(manifest["qemu_command"][0]).name.startswith("qemu-system")
