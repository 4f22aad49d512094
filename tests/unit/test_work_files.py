"""Workloads as data: what a file may say, and what a machine has to have."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.plan import Options
from controller.work import cases, files
from controller.work import run as runs
from controller.work.cases import Kind, Parts, Placement, Single
from provision.hardware import topology
from provision.hardware.qemu import Clock, Latency
from provision.host.errors import UserError

STREAM = 'name = "a"\nwork = "stream"\nmegabytes = 8\ncpu = 2\nnode = 1\n'
PARTS = 'name = "a"\nwork = "parts"\nmegabytes = 16\ninit_cpu = 0\ncpus = [1, 2]\nplacement = "lazy"\nrounds = 20\n'


def written(folder: Path, text: str) -> str:
    path = folder / "x.toml"
    path.write_text(text)
    return str(path)


def case(*bodies: str) -> str:
    return "\n".join(f"[[case]]\n{body}" for body in bodies)


def test_a_file_says_what_runs_where(tmp_path: Path) -> None:
    found = files.load(written(tmp_path, 'clock = "insn"\n' + case(STREAM, PARTS.replace('"a"', '"b"'))))
    assert (found.name, found.kernel, found.topology, found.clock) == ("x", "6.12-mof", "4node", Clock.INSN)
    assert [one.work for one in found.cases] == [
        Single(Kind.STREAM, 8, cpu=2, node=1, rounds=1),
        Parts(16, 0, (1, 2), Placement.LAZY, rounds=20, touched_percent=100, writes=False),
    ]


def test_memory_may_take_its_time(tmp_path: Path) -> None:
    head = 'clock = "insn"\n[latency]\n'
    assert files.load(written(tmp_path, head + "cache_kb = 256\nways = 4\n" + case(STREAM))).latency == Latency(256, 4)
    assert files.load(written(tmp_path, head + case(STREAM))).latency == Latency()
    assert files.load(written(tmp_path, case(STREAM))).latency is None


@pytest.mark.parametrize("name", files.names())
def test_what_is_built_in_runs_on_its_machine(name: str) -> None:
    plan = runs.plan(files.load(name), Options())
    assert plan.topology.name == "4node"
    assert plan.workload.title != name


def test_the_kinds_are_built_in() -> None:
    assert files.names() == ["chase", "init-then-work", "stream", "update"]
    placements = [one.work.placement for one in files.load("init-then-work").cases if isinstance(one.work, Parts)]
    assert placements == list(Placement)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("case = [", "not valid TOML"),
        ("", "case: Field required"),
        ("surprise = 1\n" + case(STREAM), "surprise: Extra inputs are not permitted"),
        ("clock = 'sun'\n" + case(STREAM), "clock: "),
        ("[latency]\nways = 3\n" + case(STREAM), "latency: no cache has 1024 KB in 3 ways"),
        ("[latency]\nsurprise = 3\n" + case(STREAM), "latency.surprise: Extra inputs"),
        (case(STREAM + "surprise = 1"), "case.0.surprise: Extra inputs"),
        (case(STREAM + "steps = 1"), "case.0.steps: Extra inputs"),
        (case(STREAM.replace("stream", "chase")), "case.0.steps: Field required"),
        (case(STREAM.replace("stream", "update")), "case.0.updates: Field required"),
        (case(STREAM.replace("stream", "streams")), "case.0: "),
        (case('name = "a"'), "case.0: "),
        (case(STREAM.replace('"a"', '"a/b"')), "case.0.name"),
        (case(STREAM.replace("= 8", "= 0")), "case.0.megabytes"),
        (case(STREAM.replace("= 8", "= 8.5")), "case.0.megabytes"),
        (case(STREAM.replace("= 8", "= '8'")), "case.0.megabytes"),
        (case(STREAM.replace("cpu = 2", "cpu = -1")), "case.0.cpu"),
        (case(STREAM + "rounds = 1001"), "case.0.rounds"),
        (case(STREAM, STREAM), "two cases have the same name"),
        (
            case(STREAM.replace("stream", "update").replace("= 8", "= 12") + "updates = 5"),
            "case 'a': 12 is not a power of two",
        ),
        (case(PARTS.replace("[1, 2]", "[]")), "case.0.cpus"),
        (case(PARTS.replace("[1, 2]", "[1, 1]")), "case 'a': two workers on one CPU"),
        (case(PARTS.replace('"lazy"', '"lazily"')), "case.0.placement"),
        (case(PARTS + "touched_percent = 101"), "case.0.touched_percent"),
        (case(PARTS + "writes = 1"), "case.0.writes"),
        (case(PARTS + "node = 1"), "case.0.node: Extra inputs"),
    ],
)
def test_a_wrong_file_gets_one_line_that_names_it(tmp_path: Path, text: str, why: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        files.load(path)
    assert why in str(caught.value)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value).rstrip()
    assert caught.value.hint


def test_what_does_not_exist_is_told_with_what_does(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no workload 'steam' .*init-then-work, stream"):
        files.load("steam")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text file"):
        files.load(str(tmp_path / "x.toml"))


@pytest.mark.parametrize(
    ("text", "machine", "why"),
    [
        (STREAM.replace("cpu = 2", "cpu = 4"), "4node", "4node has no CPU 4 (it has 0 to 3)"),
        (STREAM.replace("node = 1", "node = 4"), "4node", "no node 4 with memory (one of 0, 1, 2, 3)"),
        # Three arrays; and a quarter of a node is left to others.
        (STREAM.replace("= 8", "= 129"), "4node", "387 MB do not fit node 1 of 4node (384 of its 512 MB at most"),
        (PARTS.replace("[1, 2]", "[1, 9]"), "4node", "no CPU 9"),
        (PARTS.replace("init_cpu = 0", "init_cpu = 9"), "4node", "no CPU 9"),
        (PARTS.replace("= 16", "= 385"), "4node", "385 MB do not fit node 0"),
        (PARTS.replace("= 16", "= 770").replace("lazy", "ideal"), "4node", "385 MB do not fit node 1"),
    ],
)
def test_what_the_machine_lacks_is_found_before_anything_starts(
    tmp_path: Path, text: str, machine: str, why: str
) -> None:
    workload = files.load(written(tmp_path, case(text)))
    with pytest.raises(UserError) as caught:
        runs.plan(workload, Options(topology=machine))
    assert f"{workload.where}: case 'a': " in str(caught.value)
    assert why in str(caught.value)


def test_what_fits_is_taken(tmp_path: Path) -> None:
    for text in (STREAM.replace("= 8", "= 128"), PARTS.replace("= 16", "= 384")):
        cases.check(files.load(written(tmp_path, case(text))), topology.load("4node"))


def test_pages_do_not_move_to_a_node_without_memory(tmp_path: Path) -> None:
    machine = topology.load("memoryless")
    (cpu,) = [node.cpus[0] for node in machine.nodes if not node.memory_mb and node.cpus]
    text = PARTS.replace("[1, 2]", f"[{cpu}]")
    with pytest.raises(UserError, match=r"lazy moves pages to node \d, which has no memory"):
        cases.check(files.load(written(tmp_path, case(text))), machine)
    cases.check(files.load(written(tmp_path, case(text.replace('"lazy"', '"first-touch"')))), machine)


def test_kernel_and_machine_of_the_command_line_win(tmp_path: Path) -> None:
    workload = files.load(written(tmp_path, 'kernel = "6.12-base"\ntopology = "8node"\n' + case(STREAM)))
    plan = runs.plan(workload, Options())
    assert (str(plan.kernel), plan.topology.name) == ("6.12-base", "8node")
    plan = runs.plan(workload, Options(kernel="6.12-mof.3", topology="4node"))
    assert (str(plan.kernel), plan.topology.name) == ("6.12-mof.3", "4node")


@pytest.mark.parametrize("options", [Options(clock=Clock.INSN), Options(count_accesses=True)])
def test_kvm_counts_neither_instructions_nor_accesses(monkeypatch: pytest.MonkeyPatch, options: Options) -> None:
    monkeypatch.setenv("MOF_ACCEL", "kvm")
    with pytest.raises(UserError, match="KVM cannot count"):
        runs.plan(files.load("chase"), options)
