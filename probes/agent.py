"""The agent in the guest: attaches probes on request, drains their records, and answers for every one of them.

Requests are JSON objects, a line each, `{"do": verb, ...}`; so are the answers, `{"ok": true, ...}` or `{"ok": false,
"error": "..."}`. A line that is no request is answered so, too, and spoils nothing that follows.

    hello                           release, nodes and their page frames, CPUs, clock offset, version
    attach  set, ring_pages,        attached, unavailable with reasons, how, seconds (and timing, in parts), compiled.
            programs, interval,     `interval`: seconds between looks at the ring, between which the agent sleeps.
            kprobes_only, cpu       `cpu`: where events will be made, for the agent to be in the way there (Agent.tick)
    programs                        what was found and compiled, for `attach` on the same kernel another time
    status                          per probe fired, lost, received; received and written in all
    drain   on                      stop draining, or go on: a ring that is full loses, and says so
    flush                           drain until nothing is left; then as status, and whether all is accounted for
    forget                          the same, and counts from here: what was is in no answer any more, this one included
    selftest                        per probe expected, fired, ok, why; its events are in no later count
    become  host, realtime_ns,      for a guest forked from another: host name, CLOCK_REALTIME, and bytes in hex that are
            entropy                 mixed into random numbers; the new clock offset. Counts from here, as forget
    sync    token                   the token: a controller that does not know what its predecessor left in the port
                                    sends a newline and this, and reads on to its answer
    quit

Runs as `python3 -m probes.agent --control PORT --records PORT`, or with `--control -` on stdin and stdout.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes import identity, kernel, selftest
from probes.attach import Attached, AttachError, attach
from probes.drain import Drain, DrainError, Fired
from probes.programs import Programs
from probes.records import NODES_SHIFT, PAGE_STRUCT_SIZE, RECORD_SIZE, VMEMMAP
from probes.registry import ProbeSet
from probes.ring import Ring

VERSION = 2
RING_PAGES = 4096
INTERVAL = 0.02
"""Seconds between looks at the ring: 16 MB last ten times as long at the fastest rate ever seen."""
CLOSED_SECONDS = 0.02
"""Between looks whether somebody has come, where a port does not tell."""
FLUSH_SECONDS = 30.0
FOLLOW_PART = 4
"""A look that finds this part of a CPU's slots taken finds too much (Agent.tick)."""
PRIORITY = 1
"""Of SCHED_FIFO, the lowest: above all that a workload ordinarily has."""
_LONGEST_LINE = 1 << 20


@dataclass
class Agent:
    """What is attached, where records go, and one method per request."""

    sink: int | None
    attached: Attached | None = None
    drain: Drain | None = None
    draining: bool = True
    interval: float = INTERVAL
    cpu: int | None = None
    """The one that it keeps to, above its producer; None when it runs anywhere and lets the scheduler choose."""
    trouble: str = ""
    """Why draining stopped by itself; told in every answer that would hide it."""
    done: bool = False

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a line; every error becomes one."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            return {"ok": False, "error": f"not a request: {error}"}
        verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "attach": self._attach,
            "programs": self._programs,
            "status": self._status,
            "drain": self._drain,
            "flush": self._flush,
            "forget": self._forget,
            "selftest": self._selftest,
            "become": self._become,
            "sync": lambda request: {"token": request.get("token")},
            "quit": self._quit,
        }
        verb = verbs.get(str(request.get("do")))
        if verb is None:
            return {"ok": False, "error": f"cannot do {request.get('do')!r}: one of {', '.join(verbs)}"}
        try:
            return {"ok": True, **verb(request)}
        except (AttachError, DrainError, kernel.BpfError, OSError, ValueError, TypeError) as error:
            return {"ok": False, "error": str(error) or type(error).__name__}

    @property
    def looking(self) -> bool:
        """Whether there is a ring to be looked at from time to time."""
        return self.drain is not None and self.drain.attached.recording and self.draining and not self.trouble

    @property
    def bells(self) -> tuple[int, ...]:
        """What becomes readable when a ring fills up between two looks."""
        return (self.drain.attached.bell.fd,) if self.looking and self.drain and self.drain.attached.bell else ()

    @property
    def sinks(self) -> tuple[int, ...]:
        """What becomes writable when records that wait can be written on."""
        waits = self.drain is not None and self.drain.waiting and not self.trouble
        return (self.sink,) if waits and self.sink is not None else ()

    def rung(self, ready: list[int]) -> bool:
        """Whether one of these is a bell; answers it."""
        bell = self.drain.attached.bell if self.drain else None
        if bell is None or bell.fd not in ready:
            return False
        bell.answer()
        return True

    def tick(self) -> None:
        """Drain what there is; trouble stops it, and is told with the next answer.

        A producer on another CPU can fill any ring before the agent gets a processor. With one host thread for all CPUs,
        QEMU does not leave a CPU because another one was sent an interrupt: the turn ends by a timer (every 100 ms), and
        on a busy host much later. So, told where the producer is, the agent runs on that same CPU and above it, where the
        bell preempts the producer at once; and it goes after a producer that has moved, when it sees slots run out.
        """
        if self.drain and self.looking:
            if self.cpu is not None:
                self._go_after_the_producer(self.drain.attached.ring)
            self._try(self.drain.once)

    def _go_after_the_producer(self, ring: Ring) -> None:
        cpu = max(range(ring.geometry.cpus), key=ring.waiting)
        if cpu != self.cpu and ring.waiting(cpu) >= ring.geometry.slots // FOLLOW_PART:
            with suppress(OSError):  # it went offline since
                os.sched_setaffinity(0, {cpu})
                self.cpu = cpu

    def push(self) -> None:
        """Write on what waits, as far as it is taken; trouble as above."""
        if self.drain:
            self._try(self.drain.push)

    def _try(self, what: Callable[[], object]) -> None:
        try:
            what()
        except DrainError as error:
            self.trouble = str(error)

    def close(self) -> None:
        """Detach."""
        if self.attached:
            self.attached.close()

    def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        uname = os.uname()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "release": uname.release,
            "machine": uname.machine,
            "cpus": os.sysconf("SC_NPROCESSORS_ONLN"),
            "nodes": kernel.node_spans(),
            **self._clocks(),
            "record_size": RECORD_SIZE,
            "vmemmap": VMEMMAP,
            "page_struct_size": PAGE_STRUCT_SIZE,
            "nodes_shift": NODES_SHIFT,
        }

    def _clocks(self) -> dict[str, Any]:
        return {"realtime_minus_monotonic_ns": time.time_ns() - time.monotonic_ns()}

    def _attach(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.attached:
            raise AttachError("probes are attached already")
        started = time.monotonic()
        known = request.get("programs")
        interval = float(request.get("interval", INTERVAL))
        cpu = None if request.get("cpu") is None else int(request["cpu"])
        if not 0 < interval < 1e6:
            raise AttachError(f"interval is {interval}, and must be seconds above 0")
        self.attached = attach(
            ProbeSet(request.get("set", "full")),
            int(request.get("ring_pages", RING_PAGES)),
            Programs.from_json(known) if known else None,
            bool(request.get("kprobes_only", False)),
        )
        self.drain, self.interval = Drain(self.attached, self.sink), interval
        if cpu is not None:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
            os.sched_setaffinity(0, {cpu})
        self.cpu = cpu
        # The compiler leaves much behind; collecting it in the middle of a drain would cost events.
        gc.collect()
        gc.freeze()
        return {
            "attached": [probe.name for probe in self.attached.probes],
            "unavailable": self.attached.unavailable,
            "how": self.attached.how,
            "seconds": round(time.monotonic() - started, 3),
            "timing": self.attached.timing,
            "compiled": self.attached.compiled,
        }

    def _programs(self, _: dict[str, Any]) -> dict[str, Any]:
        programs = self._need().attached.programs
        if programs is None:
            raise AttachError("nothing was loaded")
        return programs.to_json()

    def _need(self) -> Drain:
        if self.drain is None:
            raise AttachError("nothing is attached")
        if self.trouble:
            raise DrainError(self.trouble)
        return self.drain

    def _status(self, _: dict[str, Any], now: Fired | None = None) -> dict[str, Any]:
        drain = self._need()
        probes = drain.report(now)
        return {
            "probes": probes,
            "received": sum(counts["received"] for counts in probes.values()),
            "written": drain.written,
            "missed": drain.missed(),
            "drain_seconds": round(drain.seconds, 4),
        }

    def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        self.draining = bool(request.get("on", True))
        return {"draining": self.draining}

    def _flush(self, request: dict[str, Any]) -> dict[str, Any]:
        settled = self._need().flush(FLUSH_SECONDS)
        return {**self._status(request, settled), "accounted": settled is not None}

    def _forget(self, request: dict[str, Any]) -> dict[str, Any]:
        drain = self._need()
        settled = drain.flush(FLUSH_SECONDS)
        drain.forget()
        return {**self._status(request), "accounted": settled is not None}

    def _become(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            host, realtime, entropy = request["host"], request["realtime_ns"], request["entropy"]
        except KeyError as error:
            raise ValueError(f"become needs {error}") from error
        identity.become(str(host), int(realtime), bytes.fromhex(entropy))
        if self.drain:
            # What has been written so far went to whoever made the other guest.
            self.drain.forget()
        return self._clocks()

    def _selftest(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"probes": selftest.run(self._need())}

    def _quit(self, request: dict[str, Any]) -> dict[str, Any]:
        self.done = True
        return {}


@contextmanager
def _woken(fd: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when `fd`, a port, is opened on the other side; None if it does not tell.

    A port whose other side is closed is readable all the time, so that it cannot be slept on; but it sends SIGIO when
    that changes (handle_control_message(), drivers/char/virtio_console.c).
    """
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old = signal.signal(signal.SIGIO, lambda *_: None)
    kept = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
        except OSError:
            yield None
            return
        try:
            yield ours
        finally:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    finally:
        signal.set_wakeup_fd(kept)
        signal.signal(signal.SIGIO, old)
        os.close(ours)
        os.close(theirs)


def serve(agent: Agent, control_in: int, control_out: int, ends: bool) -> None:
    """Answer requests and drain in between, until told to quit, or, if the control `ends`, until it does.

    Between two looks at the ring it sleeps, and if there is nothing to look at, until it is asked something.
    """
    pending, look = b"", time.monotonic()

    def left() -> float | None:
        return max(0.0, look - time.monotonic()) if agent.looking else None

    while not agent.done:
        ready, writable, _ = select.select([control_in, *agent.bells], agent.sinks, [], left())
        if writable:
            agent.push()
        if agent.looking and (agent.rung(ready) or time.monotonic() >= look):
            agent.tick()
            look = _next(agent.interval)
        if control_in not in ready:
            continue
        try:
            data = os.read(control_in, 65536)
        except BlockingIOError:
            # Nobody was there, and now somebody is, who has said nothing so far.
            continue
        if not data:
            if ends:
                return
            # Whoever comes next has not sent the beginning of what is left here.
            pending = b""
            with _woken(control_in) as woken:
                # Opened since, before the port was asked to tell?
                if not _hung_up(control_in):
                    continue
                wait = left() if woken is not None else min(left() or CLOSED_SECONDS, CLOSED_SECONDS)
                woke = [woken] if woken is not None else []
                ready, writable, _ = select.select([*woke, *agent.bells], agent.sinks, [], wait)
                if writable:
                    agent.push()
                if agent.looking and agent.rung(ready):
                    agent.tick()
            continue
        pending += data
        if len(pending) > _LONGEST_LINE:
            pending = b""
        while b"\n" in pending and not agent.done:
            line, _, pending = pending.partition(b"\n")
            if line.strip():
                _send(control_out, agent.answer(line))
                look = min(look, _next(agent.interval))


def _next(interval: float) -> float:
    """The next multiple of the interval: with one of a second, looks are at whole seconds of the guest's clock, and who
    wants not to be disturbed by them can begin between two."""
    return (time.monotonic() // interval + 1) * interval


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _send(fd: int, answer: dict[str, Any]) -> None:
    """Write an answer, when there is somebody to read it.

    A request may be read before the kernel knows that its sender is there: data comes by interrupt, news of the other
    side by a work item (drivers/char/virtio_console.c). Whoever else comes first passes over what it did not ask (sync).
    """
    left = memoryview((json.dumps(answer) + "\n").encode())
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select([], [fd], [])


def main(arguments: list[str] | None = None) -> int:
    """Open the ports and serve; exit status 3 if that cannot be."""
    parser = argparse.ArgumentParser(prog="probes.agent", description="BPF probes on page migration")
    parser.add_argument("--control", default="/dev/virtio-ports/mof.control", help="port, or - for stdin and stdout")
    parser.add_argument("--records", default="/dev/virtio-ports/mof.records", help="port or file; none: nowhere")
    options = parser.parse_args(arguments)
    try:
        sink = None
        if options.records != "none":
            sink = os.open(options.records, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        if options.control == "-":
            control_in, control_out, ends = 0, 1, True
        else:
            # Writing to a port that nobody has opened on the other side would wait until somebody does.
            control_in = control_out = os.open(options.control, os.O_RDWR | os.O_NONBLOCK)
            ends = Path(options.control).is_file()
    except OSError as error:
        sys.stderr.write(f"mof agent: {error.filename}: {error.strerror}\n")
        return 3
    agent = Agent(sink)
    try:
        with suppress(BrokenPipeError):
            serve(agent, control_in, control_out, ends)
    finally:
        agent.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
