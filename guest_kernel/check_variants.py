"""Small configurations in which something is off that the series stands on, or meets: it has to compile and link there too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from guest_kernel import kconfig

FRAGMENT = kconfig.FRAGMENTS / "check.config"
SYMBOL = "CONFIG_MIGRATE_ON_FAULT"


@dataclass(frozen=True)
class Variant:
    """`symbol` is to come out as n. `options` are changed beside it, for the reason that `why` gives.

    The name is that of an output folder too.
    """

    name: str
    symbol: str
    options: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def asked(self) -> dict[str, tuple[str, str]]:
        """Symbol to (value, where it is from): the fragment, the series' own symbol, and this variant on top."""
        own = {SYMBOL: "y", **self.options, self.symbol: "n"}
        return {**kconfig.merge([FRAGMENT]), **{symbol: (value, self.name) for symbol, value in own.items()}}


VARIANTS = (
    Variant("check-no-fault", SYMBOL),
    Variant("check-no-numa", "CONFIG_NUMA"),
    Variant("check-no-swap", "CONFIG_SWAP"),
    Variant(
        "check-no-migration",
        "CONFIG_MIGRATION",
        {"CONFIG_COMPACTION": "n", "CONFIG_TRANSPARENT_HUGEPAGE": "n", "CONFIG_CMA": "n"},
        "compaction and CMA select MIGRATION, and huge pages select compaction (mm/Kconfig)",
    ),
    Variant(
        "check-alone",
        "CONFIG_NUMA_BALANCING",
        {
            f"CONFIG_{name}": "n"
            for name in (
                "CPUSETS",
                "MEMCG",
                "CGROUPS",
                "TRANSPARENT_HUGEPAGE",
                "KSM",
                "USERFAULTFD",
                "PROC_SYSCTL",
                "VM_EVENT_COUNTERS",
            )
        },
        "the only one with MIGRATE_ON_FAULT=y: what it meets elsewhere, and can do without, is off",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a variant's configuration came to. `got` is "absent" for a symbol that the tree does not know.

    `dropped`: what else did not come out as asked, mostly because it depends on what is off.
    """

    variant: str
    symbol: str
    got: str
    dropped: tuple[str, ...]

    @property
    def configurable(self) -> bool:
        return self.got in ("n", "absent")

    def __str__(self) -> str:
        name = self.symbol.removeprefix("CONFIG_")
        if not self.configurable:
            return f"{self.variant}: {name}: asked n, got {self.got}: not configurable, not built"
        words = "asked n, got n" if self.got == "n" else "asked n, the tree has no such symbol"
        rest = f"; with it went {', '.join(d.removeprefix('CONFIG_') for d in self.dropped)}" if self.dropped else ""
        return f"{self.variant}: {name}: {words}{rest}"


def outcome(variant: Variant, result: Mapping[str, str], known: bool) -> Outcome:
    """Compare what was asked with the resulting configuration. `known`: the tree's Kconfig has the symbol."""
    asked = variant.asked()
    dropped = tuple(d.symbol for d in kconfig.dropped(asked, result) if d.symbol != variant.symbol)
    got = result.get(variant.symbol, "n" if known else "absent")
    return Outcome(variant.name, variant.symbol, got, dropped)
