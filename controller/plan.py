"""What is to be run, checked: a person's mistakes are found here, before anything is built or started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from controller.experiment import Experiment, ProbeSet
from controller.workloads.memtoy import script as memtoy_script
from controller.workloads.memtoy.commands import Define
from guest_kernel import identity
from provision.guest import accelerator
from provision.guest.network import Net
from provision.hardware import topology as topologies
from provision.hardware.qemu import Accelerator, Clock, Latency
from provision.hardware.topology import Topology
from provision.host.errors import UserError

RING_PAGES = 4096
"""16 MB, shared by the CPUs: 65,536 records for each of four between two looks."""

STEPS_PAGES = 4096
"""Scripts that define no more pages than this are recorded step by step: above, that is more than anybody reads."""


@dataclass(frozen=True)
class Options:
    """What a person may choose for a run. `timeout` bounds each case's workload, in seconds of an idle host.

    `boot`: do not fork a template. None: as the experiment says, or as its size suggests. `features`: what the guest's
    processor has beside those of its model, in QEMU's words. `count_accesses`: by the memory-controller plugin; `latency`:
    which has them take as long as the topology says, too.
    """

    kernel: str | None = None
    topology: str | None = None
    probes: ProbeSet | None = None
    net: Net = Net.USER
    ssh_port: int = 0
    timeout: float = 300.0
    ring_pages: int = RING_PAGES
    clock: Clock = Clock.WALL
    boot: bool = False
    features: tuple[str, ...] = ()
    count_accesses: bool = False
    latency: Latency | None = None


class Wanted(Protocol):
    """What a guest is made after (controller.arming), whatever is then done in it."""

    @property
    def topology(self) -> Topology: ...

    @property
    def probes(self) -> ProbeSet: ...

    @property
    def options(self) -> Options: ...


@dataclass(frozen=True)
class Plan:
    """A checked experiment: nothing in it is the person's mistake any more. `memory`: bytes that its largest case asks
    for in its script; None where a file's size decides."""

    experiment: Experiment
    kernel: identity.KernelId
    topology: Topology
    probes: ProbeSet
    options: Options
    memory: int | None = None


def plan(experiment: Experiment, options: Options) -> Plan:
    """Check everything that can be checked without building or starting. UserError or InfraError says what is wrong."""
    if options.ring_pages & (options.ring_pages - 1):
        raise UserError(
            f"{options.ring_pages} is not a power of two", where="--ring-pages", hint="a ring has 1, 2, 4, ... pages"
        )
    kernel = identity.parse(options.kernel or experiment.kernel)
    topology = topologies.load(options.topology or experiment.topology)
    check_guest(kernel, topology, options)
    facts = memtoy_script.TopologyFacts(
        nodes={n.id: n.memory_mb * 2**20 for n in topology.nodes},
        cpus=frozenset(cpu for n in topology.nodes for cpu in n.cpus),
    )
    sizes: list[int | None] = []
    for case in experiment.cases:
        script = memtoy_script.parse(case.script, str(case.path))
        memtoy_script.check(script, facts)
        defined = [c.operands.size for c in script.commands if isinstance(c.operands, Define)]
        sizes.append(None if None in defined else sum(size or 0 for size in defined))
    topologies.check_host(topology)
    memory = None if None in sizes else max(size or 0 for size in sizes)
    small = memory is not None and memory <= STEPS_PAGES * 4096
    probes = options.probes or experiment.probes or (ProbeSet.STEPS if small else ProbeSet.FULL)
    return Plan(experiment, kernel, topology, probes, options, memory)


def check_kernel(kernel: identity.KernelId, topology: Topology) -> None:
    """UserError when the kernel lacks the drivers that the topology takes."""
    if topology.cxl_nodes and not kernel.cxl:
        mend = f"--kernel {replace(kernel, debug=False, cxl=True)}"
        text = f"kernel {kernel} has no drivers for CXL memory, which node {topology.cxl_nodes[0].id} is"
        raise UserError(text, where=f"topology {topology.name}", hint=mend)


def check_guest(kernel: identity.KernelId, topology: Topology, options: Options) -> None:
    """UserError when no guest is all of that."""
    if options.latency is not None and options.clock is not Clock.INSN:
        raise UserError(
            "how long memory takes is felt on the instruction clock only", where="--latency", hint="add --clock insn"
        )
    if accelerator.from_environment() is Accelerator.KVM:
        if options.clock is Clock.INSN:
            raise accelerator.cannot_count()
        if options.count_accesses:
            raise accelerator.cannot_watch()
        if topology.cxl_nodes:
            raise accelerator.cannot_be_cxl()
    check_kernel(kernel, topology)
    if topology.cxl_nodes and options.count_accesses:
        # The plugin is told where each node's memory is. Where the windows are is firmware's to choose, and QEMU tells of what is
        # in them as of a device's registers.
        raise UserError(
            "accesses to CXL memory cannot be counted",
            where="--memory" if options.latency is None else "--latency",
            hint=f"leave it out, or choose another topology than {topology.name}",
        )
