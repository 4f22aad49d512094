"""Names of the bits of folio->flags.

From enum pageflags, include/linux/page-flags.h of 6.12 (6.12.117), as our configuration compiles it on x86-64: MMU and
PAGE_IDLE_FLAG are on, ARCH_USES_PG_ARCH_2 is selected by the architecture, MEMORY_FAILURE and ARCH_USES_PG_ARCH_3 are
off. Another configuration numbers the bits from `young` on otherwise.
"""

from __future__ import annotations

NAMES: tuple[str, ...] = (
    "locked", "writeback", "referenced", "uptodate", "dirty", "lru", "head", "waiters", "active", "workingset",
    "owner_priv_1", "owner_2", "arch_1", "reserved", "private", "private_2", "reclaim", "swapbacked", "unevictable",
    "mlocked", "young", "idle", "arch_2",
)  # fmt: skip
"""By bit number."""

OWNER_PRIV_1 = NAMES.index("owner_priv_1")
OWNER_2 = NAMES.index("owner_2")
LRU = NAMES.index("lru")
SWAPBACKED = NAMES.index("swapbacked")
MASK = (1 << len(NAMES)) - 1
"""The flags proper; above are the last CPU and process, the zone and the node."""


def names(flags: int) -> tuple[str, ...]:
    """The names of the bits that are set, lowest bit first.

    Two bits have their owner's meaning: on swap-backed folios owner_priv_1 says that the folio is in the swap
    cache (folio_test_swapcache()) and owner_2 that an anonymous page is exclusive to its process
    (PG_anon_exclusive); on file folios they are `checked` and `mappedtodisk`.
    """
    swapbacked = flags >> SWAPBACKED & 1
    owned = {
        OWNER_PRIV_1: "swapcache" if swapbacked else "checked",
        OWNER_2: "exclusive" if swapbacked else "mappedtodisk",
    }
    return tuple(owned.get(bit, name) for bit, name in enumerate(NAMES) if flags >> bit & 1)


def text(flags: int) -> str:
    """`names`, separated by blanks."""
    return " ".join(names(flags))
