"""Nothing is left behind: a hundred thousand migrations under mixed load, counted before and after.

`python -m controller.leaks` runs the same for longer (docs/selftests.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller import leaks
from provision.host.cache import Cache
from tests.guest.conftest import Lab, opened

SECONDS = 30
MIGRATIONS = 100_000
HELD_MB = 8


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A guest for these tests alone: memory that others use or free meanwhile would be counted."""
    with opened(tmp_path_factory.mktemp("leaks")) as lab:
        leaks.prepare(lab.shell, Cache())
        yield lab


def test_a_hundred_thousand_migrations_leave_nothing_behind(own: Lab) -> None:
    found = leaks.run(own.shell, Cache(), seconds=SECONDS, migrations=MIGRATIONS)
    assert found.failures == [], found
    # The load was what it claims to be: contents were checked, processes died, memory was short and went to swap.
    assert found.load["migrations"] >= MIGRATIONS
    assert found.load["checked"] > MIGRATIONS
    assert found.load["killed"] > 0
    assert found.load["processes"] > found.load["killed"]
    assert found.load["major_faults"] > 0
    assert found.group["max"] > 0, "the limit was never reached"
    assert found.group["oom_kill"] == 0


def test_what_is_still_held_is_noticed(own: Lab) -> None:
    before = leaks.settled(own.shell)
    script = f"""
import mmap, os, time
held = mmap.mmap(-1, {HELD_MB} << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.write(os.urandom({HELD_MB} << 20))
open("/run/holding", "w").close()
time.sleep(3600)
"""
    own.shell.put_text(script, "/run/hold.py")
    own.run("nohup setsid python3 /run/hold.py >/dev/null 2>&1 & echo $! >/run/hold.pid")
    try:
        own.run("until [ -e /run/holding ]; do sleep 0.1; done", 120).expect()
        after = leaks.settled(own.shell)
    finally:
        own.run("kill -9 $(cat /run/hold.pid); rm -f /run/hold* /run/holding")
    found = leaks.lost(before, after)
    assert any("more than before are anon" in line for line in found), (found, before, after)
    assert leaks.lost(before, leaks.settled(own.shell)) == []
