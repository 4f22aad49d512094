"""From a case to a command line, from the program's lines to a result, from results to a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.analysis.model import Felt, LatencyProof
from controller.work import answers, command, table
from controller.work.answers import Outcome, Phase, State, Traffic
from controller.work.cases import Case, Kind, Parts, Placement, Single
from controller.work.run import traffic
from provision.guest.memctl import Count, Seen, Spent, Waited
from provision.hardware import topology
from provision.hardware.qemu import Clock
from provision.host.errors import InfraError

CHASE = Case("far", "far away", Single(Kind.CHASE, 8, cpu=1, node=3, rounds=2, steps=1000))
LAZY = Case("lazy", "lazily", Parts(16, 0, (1, 2, 3), Placement.LAZY, 20, 50, writes=True))
LINES = [
    '{"phase": "init", "ns": 4000, "accesses": 2000}',
    '{"phase": "place", "ns": 1500, "accesses": 0}',
    '{"phase": "round", "ns": 9000, "accesses": 1000}',
    '{"phase": "round", "ns": 2000, "accesses": 1000}',
    '{"phase": "round", "ns": 3000, "accesses": 1000}',
    '{"result": "correct", "pages": {"0": 1, "2": 4095}, "absent": 7}',
]


def test_from_a_case_to_a_command_line() -> None:
    assert " ".join(command.argv(CHASE.work, mark=True, settle_ms=1000)) == (
        "/run/locality chase --bytes=8388608 --rounds=2 --cpu=1 --node=3 --steps=1000 --mark --settle=1000"
    )
    assert " ".join(command.argv(Single(Kind.STREAM, 1, 0, 0, 1), mark=False, settle_ms=0)) == (
        "/run/locality stream --bytes=1048576 --rounds=1 --cpu=0 --node=0"
    )
    assert " ".join(command.argv(LAZY.work, mark=False, settle_ms=0)) == (
        "/run/locality parts --bytes=16777216 --rounds=20 --cpu=0 --workers=1,2,3 --placement=lazy --percent=50 --writes"
    )


def test_the_lines_of_a_run() -> None:
    found = answers.parse(LINES)
    assert found.phases[0] == Phase("init", 4000, 2000)
    assert [one.each for one in found.phases] == [2.0, None, 9.0, 2.0, 3.0]
    assert (found.correct, found.pages, found.absent) == (True, {0: 1, 2: 4095}, 7)


@pytest.mark.parametrize("lines", [[], LINES[:-1], [*LINES, "Killed"], ["7"], [LINES[-1].replace("correct", "maybe")]])
def test_what_is_cut_off_or_garbled_is_no_result(lines: list[str]) -> None:
    with pytest.raises(InfraError, match="did not tell its result"):
        answers.parse(lines)
    assert answers.judged(LAZY, 0, lines, "", timed_out=False).state is State.FAILED


@pytest.mark.parametrize(
    ("status", "lines", "errors", "timed_out", "state", "why"),
    [
        (0, LINES, "", False, State.CORRECT, ""),
        (1, [LINES[-1].replace("correct", "wrong")], "locality: word 7\n", False, State.WRONG, "locality: word 7"),
        (1, [], "locality: mbind, lazily: Invalid argument\n", False, State.FAILED, "mbind, lazily: Invalid argument"),
        (137, [], "", False, State.FAILED, "ended by signal 9"),
        (2, [], "", False, State.FAILED, "status 2"),
        (3, LINES, "", False, State.FAILED, "status 3"),
        (143, LINES[:2], "", True, State.TIMED_OUT, "did not end in time"),
    ],
)
def test_how_a_case_ends(status: int, lines: list[str], errors: str, timed_out: bool, state: State, why: str) -> None:
    found = answers.judged(LAZY, status, lines, errors, timed_out=timed_out)
    assert found.state is state
    assert why in found.why
    assert bool(found.why) == (state is not State.CORRECT)


def test_accesses_of_the_process_that_has_most() -> None:
    counts = (Count(7, 1, 1, 90, 10), Count(7, 1, 3, 5, 0), Count(7, 2, 1, 1, 1), Count(9, 0, 0, 50, 0))
    seen = Seen(4, 1, True, 3, counts, (), {}, ())
    four = topology.load("4node")
    assert traffic(seen, four) == Traffic(100, 7, 3)
    assert traffic(Seen(4, 0, True, 0, (), (), {}, ()), four) == Traffic(0, 0, 0)


def waited(*laps: tuple[Spent, ...]) -> Waited:
    return Waited("", (Spent(0, 0),) * 2, (), laps, len(laps))


def test_what_each_cpu_spent_in_a_phase() -> None:
    phases = answers.parse(LINES).phases
    laps = [(Spent(100 * i, 0), Spent(i * i, 10 * i)) for i in range(1, len(phases) + 1)]
    found = answers.apportioned(phases, waited(*laps))
    assert [one.spent[0] for one in found] == [Spent(100, 0)] * len(phases)
    assert [one.spent[1] for one in found][:3] == [Spent(1, 10), Spent(3, 10), Spent(5, 10)]
    assert [one.longest_ns for one in found][:2] == [100, 100]
    assert phases[0].longest_ns is None


def test_a_phase_that_the_controller_did_not_see_is_no_result() -> None:
    found = answers.judged(LAZY, 0, LINES, "", timed_out=False, waited=waited((Spent(1, 1), Spent(1, 1))))
    assert found.state is State.FAILED
    assert "saw 1 phases, and the program tells of 5" in found.why


def test_the_worst_of_the_cases_and_what_was_not_counted() -> None:
    def one(state: State = State.CORRECT, lost: int = 0) -> Outcome:
        return Outcome(LAZY, state, traffic=Traffic(1, 1, lost))

    def overall(*them: Outcome, undecided: bool = False, lost: bool = False) -> str:
        return answers.overall(them, undecided=undecided, lost=lost)

    assert overall(one(), one()) == "correct"
    assert overall(one(), one(lost=1)) == "undecided"
    assert overall(one(), undecided=True) == "undecided"
    assert overall(one(State.TIMED_OUT), one(State.FAILED), one(lost=1)) == "failed"
    assert overall(one(State.FAILED), one(State.WRONG)) == "wrong"
    assert overall(one(State.WRONG), lost=True) == "lost"


def outcomes() -> list[Outcome]:
    return [
        answers.judged(LAZY, 0, LINES, "", timed_out=False, traffic=Traffic(3000, 17, 0)),
        answers.judged(CHASE, 1, [], "locality: mbind: Invalid argument", timed_out=False),
    ]


def test_the_table() -> None:
    head = table.headed("mine", "failed", outcomes(), 3)
    text = table.render(head, outcomes(), Clock.WALL, None, ["kernel k", "topology t"], ["it rains"], Path("/runs/x"))
    assert text == (
        "FAILED: mine, 1 of 3 cases correct\n"
        "\n"
        "  case  phase  times  accesses  first  median  most  all, us\n"
        "  lazy  init       1     2,000   2.00    2.00  2.00      4.0\n"
        "        place      1         -      -       -     -      1.5\n"
        "        round      3     1,000   9.00    3.00  9.00     14.0\n"
        "    lazy: pages in the end: node 0 1, node 2 4,095, not mapped 7\n"
        "    lazy: accesses seen: 3,000 to the CPU's own node, 17 elsewhere\n"
        "    far: FAILED: locality: mbind: Invalid argument\n"
        "\n"
        "  first, median, most: ns an access (wall clock)\n"
        "  kernel k | topology t\n"
        "  To an emulated CPU all nodes are equally near: times show what the kernel does, not what distance costs.\n"
        "  warning: it rains\n"
        "\n"
        "  /runs/x"
    )


def test_instructions_are_no_time() -> None:
    text = table.render("head", outcomes()[:1], Clock.INSN, None, [], [], Path("/x"))
    assert "all, instructions" in text
    assert "instructions an access (insn clock)" in text
    assert " 14,000\n" in text


def test_time_that_memory_takes_is_time() -> None:
    laps = [(Spent(1000 * i, 500 * i), Spent(0, 0)) for i in range(1, 6)]
    found = [answers.judged(LAZY, 0, LINES, "", timed_out=False, waited=waited(*laps))]
    felt = LatencyProof(True, "", (Felt(0, 1, 100, 100.0),))
    lines = table.render("head", found, Clock.INSN, felt, [], [], Path("/x")).splitlines()
    assert lines[2].endswith("all, us  beside each other, us")
    assert lines[5].endswith("14.0                    4.5")
    assert "  memory's latency felt: node 0 to 1 100.00 of 100 ns" in lines
    modelled = LatencyProof(False, "it is so", ())
    assert "all, instructions" in table.render("head", found, Clock.INSN, modelled, [], [], Path("/x"))


def test_as_json() -> None:
    told = json.loads(json.dumps(answers.as_data(outcomes()[0])))
    assert told["phases"][2] == {"phase": "round", "time": 9000, "accesses": 1000, "each": 9.0}
    assert (told["result"], told["pages"], told["absent"]) == ("correct", {"0": 1, "2": 4095}, 7)
    assert told["memory"] == {"local": 3000, "remote": 17, "lost": 0}
