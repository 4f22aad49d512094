"""When moving pays, measured in a guest in which memory takes its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.guest.conftest import Ran, mof

LOCAL, TIMES, MEGABYTES, ROUNDS = 100, 3, 4, 6
WORKERS = 3
LINES = (MEGABYTES << 20) / 64 / WORKERS
"""Of each worker's part, which is more than its node's cache holds."""


def test_far_memory_is_left_after_some_rounds(tmp_path: Path) -> None:
    options = ("--remote", str(TIMES), "--megabytes", str(MEGABYTES), "--rounds", str(ROUNDS), "--local", str(LOCAL))
    ran: Ran = mof("work", "break-even", *options, "--write", str(tmp_path), "--json", runs=tmp_path / "runs")
    assert ran.status == 0, ran.explain()
    (panel,) = json.loads(ran.out)
    totals = panel["totals"]
    assert {way: len(one) for way, one in totals.items()} == {"first-touch": 7, "direct": 7, "lazy": 7}
    round_of = {way: one[-1] - one[-2] for way, one in totals.items()}
    # Every line of the part is fetched in every round: from another node, or from the own one.
    assert round_of["first-touch"] == pytest.approx(LINES * (LOCAL * TIMES + 5), rel=0.05)
    assert round_of["direct"] == pytest.approx(LINES * (LOCAL + 5), rel=0.05)
    assert round_of["lazy"] == pytest.approx(round_of["direct"], rel=0.03)
    # What is copied is paid for, by the call or by the first round.
    copied = LINES * LOCAL * (TIMES + 1)
    assert totals["direct"][0] - totals["first-touch"][0] > copied
    assert totals["lazy"][1] - totals["lazy"][0] > copied
    assert all(1 < panel["pays_after"][way] <= ROUNDS for way in ("direct", "lazy"))
    assert json.loads((tmp_path / "init-then-work.json").read_text()) == [panel]
    assert "3 times as far: 300 ns, local 100 ns" in (tmp_path / "init-then-work.md").read_text()
    assert (tmp_path / "init-then-work.svg").read_text().count("<polyline") == 3
