"""Reading memtoy scripts before a guest is started: every mistake is named with its line and the mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.workloads import memtoy
from controller.workloads.memtoy.commands import Define, Mbind, Migrate, Touch
from controller.workloads.memtoy.language import (
    ADDED_VERBS,
    ALIASES,
    PAGE,
    VERBS,
    Flag,
    Policy,
    PolicyMode,
    Range,
)
from controller.workloads.memtoy.script import Script, TopologyFacts, check, parse
from provision.host.errors import UserError

MB = 1 << 20
FACTS = TopologyFacts(nodes={0: 768 * MB, 1: 512 * MB, 2: 512 * MB, 3: 512 * MB}, cpus=frozenset(range(4)))
GUEST_SCRIPTS = sorted((Path(__file__).parents[1] / "guest" / "scripts").glob("*.memtoy"))
DEMO_SCRIPTS = sorted(memtoy.SCRIPTS.glob("*.memtoy"))
MAPPED = "anon foo 8p\nmap foo\n"

CANONICAL = """\
anon foo 8p
map foo
mbind foo preferred 1
touch foo w
where foo
touch foo r
mbind foo 0 8p bind+move+lazy 2
touch foo r
where foo
"""


def read(text: str) -> Script:
    script = parse(text, "test.memtoy")
    check(script, FACTS)
    return script


def test_the_canonical_script() -> None:
    commands = read(CANONICAL).commands
    assert [c.name for c in commands] == [
        "anon",
        "map",
        "mbind",
        "touch",
        "where",
        "touch",
        "mbind",
        "touch",
        "where",
    ]
    assert commands[0].operands == Define("foo", 8 * PAGE, shared=False)
    assert commands[3].operands == Touch("foo", None, write=True, pattern=None)
    assert commands[6].line == 7
    assert commands[6].operands == Mbind(
        "foo",
        Range(0, 8 * PAGE),
        Policy(PolicyMode.BIND, frozenset({Flag.MOVE, Flag.LAZY}), frozenset({2})),
    )


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("w", "where"),
        ("e", "quit"),
        ("mp", "mpol"),
        ("h", "help"),
        ("wa", "wait"),
        ("shm", "shmem"),
        ("t", "touch"),
    ],
)
def test_abbreviations_of_the_original_stay_what_they_were(word: str, name: str) -> None:
    operand = {"where": " foo", "touch": " foo", "shmem": " bar 1m"}.get(name, "")
    assert read(f"{MAPPED}{word}{operand}").commands[-1].name == name


def test_numbers_nodes_and_forwarding() -> None:
    commands = parse("anon a 0x10k\nmigrate 2,3 0-1\nchild kid\n/kid/deep touch a 1p * w=0xff # why", "x").commands
    assert commands[0].operands == Define("a", 16384, shared=False)
    assert commands[1].operands == Migrate(frozenset({2, 3}), frozenset({0, 1}))
    assert commands[3].children == ("kid", "deep")
    assert commands[3].operands == Touch("a", Range(PAGE, None), write=True, pattern=255)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tuch foo", "test.memtoy:1: unknown command 'tuch' (did you mean touch?)"),
        ("m foo", "'m' is short for several"),
        ("anon foo 8q", "'8q' is no size"),
        ("anon foo", "the size is missing"),
        ("anon foo 0", "size of 0"),
        (f"{MAPPED}touch foo 0", "an offset without a length"),
        (f"{MAPPED}touch foo 0 write", "an offset without a length"),
        (f"{MAPPED}mbind foo bind+lazy 1", "+lazy without +move before it (bind+move+lazy)"),
        (f"{MAPPED}mbind foo bind+move+shared 1", "+shared comes before +move"),
        (f"{MAPPED}mbind foo bind+move+lazy+all 1", "+all comes before +lazy"),
        (f"{MAPPED}mbind foo bind", "bind without nodes"),
        (f"{MAPPED}mbind foo best 1", "'best' is no policy"),
        (f"{MAPPED}mbind foo bind 1,", "'1,' is no list of nodes"),
        ("mpol bind+move 1", "takes no + flags"),
        ("kick", "the name of the child is missing"),
        ("/ touch foo", "the name of a child is missing"),
        ("child 5", "cannot name a child"),
        ("numa 5", "'5' is not expected here"),
        (f"{MAPPED}where foo 0 * fault", "only nofault may follow"),
        (f"{MAPPED}touch foo read=", "'' is no pattern"),
        # what can be understood and cannot work
        ("# nothing", "test.memtoy: no command in it"),
        ("anon foo 8p\ntouch foo", "test.memtoy:2: segment 'foo' is not mapped (map foo first)"),
        (f"{MAPPED}touch bar", "test.memtoy:3: unknown segment 'bar' (defined so far: foo)"),
        (f"{MAPPED}anon foo 4p", "defined already"),
        (f"{MAPPED}map foo", "mapped already"),
        (f"{MAPPED}remove foo\ntouch foo", "unknown segment 'foo' (defined so far: none)"),
        (f"{MAPPED}unmap foo\ntouch foo", "not mapped"),
        (f"{MAPPED}mbind foo bind 1,4-5", "the topology has no nodes 4, 5 (it has nodes 0, 1, 2, 3)"),
        ("migrate 9", "the topology has no node 9"),
        ("migrate 1 9", "the topology has no node 9"),
        ("mpol preferred 7", "the topology has no node 7"),
        ("mems 0x10", "the topology has no node 4"),
        ("cpus 0-4", "the topology has no CPU 4"),
        (
            "anon foo 3g",
            "segment 'foo' of 3 GB does not fit the guest's memory (all its nodes together have 2.2 GB",
        ),
        ("shmem foo 4g", "does not fit the guest's memory"),
        ("anon foo 600m\nmap foo\nmbind foo bind 2", "600 MB of segment 'foo' do not fit node 2"),
        ("anon foo 2g\nmap foo\nmbind foo bind 1-2", "2 GB of segment 'foo' do not fit nodes 1, 2"),
        (f"{MAPPED}touch foo 4p 5p", "passes the end of segment 'foo' (it has 8 pages, 32 kB)"),
        (f"{MAPPED}touch foo 8p *", "passes the end of segment 'foo'"),
        ("anon foo 8p\nmap foo 4p *\ntouch foo 4p 1p", "it has 4 pages"),
        ("/kid pid", "unknown child 'kid' (there so far: none)"),
        ("child kid\n/kid touch foo", "test.memtoy:2: unknown segment"),
        ("child kid\nchild kid", "child 'kid' is there already"),
        ("kick kid", "unknown child"),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_bound_to_several_nodes_may_fill_them_all() -> None:
    read("anon foo 1000m\nmap foo\nmbind foo bind 1-2\nmbind foo 0 512m bind 3\nmbind foo preferred 1")


def test_a_child_has_its_parents_segments_of_the_time_of_the_fork() -> None:
    read(f"{MAPPED}child kid\nremove foo\n/kid touch foo\n/kid child deep\n/kid/deep touch foo\nwait kid 5")


def test_a_file_has_the_size_that_the_guest_knows() -> None:
    read("file /some/where/data shared\nmap data\ntouch data 100p 5p w=1\nmbind data bind+move 1")


@pytest.mark.parametrize("path", [*GUEST_SCRIPTS, *DEMO_SCRIPTS], ids=lambda path: path.name)
def test_our_own_scripts_are_good(path: Path) -> None:
    text = path.read_text()
    script = parse(text, path.name)
    check(script, FACTS)
    at = {command.line: command.name for command in script.commands}
    for mention in re.findall(r"where at lines? (\d+)(?: and (\d+))?", text):
        assert {at[int(line)] for line in mention if line} == {"where"}


def test_the_guest_scripts_use_every_command() -> None:
    used = {c.name for path in GUEST_SCRIPTS for c in parse(path.read_text(), path.name).commands}
    assert used == {*VERBS, *ADDED_VERBS, "/"} - set(ALIASES)
