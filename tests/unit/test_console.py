"""The detector on consoles that were recorded from real guests, and on lines that tear."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.guest.console import Console, Detector
from provision.host.errors import Loss

GOLDEN = Path(__file__).parents[1] / "golden"


def recorded(name: str) -> Console:
    return Console(GOLDEN / f"console-{name}.txt")


def detect(*lines: str) -> Detector:
    detector = Detector()
    for line in lines:
        detector.line(line)
    return detector


def test_a_boot_is_ready_and_clean() -> None:
    console = recorded("boot")
    assert console.ready
    assert console.poll().fault is None
    assert console.warnings == []
    assert console.last_line() == "mof: ready"


@pytest.mark.parametrize(
    ("name", "loss", "line"),
    [
        ("panic", Loss.PANIC, "Kernel panic - not syncing: sysrq triggered crash"),
        ("initdied", Loss.PANIC, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000"),
        # An oops ends in a panic ("Fatal exception"), but what counts is what came first.
        ("oops", Loss.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000000"),
        ("hung", Loss.HANG, "INFO: task touch:118 blocked for more than 5 seconds."),
    ],
)
def test_a_lost_guest_is_named(name: str, loss: Loss, line: str) -> None:
    fault = recorded(name).poll().fault
    assert fault is not None
    assert (fault.loss, fault.line) == (loss, line)


def test_an_oops_says_where() -> None:
    assert recorded("oops").poll().at == "__x64_sys_getpriority+0x2/0x2a0"


@pytest.mark.parametrize(
    "line",
    [
        "[    4.171394] Oops: Oops: 0000 [#1] SMP",
        "[   12.000001] Oops: general protection fault, probably for non-canonical address 0xdead: 0000",
        "[   12.000001] kernel BUG at mm/migrate.c:123!",
        "[   12.000001][  T123] BUG: Bad page state in process memtoy  pfn:12345",
        "[   12.000001][    C1] BUG: KASAN: use-after-free in migrate_folio_move+0x12/0x34",
        "[   12.000001] BUG: sleeping function called from invalid context at mm/rmap.c:1",
        "[   12.000001] BUG: unable to handle page fault for address: ffffffffc0000000",
    ],
)
def test_bugs_of_the_kernel(line: str) -> None:
    fault = detect(line).fault
    assert fault is not None
    assert fault.loss is Loss.OOPS


@pytest.mark.parametrize(
    "line",
    [
        "[  122.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [memtoy:211]",
        "[  122.000001] rcu: INFO: rcu_sched self-detected stall on CPU",
        "[  122.000001] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[  122.000001] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
    ],
)
def test_a_stall_is_told_but_not_fatal(line: str) -> None:
    found = detect(line)
    assert found.fault is None
    assert len(found.stalls) == 1


def test_warnings_are_collected() -> None:
    found = detect("[    5.0] x", "[    5.000001] WARNING: CPU: 1 PID: 99 at mm/mempolicy.c:3 f+0x1/0x2", "y")
    assert found.warnings == ["WARNING: CPU: 1 PID: 99 at mm/mempolicy.c:3 f+0x1/0x2"]
    assert found.fault is None


def test_failed_steps_of_init_are_warnings() -> None:
    assert detect("mof: failed: sysctl a.b=1", "mof: ready").warnings == ["mof: failed: sysctl a.b=1"]


def test_ready_is_found_though_the_kernel_cuts_in() -> None:
    assert detect("mof: re[    5.123456] swap: something", "ady").ready
    assert detect("mof: re[    5.123456] one", "[    5.123460] two", "ady").ready
    assert not detect("[    5.123456] mof: ready to fail", "mof: not ready yet").ready


def test_the_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "console"
    console = Console(path)
    assert console.tail() == ""
    path.write_bytes(b"one\r\n\x1b[0mtwo\r\nmof: rea")
    assert console.poll().ready is False
    assert console.tail() == "one\ntwo\nmof: rea"
    with path.open("ab") as stream:
        stream.write(b"dy\r\n[    1.000000] Kernel panic - not syncing: \xff!\r\n")
    assert console.ready is True
    assert console.settle().fault is not None
    assert console.tail(1) == "[    1.000000] Kernel panic - not syncing: \ufffd!"
    assert console.last_line() == "Kernel panic - not syncing: \ufffd!"
