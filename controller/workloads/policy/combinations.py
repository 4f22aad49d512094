"""Combinations of memory policy, cpuset and CPU for the program: which ones there are, and the lines that it takes.

Every shape (mode, who sets it, flags, when the cpuset changes, home node) is there; the rest is drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from random import Random

SEED = 20060309
UNITS = 16
"""Pages of an area: with 4 nodes, each position of an interleaving meets each node on which a page can start."""
WEIGHTED_UNITS = 24
HUGE_UNITS = 4


class Mode(StrEnum):
    """Modes by their names in the program's lines."""

    DEFAULT = "default"
    PREFERRED = "preferred"
    BIND = "bind"
    INTERLEAVE = "interleave"
    LOCAL = "local"
    PREFERRED_MANY = "preferred-many"
    WEIGHTED = "weighted-interleave"


class Source(StrEnum):
    """Who sets the policy: set_mempolicy(2) or mbind(2)."""

    TASK = "task"
    AREA = "area"


class Flag(StrEnum):
    """What the nodes mean when the cpuset changes (Documentation/admin-guide/mm/numa_memory_policy.rst)."""

    PLAIN = "plain"
    STATIC = "static"
    RELATIVE = "relative"


class Cpuset(StrEnum):
    """When the task is limited to some nodes, as seen from the setting of the policy."""

    NONE = "none"
    BEFORE = "before"
    AFTER = "after"
    NARROWED = "narrowed"
    """In a cpuset of all nodes from the start, which then loses some."""
    WIDENED = "widened"
    SHIFTED = "shifted"
    """To a cpuset of other nodes altogether."""


class Home(StrEnum):
    """set_mempolicy_home_node(2): not called, with a node of the policy, with another one."""

    NONE = "none"
    INSIDE = "inside"
    OUTSIDE = "outside"


FLAG_BITS = {Flag.PLAIN: 0, Flag.STATIC: 1 << 15, Flag.RELATIVE: 1 << 14}
WEIGHTS = ((1, 1, 1, 1), (3, 1, 4, 2), (1, 5, 2, 1))
WITH_NODES = (Mode.PREFERRED, Mode.PREFERRED_MANY, Mode.BIND, Mode.INTERLEAVE, Mode.WEIGHTED)
CHOOSING = (Mode.BIND, Mode.PREFERRED_MANY)
"""Modes that leave a choice of nodes. They are also those that take a home node."""

Nodes = frozenset[int]


@dataclass(frozen=True)
class Combination:
    """What the program is to set, and to put pages under.

    `local`: the node of `cpu`. `enter`, `then`: the nodes of the cpuset before and after the policy is set; empty: none,
    no change. `rival`: a policy of the task's beside that of the area. `sysctl`: vm.migrate_on_fault. `units`: pages, or
    huge pages. `rotate`: which node the first one starts on. `shift`: by how many pages the filled area is moved.
    `direct`: the mbind() that sets the policy also unmaps.
    """

    id: int
    mode: Mode
    source: Source
    local: int
    cpu: int
    everywhere: Nodes
    nodes: Nodes = frozenset()
    flag: Flag = Flag.PLAIN
    cpuset: Cpuset = Cpuset.NONE
    enter: Nodes = frozenset()
    then: Nodes = frozenset()
    home: int | None = None
    rival: Nodes = frozenset()
    weights: tuple[int, ...] = ()
    sysctl: int = 2
    units: int = UNITS
    rotate: int = 0
    shift: int = 0
    huge: bool = False
    write: bool = False
    direct: bool = False

    @property
    def to_be_refused(self) -> bool:
        """None of its nodes is allowed when it is set: EINVAL (mpol_set_nodemask(), mm/mempolicy.c).

        Relative nodes count from the first allowed one and so are allowed always.
        """
        allowed = self.enter or self.everywhere
        return bool(self.nodes) and self.flag is not Flag.RELATIVE and not self.nodes & allowed

    def line(self) -> str:
        """What the program takes (combination.c)."""
        values = {
            "mode": self.mode.value,
            "task": int(self.source is Source.TASK),
            "flags": FLAG_BITS[self.flag],
            "nodes": mask(self.nodes),
            "rival": mask(self.rival),
            "home": -1 if self.home is None else self.home,
            "cpu": self.cpu,
            "enter": mask(self.enter),
            "then": mask(self.then),
            "sysctl": self.sysctl,
            "units": self.units,
            "rotate": self.rotate,
            "shift": self.shift,
            "huge": int(self.huge),
            "write": int(self.write),
            "direct": int(self.direct),
        }
        words = [f"{name}={value}" for name, value in values.items()]
        if self.weights:
            words.append(f"weights={','.join(str(w) for w in self.weights)}")
        return " ".join((str(self.id), *words))

    def __str__(self) -> str:
        """For people: only what was asked for."""
        how = "set_mempolicy" if self.source is Source.TASK else "mbind, lazily" if self.direct else "mbind"
        words = [f"{self.mode} by {how}", f"on CPU {self.cpu} of node {self.local}"]
        if self.nodes:
            words.insert(1, f"nodes {listed(self.nodes)}")
        if self.flag is not Flag.PLAIN:
            words.append(f"{self.flag} nodes")
        if self.home is not None:
            words.append(f"home {self.home}")
        if self.enter:
            words.append(f"in a cpuset of {listed(self.enter)}")
        if self.then:
            words.append(f"then in a cpuset of {listed(self.then)}")
        if self.rival:
            words.append(f"the task bound to {listed(self.rival)}")
        if self.weights:
            words.append(f"weights {self.weights}")
        if self.shift:
            words.append(f"moved by {self.shift} pages")
        words += [word for word in ("huge", "write") if getattr(self, word)]
        return f"combination {self.id} ({', '.join(words)}, sysctl {self.sysctl})"


def mask(nodes: Nodes) -> int:
    """One bit a node."""
    return sum(1 << node for node in nodes)


def listed(nodes: Nodes) -> str:
    return ",".join(str(node) for node in sorted(nodes))


def generate(cpus: Mapping[int, Sequence[int]], seed: int = SEED) -> tuple[Combination, ...]:
    """All combinations for a machine of which each node has memory; `cpus`: those of each node, one at least.

    Needs two nodes. The same arguments make the same combinations.
    """
    made = _Maker(cpus, Random(seed)).all()
    return tuple(replace(one, id=number) for number, one in enumerate(made))


class _Maker:
    def __init__(self, cpus: Mapping[int, Sequence[int]], random: Random) -> None:
        self.random = random
        self.cpus = {node: tuple(some) for node, some in cpus.items()}
        self.nodes = tuple(sorted(cpus))
        self.everywhere = frozenset(cpus)

    def all(self) -> Iterator[Combination]:
        yield from self.unexplicit()
        for source, cpuset in product(Source, Cpuset):
            yield self.drawn(Mode.LOCAL, source, cpuset)
            yield self.drawn(Mode.PREFERRED, source, cpuset)  # without nodes, which means the same
        for mode, source, flag, cpuset in product(WITH_NODES, Source, Flag, Cpuset):
            homes = tuple(Home) if mode in CHOOSING and source is Source.AREA else (Home.NONE,)
            for home in homes:
                yield self.with_nodes(mode, source, flag, cpuset, home)
        yield from self.huge()
        yield from self.refused()

    def unexplicit(self) -> Iterator[Combination]:
        """The default policy, which moves pages only if the switch says so, from every CPU."""
        for sysctl, cpuset, node in product((2, 1), Cpuset, self.nodes):
            made = self.drawn(Mode.DEFAULT, self.random.choice(tuple(Source)), cpuset)
            yield replace(made, sysctl=sysctl, local=node, cpu=self.random.choice(self.cpus[node]))

    def huge(self) -> Iterator[Combination]:
        for mode, source in product((Mode.LOCAL, *WITH_NODES), Source):
            for cpuset in (Cpuset.NONE, Cpuset.AFTER):
                made = (
                    self.drawn(mode, source, cpuset)
                    if mode is Mode.LOCAL
                    else self.with_nodes(mode, source, Flag.PLAIN, cpuset, Home.NONE)
                )
                yield replace(made, huge=True, units=HUGE_UNITS, shift=0)

    def refused(self) -> Iterator[Combination]:
        for mode, source, flag in product(WITH_NODES, Source, (Flag.PLAIN, Flag.STATIC)):
            made = self.drawn(mode, source, Cpuset.BEFORE)
            outside = self.some(self.everywhere - made.enter)
            yield replace(made, nodes=outside, flag=flag, rival=frozenset(), direct=False)

    def some(self, of: Nodes, least: int = 1) -> Nodes:
        """Any of the nodes, `least` of them or more."""
        known = sorted(of)
        return frozenset(self.random.sample(known, self.random.randint(least, len(known))))

    def part(self) -> Nodes:
        """Some nodes, but not all."""
        return self.some(self.everywhere - {self.random.choice(self.nodes)})

    def limits(self, cpuset: Cpuset) -> tuple[Nodes, Nodes]:
        """`enter` and `then`."""
        none: Nodes = frozenset()
        part = self.part()
        if cpuset is Cpuset.NONE:
            return none, none
        if cpuset is Cpuset.BEFORE:
            return part, none
        if cpuset is Cpuset.AFTER:
            return none, part
        if cpuset is Cpuset.NARROWED:
            return self.everywhere, part
        if cpuset is Cpuset.WIDENED:
            return part, part | self.some(self.everywhere - part)
        return part, self.some(self.everywhere - part)

    def drawn(self, mode: Mode, source: Source, cpuset: Cpuset) -> Combination:
        """One without nodes."""
        local = self.random.choice(self.nodes)
        enter, then = self.limits(cpuset)
        area = source is Source.AREA and mode is not Mode.DEFAULT
        return Combination(
            id=0,
            mode=mode,
            source=source,
            local=local,
            cpu=self.random.choice(self.cpus[local]),
            everywhere=self.everywhere,
            cpuset=cpuset,
            enter=enter,
            then=then,
            rival=self.some(enter or self.everywhere) if area and self.random.random() < 0.3 else frozenset(),
            sysctl=2 if mode is Mode.DEFAULT else self.random.choice((1, 2)),
            rotate=self.random.randrange(len(self.nodes) * 4),
            shift=self.random.choice((0, 0, 0, 1, 3, 5)),
            write=self.random.choice((True, False)),
            direct=area and cpuset is Cpuset.NONE and self.random.random() < 0.4,
        )

    def with_nodes(self, mode: Mode, source: Source, flag: Flag, cpuset: Cpuset, home: Home) -> Combination:
        made = self.drawn(mode, source, cpuset)
        interleaved = mode in (Mode.INTERLEAVE, Mode.WEIGHTED)
        least = 2 if interleaved and self.random.random() < 0.8 else 1
        # Unless they are relative, one of them has to be allowed, or it would be refused; the others may be anywhere.
        allowed = self.everywhere if flag is Flag.RELATIVE else made.enter or self.everywhere
        nodes = self.some(self.everywhere, least) | {self.random.choice(sorted(allowed))}
        if mode in CHOOSING and nodes == self.everywhere:
            nodes -= {self.random.choice(sorted(nodes - {min(allowed)}))}
        weighted = mode is Mode.WEIGHTED
        return replace(
            made,
            nodes=nodes,
            flag=flag,
            home=self.home(home, nodes),
            weights=self.random.choice(WEIGHTS)[: len(self.nodes)] if weighted else (),
            units=WEIGHTED_UNITS if weighted else UNITS,
        )

    def home(self, home: Home, nodes: Nodes) -> int | None:
        if home is Home.NONE:
            return None
        return self.random.choice(sorted(nodes if home is Home.INSIDE else self.everywhere - nodes or nodes))
