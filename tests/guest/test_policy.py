"""Where the kernel moves pages that are touched after they were unmapped, against where it takes fresh ones from.

Fresh pages are the oracle, so nothing here computes a node: not interleaving, not distances, not what becomes of a policy
when its cpuset changes (controller.workloads.policy.judge).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from controller.workloads import program
from controller.workloads.policy import judge
from controller.workloads.policy.combinations import Combination, generate
from controller.workloads.policy.judge import About, Disagreement, Told
from provision.hardware import topology as topologies
from provision.host.cache import Cache
from provision.host.progress import Silent
from tests.guest.conftest import Lab, opened
from tests.guest.kernel_log import complaints

SECONDS = 1800.0
SHOWN = 20
SETTINGS = (
    "cat /proc/sys/vm/migrate_on_fault* /proc/sys/kernel/numa_balancing /sys/fs/cgroup/cgroup.subtree_control"
    " /sys/kernel/mm/mempolicy/weighted_interleave/node*; ls -d /sys/fs/cgroup/mof* /sys/kernel/tracing/instances/*"
)


@dataclass(frozen=True)
class Trial:
    """All combinations of a machine, and what became of them. `kept`: what the program found, it left."""

    topology: str
    combinations: tuple[Combination, ...]
    told: Told
    kept: bool
    complaints: list[str]

    def disagreements(self, *about: About) -> list[Disagreement]:
        return [d for d in judge.disagreements(self.combinations, self.told) if d.about in about]

    def none(self, *about: About) -> None:
        found = self.disagreements(*about)
        shown = "\n".join(str(d) for d in found[:SHOWN])
        assert not found, f"{self.topology}: {len(found)} times, of which first:\n{shown}"


@pytest.fixture(scope="module", params=["2node", "4node"])
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    nodes = topologies.load(request.param).nodes
    combinations = generate({node.id: node.cpus for node in nodes})
    with opened(tmp_path_factory.mktemp("policy"), topology=request.param) as lab:
        yield Trial(request.param, combinations, *asked(lab, combinations))


def asked(lab: Lab, combinations: tuple[Combination, ...]) -> tuple[Told, bool, list[str]]:
    """What the program told, whether it put everything back, and what the kernel complained of."""
    lab.shell.put(program.ensure(Cache(), "policy", Silent()), "/run/policy")
    lab.shell.put_text("".join(f"{c.line()}\n" for c in combinations), "/run/combinations")
    before = lab.run(SETTINGS).out
    done = lab.run("/run/policy </run/combinations", SECONDS).expect()
    return judge.read(done.out.splitlines()), lab.run(SETTINGS).out == before, complaints(lab)


def test_every_combination_could_be_tried(trial: Trial) -> None:
    trial.none(About.RUN)
    assert set(trial.told.answers) == {c.id for c in trial.combinations}


def test_pages_move_to_where_fresh_ones_come_from(trial: Trial) -> None:
    trial.none(About.MOVE)


def test_pages_that_are_fine_stay(trial: Trial) -> None:
    trial.none(About.STAY)


def test_the_tracepoint_names_node_policy_and_result(trial: Trial) -> None:
    trial.none(About.TRACE)


def test_a_policy_is_refused_only_if_none_of_its_nodes_is_allowed(trial: Trial) -> None:
    trial.none(About.REFUSAL)


def test_fresh_pages_are_where_the_policy_allows_them(trial: Trial) -> None:
    trial.none(About.ORACLE)


def test_contents_are_what_they_were(trial: Trial) -> None:
    trial.none(About.CONTENTS)


def test_enough_of_everything_was_compared(trial: Trial) -> None:
    """A machine on which no page is ever misplaced, or no policy rebound, would show nothing."""
    seen = judge.tally(trial.combinations, trial.told)
    assert min(seen.moved, seen.stayed, seen.chosen) >= 500, seen
    assert min(seen.unexplicit, seen.unreachable, seen.rebound) >= 50, seen


def test_the_machine_is_left_as_it_was(trial: Trial) -> None:
    assert trial.kept
    assert not trial.complaints
