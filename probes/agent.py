"""The agent in the guest: attaches probes on request, drains their records, and answers for every one of them.

Requests are JSON objects, a line each; so are the answers, `{"ok": true, ...}` or `{"ok": false, "error": "..."}`.

    hello                           release, nodes and their page frames, CPUs, clock offset, version
    attach  set, ring_pages,        attached, unavailable with reasons, how, seconds (and timing, in parts), compiled
            programs, kprobes_only
    programs                        key, code: what was compiled, for `attach` on the same kernel another time
    status                          per probe fired, lost, received; received and written in all
    drain   on                      stop draining, or go on: a ring that is full loses, and says so
    flush                           drain until nothing is left; then as status, and whether all is accounted for
    selftest                        per probe expected, fired, ok, why; its events are in no later count
    quit

Runs as `python3 -m probes.agent --control PORT --records PORT`, or with `--control -` on stdin and stdout.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes import kernel, selftest
from probes.attach import Attached, AttachError, attach
from probes.drain import Drain, DrainError
from probes.programs import Programs
from probes.records import NODES_SHIFT, PAGE_STRUCT_SIZE, RECORD_SIZE, VMEMMAP
from probes.registry import ProbeSet

VERSION = 1
RING_PAGES = 4096
DRAIN_SECONDS = 0.02
"""Between looks at the ring: 16 MB last ten times as long at the fastest rate ever seen."""
FLUSH_SECONDS = 30.0
_LONGEST_LINE = 1 << 20


@dataclass
class Agent:
    """What is attached, where records go, and one method per request."""

    sink: int | None
    attached: Attached | None = None
    drain: Drain | None = None
    draining: bool = True
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
            "selftest": self._selftest,
            "quit": self._quit,
        }
        verb = verbs.get(str(request.get("do")))
        if verb is None:
            return {"ok": False, "error": f"cannot do {request.get('do')!r}: one of {', '.join(verbs)}"}
        try:
            return {"ok": True, **verb(request)}
        except (AttachError, DrainError, kernel.BpfError, OSError, ValueError, TypeError) as error:
            return {"ok": False, "error": str(error) or type(error).__name__}

    def tick(self) -> None:
        """Drain what there is; trouble stops it, and is told with the next answer."""
        if self.drain and self.draining and not self.trouble:
            try:
                self.drain.once()
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
            "realtime_minus_monotonic_ns": time.time_ns() - time.monotonic_ns(),
            "record_size": RECORD_SIZE,
            "vmemmap": VMEMMAP,
            "page_struct_size": PAGE_STRUCT_SIZE,
            "nodes_shift": NODES_SHIFT,
        }

    def _attach(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.attached:
            raise AttachError("probes are attached already")
        started = time.monotonic()
        known = request.get("programs")
        self.attached = attach(
            ProbeSet(request.get("set", "full")),
            int(request.get("ring_pages", RING_PAGES)),
            Programs.from_json(known) if known else None,
            bool(request.get("kprobes_only", False)),
        )
        self.drain = Drain(self.attached, self.sink)
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

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        drain = self._need()
        probes = drain.report()
        return {
            "probes": probes,
            "received": sum(counts["received"] for counts in probes.values()),
            "written": drain.written,
            "missed": drain.attached.missed(),
            "drain_seconds": round(drain.seconds, 4),
        }

    def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        self.draining = bool(request.get("on", True))
        return {"draining": self.draining}

    def _flush(self, request: dict[str, Any]) -> dict[str, Any]:
        accounted = self._need().flush(FLUSH_SECONDS)
        return {**self._status(request), "accounted": accounted}

    def _selftest(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"probes": selftest.run(self._need())}

    def _quit(self, request: dict[str, Any]) -> dict[str, Any]:
        self.done = True
        return {}


def serve(agent: Agent, control_in: int, control_out: int, ends: bool) -> None:
    """Answer requests and drain in between, until told to quit, or, if the control `ends`, until it does."""
    pending = b""
    while not agent.done:
        ready, _, _ = select.select([control_in], [], [], DRAIN_SECONDS)
        agent.tick()
        if not ready:
            continue
        data = os.read(control_in, 65536)
        if not data:
            if ends:
                return
            # A port whose other side is closed is always readable: wait for the time, not for it.
            select.select([], [], [], DRAIN_SECONDS)
            continue
        pending += data
        if len(pending) > _LONGEST_LINE:
            pending = b""
        while b"\n" in pending and not agent.done:
            line, _, pending = pending.partition(b"\n")
            if line.strip():
                _send(control_out, agent.answer(line))


def _send(fd: int, answer: dict[str, Any]) -> None:
    left = memoryview((json.dumps(answer) + "\n").encode())
    while left:
        left = left[os.write(fd, left) :]


def main(arguments: list[str] | None = None) -> int:
    """Open the ports and serve; exit status 3 if that cannot be."""
    parser = argparse.ArgumentParser(prog="probes.agent", description="BPF probes on page migration")
    parser.add_argument("--control", default="/dev/virtio-ports/mof.control", help="port, or - for stdin and stdout")
    parser.add_argument("--records", default="/dev/virtio-ports/mof.records", help="port or file; none: nowhere")
    options = parser.parse_args(arguments)
    try:
        sink = None
        if options.records != "none":
            sink = os.open(options.records, os.O_WRONLY | os.O_CREAT, 0o644)
        if options.control == "-":
            control_in, control_out, ends = 0, 1, True
        else:
            control_in = control_out = os.open(options.control, os.O_RDWR)
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
