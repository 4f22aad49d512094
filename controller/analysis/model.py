"""The data of the analysis: what a run left behind (evidence), and what follows from it (findings).

Light to import: the command line reads `Expectation` and `Mechanism` from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from provision.hardware.qemu import Clock as Clock

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from controller.workloads.memtoy.output import CommandResult
    from provision.guest.memctl import Seen


class Mechanism(StrEnum):
    """How pages came to another node."""

    DIRECT = "direct"
    """mbind(2) with MPOL_MF_MOVE migrated them before it returned."""
    LAZY = "lazy"
    """A fault found them unmapped in the swap cache and migrated them."""
    MANUAL = "manual"
    """migrate_pages(2) or move_pages(2)."""
    BALANCING = "balancing"
    """Automatic NUMA balancing."""
    NONE = "none"
    """Nothing moved, or by none of these (compaction, say)."""


class Contents(StrEnum):
    """What reading the pattern back has shown."""

    INTACT = "intact"
    CORRUPT = "corrupt"
    UNCHECKED = "unchecked"


class Outcome(StrEnum):
    """The verdict. UNDECIDED: the evidence does not carry one; LOST: the guest did not live to the end."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    LOST = "lost"


@dataclass(frozen=True)
class Expectation:
    """What a case is expected to do: of `pages` pages, `migrated` go from one node to the other, by `mechanism`."""

    pages: int
    migrated: int
    from_node: int
    to_node: int
    mechanism: Mechanism


@dataclass(frozen=True)
class CaseInput:
    """One case as it was run. `counters`: change of /proc/vmstat over it; `status`: memtoy's exit status. `accesses`: None
    when none were counted."""

    name: str
    script_text: str
    results: tuple[CommandResult, ...]
    expect: Expectation | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    title: str = ""
    status: int | None = 0
    accesses: Seen | None = None


@dataclass(frozen=True)
class Machine:
    """Where page frames are. A span is (first frame, frame after the last, node), as /proc/zoneinfo has zones."""

    node_spans: tuple[tuple[int, int, int], ...]
    nodes_shift: int = 6
    vmemmap: int = 0xFFFFEA0000000000
    struct_page: int = 64

    @staticmethod
    def from_hello(hello: Mapping[str, Any]) -> Machine:
        """From the agent's answer to hello; without one (no probes), a machine that knows no frames."""
        spans = tuple(
            (int(zone["start_pfn"]), int(zone["start_pfn"]) + int(zone["spanned"]), int(zone["node"]))
            for zone in hello.get("nodes", ())
        )
        return Machine(
            tuple(sorted(spans)),
            int(hello.get("nodes_shift", 6)),
            int(hello.get("vmemmap", 0xFFFFEA0000000000)),
            int(hello.get("page_struct_size", 64)),
        )


@dataclass(frozen=True)
class ProbeStatus:
    """The agent's own account, by probe name, over the whole run.

    `recording` is false when only counters were kept: then nothing is received, and rightly so.
    """

    attached: tuple[str, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    fired: Mapping[str, int] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    """Firings that did not even reach the probe's program, as far as the kernel tells."""
    recording: bool = True


@dataclass(frozen=True)
class Felt:
    """How long a load took in the guest that had to wait for memory, in ns, beside what the topology says."""

    initiator: int
    target: int
    configured_ns: float
    felt_ns: float


@dataclass(frozen=True)
class LatencyProof:
    """Whether the guest's clock feels how long memory takes, tried before anything was measured; `why` not."""

    felt: bool
    why: str
    pairs: tuple[Felt, ...]

    def as_data(self) -> dict[str, Any]:
        """As verdict.json and work.json have it."""
        return {
            "kind": "felt" if self.felt else "modelled",
            "why": self.why,
            "tried": [asdict(one) for one in self.pairs],
        }


@dataclass(frozen=True)
class Evidence:
    """All that a run left behind.

    `events`: records sorted by time (decode.load), None when none were taken. `probes`: None without probes.
    `undecided`: reasons found outside of the analysis why nothing can be decided (the guest's nodes are not the
    topology's, say). `warnings`: likewise, to be shown.
    """

    run: str
    cases: tuple[CaseInput, ...]
    machine: Machine
    events: npt.NDArray[np.void] | None = None
    probes: ProbeStatus | None = None
    kernel_id: str = ""
    release: str = ""
    build_id: str = ""
    accelerator: str = ""
    clock: Clock = Clock.WALL
    qemu: str = ""
    topology: str = ""
    experiment: str = ""
    undecided: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overhead: Mapping[str, float] | None = None
    """What these probes cost on this kernel, if that was measured: the fields of controller.overhead.Overhead."""
    latency: LatencyProof | None = None
    """None where memory takes no time, as usual."""

    @property
    def unit(self) -> str:
        """What the guest's clock counts."""
        counts = self.clock is Clock.INSN and not (self.latency is not None and self.latency.felt)
        return "instructions" if counts else "ns"


class PageState(StrEnum):
    """What a page is, between two steps."""

    MAPPED = "mapped"
    CACHED = "cached"
    """Unmapped, waiting in the swap cache."""


@dataclass(frozen=True)
class Step:
    """From `time` (ns, guest's monotonic clock) on, the page is on `node` in `state`. `how` names what made it so."""

    time: int
    node: int
    state: PageState
    how: str


@dataclass(frozen=True)
class PageTable:
    """The pages of a case's segments, one element a page, by rising address within each segment.

    node_before, node_after: -1 where unknown. pfn_before, pfn_after: 0 where no event told. moves: how often the
    page moved; moved_by: index into MECHANISMS of the last move.
    """

    address: npt.NDArray[np.uint64]
    node_before: npt.NDArray[np.int16]
    node_after: npt.NDArray[np.int16]
    pfn_before: npt.NDArray[np.uint64]
    pfn_after: npt.NDArray[np.uint64]
    moves: npt.NDArray[np.int32]
    moved_by: npt.NDArray[np.uint8]
    located: npt.NDArray[np.bool_]
    """memtoy itself said where the page is in the end, apart from the probes."""
    verified: npt.NDArray[np.bool_]
    """Its pattern was read back after the last command that may move it."""

    def __len__(self) -> int:
        return len(self.address)


MECHANISMS: tuple[Mechanism, ...] = (
    Mechanism.NONE, Mechanism.DIRECT, Mechanism.LAZY, Mechanism.MANUAL, Mechanism.BALANCING,
)  # fmt: skip
"""In the order of PageTable.moved_by."""


@dataclass(frozen=True)
class Cost:
    """What one page took, in `unit` ("ns" or "instructions"); None when nothing moved. `of`: what was timed."""

    value: float | None
    unit: str
    of: str = ""


@dataclass(frozen=True)
class PageAccess:
    """Both sides of a page: the nodes on which the kernel had it first and last, and (reads, writes) by the node on which the
    memory controller saw them after it was last moved."""

    address: int
    before: int
    after: int
    counted: Mapping[int, tuple[int, int]]

    @property
    def agrees(self) -> bool:
        return set(self.counted) == {self.after}


@dataclass(frozen=True)
class RangeAccess:
    """Accesses to a range of addresses: (local, remote) since the last sample, for each sample. `segment`: that of the case
    in which it lies, "" for none."""

    segment: str
    start: int
    length: int
    shares: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Waiting:
    """What processes, and the kernel for them, waited for memory, as the model has it: ns of all CPUs together, beside their
    instructions; `lines`: how many were fetched, by node."""

    stall_ns: int
    instructions: int
    lines: Mapping[int, int]


@dataclass(frozen=True)
class AccessFinding:
    """What the memory controller shows of a case.

    `by_node`, `kernel`: (reads, writes) of the case's process and of the kernel. `judged`: pages of which both speak,
    `agree`: those of which they say the same; `pages`: some of them. `series`: (ns, local, remote), and the last of these.
    `ranges`: the same by range of addresses, from the lowest on. `waiting`: None where memory takes no time.
    """

    by_node: Mapping[int, tuple[int, int]]
    kernel: Mapping[int, tuple[int, int]]
    local: int
    remote: int
    judged: int
    agree: int
    pages: tuple[PageAccess, ...]
    series: tuple[tuple[int, int, int], ...]
    ranges: tuple[RangeAccess, ...]
    waiting: Waiting | None
    lost: int
    told_apart: bool


@dataclass(frozen=True)
class CaseFinding:
    """What one case shows. `steps`: for up to pages.MAX_DRAWN pages, by index into `table`."""

    name: str
    title: str
    mechanism: Mechanism
    pages: int
    migrated: int
    refused: Mapping[str, int]
    from_node: int | None
    to_node: int | None
    contents: Contents
    cost_per_page: Cost
    table: PageTable
    steps: Mapping[int, tuple[Step, ...]]
    outcome: Outcome
    why: str
    warnings: tuple[str, ...] = ()
    accesses: AccessFinding | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.PASS


@dataclass(frozen=True)
class Findings:
    """The verdict over all cases, with its reason in one line."""

    evidence: Evidence
    cases: tuple[CaseFinding, ...]
    outcome: Outcome
    reason: str
    warnings: tuple[str, ...]
    counters: Mapping[str, int]
    fired: int = 0
    received: int = 0
    lost: int = 0
