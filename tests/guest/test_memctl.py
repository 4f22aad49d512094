"""The memory controller: exact where it is known what is accessed, silent while it is off, at one with the kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import machine
from controller.bench import memory
from controller.shell import Shell
from controller.workloads import program
from guest_kernel import identity
from provision.guest import memctl
from provision.guest.memctl import MemoryController, Seen
from provision.host.cache import Cache
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Silent
from tests.guest.conftest import Ran, mof, opened

SCRIPT = """\
anon a {pages}p
map a
mbind a preferred 1
touch a write=0x5eed
where a nofault
mbind a 0 * bind+move+lazy 2
touch a read=0x5eed
where a nofault
touch a read=0x5eed
"""

Known = Callable[[int, int, int], tuple[int, Seen]]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """Runs `known` with node, loads and stores on CPU 1 of a guest; the address of its memory, and what was seen."""

    with opened(tmp_path_factory.mktemp("memctl"), count_accesses=True) as lab:
        shell, controller = lab.shell, lab.guest.memory
        assert controller is not None
        shell.put(program.ensure(Cache(), "known", Silent()), "/run/known")

        def run(node: int, loads: int, stores: int) -> tuple[int, Seen]:
            controller.clear()
            command = f"chmod +x /run/known && taskset -c 1 /run/known {node} {loads} {stores}"
            said = shell.run(command, Deadline.patient(120)).expect().out
            return int(said.split()[0]), controller.seen()

        yield run


@pytest.mark.parametrize(
    ("node", "loads", "stores"), [(1, 100_000, 0), (2, 0, 50_000), (3, 1_000_000, 3), (0, 1, 1), (0, 0, 0)]
)
def test_every_load_and_store_is_counted_and_none_besides(known: Known, node: int, loads: int, stores: int) -> None:
    address, seen = known(node, loads, stores)
    assert [(one.cpu, one.node, one.reads, one.writes) for one in seen.user] == (
        [(1, node, loads, stores)] if loads or stores else []
    )
    assert (seen.periods, seen.overflow) == (1, 0)
    pages = {one.address for one in seen.pages}
    assert all(address <= one < address + (4 << 20) for one in pages)
    assert len(pages) == min(1024, loads + stores)
    assert sum(one.reads for one in seen.pages) == loads
    assert sum(one.writes for one in seen.pages) == stores
    if loads or stores:
        (series,) = seen.series.values()
        last = series.samples[-1]
        assert (last.local, last.remote) == ((loads + stores, 0) if node == 1 else (0, loads + stores))
        # As many ranges as there is room for, of one page where there are few.
        counted = {start: sum(map(sum, shares)) for start, shares in series.ranges.items()}
        assert sum(counted.values()) == loads + stores
        assert series.range_bytes == (4096 if len(pages) <= 128 else 32768)
        assert all(address - series.range_bytes < start < address + (4 << 20) for start in counted)


def test_the_kernel_s_accesses_are_apart_and_the_copying_of_a_page_is_among_them(known: Known) -> None:
    _, seen = known(2, 1000, 0)
    assert sum(one.reads for one in seen.kernel) > 0
    assert all(one.node in (-1, 0, 1, 2, 3) for one in seen.kernel)


def test_nothing_is_counted_while_it_is_off(known: Known) -> None:
    _, seen = known(1, 10, 10)
    again = known(1, 10, 10)[1]
    assert [one[1:] for one in again.user] == [one[1:] for one in seen.user]


def test_the_host_can_switch_it_too(tmp_path: Path) -> None:
    with counting(tmp_path) as (shell, controller):
        controller.on()
        shell.run("true", Deadline.patient(60)).expect()
        controller.off()
        seen = controller.seen()
        assert sum(one.reads for one in seen.user) > 1000
        assert len({one.table for one in seen.user}) >= 2, "the login's shell, and what it started"
        controller.clear()
        shell.run("true", Deadline.patient(60)).expect()
        assert controller.seen().user == ()


@contextmanager
def counting(work: Path) -> Iterator[tuple[Shell, MemoryController]]:
    with opened(work, count_accesses=True) as lab:
        assert lab.guest.memory is not None
        yield lab.shell, lab.guest.memory


@pytest.mark.parametrize(("pages", "clock"), [(8, "wall"), (2048, "wall"), (256, "insn")])
def test_a_lazy_migration_is_where_the_kernel_says_page_by_page(tmp_path: Path, pages: int, clock: str) -> None:
    script = tmp_path / "lazy.memtoy"
    script.write_text(SCRIPT.format(pages=pages))
    done: Ran = mof("run", str(script), "--memory", "--clock", clock, "--json", runs=tmp_path / "runs")
    assert done.status == 0, done.err
    (case,) = json.loads(done.out)["cases"]
    seen = case["accesses"]
    assert (seen["pages_judged"], seen["pages_agree"], seen["lost"]) == (pages, pages, 0)
    # Written where they were first, read twice where they came to; what memtoy has besides is little.
    words = pages * 512
    assert words <= seen["process"]["1"][1] < words * 1.2 + 20_000
    assert 2 * words <= seen["process"]["2"][0] < 2 * words * 1.2 + 20_000
    assert done.folder is not None
    assert "pages where the kernel says" in (done.folder / "summary.txt").read_text()
    assert "What the memory controller saw" in (done.folder / "report.html").read_text()
    raw = json.loads((done.folder / "workload" / "lazy.accesses.json").read_text())
    assert raw["periods"] == 3


def test_counting_does_not_slow_down_much_and_being_off_not_at_all() -> None:
    """`mof bench --only memory` has finer limits. Here the host may be busy: the better of two rounds counts, and what
    was done in one guest is compared, since two have their pages in better or worse places."""
    cache = Cache()
    with machine.ensured(cache, identity.parse("6.12-mof"), Silent()) as parts:
        rounds = [memory.once(parts, cache, Silent()) for _ in range(2)]
    for name in memory.WORKS:
        assert min(took[name, "counted"] / took[name, "idle"] for took in rounds) <= 3
        # Calls that had stayed in the code would be in both rounds.
        assert min(took[name, "after"] / took[name, "idle"] for took in rounds) <= 1.5


def test_a_plugin_that_does_not_load_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "memctl.so"
    broken.write_text("not a library")
    monkeypatch.setattr(memctl, "ensure", lambda *_: broken)
    with pytest.raises(InfraError) as caught, opened(tmp_path, count_accesses=True):
        pass
    assert "Could not load plugin" in caught.value.message
    assert "\n" not in caught.value.message
    assert "or leave --memory out" in str(caught.value)
