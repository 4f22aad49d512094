"""Reading what test programs print. The texts are made up; their forms are those of ktap.rst and of kselftest.h."""

from __future__ import annotations

import pytest

from controller.analysis import ktap
from controller.analysis.ktap import Line, Outcome, parse

PLAIN = """\
TAP version 13
1..4
# [RUN] one
ok 1 one is one
not ok 2 two is two
ok 3 - three # SKIP no third hand
ok 4 # SKIP no fourth
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:2 error:0
"""


def outcomes(text: str) -> dict[str, Outcome]:
    return parse(text).leaves()


def test_results_directives_and_the_plan() -> None:
    report = parse(PLAIN)
    assert report.plan == 4
    assert report.tests == (
        Line(1, "one is one", Outcome.PASSED),
        Line(2, "two is two", Outcome.FAILED),
        Line(3, "three", Outcome.SKIPPED, "no third hand"),
        Line(4, "no fourth", Outcome.SKIPPED, "no fourth"),
    )
    assert report.complete
    assert report.outcome is Outcome.FAILED
    assert report.garbage == 0


@pytest.mark.parametrize(
    ("line", "name", "outcome"),
    [
        ("ok 1 a", "a", Outcome.PASSED),
        ("ok 1", "", Outcome.PASSED),
        ("ok 1 - a", "a", Outcome.PASSED),
        ("not ok 1 a", "a", Outcome.FAILED),
        ("ok 1 a # SKIP", "a", Outcome.SKIPPED),
        ("not ok 1 a # SKIP why", "a", Outcome.SKIPPED),
        ("ok 1 a # skip: why", "a", Outcome.SKIPPED),
        ("ok 1 # XFAIL a", "a", Outcome.EXPECTED),
        ("not ok 1 a # TODO later", "a", Outcome.EXPECTED),
        ("ok 1 a # TODO later", "a", Outcome.PASSED),
        ("ok 1 a # XPASS", "a", Outcome.PASSED),
        ("not ok 1 a # TIMEOUT 45 seconds", "a", Outcome.FAILED),
        ("not ok 1 # error a", "a", Outcome.FAILED),
        ("ok 1 a #  what the harness says beside", "a", Outcome.PASSED),
        ("ok 1 page #3 of 4", "page #3 of 4", Outcome.PASSED),
        ("ok 1 a SKIPPER # 7", "a SKIPPER # 7", Outcome.PASSED),
        ("ok 1 mapped at 0x7f12AB", "mapped at 0x...", Outcome.PASSED),
    ],
)
def test_one_line(line: str, name: str, outcome: Outcome) -> None:
    (found,) = parse(f"1..1\n{line}\r\n").tests
    assert (found.name, found.outcome) == (name, outcome)


@pytest.mark.parametrize(
    "line",
    [
        "okay 1 a",
        "ok, next",
        "ok",
        "not okay",
        "note: not ok 1 a",
        "  # ok 1 a",
        "# ok 1 a",
        "ok1 a",
        "oknot 1",
        "1.. 3",
    ],
)
def test_what_is_no_result(line: str) -> None:
    assert parse(f"1..0\n{line}\n").tests == ()


NESTED = """\
KTAP version 1
1..2
  KTAP version 1
  1..2
    KTAP version 1
    1..1
    not ok 1 innermost
  not ok 1 inner
  ok 2 other
not ok 1 outer
  KTAP version 1
  1..1
  ok 1 inner
ok 2 second
"""


def test_nested_tests_are_in_the_result_that_follows_them() -> None:
    report = parse(NESTED)
    assert report.complete
    assert report.leaves() == {
        "outer/inner/innermost": Outcome.FAILED,
        "outer/other": Outcome.PASSED,
        "second/inner": Outcome.PASSED,
    }


def test_nesting_by_comments_needs_a_version_line() -> None:
    text = "TAP version 13\n1..1\n# TAP version 13\n# 1..1\n# not ok 1 inner\nnot ok 1 outer\n"
    assert outcomes(text) == {"outer/inner": Outcome.FAILED}
    assert outcomes(text.replace("# TAP version 13\n", "")) == {"outer": Outcome.FAILED}


def test_a_result_inside_a_test_that_never_ended_shows_that_it_crashed() -> None:
    report = parse(NESTED.rpartition("ok 2 second")[0])
    assert not report.complete
    assert report.outcome is Outcome.CRASHED
    assert report.leaves()["inner"] is Outcome.PASSED


def test_garbage_is_counted_and_hides_nothing() -> None:
    report = parse("hello\n1..1\n\x00\x1b[31m ok 7\nSegmentation fault ok 2\nok 1 a\n\nbye\n")
    assert report.garbage == 4
    assert report.outcome is Outcome.PASSED
    assert parse("").outcome is Outcome.CRASHED


@pytest.mark.parametrize(
    "text",
    [
        "ok 1 a\n",  # no plan
        "1..2\nok 1 a\n",  # ended early
        "1..1\nok 1 a\nok 2 b\n",  # more than announced
        "1..2\nok 1 a\nok 1 a\n",  # one twice is not two
        "1..2\nok 1 a\nok 2 b\nBail out! no memory\n",
        "  1..1\n  ok 1 a\n",  # the outer level never came
        "",
    ],
)
def test_what_is_missing_is_a_crash(text: str) -> None:
    assert parse(text).outcome is Outcome.CRASHED


def test_a_plan_may_come_last_and_a_child_may_repeat_a_result() -> None:
    assert parse("ok 1 a\nok 2 b\n1..2\n").outcome is Outcome.PASSED
    report = parse("1..2\nok 1 a\nok 1 a\nok 2 b\n")
    assert report.outcome is Outcome.PASSED
    assert list(report.leaves()) == ["a [1]", "a [1] (2)", "b"]


def test_what_shares_a_name_is_told_apart_by_number() -> None:
    whole = outcomes("1..3\nok 1 no leak\nnot ok 2 no leak\nok 3 # SKIP no leak\n")
    assert whole == {"no leak [1]": Outcome.PASSED, "no leak [2]": Outcome.FAILED, "no leak [3]": Outcome.SKIPPED}


def test_all_skipped() -> None:
    report = parse("TAP version 13\n1..0 # SKIP not configured\n")
    assert (report.outcome, report.skip_reason) == (Outcome.SKIPPED, "not configured")
    assert parse("1..1\nok 1 # SKIP no such thing\n").outcome is Outcome.SKIPPED
    assert parse("1..2\nok 1 # SKIP no such thing\nok 2 a\n").outcome is Outcome.PASSED


@pytest.mark.parametrize("cut", range(0, len(NESTED), 7))
def test_output_cut_anywhere_is_read(cut: int) -> None:
    report = ktap.parse(NESTED[:cut])
    assert report.outcome is (Outcome.FAILED if report.complete else Outcome.CRASHED)
