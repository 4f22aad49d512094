"""The program memtoy, compiled and run on the host: everything that needs no second node."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.workloads import memtoy
from controller.workloads.memtoy.language import ADDED_VERBS, VERBS
from controller.workloads.memtoy.output import (
    CommandResult,
    MapResult,
    MbindResult,
    OtherResult,
    TouchResult,
    WhereMethod,
    WhereResult,
    read,
)
from controller.workloads.memtoy.script import parse
from provision.host.errors import InfraError, UserError

MAPPED = "anon foo 8p\nmap foo\n"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("memtoy") / "memtoy"
    sources = [str(path) for path in memtoy.SOURCES if path.suffix == ".c"]
    flags = ["-static", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", str(binary), *sources], check=True, timeout=120)
    return binary


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def results(self) -> list[CommandResult]:
        return read(self.out.splitlines())


def run(program: Path, script: str, *options: str) -> Ran:
    done = subprocess.run(
        [str(program), *options],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def only(results: list[CommandResult], cmd: str) -> CommandResult:
    (found,) = (result for result in results if result.cmd == cmd)
    return found


def test_patterns_survive_and_are_verified(program: Path) -> None:
    ran = run(
        program,
        f"{MAPPED}touch foo w=42\ntouch foo\ntouch foo write\ntouch foo 2p * r=42\ntouch foo r=42",
        "-j",
    )
    assert ran.status == 0, ran.err
    touches = [result.result for result in ran.results if result.cmd == "touch"]
    assert all(isinstance(touch, TouchResult) for touch in touches)
    assert [(t.pages, t.write, t.pattern, t.mismatches) for t in touches if isinstance(t, TouchResult)] == [
        (8, True, 42, 0),
        (8, False, None, 0),
        (8, True, None, 0),
        (6, False, 42, 0),
        (8, False, 42, 0),
    ]


def test_contents_that_differ_are_counted_and_the_first_told(program: Path) -> None:
    ran = run(program, f"{MAPPED}touch foo w=1\ntouch foo 3p 2p w=2\ntouch foo r=1", "-j")
    assert ran.status == 1
    last = ran.results[-1]
    assert not last.ok
    assert last.errno == 0
    assert isinstance(last.result, TouchResult)
    assert (last.result.mismatches, last.result.bad_pages) == (1024, 2)
    assert last.result.first is not None
    assert (last.result.first.page, last.result.first.offset) == (3, 0)
    assert last.result.first.belongs_to is None
    assert "<stdin>:5: contents differ in 1024 words of 2 pages" in ran.err


def test_a_page_in_the_place_of_another_is_named(program: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"\0" * 4 * 4096)
    script = f"file {data} shared\nmap data\ntouch data w=7\nunmap data\nmap data 1p *\ntouch data r=7"
    ran = run(program, script, "-j")
    result = ran.results[-1].result
    assert isinstance(result, TouchResult)
    assert result.bad_pages == 3
    assert result.first is not None
    assert (result.first.page, result.first.belongs_to) == (0, 1)


def test_looking_does_not_fault_pages_in_and_asking_does(program: Path) -> None:
    ran = run(program, f"{MAPPED}touch foo 0 2p w\nwhere foo nofault\nwhere foo nofault\nwhere foo", "-j")
    first, second, asked = (r.result for r in ran.results if r.cmd == "where")
    assert isinstance(first, WhereResult)
    assert isinstance(second, WhereResult)
    assert isinstance(asked, WhereResult)
    assert first.nodes == second.nodes == (0, 0, *[-errno.ENOENT] * 6)
    assert first.method is WhereMethod.MOVE_PAGES
    assert asked.nodes == (0,) * 8
    assert asked.method is WhereMethod.GET_MEMPOLICY
    mapped = only(ran.results, "map").result
    assert isinstance(mapped, MapResult)
    assert mapped.address == first.start
    assert (mapped.length, first.page_size) == (8 * 4096, 4096)


def test_how_much_where_shows(program: Path) -> None:
    script = "anon big 200p\nmap big\nwhere big no\nwhere big\nwhere big 0 * no\nwhere big 100p *"
    lengths = [len(r.result.nodes) for r in run(program, script, "-j").results if isinstance(r.result, WhereResult)]
    # Looking lists all; asking faults in the same 64 pages whatever the output looks like.
    assert lengths == [200, 64, 200, 100]
    text = run(program, script).out
    assert text.count("page ") == 4
    assert "\n      48   -" in text
    assert "\n     196   0   0   0   0\n" in text


def test_memory_that_may_not_be_touched_is_an_error_and_not_a_crash(program: Path) -> None:
    script = f"{MAPPED}touch foo w=1\nmprotect foo 4p 4p none\ntouch foo\nmprotect foo write\ntouch foo r=1"
    ran = run(program, script, "-j")
    assert ran.status == 1
    failed = ran.results[4]
    assert (failed.ok, failed.errno) == (False, errno.EFAULT)
    assert isinstance(failed.result, TouchResult)
    assert failed.result.pages == 4
    assert "SIGSEGV" in failed.error
    assert ran.results[-1].ok


def test_beyond_the_end_of_a_file_is_an_error_and_not_a_crash(program: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 4096)
    ran = run(program, f"file {data} 0 4p\nmap data\ntouch data\npid", "-j")
    assert [r.ok for r in ran.results] == [True, True, False, True]
    assert "SIGBUS" in ran.results[2].error


def test_a_private_mapping_of_a_file_leaves_the_file_alone(program: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 8192)
    assert run(program, f"file {data}\nmap data\ntouch data w=1\ntouch data r=1").status == 0
    assert data.read_bytes() == b"x" * 8192
    assert run(program, f"file {data}\nmap data shared\ntouch data w=1").status == 0
    assert data.read_bytes() != b"x" * 8192


def test_shared_memory_is_removed_at_the_end(program: Path) -> None:
    ran = run(program, "shmem bar 64k\nmap bar\nslock bar\nsunlock bar\ntouch bar w=3\ntouch bar r=3\nshow", "-j")
    assert ran.status == 0, ran.err
    key = Path("/proc/sysvipc/shm")
    assert f" {ran.results[0].pid} " not in key.read_text()


def test_mbind_tells_what_it_asked_for(program: Path) -> None:
    ran = run(program, f"{MAPPED}mbind foo 0 4p bind+strict+move 0\nmbind foo pref *\nmb foo noop+move+lazy", "-j")
    bound, local, noop = (r for r in ran.results if r.cmd == "mbind")
    assert isinstance(bound.result, MbindResult)
    assert (bound.result.flags, bound.result.nodes) == (("strict", "move"), (0,))
    assert (bound.result.length, bound.result.policy) == (4 * 4096, "bind")
    assert local.ok
    assert (noop.ok, noop.errno) == (False, errno.EINVAL)
    assert "noop" in noop.error


def test_children_run_what_they_are_told(program: Path) -> None:
    script = "anon s 4p shared\nmap s\nchild a\nchild b\n/a touch s w=5\nwait a\n/b touch s r=5\n"
    script += "/b child c\n/b/c echo hi\nwait"
    ran = run(program, script, "-j")
    assert ran.status == 0, ran.err
    done = {(r.child, r.cmd): r for r in ran.results}
    assert done["/b", "touch"].ok
    assert done["/b/c", "echo"].raw == {"text": "hi"}
    assert done["/b/c", "echo"].line == 9
    assert done["/a", "touch"].pid == only([r for r in ran.results if r.text == "child a"], "child").raw["pid"]
    assert len({r.pid for r in ran.results}) == 4
    assert ran.results[-1].cmd == "wait"


def test_a_kick_that_comes_before_the_pause_counts(program: Path) -> None:
    ran = run(program, "child a\nkick a\n/a snooze 0.1\n/a pause\nwait 10", "-j")
    assert ran.status == 0, ran.err
    assert only(ran.results, "pause").raw == {"signal": 10}


def test_waiting_has_an_end(program: Path) -> None:
    ran = run(program, "child a\n/a pause\nwait 0.05", "-j")
    assert only(ran.results, "wait").errno == errno.ETIMEDOUT
    assert ran.status == 1


def test_a_paused_child_ends_with_memtoy_and_a_killed_one_is_told_of(program: Path) -> None:
    ran = run(program, "child a\nchild b\n/a pause\nkick b KILL\nwait b\n/b pid", "-j")
    states = [child["state"] for child in only(ran.results, "wait").raw["children"]]
    assert states == ["killed"]
    assert only(ran.results, "/").error.startswith("child 'b' is gone")
    assert only(ran.results, "pause").raw == {"signal": 0}
    assert ran.status == 1


def test_what_fails_in_a_child_counts(program: Path) -> None:
    assert run(program, "child a\n/a touch nothing").status == 1
    assert run(program, "child a\n/a bogus\nsnooze 0.1").status == 2


def test_a_batch_goes_on_after_a_failure_and_stops_at_nonsense(program: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.memtoy"
    script.write_text("anon foo 4p\ntouch foo\nfrobnicate\npid\n")
    ran = run(program, "", "-j", str(script))
    assert ran.status == 2
    assert [(r.line, r.cmd, r.ok) for r in ran.results] == [
        (1, "anon", True),
        (2, "touch", False),
        (3, "", False),
    ]
    assert f"memtoy: {script}:3: unknown command 'frobnicate'" in ran.err


def test_quit_ends_and_other_files_are_not_scripts(program: Path, tmp_path: Path) -> None:
    assert "never" not in run(program, "quit\necho never").out
    assert run(program, "", str(tmp_path / "missing")).status == 2
    assert run(program, "", "-q").status == 2


def test_times_enclose_the_work_alone(program: Path) -> None:
    nap = run(program, "snooze 0.1", "-j").results[0]
    assert 0.1e9 <= nap.end_ns - nap.start_ns < 5e9


def test_text_output_and_help(program: Path) -> None:
    ran = run(program, f"{MAPPED}touch foo w\nmigrate 0\nnuma\nshow\necho  two  words # not this\nhelp w", "-v")
    assert ran.status == 0, ran.err
    assert "touched 8 pages in 0." in ran.out
    assert "pages not migrated" in ran.out
    assert "\ntwo  words\n" in ran.out
    assert "<stdin>:3: touch foo w\n" in ran.out
    helped = run(program, "", "-h").out
    assert all(f"\n  {name} " in helped for name in (*VERBS, *ADDED_VERBS))
    assert run(program, "", "-V").out.startswith("memtoy ")


def test_json_holds_whatever_a_script_says(program: Path) -> None:
    done = subprocess.run(
        [str(program), "-j"],
        input=b'echo "\\ \x01 \xc3\xa4 \xff\n',
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout)["result"]["text"] == '"\\ \x01 ä \ufffd'


@pytest.mark.parametrize("cpu", sorted(os.sched_getaffinity(0))[:1])
def test_affinity(program: Path, cpu: int) -> None:
    ran = run(program, f"cpus {cpu}\ncpus {1 << cpu:#x}\ncpus\nmems\nmpol bind 0\nmpol\nmpol default", "-j")
    assert ran.status == 0, ran.err
    assert [r.raw for r in ran.results[:3]] == [{"cpus": [cpu]}] * 3
    assert ran.results[5].raw == {"policy": "bind", "nodes": [0]}


WRONG = [
    *("frob", "m foo", "s", "anon", "anon foo", "anon foo 8q", "anon foo 0", "anon foo 99999999999999999999"),
    *(
        "anon foo 4p public",
        "anon foo -1",
        "shmem x 1m small",
        "touch foo 0",
        "touch foo 0 w",
        "touch foo 0x 1p",
    ),
    *(
        "touch foo 0 0",
        "touch foo w=",
        "touch foo w=1k",
        "touch foo execute",
        "touch foo r w",
        "touch foo * 4p",
    ),
    *(
        "where foo fault",
        "where foo 1p",
        "mbind foo",
        "mbind foo best 1",
        "mbind foo bind",
        "mbind foo bind 1,",
    ),
    *(
        "mbind foo bind 1-",
        "mbind foo bind 2-1",
        "mbind foo bind 1024",
        "mbind foo bind x",
        "mbind foo default 1",
    ),
    *(
        "mbind foo bind+lazy 0",
        "mbind foo bind+move+shared 0",
        "mbind foo bind+move+move 0",
        "mbind foo bind+ 0",
    ),
    *(
        "mbind foo bind+move+lazy+all 0",
        "mbind foo noop 0",
        "mbind foo bind+all 0",
        "mpol bind",
        "mpol bind+move 0",
    ),
    *(
        "migrate",
        "migrate x",
        "migrate 0 0 0",
        "cpus 0x0",
        "cpus x",
        "mems 1024",
        "mprotect foo",
        "mprotect foo all",
    ),
    *("mprotect foo none+read", "mprotect foo read+none", "numa 1", "pid 1", "quit 1", "snooze", "snooze x"),
    *(
        "snooze -1",
        "snooze 1e3",
        "snooze .5",
        "wait x y",
        "wait 1..2",
        "child",
        "child 5",
        "child a/b",
        "kick",
        "/ pid",
    ),
    *("kick a nosuch", "kick a 99", "help frob", "show foo foo", "unmap foo 0 1p", "slock", "remove", "file"),
    *("file /etc/passwd 1 *", "map foo 0", "map foo 0 4p open", "//a pid", "/a", "echo" + " x" * 128),
]
RIGHT = [
    *("t foo", "touch foo 0 * wr", "touch foo 0X1P 1P r", "mb foo b+s+m+a+l 0", "mb foo inter *"),
    *(
        "mbind foo pref",
        "mbind foo p *",
        "mbind foo d",
        "mbind foo bind+strict 0",
        "mpol p",
        "w foo n",
        "cpus",
    ),
    *("mprotect foo r+w+e", "mprotect foo 0 1p n", "show +", "show foo", "snooze 0", "snooze 0.", "wait 1"),
    *(
        "wait",
        "kick ?",
        "/",
        "  # only a comment",
        "echo a#b # c",
        "man w",
        "map bar 0 *",
        "e",
        "numa\r",
        "rem foo bar",
    ),
]


@pytest.mark.parametrize("line", WRONG)
def test_host_and_guest_refuse_the_same(program: Path, line: str) -> None:
    script = f"anon foo 8p\nmap foo\n{line}\n"
    with pytest.raises(UserError) as caught:
        parse(script, "x")
    assert caught.value.where == "x:3"
    ran = run(program, f"{script}echo never\n")
    assert ran.status == 2, ran
    assert "never" not in ran.out


@pytest.mark.parametrize("line", RIGHT)
def test_host_and_guest_understand_the_same(program: Path, line: str) -> None:
    script = f"{MAPPED}anon bar 4p\n{line}\n"
    expected = [command.name for command in parse(script, "x").commands]
    ran = run(program, script, "-j")
    assert ran.status in (0, 1), ran
    assert [result.cmd for result in ran.results] == expected


def test_a_last_line_cut_short_is_left_out_and_no_other() -> None:
    whole = (
        '{"line": 1, "cmd": "pid", "text": "pid", "ok": true, "errno": 0, "error": "", "pid": 5, '
        '"child": "", "start_ns": 1, "end_ns": 2, "result": {"pid": 5}}'
    )
    for cut in (1, 20, len(whole) - 1):
        (result,) = read([whole, whole[:cut]])
        assert result.result == OtherResult({"pid": 5})
    with pytest.raises(InfraError, match="memtoy output, line 1"):
        read([whole[:20], whole])
    with pytest.raises(InfraError, match="memtoy output, line 2"):
        read([whole, "{}"])
    assert read([]) == []


def test_settling_begins_commands_between_round_times_and_between_ticks(program: Path) -> None:
    ran = run(program, f"{MAPPED}touch foo w=42\ntouch foo r=42\n", "-j", "-s", "100")
    assert ran.status == 0, ran.err
    for done in (one for one in ran.results if one.cmd == "touch"):
        late = (done.start_ns - 52_500_000) % 100_000_000
        assert late < 40_000_000, "on a host with other work to do it may begin later, but never earlier"
        assert done.cpu_ns > 0


@pytest.mark.parametrize("text", ["x", "-1", "1s", "60001", ""])
def test_settling_wants_milliseconds(program: Path, text: str) -> None:
    ran = run(program, "", "-s", text)
    assert ran.status == 2
    assert "-s wants milliseconds" in ran.err
