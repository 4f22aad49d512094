"""What was received: spans out of the ring, counted by probe, written on in bulk."""

from __future__ import annotations

import os
import select
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from probes.attach import Attached
from probes.records import RECORD_SIZE
from probes.ring import Span, count_probes

MOST_WAITING = 64 << 20
"""Bytes of records, a million, that wait in the agent's memory at most. Then the ring is left to fill up."""
WRITABLE_SECONDS = 0.1
"""Between looks at the ring while the sink takes nothing and somebody waits for everything to be written."""

Fired = Mapping[int, tuple[int, int]]
"""For each attached probe's id: how often it fired, and how many of its records were lost."""


class DrainError(Exception):
    """The records cannot be read, or cannot be written on."""


@dataclass
class Drain:
    """Moves records from the ring to `sink`, a descriptor; keeps the count by probe that `fired` has to equal.

    A sink that does not block may take nothing for a while: QEMU on a busy host gets no processor, or its disk is slow.
    Meanwhile records wait in memory, where there is more room than in the ring.

    `base` are the counters when `forget()` was called: what was before, as by the self-test, is in no answer.
    """

    attached: Attached
    sink: int | None
    received: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    base: Fired = field(default_factory=dict)
    kept: list[bytes] | None = None
    """While the self-test runs, records are kept here and not written."""
    _spans: deque[memoryview] = field(default_factory=deque)
    _written: int = 0
    _received_base: Counter[int] = field(default_factory=Counter)
    _missed_base: Counter[str] = field(default_factory=Counter)

    def once(self) -> int:
        """Take what is there, CPU by CPU, in spans; returns how many records. Raises DrainError."""
        ring = self.attached.ring
        started, taken = time.monotonic(), 0
        for cpu in range(ring.geometry.cpus):
            # No more than one ring full: with a fast producer the agent has to answer its controller still.
            left = ring.geometry.slots
            while left > 0 and self.waiting < MOST_WAITING:
                span = ring.take(cpu)
                left -= len(span.probes)
                taken += len(span.probes)
                if not span.probes:
                    break
                self._keep(span)
                if span.blocked:
                    break
        self.push()
        if taken:
            self.seconds += time.monotonic() - started
        return taken

    @property
    def written(self) -> int:
        """Records, since `forget()`."""
        return self._written // RECORD_SIZE

    @property
    def waiting(self) -> int:
        """Bytes taken out of the ring and not yet written."""
        return sum(map(len, self._spans))

    def push(self) -> None:
        """Write on what the sink takes now. Raises DrainError."""
        while self._spans and self.sink is not None:
            span = self._spans[0]
            try:
                count = os.write(self.sink, span)
            except BlockingIOError:
                return
            except OSError as error:
                raise DrainError(f"writing records: {error.strerror}") from error
            self._written += count
            if count < len(span):
                self._spans[0] = span[count:]
            else:
                self._spans.popleft()

    def _keep(self, span: Span) -> None:
        try:
            self.received.update(count_probes(span.probes, [probe.id for probe in self.attached.probes]))
        except ValueError as error:
            raise DrainError(str(error)) from error
        if self.kept is not None:
            self.kept.append(span.records)
            return
        if self.sink is None:
            return
        self._spans.append(memoryview(span.records))
        self.push()

    def flush(self, seconds: float) -> Fired | None:
        """Drain until all is written and the counters agree; those counters, or None if they do not within `seconds`.

        They cannot agree while something fires faster than it is read. Probes go on firing: whoever tells of this
        moment tells of these counters, not of what they are when he asks.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.once()
            now = self.attached.counters()
            if not self.attached.ring.pending and not self.waiting and self.agrees(now):
                return now
            if time.monotonic() > deadline:
                return None
            if self.waiting and self.sink is not None:
                select.select([], [self.sink], [], WRITABLE_SECONDS)

    def agrees(self, counters: Fired) -> bool:
        """Whether fired = received + lost, for each probe."""
        if not self.attached.recording:
            return True
        return all(fired == self.received[i] + lost for i, (fired, lost) in counters.items())

    def forget(self) -> None:
        """Count from here: what has been received so far is taken out of all later answers.

        What has fired, and has neither been received nor lost so far, belongs to what comes.
        """
        now = self.attached.counters()
        if self.attached.recording:
            now = {i: (self.received[i] + lost, lost) for i, (_, lost) in now.items()}
        self.base = now
        self._missed_base = Counter(self.attached.missed())
        self._received_base = Counter(self.received)
        self._written, self.seconds = 0, 0.0

    def missed(self) -> dict[str, int]:
        """Runs that the kernel skipped, by probe, where there were any; since `forget()`."""
        return dict(Counter(self.attached.missed()) - self._missed_base)

    def report(self, now: Fired | None = None) -> dict[str, dict[str, int]]:
        """Per probe, by name: fired, lost, received; since `forget()`. `now`: counters that `flush()` has returned.

        Where only counts were asked for, an event is received by being counted.
        """
        out: dict[str, dict[str, int]] = {}
        now = self.attached.counters() if now is None else now
        for probe in self.attached.probes:
            fired, lost = now[probe.id]
            fired_before, lost_before = self.base.get(probe.id, (0, 0))
            received = self.received[probe.id] - self._received_base[probe.id]
            out[probe.name] = {
                "fired": fired - fired_before,
                "lost": lost - lost_before,
                "received": received if self.attached.recording else fired - fired_before,
            }
        return out
