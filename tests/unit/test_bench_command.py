"""`mof bench` as typed, as far as no guest is needed; and what it makes of what commands say."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from controller import overhead
from controller.bench import commands, measure, migration_guest, peer, probe_guest
from controller.bench.commands import Lab, Ran
from controller.bench.groups import Group
from controller.bench.measure import Absent
from controller.bench.peer import NoPeer, Peer
from controller.bench.probe_guest import Priced
from controller.cli import bench, main
from controller.experiment import ProbeSet, load
from controller.overhead import Overhead
from controller.workloads.memtoy import output, script
from guest_kernel import identity
from guest_kernel.build import Kernel
from provision.hardware import topology
from provision.hardware.qemu import Accelerator
from provision.host.cache import Cache
from provision.host.errors import InfraError
from provision.host.progress import Silent


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said, in one line, with status 2."""
    assert main.main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--rounds" in refused(capsys, "--rounds", "0")
    said = refused(capsys, "--only", "pagse")
    assert all(group.value in said for group in Group)
    assert "unknown kernel id" in refused(capsys, "--kernel", "5.4-mof")
    assert "there is no folder" in refused(capsys, "--history", str(tmp_path / "none" / "history"))
    assert "is a folder" in refused(capsys, "--history", str(tmp_path))
    assert "there is no folder" in refused(capsys, "--output", str(tmp_path / "none" / "out.json"))
    assert "cannot be read" in refused(capsys, "--baseline", str(tmp_path / "none.json"))
    bad = tmp_path / "bad.json"
    bad.write_text("not JSON")
    assert "not a baseline" in refused(capsys, "--baseline", str(bad))
    bad.write_bytes(b"\xff\xfe")
    assert "not a text file" in refused(capsys, "--baseline", str(bad))
    none = str(tmp_path / "none" / "baseline.json")
    assert "there is no folder" in refused(capsys, "--write-baseline", "--baseline", none)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[measure.Samples], None]:
    """`mof bench` with these samples instead of guests."""

    def put(samples: measure.Samples) -> None:
        facts = {"kernel": "6.12-mof", "source": "6.12.1-1", "qemu": "10.0.2", "accelerator": "tcg", "cpus": "2"}

        def stand_in(lab: object, wanted: object, groups: list[Group], *rest: object) -> object:
            found = {group.value: measure.filled(group, 16, samples, facts) for group in groups}
            return {**facts, "release": "6.12.1-mof", "build_id": "ab"}, found

        monkeypatch.setattr(bench, "_measure", stand_in)

    return put


def test_from_figures_to_files_and_status(
    measured: Callable[[measure.Samples], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept, history, out = tmp_path / "baseline.json", tmp_path / "history", tmp_path / "out.json"
    how = ["bench", "--only", "drain", "--only", "many", "--baseline", str(kept), "--history", str(history)]
    good: measure.Samples = {
        "drain.rate": (1000.0,),
        "many.forks": (40.0,),
        "many.boots": (4.0,),
        "many.16_forks_of_boots": (10.0,),
    }
    measured(good)
    assert main.main([*how, "--write-baseline"]) == 0
    assert "1,000 events/s" in capsys.readouterr().out
    measured({**good, "many.16_forks_of_boots": (7.0,)})
    assert main.main([*how, "--json", "--output", str(out)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(out.read_text())
    assert told["worse"] == ["many.16_forks_of_boots"]
    (ratio,) = [one for one in told["figures"] if one["name"] == "many.16_forks_of_boots"]
    assert ratio["baseline"] == {"value": 10.0, "outcome": "worse", "change": -0.3}
    assert ratio["met"] is False
    measured({**good, "drain.rate": Absent("3 of 9 events lost")})
    assert main.main(how) == 1
    assert "FAILED  3 of 9 events lost" in capsys.readouterr().out
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line["figures"]["many.16_forks_of_boots"]["value"] for line in lines] == [10.0, 7.0, 10.0]
    assert lines[0]["machine"]["qemu"] == "10.0.2"


def test_a_missing_peer_is_no_failure() -> None:
    facts: dict[str, str] = {}
    found = measure.filled(Group.START, 16, {"start.vng": Absent(peer.INSTALL, failed=False)}, facts)
    by = {one.name: one for one in found}
    assert by["start.vng"].reason.startswith("not installed")
    assert not by["start.vng"].failed
    assert by["start.demo"].failed


def test_ratios_are_absent_with_their_sides() -> None:
    samples: measure.Samples = {
        "start.armed": (2.0, 4.0),
        "start.boot_armed": (8.0, 8.0),
        "start.demo": Absent("lost"),
        "start.boot_demo": (1.0,),
        "start.vng": Absent("none", failed=False),
    }
    found = measure._with_ratios(samples)
    assert found["start.armed_of_boot"] == (0.25, 0.5)
    assert found["start.demo_of_boot"] == Absent("no start.demo")
    assert found["start.armed_of_vng"] == Absent("no start.vng", failed=False)


def answer(status: int, output: str = "", errors: str = "") -> Ran:
    return Ran(status, output, errors, began_ns=5_000_000_000, seconds=2.0)


def test_what_a_command_says(tmp_path: Path) -> None:
    done = commands._done(answer(0, '{"run": "a"}'), "mof run", tmp_path)
    assert done.folder == tmp_path / "a"
    assert commands._done(answer(0, '{"group": "g", "runs": []}'), "mof run", tmp_path).folder == tmp_path / "g"
    with pytest.raises(InfraError, match="2 events lost"):
        commands._done(answer(1, '{"run": "a", "reason": "2 events lost"}'), "mof run", tmp_path)
    with pytest.raises(InfraError, match="mof run: guest lost"):
        commands._done(answer(4, "", "[ 1.0] booting\nmof: guest lost (hang): no\n  | x\n"), "mof run", tmp_path)
    with pytest.raises(InfraError, match="exit status -9"):
        commands._done(answer(-9), "mof run", tmp_path)


def test_first_command(tmp_path: Path) -> None:
    done = commands._done(answer(0, '{"run": "."}'), "mof run", tmp_path)
    (tmp_path / "manifest.json").write_text('{"first_command_at": 6500000000}')
    assert done.first_command_seconds() == 1.5
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InfraError, match="does not tell"):
        done.first_command_seconds()


def test_a_command_that_fails_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **how: object) -> Ran:
        asked.append(argv)
        return answer(3, "", "mof: no space\n")

    monkeypatch.setattr(commands, "run", run)
    lab = Lab("6.12-base", tmp_path)
    samples = measure.many(lab, 4, 3, Silent())
    assert set(samples) == {"many.forks", "many.boots", "many.4_forks_of_boots"}
    assert samples["many.boots"] == Absent("mof run small.memtoy: no space")
    assert asked[0][-3:] == ["--kernel", "6.12-base", "--json"]
    assert isinstance(measure.drain(lab, 1, Silent())["drain.rate"], Absent)
    pages = measure.pages(measure.Costs(lab, Silent()))
    assert all(isinstance(pages[name], Absent) for name in ("pages.lazy", "pages.break_even", "pages.direct_one"))


def test_a_set_of_probes_that_cannot_be_measured_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def priced(bed: object, one: ProbeSet) -> dict[str, Priced]:
        if one is ProbeSet.FULL:
            raise InfraError("the probes could not be detached")
        return {"lazy": Priced(11_000.0, 10_000.0), "direct": Priced(5_050.0, 5_000.0)}

    monkeypatch.setattr(probe_guest, "priced", priced)
    monkeypatch.setattr(migration_guest, "bed", lambda *_: nullcontext())
    costs = cast(measure.Costs, SimpleNamespace(of=lambda script, probes: measure.Cost((11_100.0,), (0.0,), 4.0)))
    found, overheads = probe_guest.measured(identity.parse("6.12-mof"), 3, costs, cast(Cache, None), Silent())
    assert isinstance(found["probes.full_event"], Absent)
    assert found["probes.counts_of_none_lazy"] == [1.1] * 3
    assert found["probes.counts_event"] == (250.0,)
    assert overheads[ProbeSet.COUNTS].share_direct == 0.01
    assert ProbeSet.FULL not in overheads


def test_break_even() -> None:
    assert measure.break_even([6000.0], [4000.0], [8000.0]) == (0.25,)


def line(cmd: str, **more: object) -> str:
    told = {"line": 1, "cmd": cmd, "text": cmd, "ok": True, "errno": 0, "error": "", "pid": 1, "child": ""}
    return json.dumps({**told, "start_ns": 0, "end_ns": 9, "cpu_ns": 7, "result": more})


def test_seconds_in_which_events_arise() -> None:
    area = {"seg": "a", "start": "0x1000"}
    mark = {**area, "length": 4096, "policy": "bind", "nodes": [2]}
    touch = {**area, "pages": 1, "page_size": 4096, "write": False, "pattern": None, "mismatches": 0, "bad_pages": 0}
    results = output.read(
        [
            line("touch", **touch, first=None, ns=1_000),
            line("mbind", **mark, flags=["move", "lazy"], ns=20_000),
            line("touch", **touch, first=None, ns=300_000),
            line("touch", **touch, first=None, ns=4_000_000),
        ]
    )
    assert measure.moving_seconds(results) == pytest.approx(320e-6)
    with pytest.raises(InfraError):
        measure.moving_seconds(results[2:])


@pytest.mark.parametrize("path", sorted(measure.OWN_SCRIPTS.glob("*.memtoy")), ids=lambda path: path.stem)
def test_scripts(path: Path) -> None:
    nodes = topology.load("4node").nodes
    facts = script.TopologyFacts({n.id: n.memory_mb << 20 for n in nodes}, frozenset(c for n in nodes for c in n.cpus))
    (case,) = load(str(path)).cases
    script.check(script.parse(case.script, str(path)), facts)


def test_the_peers_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Peer(Path("/x/vng"), Path("/k/bzImage"), topology.load("4node"), Accelerator.TCG)
    shown = "/x/vng -r /k/bzImage --disable-kvm --cpus 4 --memory 2048M -- true"
    assert one.argv() == shown.split()
    kvm = Peer(Path("/x/vng"), Path("/k/bzImage"), topology.load("4node"), Accelerator.KVM)
    assert "--disable-kvm" not in kvm.argv()
    seen: dict[str, str] = {}

    def run(argv: list[str], *, env: dict[str, str], cwd: Path) -> Ran:
        seen.update(env)
        return answer(status, errors="boom\n")

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(peer, "UDEV", ())
    status = 0
    assert one.seconds() == 2.0
    assert seen["PATH"].startswith("/x:")
    status = 255
    with pytest.raises(NoPeer, match="udev"):
        one.seconds()
    status = 1
    with pytest.raises(NoPeer, match="exit status 1: boom"):
        one.seconds()


def test_overhead_is_kept_for_later_reports(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    kernel = Kernel("6.12-mof", tmp_path, "6.12.1-mof", "abcd", {})
    assert overhead.of(cache, kernel, ProbeSet.FULL) is None
    measured = overhead.between(10_000.0, 5_000.0, 10_400.0, 5_250.0, 4.0)
    assert measured == Overhead(400.0, 250.0, 100.0, 0.04, 0.05, 4.0, 10_000.0, 5_000.0)
    overhead.keep(cache, kernel, ProbeSet.FULL, measured)
    assert overhead.of(cache, kernel, ProbeSet.FULL) == measured
    assert overhead.of(cache, kernel, ProbeSet.STEPS) is None
    assert overhead.of(cache, kernel, ProbeSet.NONE) is None
    assert overhead.of(cache, Kernel("6.12-mof", tmp_path, "6.12.1-mof", "other", {}), ProbeSet.FULL) is None
