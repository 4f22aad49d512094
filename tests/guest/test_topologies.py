"""Machines that do not exist: whether a guest's kernel sees them as they were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.bare import opened
from provision.guest import nodes
from provision.hardware import topology
from provision.host.progress import Silent
from tests.guest.conftest import mof
from tests.unit.test_qemu_args import GOLDEN

CACHED = str(GOLDEN / "topology-cached.toml")


@pytest.mark.parametrize("name", ["8node", "ia64-2006", "slow-tier", CACHED], ids=lambda name: Path(name).stem)
def test_a_guest_sees_what_was_asked_for(name: str) -> None:
    one = topology.load(name)
    with opened("6.12-mof", Silent(), topology=one) as shell:
        seen = nodes.shown(shell, speeds=True)
        assert nodes.check(one, seen) == []
        # Not that of another: what is compared is really there.
        assert nodes.check(topology.load("slow-tier" if name != "slow-tier" else CACHED), seen) != []


def test_as_a_command(tmp_path: Path) -> None:
    done = mof("topology", "check", "memoryless", runs=tmp_path)
    assert (done.status, done.out) == (0, "memoryless: the guest sees what was asked for\n"), done.err
