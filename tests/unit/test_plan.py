"""Bad input is found before anything is built or started."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import experiment
from controller import plan as plans
from controller.experiment import ProbeSet
from controller.plan import Options, Plan
from provision.hardware.qemu import Clock
from provision.host.errors import InfraError, UserError


def planned(tmp_path: Path, script: str, **options: object) -> Plan:
    path = tmp_path / "a.memtoy"
    path.write_text(script)
    return plans.plan(experiment.load(str(path)), Options(**options))  # type: ignore[arg-type]


def test_a_good_script_is_planned_for_the_default_machine(tmp_path: Path) -> None:
    plan = planned(tmp_path, "anon foo 8p\nmap foo\nmbind foo bind 3\ntouch foo w\n")
    assert (str(plan.kernel), plan.topology.name) == ("6.12-mof", "4node")


@pytest.mark.parametrize(
    ("script", "options", "why"),
    [
        ("anon foo 8p\nfrob foo\n", {}, "a.memtoy:2: unknown command 'frob'"),
        ("anon foo 8p\nmap foo\nmbind foo bind 9\n", {}, "a.memtoy:3: the topology has no node 9"),
        ("anon foo 8p\nmap foo\nmbind foo bind 2\n", {"topology": "2node"}, "a.memtoy:3: the topology has no node 2"),
        ("anon foo 8g\nmap foo\n", {}, "a.memtoy:1: segment 'foo' of 8 GB does not fit"),
        ("anon foo 8p\n", {"kernel": "6.12-mof.99"}, "the series has"),
        ("anon foo 8p\n", {"topology": "nowhere"}, "there is no topology 'nowhere'"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path: Path, script: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(tmp_path, script, **options)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[node]]\nid=0\nmemory_mb=512\ncpus=[0]\n[[node]]\nid=1\nmemory_mb=512\ncpus=[2]\n", "CPU"),
        ("[[node]]\nid=0\nmemory_mb=8388608\ncpus=[0]\n", "MB"),
    ],
)
def test_a_topology_that_cannot_be_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises((UserError, InfraError)) as caught:
        planned(tmp_path, "anon foo 8p\n", topology=str(path))
    assert why in str(caught.value)


def test_small_scripts_are_recorded_step_by_step_and_large_ones_are_not(tmp_path: Path) -> None:
    assert planned(tmp_path, "anon foo 4096p\nmap foo\n").probes is ProbeSet.STEPS
    assert planned(tmp_path, "anon foo 4097p\nmap foo\n").probes is ProbeSet.FULL
    assert planned(tmp_path, "anon foo 8p\nfile /etc/passwd\n").probes is ProbeSet.FULL


def test_what_the_experiment_or_the_person_says_about_probes_wins(tmp_path: Path) -> None:
    (tmp_path / "a.memtoy").write_text("anon foo 8p\nmap foo\n")
    path = tmp_path / "e.toml"
    path.write_text('probes = "counts"\n[[case]]\nname = "a"\nscript = "a.memtoy"\n')
    read = experiment.load(str(path))
    assert plans.plan(read, Options()).probes is ProbeSet.COUNTS
    assert plans.plan(read, Options(probes=ProbeSet.NONE)).probes is ProbeSet.NONE


def test_the_memory_of_a_plan_is_that_of_its_largest_case(tmp_path: Path) -> None:
    assert planned(tmp_path, "anon foo 8p\nanon bar 1m\n").memory == 8 * 4096 + (1 << 20)
    assert planned(tmp_path, "anon foo 8p\nfile /etc/passwd\n").memory is None


def test_a_kernel_without_drivers_for_cxl_memory_is_refused_with_one_that_has_them(tmp_path: Path) -> None:
    script = "anon foo 8p\nmap foo\nmbind foo bind 2\n"
    assert planned(tmp_path, script, topology="cxl", kernel="6.12-mof.3-cxl").topology.name == "cxl"
    for kernel, mend in (
        (None, "6.12-mof-cxl"),
        ("6.12-mof.3", "6.12-mof.3-cxl"),
        ("6.12-base-debug", "6.12-base-cxl"),
    ):
        with pytest.raises(UserError, match="has no drivers for CXL memory, which node 2 is") as caught:
            planned(tmp_path, script, topology="cxl", kernel=kernel)
        assert caught.value.hint == f"--kernel {mend}"


def test_what_cannot_be_had_beside_cxl_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"topology": "cxl", "kernel": "6.12-mof-cxl"}
    with pytest.raises(UserError, match="--memory: accesses to CXL memory cannot be counted"):
        planned(tmp_path, "anon foo 8p\n", count_accesses=True, **options)
    monkeypatch.setenv("MOF_ACCEL", "kvm")
    with pytest.raises(UserError, match="KVM cannot run from CXL memory"):
        planned(tmp_path, "anon foo 8p\n", **options)


def test_instructions_under_kvm_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOF_ACCEL", "kvm")
    with pytest.raises(UserError, match="KVM cannot count instructions"):
        planned(tmp_path, "anon foo 8p\n", clock=Clock.INSN)
