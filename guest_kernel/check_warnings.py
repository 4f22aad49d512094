"""What a build complains about, from its output alone: warnings, errors, and which warnings are new."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# gcc, ld, objtool, modpost, kernel-doc, kconfig and resolve_btfids all say one of these somewhere in the line.
_WARNING = re.compile(r"\bwarn(?:ing)?: ?", re.IGNORECASE)
_OF_THE_HOST = re.compile(r"^make(?:\[\d+\])?: ")
"""make(1) warns of clocks and job servers, which are no matter of the source."""
_ERROR = re.compile(r"\berror: |undefined reference to|\*\*\* \[|No rule to make target|^ERROR: ")

_ABOVE = re.compile(r"(?<![\w./])(?:\.\./)+|(?<![\w./])\./")
_POSITION = re.compile(r"(?<=\w):\d+(?::\d+)?(?=:)")
_OFFSET = re.compile(r"\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?")

ERROR_LINES = 12


def warnings(lines: Iterable[str]) -> list[str]:
    """The lines that warn, as they were said."""
    return [line.strip() for line in lines if _WARNING.search(line) and not _OF_THE_HOST.match(line)]


def stable(warning: str) -> str:
    """A warning without what moves when other lines of its file do: line numbers, offsets in functions."""
    return _OFFSET.sub("+0x", _POSITION.sub("", _ABOVE.sub("", warning)))


def new(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Warnings of `after` that `before` has not, or not as often, in order. What an include file says counts each time."""
    left = Counter(map(stable, before))
    found = []
    for warning in after:
        key = stable(warning)
        if left[key] > 0:
            left[key] -= 1
        else:
            found.append(warning)
    return found


def errors(lines: Iterable[str]) -> list[str]:
    """Why a build failed: the first lines that say so; the last lines of all when none does."""
    said = [line.strip() for line in lines if line.strip()]
    return [line for line in said if _ERROR.search(line)][:ERROR_LINES] or said[-ERROR_LINES:]
