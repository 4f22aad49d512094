"""The table of a bench."""

from __future__ import annotations

from controller.bench import baseline, table
from controller.bench.baseline import Kept
from controller.bench.figures import Better, Figure, Kind

FACTS = {"kernel": "6.12-mof", "qemu": "10.0.2"}
FIGURES = {
    "start": (
        Figure("start.import", "import of mof", "s", Kind.SECONDS, target=0.3).measured([0.2, 0.1, 0.4], FACTS),
        Figure("start.vng", "vng -r KERNEL -- true", "s", Kind.SECONDS).absent("not installed", failed=False),
        Figure("start.demo_of_vng", "whole demo / vng", "x", Kind.RATIO, target=2.0).measured([2.5], FACTS),
    ),
    "pages": (
        Figure("pages.lazy", "lazy, a page", "instructions", Kind.INSTRUCTIONS).measured([11711.9], FACTS),
        Figure("pages.direct", "direct, a page", "instructions", Kind.INSTRUCTIONS).absent("lost", failed=True),
        Figure("pages.share", "share", "x", Kind.RATIO, Better.HIGHER).measured([0.3], FACTS),
    ),
}
KEPT = {
    "pages.lazy": Kept(11000.0, FACTS),
    "pages.share": Kept(0.31, FACTS),
    "start.demo_of_vng": Kept(2.4, {**FACTS, "qemu": "7.2.9"}),
}


def rendered() -> list[str]:
    every = [one for block in FIGURES.values() for one in block]
    found = {one.name: one for one in baseline.compare_all(every, KEPT)}
    return table.render("mof bench: 3 rounds", FIGURES, found).splitlines()


def test_table() -> None:
    assert rendered() == [
        "mof bench: 3 rounds",
        "",
        "start                    median   least    most  target        baseline",
        "  import of mof          0.20 s  0.10 s  0.40 s  <= 0.3 s met",
        "  vng -r KERNEL -- true  -  not installed",
        "  whole demo / vng        2.500                  <= 2 missed   2.400 not compared",
        "",
        "pages                    median   least    most  target        baseline",
        "  lazy, a page           11,712                                11,000 +6.5 % WORSE",
        "  direct, a page         FAILED  lost",
        "  share                   0.300                                0.310 -3.2 %",
        "",
        "1 figure not compared: the baseline's QEMU is 7, not 10",
        "WORSE: pages.lazy (lazy, a page) by 6.5 %, 1 % are allowed",
    ]


def test_amounts() -> None:
    assert table.amount(1.8449, "s") == "1.84 s"
    assert table.amount(0.3123, "x") == "0.312"
    assert table.amount(11711.9, "instructions") == "11,712"
    assert table.amount(97.53, "/min") == "97.5 /min"
    assert table.amount(123456.7, "events/s") == "123,457 events/s"
    assert table.amount(14.25, "events") == "14.2"
