"""The kernel's test anything protocol: what a test program printed, as results.

The format is Documentation/dev-tools/ktap.rst of the kernel, and before it TAP 13; what programs in
tools/testing/selftests print departs from both (kselftest.h, kselftest_harness.h of 6.12): directives stand where the
name should be, lines of nested tests are indented by "# ", and other output lies between. Nothing here raises: output
that is cut short or mixed up is a finding, not an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a test. EXPECTED: it failed, as its author says it must (XFAIL, TODO)."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPECTED = "expected failure"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Line:
    """One result line, with those of the tests nested in it."""

    number: int
    name: str
    outcome: Outcome
    reason: str = ""
    nested: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that was understood. `plan`: how many tests were announced, None if that was never said.

    `orphans` are results that no result of a higher level came after: the program died inside that test.
    `garbage` counts lines that are neither results nor comments.
    """

    plan: int | None
    tests: tuple[Line, ...]
    orphans: tuple[Line, ...] = ()
    skip_reason: str | None = None
    bailed_out: str | None = None
    garbage: int = 0

    @property
    def complete(self) -> bool:
        """Whether each test that was announced has a result, and no other has. Two results of one number are none too
        many: a test that forks may have its child say it as well."""
        if self.plan is None or self.bailed_out is not None or self.orphans:
            return False
        return {test.number for test in self.tests} == set(range(1, self.plan + 1))

    @property
    def outcome(self) -> Outcome:
        """Of the program as a whole: a missing plan or result is a crash, whatever else it printed."""
        if not self.complete:
            return Outcome.CRASHED
        outcomes = {test.outcome for test in self.tests}
        if Outcome.FAILED in outcomes:
            return Outcome.FAILED
        return Outcome.SKIPPED if outcomes <= {Outcome.SKIPPED} else Outcome.PASSED

    def leaves(self) -> dict[str, Outcome]:
        """The innermost tests by name, nested ones as `outer/inner`; those that share a name have their number with it,
        and results that share both are told apart by their order."""
        all_of_them = list(_walk((*self.tests, *self.orphans), ""))
        often = Counter(name for name, _ in all_of_them)
        found: dict[str, Outcome] = {}
        for name, test in all_of_them:
            key = f"{name} [{test.number}]" if often[name] > 1 else name
            unique, count = key, 1
            while unique in found:
                count += 1
                unique = f"{key} ({count})"
            found[unique] = test.outcome
        return found


_INDENT = r"(?P<indent>(?:  |\t|# )*)"
_VERSION = re.compile(rf"{_INDENT}K?TAP version \d+\s*")
_PLAN = re.compile(rf"{_INDENT}1\.\.(?P<count>\d+)(?:\s+#\s*(?P<comment>.*))?\s*")
_RESULT = re.compile(rf"{_INDENT}(?P<ok>not ok|ok)(?:\s+(?P<number>\d+))?(?:\s+(?P<rest>.*))?")
_BAIL = re.compile(rf"{_INDENT}Bail out!\s*(?P<why>.*)")
_DIRECTIVE = re.compile(
    r"(?P<name>.*?)\s*#\s*(?P<directive>SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b[:\s]*(?P<reason>.*)", re.IGNORECASE
)
_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE)


def _walk(tests: tuple[Line, ...], above: str) -> Iterator[tuple[str, Line]]:
    for test in tests:
        name = f"{above}/{test.name}" if above else test.name
        if test.nested:
            yield from _walk(test.nested, name)
        else:
            yield name, test


def _described(ok: bool, rest: str) -> tuple[str, Outcome, str]:
    """Name, outcome and reason from what stands behind the number.

    Addresses are left out of names: they differ from run to run. A directive without a name before it, which is what
    ksft_test_result_skip() prints, gives its reason for the name.
    """
    outcome = Outcome.PASSED if ok else Outcome.FAILED
    name, reason = rest.strip(), ""
    if found := _DIRECTIVE.fullmatch(name):
        reason = found["reason"].strip()
        name = found["name"].strip() or reason
        match found["directive"].upper():
            case "SKIP":  # "ok" and "not ok" alike (ktap.rst)
                outcome = Outcome.SKIPPED
            case "XFAIL":
                outcome = Outcome.EXPECTED
            case "TODO":
                outcome = Outcome.PASSED if ok else Outcome.EXPECTED
            case "TIMEOUT" | "ERROR":
                outcome = Outcome.FAILED
    elif match := re.fullmatch(r"(.*?)\s*#\s{2}(.*)", name):  # kselftest_harness.h: a message without a directive
        name, reason = match[1], match[2]
    name = re.sub(r"^-\s+", "", name)
    return _ADDRESS.sub("0x...", name).strip(), outcome, reason


class _Reader:
    """Results by level; those of a level go into the next result of the level above."""

    def __init__(self) -> None:
        self.levels: list[list[Line]] = [[]]
        self.commented: set[int] = {0}
        self.plan: int | None = None
        self.skip_reason: str | None = None
        self.bailed_out: str | None = None
        self.garbage = 0

    def line(self, text: str) -> None:
        if not text.strip():
            return
        if found := _VERSION.fullmatch(text):
            self._open(found["indent"])
        elif (found := _BAIL.match(text)) and self._belongs(found["indent"]):
            self.bailed_out = found["why"].strip()
        elif (found := _PLAN.fullmatch(text)) and self._belongs(found["indent"]):
            self._planned(found)
        elif (found := _RESULT.fullmatch(text)) and self._belongs(found["indent"]) and self._is_result(found):
            self._result(found)
        elif not text.lstrip().startswith("#"):
            self.garbage += 1

    @staticmethod
    def _level(indent: str) -> int:
        return indent.count("  ") + indent.count("\t") + indent.count("# ")

    def _open(self, indent: str) -> None:
        if "#" in indent:
            self.commented.add(self._level(indent))

    def _belongs(self, indent: str) -> bool:
        """A comment that looks like a result is a comment, unless a version line has opened a level of such."""
        return "#" not in indent or self._level(indent) in self.commented

    @staticmethod
    def _is_result(found: re.Match[str]) -> bool:
        """`ok` alone, or in a sentence ("ok, now the next"), is no result; ktap.rst wants a number."""
        return found["number"] is not None

    def _planned(self, found: re.Match[str]) -> None:
        if self._level(found["indent"]) > 0:
            return  # a nested plan is held against nothing: its tests are in the result above
        self.plan = int(found["count"])
        comment = found["comment"] or ""
        if self.plan == 0 and comment.upper().startswith("SKIP"):
            self.skip_reason = comment[4:].strip()

    def _result(self, found: re.Match[str]) -> None:
        level = self._level(found["indent"])
        while len(self.levels) <= level:
            self.levels.append([])
        nested = tuple(test for deeper in self.levels[level + 1 :] for test in deeper)
        del self.levels[level + 1 :]
        name, outcome, reason = _described(found["ok"] == "ok", found["rest"] or "")
        self.levels[level].append(Line(int(found["number"]), name, outcome, reason, nested))

    def report(self) -> Report:
        orphans = tuple(test for level in self.levels[1:] for test in level)
        return Report(self.plan, tuple(self.levels[0]), orphans, self.skip_reason, self.bailed_out, self.garbage)


def parse(text: str) -> Report:
    """What a program printed on standard output. Never raises."""
    reader = _Reader()
    for line in text.splitlines():
        reader.line(line.rstrip("\r"))
    return reader.report()
