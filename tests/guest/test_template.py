"""Saved guests and their forks: that they are what they should be, and what happens when something breaks them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller import arming, conclusion, evidence, experiment, machine, session
from controller import plan as plans
from controller.arming import Standing
from controller.experiment import SCRIPTS, ProbeSet
from controller.plan import Options, Plan
from guest_kernel import identity
from provision.guest import snapshot
from provision.host.artifact import remove
from provision.host.cache import Artifact, Cache, Check
from provision.host.deadline import Deadline
from provision.host.progress import Silent
from tests.guest.conftest import Ran, mof

LAZY = SCRIPTS / "lazy-touch.memtoy"
SMALL = "anon foo 8p\nmap foo\ntouch foo write=7\ntouch foo read=7\n"
SLEEPER = "anon foo 8p\nmap foo\ntouch foo w=1\necho asleep\nsnooze 5\ntouch foo read=1\n"


def plan_of(path: Path, **options: Any) -> Plan:
    return plans.plan(experiment.load(str(path)), Options(**options))


class Notes(Silent):
    """Keeps what a person would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module")
def parts() -> machine.Parts:
    return machine.ensure(Cache(), identity.parse("6.12-mof"), Silent())


def template_of(plan: Plan, parts: machine.Parts, cache: Cache, work: Path) -> Artifact:
    accel = arming.choose(plan, parts.kernel, cache, Silent())
    found, why = arming.template(plan, parts, accel, cache, work, Silent())
    assert found is not None, why
    return found


@contextmanager
def forks(tmp_path: Path, parts: machine.Parts, count: int) -> Iterator[tuple[Artifact, list[Standing]]]:
    """So many forks of the template for the lazy script, all alive."""
    plan, cache = plan_of(LAZY), Cache()
    artifact = template_of(plan, parts, cache, tmp_path)
    accel = arming.choose(plan, parts.kernel, cache, Silent())
    with ExitStack() as stack:
        standing = []
        for number in range(count):
            work = tmp_path / f"fork{number}"
            work.mkdir()
            fork = arming.forked(plan, parts, accel, cache, artifact, work, f"mof-fork{number}", Silent())
            standing.append(stack.enter_context(fork))
        yield artifact, standing


def said(standing: Standing, command: str) -> str:
    return standing.shell.run(command, Deadline.patient(60)).expect().out.strip()


def test_a_fork_knows_that_it_is_one(tmp_path: Path, parts: machine.Parts) -> None:
    with forks(tmp_path, parts, 2) as (artifact, both):
        assert [said(one, "uname -n") for one in both] == ["mof-fork0", "mof-fork1"]
        for one in both:
            assert abs(float(said(one, "date +%s.%N")) - time.time()) < 5
        drawn = [said(one, "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1") for one in both]
        assert drawn[0] != drawn[1]
        assert "crng reseeded due to virtual machine fork" in said(both[0], "dmesg | tail -n 3")
        # The template's agent and its probes go on, each for its own.
        assert both[0].armed.attached == both[1].armed.attached != ()
        both[0].shell.put_text(LAZY.read_text(), "/run/a.memtoy")
        said(both[0], "memtoy -j /run/a.memtoy")
        agents = [one.agent for one in both if one.agent is not None]
        busy, idle = (agent.flush(Deadline.patient(60))["do_swap_page"].fired for agent in agents)
        assert (busy >= 8, idle) == (True, 0)
    # Nothing of it reached the template.
    assert Cache().refusal(artifact.path, check=Check.FULL) == ""


def test_what_one_fork_writes_no_other_sees(tmp_path: Path, parts: machine.Parts) -> None:
    with forks(tmp_path, parts, 2) as (_, both):
        said(both[0], "echo mine >/run/mine; echo changed >/etc/hosts; swapoff -a; mkswap -L gone /dev/vdb")
        assert said(both[1], "ls /run/mine 2>/dev/null; cat /etc/hosts; wc -l </proc/swaps").splitlines()[-1] == "2"
        assert "changed" not in said(both[1], "cat /etc/hosts")


def test_a_fork_is_running_in_well_under_a_second(demo: Ran, tmp_path: Path, parts: machine.Parts) -> None:
    """QEMU's start and the reading of the state; bound for a machine with other work to do."""
    with forks(tmp_path, parts, 1) as (_, (one,)):
        assert one.timings["start_to_ready"] < 2
    assert demo.folder is not None
    manifest = json.loads((demo.folder / "manifest.json").read_text())
    assert manifest["template"].startswith("6.12-mof-4node-steps-wall-")
    # The console goes on where that of the template ended.
    assert "Linux version 6.12" in (demo.folder / "console.log").read_text()
    assert manifest["first_command_at"] > 0


def test_booting_can_be_asked_for(tmp_path: Path) -> None:
    ran = mof("run", str(LAZY), "--boot", "--json", runs=tmp_path)
    assert ran.status == 0, ran.explain()
    assert ran.folder is not None
    manifest = json.loads((ran.folder / "manifest.json").read_text())
    assert (manifest["template"], manifest["booted"]) == (None, "asked for")


def test_a_guest_that_cannot_be_saved_boots_and_says_why(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache of its own, since it is remembered there."""
    monkeypatch.setattr(snapshot, "obstacles", lambda monitor: ["the device 'x' cannot be migrated"])
    monkeypatch.setattr(evidence, "default_root", lambda: tmp_path / "runs")
    notes = Notes()
    for _ in range(2):
        done = conclusion.run(plan_of(LAZY, probes=ProbeSet.NONE), Cache(cache), notes)
        assert done.verdict["verdict"] == "pass"
        assert any("the device 'x' cannot be migrated" in text for text in done.verdict["warnings"])
        manifest = json.loads((done.folder / "manifest.json").read_text())
        assert manifest["booted"] == "this guest cannot be saved: the device 'x' cannot be migrated"
    assert sum("cannot be migrated" in text for text in notes.told) == 2
    assert not (cache / "template").exists()


# --- a cache of one's own, to break things in ------------------------------------------------------------------------


def linked(common: Path, root: Path) -> None:
    """A cache with everything that the other has, except templates: files are linked, not copied."""
    root.mkdir()
    for kind in ("kernel", "image", "image-base", "workload", "source", "host", "programs"):
        if (common / kind).is_dir():
            shutil.copytree(common / kind, root / kind, copy_function=os.link, symlinks=True)


@pytest.fixture
def cache(tmp_path: Path, parts: machine.Parts) -> Iterator[Path]:
    linked(Cache().root, tmp_path / "cache")
    yield tmp_path / "cache"
    remove(tmp_path / "cache")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, parts: machine.Parts) -> Iterator[Path]:
    """The template that `attempt` would make, made once for those tests that begin with one; to be copied."""
    folder = tmp_path_factory.mktemp("template")
    script = folder / "small.memtoy"
    script.write_text(SMALL)
    linked(Cache().root, folder / "cache")
    (folder / "runs").mkdir()
    passed(Try(folder / "cache", folder / "runs", script).run())
    yield next((folder / "cache" / "template").iterdir())
    remove(folder)


@dataclass
class Try:
    """`mof run` with a cache of its own."""

    cache: Path
    runs: Path
    script: Path

    def run(self, *more: str) -> Ran:
        environment = {"MOF_CACHE": str(self.cache)}
        return mof(
            "run", str(self.script), "--probes", "none", "--json", *more, runs=self.runs, environment=environment
        )

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "controller.cli.main", "run", str(self.script), "--probes", "none", "--json", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "MOF_CACHE": str(self.cache), "MOF_RUNS": str(self.runs)},
        )

    @property
    def templates(self) -> list[Path]:
        return sorted((self.cache / "template").glob("*")) if (self.cache / "template").is_dir() else []

    def guests(self) -> str:
        found = subprocess.run(["pgrep", "-f", f"qemu-system.*{self.runs}"], capture_output=True, text=True)
        return found.stdout.strip()

    def drafts(self) -> list[Path]:
        folder = self.cache / "tmp"
        return [path for path in folder.glob("6.12-*") if path.is_dir()] if folder.is_dir() else []


@pytest.fixture
def attempt(tmp_path: Path, cache: Path) -> Iterator[Try]:
    script = tmp_path / "small.memtoy"
    script.write_text(SMALL)
    runs = tmp_path / "runs"
    runs.mkdir()
    found = Try(cache, runs, script)
    yield found
    assert found.guests() == ""


@pytest.fixture
def made(attempt: Try, template: Path) -> Try:
    """With a template in its cache."""
    target = attempt.cache / "template"
    target.mkdir()
    subprocess.run(["cp", "-a", "--sparse=always", str(template), str(target)], check=True)
    return attempt


def passed(ran: Ran) -> dict[str, Any]:
    assert ran.status == 0, ran.explain()
    assert ran.folder is not None
    manifest: dict[str, Any] = json.loads((ran.folder / "manifest.json").read_text())
    return manifest


@pytest.mark.parametrize("breaking", ["flip_a_byte", "cut"])
def test_a_changed_byte_and_a_truncated_file_are_found_before_use(made: Try, breaking: str) -> None:
    (folder,) = made.templates
    assert passed(made.run())["template"] == folder.name
    {"flip_a_byte": flip_a_byte, "cut": cut}[breaking](folder / "ram0")
    again = made.run()
    assert passed(again)["template"] == folder.name
    assert "is not used" in again.err and "ram0" in again.err, again.err
    assert "making a template" in again.err
    assert Cache(made.cache).refusal(folder, check=Check.FULL) == ""


def flip_a_byte(path: Path) -> None:
    """In the middle of its data, with the times of before."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as stream:
        at = os.lseek(stream.fileno(), 1 << 20, os.SEEK_DATA)
        old = os.pread(stream.fileno(), 1, at)
        os.pwrite(stream.fileno(), bytes([old[0] ^ 1]), at)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def test_a_maker_that_is_killed_half_way_leaves_nothing_for_the_next(attempt: Try) -> None:
    child = attempt.start()
    assert Deadline.patient(60).poll(lambda: bool(attempt.drafts()) and attempt.guests() != "")
    time.sleep(1)  # some of the boot, so that there is something half made
    child.kill()
    child.communicate()
    assert Deadline.patient(10).poll(lambda: attempt.guests() == "")
    assert attempt.templates == []
    assert passed(attempt.run())["template"]
    assert attempt.drafts() == []


def test_a_maker_that_is_interrupted_leaves_nothing_at_all(attempt: Try) -> None:
    child = attempt.start()
    assert Deadline.patient(60).poll(lambda: attempt.guests() != "")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert (attempt.guests(), attempt.drafts(), attempt.templates) == ("", [], [])


def test_two_makers_at_once_make_one_template(attempt: Try) -> None:
    both = [attempt.start() for _ in range(2)]
    ended = [child.communicate(timeout=300) for child in both]
    assert [child.returncode for child in both] == [0, 0], ended
    assert len(attempt.templates) == 1
    assert sum("waiting for process" in err for _, err in ended) == 1


def test_a_disk_that_is_full_while_saving_is_named(attempt: Try) -> None:
    if os.geteuid() != 0:
        pytest.fail("a small file system needs root: run the tests as root")
    tmp = attempt.cache / "tmp"
    tmp.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(tmp)], check=True)
    try:
        ran = attempt.run()
    finally:
        subprocess.run(["umount", str(tmp)], check=True)
    assert ran.status == 3, ran.explain()
    assert ran.err.strip().splitlines()[-1].startswith("mof: ") and "no space" in ran.err
    assert attempt.templates == []
    assert passed(attempt.run())["template"]


def test_a_state_that_qemu_cannot_read_is_given_up_for_a_boot(made: Try) -> None:
    """As when a template passes every check, and QEMU still says no: here it was sealed with a broken state."""
    (folder,) = made.templates
    manifest = json.loads((folder / "manifest.json").read_text())
    name, what = folder.name.rpartition("-")[0], manifest["inputs"]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in ("state", "console.log")}
    ram = {path.name: path.stat().st_size for path in folder.glob("ram*")}
    remove(folder)

    def broken(draft: Path) -> dict[str, Any]:
        for file, content in files.items():
            (draft / file).write_bytes(content[: len(content) // 2])
        for file, size in {**ram, "swap": 1 << 30}.items():
            with (draft / file).open("wb") as stream:
                stream.truncate(size)
        facts: dict[str, Any] = manifest["facts"]
        return facts

    Cache(made.cache).make("template", name, what, broken, sealed=True)
    ran = made.run()
    assert passed(ran)["template"] is None
    assert "booting" in ran.err
    assert made.templates == []


# --- a fork's life ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(made: Try) -> Iterator[tuple[Try, subprocess.Popen[str]]]:
    attempt = made
    attempt.script.write_text(SLEEPER)
    child = attempt.start()

    def asleep() -> bool:
        assert child.poll() is None, child.communicate()[1]
        return any("asleep" in p.read_text() for p in attempt.runs.glob("*/workload/*.jsonl"))

    assert Deadline.patient(60).poll(asleep)
    yield attempt, child
    child.kill()
    child.communicate()


def test_a_fork_that_is_killed_is_lost_and_the_next_is_not(sleeper: tuple[Try, subprocess.Popen[str]]) -> None:
    attempt, child = sleeper
    os.kill(int(attempt.guests()), signal.SIGKILL)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 4, err
    assert "QEMU was killed by signal 9" in err
    assert json.loads(out)["verdict"] == "lost"
    attempt.script.write_text(SMALL)
    assert passed(attempt.run())["template"]


def test_everything_stopped_for_a_while_goes_on(sleeper: tuple[Try, subprocess.Popen[str]]) -> None:
    """What a host's suspend does to a run: nobody runs for longer than any patience, and then everybody does."""
    attempt, child = sleeper
    everybody = [child.pid, int(attempt.guests())]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(12)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert json.loads(out)["verdict"] == "pass"


def test_a_host_that_slept_is_told_and_the_guest_s_calendar_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = iter([0.0, 0.0, 3600.0, 3600.0, 3600.0, 3600.0])
    monkeypatch.setattr(session, "_suspended", lambda: next(slept, 3600.0))
    monkeypatch.setattr(evidence, "default_root", lambda: tmp_path)
    done = conclusion.run(plans.plan(experiment.load("demo"), Options(probes=ProbeSet.NONE)), Cache(), Silent())
    assert done.verdict["verdict"] == "pass"
    assert any(re.search(r"the host was suspended for 3600 s", text) for text in done.verdict["warnings"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_many_runs_leaves_none_of_them(made: Try, number: signal.Signals) -> None:
    made.script.write_text(SLEEPER.replace("snooze 5", "snooze 100"))
    child = made.start("--repeat", "4", "--jobs", "2")

    def asleep() -> bool:
        assert child.poll() is None, child.communicate()[1]
        return sum("asleep" in p.read_text() for p in made.runs.glob("*/*/workload/*.jsonl")) == 2

    assert Deadline.patient(60).poll(asleep)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert made.guests() == ""
    manifests = [json.loads(p.read_text()) for p in made.runs.glob("*/*/manifest.json")]
    assert [m["state"] for m in manifests] == ["interrupted"] * 2


def test_many_runs_whose_parent_is_killed_end_their_guests(made: Try) -> None:
    made.script.write_text(SLEEPER.replace("snooze 5", "snooze 100"))
    child = made.start("--repeat", "2", "--jobs", "2")
    assert Deadline.patient(60).poll(lambda: len(made.guests().split()) == 2)
    child.kill()
    child.communicate()
    assert Deadline.patient(30).poll(lambda: made.guests() == "")
