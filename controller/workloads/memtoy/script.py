"""A memtoy script, read before any guest is started.

`parse` reads the text with the grammar of the program itself and raises UserError for what cannot be
understood; `check` (of check.py, given here too) raises it for what can be understood and cannot work on the
machine at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from controller.workloads.memtoy.check import TopologyFacts, check
from controller.workloads.memtoy.commands import (
    Affinity,
    Child,
    Command,
    Define,
    Mbind,
    Migrate,
    Mpol,
    Operands,
    Script,
    Segments,
    Touch,
    Use,
    Words,
)
from controller.workloads.memtoy.language import (
    MAX_CPUS,
    MAX_NODES,
    MAX_WORDS,
    PAGE,
    Policy,
    PolicyMode,
    Range,
    Unclear,
    find,
    mask_or_set,
    number,
    number_set,
    policy_words,
    seconds,
    signal,
    verb,
)
from provision.host.errors import UserError


class _Line:
    """The words of a command that nobody has taken yet."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def peek(self) -> str:
        return self._words[0] if self._words else ""

    def take(self, missing: str = "") -> str:
        """The next word; "" when there is none, or Unclear when `missing` says what it would have been."""
        if self._words:
            return self._words.pop(0)
        if missing:
            raise Unclear(f"{missing} is missing")
        return ""

    def end(self) -> None:
        if self._words:
            raise Unclear(f"'{self._words[0]}' is not expected here", "memtoy -h shows what each command takes")

    def range(self) -> Range | None:
        if not self.peek()[:1].isdigit():
            return None
        offset = number(self.take(), "offset", suffix=True)
        word = self.peek()
        if word != "*" and not word[:1].isdigit():
            raise Unclear("an offset without a length after it", "add a length, or * for all that follows")
        self.take()
        if word == "*":
            return Range(offset, None)
        length = number(word, "length", suffix=True)
        if not length:
            raise Unclear("a length of 0", "at least 1")
        return Range(offset, length)

    def choice(self, *words: str) -> str:
        """One of `words`, by a unique prefix; "" when nothing is left."""
        word = self.take()
        if not word:
            return ""
        found = find(word, words)
        if found is None:
            raise Unclear(f"'{word}' is not expected here", f"only {' or '.join(words)} may follow")
        return found

    def policy(self) -> Policy:
        mode, flags = policy_words(self.take("the policy"))
        word = self.take()
        if mode in (PolicyMode.DEFAULT, PolicyMode.NOOP):
            if word:
                raise Unclear(f"{mode} takes no nodes", f"leave '{word}' out")
        elif not word and mode is not PolicyMode.PREFERRED:
            raise Unclear(f"{mode} without nodes", f"{mode} 1, or {mode} * for all allowed")
        return Policy(mode, flags, None if word in ("", "*") else number_set(word, "nodes", MAX_NODES))


def _define(line: _Line) -> Define:
    name = line.take("the name of the segment")
    size = number(line.take("the size"), "size", suffix=True)
    if not 0 < size <= 1 << 46:
        raise Unclear("a size of 0 or of more than 64 TB")
    return Define(name, size, shared=False)


def _anon(line: _Line) -> Operands:
    plain = _define(line)
    return Define(plain.segment, plain.size, shared=line.choice("private", "shared") == "shared")


def _shmem(line: _Line) -> Operands:
    plain = _define(line)
    return Define(plain.segment, plain.size, shared=True, huge=line.choice("huge") == "huge")


def _file(line: _Line) -> Operands:
    path = line.take("the path of the file")
    part = line.range()
    if part and part.offset % PAGE:
        raise Unclear("the offset is not whole pages", "use p for pages")
    shared = line.choice("private", "shared") == "shared"
    return Define(path.rpartition("/")[2], part.length if part else None, shared)


def _use(*words: str, ranged: bool = True) -> Callable[[_Line], Operands]:
    def parse_use(line: _Line) -> Operands:
        name = line.take("the name of the segment")
        part = line.range() if ranged else None
        word = line.choice(*words) if words else ""
        return Use(name, part, (word,) if word else ())

    return parse_use


def _mprotect(line: _Line) -> Operands:
    name, part = line.take("the name of the segment"), line.range()
    found: list[str] = []
    for word in line.take("the protection").split("+"):
        full = find(word, ("none", "read", "write", "exec"))
        if full is None:
            raise Unclear(f"'{word}' is no protection", "none, read, write or exec")
        if found and "none" in (full, found[0]):
            raise Unclear("none stands alone", "none, or the others joined by +")
        found.append(full)
    return Use(name, part, tuple(found))


def _touch(line: _Line) -> Operands:
    name, part = line.take("the name of the segment"), line.range()
    word, equals, pattern = line.take().partition("=")
    access = find(word, ("read", "write")) if word or equals else "read"
    if access is None:
        raise Unclear(f"'{word}' is neither read nor write")
    return Touch(name, part, access == "write", number(pattern, "pattern") if equals else None)


def _mbind(line: _Line) -> Operands:
    return Mbind(line.take("the name of the segment"), line.range(), line.policy())


def _mpol(line: _Line) -> Operands:
    policy = line.policy() if line.peek() else None
    if policy and policy.flags:
        raise Unclear("a task's policy takes no + flags", "they belong to mbind")
    return Mpol(policy)


def _migrate(line: _Line) -> Operands:
    to_nodes = number_set(line.take("the node to migrate to"), "nodes", MAX_NODES)
    word = line.take()
    return Migrate(to_nodes, number_set(word, "nodes", MAX_NODES) if word else None)


def _affinity(what: str, limit: int) -> Callable[[_Line], Operands]:
    def parse_affinity(line: _Line) -> Operands:
        word = line.take()
        return Affinity(mask_or_set(word, what, limit) if word else None)

    return parse_affinity


def _remove(line: _Line) -> Operands:
    names = [line.take("the name of the segment")]
    while line.peek():
        names.append(line.take())
    return Segments(tuple(names))


def _show(line: _Line) -> Operands:
    word = line.take()
    return Segments(() if word in ("", "+") else (word,))


def _child(line: _Line) -> Operands:
    name = line.take("the name of the child")
    if not re.fullmatch(r"[A-Za-z][^/]{0,62}", name):
        raise Unclear(f"'{name}' cannot name a child", "a letter first, no /, below 64 characters")
    return Child(name)


def _kick(line: _Line) -> Operands:
    name = line.take("the name of the child")
    word = line.take()
    if name == "?" and not word:
        return Child(None)
    if word:
        signal(word)
    return Child(name.removeprefix("/"))


def _wait(line: _Line) -> Operands:
    name = line.take() if line.peek() and not line.peek()[0].isdigit() else None
    word = line.take()
    if word:
        seconds(word)
    return Child(name.removeprefix("/") if name else None)


def _snooze(line: _Line) -> Operands:
    word = line.take("the number of seconds")
    seconds(word)
    return Words((word,))


def _help(line: _Line) -> Operands:
    word = line.take()
    return Words((verb(word),) if word else ())


def _echo(line: _Line) -> Operands:
    words: list[str] = []
    while line.peek():
        words.append(line.take())
    return Words(tuple(words))


def _nothing(line: _Line) -> Operands:
    return Words(())


_PARSERS: Mapping[str, Callable[[_Line], Operands]] = MappingProxyType(
    {
        **dict.fromkeys(("quit", "pid", "pause", "numa"), _nothing),
        **dict.fromkeys(("lock", "unlock"), _use()),
        **dict.fromkeys(("unmap", "slock", "sunlock"), _use(ranged=False)),
        "anon": _anon,
        "child": _child,
        "cpus": _affinity("CPUs", MAX_CPUS),
        "echo": _echo,
        "file": _file,
        "help": _help,
        "kick": _kick,
        "map": _use("private", "shared"),
        "mbind": _mbind,
        "mems": _affinity("nodes", MAX_NODES),
        "migrate": _migrate,
        "mpol": _mpol,
        "mprotect": _mprotect,
        "remove": _remove,
        "shmem": _shmem,
        "show": _show,
        "snooze": _snooze,
        "touch": _touch,
        "wait": _wait,
        "where": _use("nofault"),
    }
)

# A # inside a word (of a file's name, say) is part of it.
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*", re.DOTALL)
_BLANKS = " \t\r\v\f"


def _command(line: int, text: str) -> Command:
    words = [word for word in re.split("[ \t]+", text) if word]
    if len(words) > MAX_WORDS:
        raise Unclear(f"more than {MAX_WORDS} words", "split the command")
    children: tuple[str, ...] = ()
    if words[0] == "/" and len(words) == 1:
        return Command(line, "/", text, (), Words(()))
    if words[0].startswith("/"):
        children = tuple(words.pop(0)[1:].split("/"))
        if "" in children:
            raise Unclear("the name of a child is missing", "/NAME COMMAND")
        if not words:
            raise Unclear(f"the command for '/{'/'.join(children)}' is missing", "/NAME COMMAND")
    name = verb(words[0])
    rest = _Line(words[1:])
    operands = _PARSERS[name](rest)
    rest.end()
    return Command(line, name, text, children, operands)


def parse(text: str, path: str) -> Script:
    """Read a script; `path` is used in messages only.

    Raises UserError, with `path:line`, at the first command that memtoy would not understand.
    """
    commands: list[Command] = []
    for line, raw in enumerate(text.split("\n"), start=1):
        bare = _COMMENT.sub("", raw.lstrip(_BLANKS)).rstrip(_BLANKS)
        if not bare:
            continue
        try:
            commands.append(_command(line, bare))
        except Unclear as error:
            raise UserError(error.message, where=f"{path}:{line}", hint=error.hint) from error
    return Script(path, text, tuple(commands))


__all__ = ["Command", "Script", "TopologyFacts", "check", "parse"]
