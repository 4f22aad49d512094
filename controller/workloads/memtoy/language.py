"""The words and numbers of the memtoy language, as `parse.c` and `verbs.c` read them.

Whatever cannot be understood raises Unclear, which has no place yet: the script that reads a line knows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

PAGE = 4096
"""Bytes a page of the guest, which is x86-64; the `p` of sizes."""

MAX_NODES = 1024
MAX_CPUS = 4096
MAX_WORDS = 128

VERBS = (
    *("help", "man", "quit", "exit", "pid", "pause", "snooze", "numa", "migrate", "show", "anon", "file"),
    *(
        "shmem",
        "shm",
        "remove",
        "map",
        "unmap",
        "lock",
        "unlock",
        "slock",
        "sunlock",
        "touch",
        "mbind",
        "where",
    ),
    *("mpol", "cpus", "mems", "child", "kick"),
)
ADDED_VERBS = ("mprotect", "echo", "wait")
"""Not in the original: these never make an abbreviation of the original's ambiguous (`w` stays `where`)."""

ALIASES = {"man": "help", "exit": "quit", "shm": "shmem"}

SIGNALS = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
    ),
    *(
        "TERM",
        "STKFLT",
        "CHLD",
        "CONT",
        "STOP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "XCPU",
        "XFSZ",
        "VTALRM",
        "PROF",
    ),
    *("WINCH", "POLL", "PWR", "SYS"),
)
"""By number, from 1, as Linux has them on x86."""

_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([kKmMgGpP]?)")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")
_LIST_PART = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "p": PAGE}


class Unclear(Exception):
    """A command that cannot be understood, and the mend."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PolicyMode(StrEnum):
    """The policies of mbind and mpol; NOOP is one that no kernel of today has."""

    DEFAULT = "default"
    PREFERRED = "preferred"
    BIND = "bind"
    INTERLEAVED = "interleaved"
    NOOP = "noop"


class Flag(StrEnum):
    """What may follow a policy after a +; STRICT is not in the original."""

    SHARED = "shared"
    MOVE = "move"
    ALL = "all"
    LAZY = "lazy"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Range:
    """Part of a segment, in bytes; `length` None is all that follows `offset`."""

    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, its flags and its nodes; `nodes` None is `*`, or none given (default, noop, preferred)."""

    mode: PolicyMode
    flags: frozenset[Flag]
    nodes: frozenset[int] | None


def find(word: str, words: Sequence[str], added: Sequence[str] = ()) -> str | None:
    """The one of `words` that `word` is or begins, else of `words` and `added`; None when there is none.

    Raises Unclear when it begins several.
    """
    if not word:
        return None
    for among in (words, (*words, *added)):
        if word in among:
            return word
        matches = [candidate for candidate in among if candidate.startswith(word)]
        if len(matches) > 1:
            raise Unclear(f"'{word}' is short for several: {', '.join(matches)}", "write more of it")
        if matches:
            return matches[0]
    return None


def verb(word: str) -> str:
    """The full name of a command; Unclear when there is none or several."""
    name = find(word, VERBS, ADDED_VERBS)
    if name is None:
        close = get_close_matches(word, (*VERBS, *ADDED_VERBS), n=1)
        raise Unclear(
            f"unknown command '{word}'",
            f"did you mean {close[0]}?" if close else "memtoy -h lists the commands",
        )
    return ALIASES.get(name, name)


def number(word: str, what: str, *, suffix: bool = False) -> int:
    """A number below 2^64, decimal or 0x; with `suffix` also k, m, g or p (pages) after it."""
    match = _NUMBER.fullmatch(word)
    if match and (suffix or not match[2]):
        digits = match[1]
        value = int(digits, 16 if digits[:2].lower() == "0x" else 10) * _UNITS[match[2].lower()]
        if value < 1 << 64:
            return value
    hint = "a number, 0x for hex, with k, m, g or p for pages" if suffix else "a number, 0x for hex"
    raise Unclear(f"'{word}' is no {what}", hint)


def seconds(word: str) -> float:
    """Seconds, fractions allowed, up to a million."""
    if _SECONDS.fullmatch(word) and float(word) <= 1e6:
        return float(word)
    raise Unclear(f"'{word}' is no number of seconds", "such as 2 or 0.5")


def number_set(word: str, what: str, limit: int) -> frozenset[int]:
    """A list with ranges, such as 0-3,5, of numbers below `limit`."""
    numbers: set[int] = set()
    for part in word.split(","):
        match = _LIST_PART.fullmatch(part)
        first = int(match[1]) if match else limit
        last = int(match[2]) if match and match[2] else first
        if not first <= last < limit:
            raise Unclear(f"'{word}' is no list of {what}", "such as 1 or 0-3 or 0,2")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def mask_or_set(word: str, what: str, limit: int) -> frozenset[int]:
    """A list as above, or a mask in hex."""
    if word[:2].lower() != "0x":
        return number_set(word, what, limit)
    mask = number(word, f"mask of {what}")
    if not mask:
        raise Unclear(f"'{word}' is an empty mask of {what}", "set a bit")
    return frozenset(bit for bit in range(64) if mask >> bit & 1)


def policy_words(word: str) -> tuple[PolicyMode, frozenset[Flag]]:
    """POLICY[+shared][+strict][+move[+all][+lazy]], each word by a unique prefix."""
    first, *rest = word.split("+")
    mode = find(first, [mode.value for mode in PolicyMode])
    if mode is None:
        raise Unclear(f"'{first}' is no policy", "default, preferred, bind, interleaved or noop")
    flags: set[Flag] = set()
    for part in rest:
        name = find(part, ("shared", "move", "all", "lazy"), ("strict",))
        if name is None:
            raise Unclear(f"'+{part}' is no flag of a policy", "+shared, +strict, +move, +all or +lazy")
        flag = Flag(name)
        if flag is Flag.SHARED and Flag.MOVE in flags:
            raise Unclear("+shared comes before +move", f"{mode}+shared+move")
        if flag in (Flag.ALL, Flag.LAZY) and Flag.MOVE not in flags:
            raise Unclear(f"+{flag} without +move before it", f"{mode}+move+{flag}")
        if flag is Flag.ALL and Flag.LAZY in flags:
            raise Unclear("+all comes before +lazy", f"{mode}+move+all+lazy")
        if flag in flags:
            raise Unclear(f"+{flag} is there twice", "leave one out")
        flags.add(flag)
    return PolicyMode(mode), frozenset(flags)


def signal(word: str) -> int:
    """A signal by number or name, with or without SIG."""
    if word[0].isdigit():
        value = number(word, "signal")
        if 0 < value <= len(SIGNALS):
            return value
    else:
        name = word.upper().removeprefix("SIG")
        if name in SIGNALS:
            return SIGNALS.index(name) + 1
    raise Unclear(f"'{word}' is no signal", "such as USR1 or 15; kick ? lists them")
