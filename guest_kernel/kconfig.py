"""The configuration: fragments on allnoconfig, and the proof that what was asked for is what came out.

Kconfig drops an option whose dependencies are not met without a word, so a fragment is a wish until it has been
compared with the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guest_kernel.identity import KernelId
from provision.host.errors import InfraError, UserError

FRAGMENTS = Path(__file__).parent / "config"
BASE = ("core", "virtio", "memory", "tracing")

_ASSIGNED = re.compile(r"(CONFIG_\w+)=(.*)")
_UNSET = re.compile(r"# (CONFIG_\w+) is not set")


@dataclass(frozen=True)
class Dropped:
    """An option that did not come out as asked. `got` is `n` where it is absent."""

    symbol: str
    asked: str
    got: str
    fragment: str

    def __str__(self) -> str:
        return f"{self.symbol}: asked {self.asked}, got {self.got} ({self.fragment})"


def parse(text: str, *, where: str = "") -> dict[str, str]:
    """Symbol to value; `n` for "is not set". UserError for a line that is neither that nor a comment nor empty."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := _ASSIGNED.fullmatch(line.strip()):
            values[found[1]] = found[2]
        elif found := _UNSET.fullmatch(line.strip()):
            values[found[1]] = "n"
        elif line.strip() and not line.startswith("#"):
            raise UserError(f"not a configuration line: '{line.strip()}'", where=f"{where}:{number}", hint="CONFIG_X=y")
    return values


def fragments(kernel: KernelId) -> list[Path]:
    """The fragments of this kernel, in the order in which later ones win.

    CONFIG_MIGRATE_ON_FAULT is asked for from the patch on that brings the symbol.
    """
    from guest_kernel import series

    names = list(BASE)
    if any("config MIGRATE_ON_FAULT" in p.path.read_text() for p in series.of(kernel)):
        names.append("mof")
    if kernel.debug:
        names.append("debug")
    if kernel.cxl:
        names.append("cxl")
    if kernel.lean:
        names.append("lean")
    return [FRAGMENTS / f"{name}.config" for name in names]


def merge(paths: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """Symbol to (value, name of the fragment that set it last)."""
    return {
        symbol: (value, path.name)
        for path in paths
        for symbol, value in parse(path.read_text(), where=path.name).items()
    }


def render(asked: Mapping[str, tuple[str, str]]) -> str:
    """The merged fragment as `make allnoconfig` reads it from KCONFIG_ALLCONFIG."""
    return "".join(
        f"# {symbol} is not set\n" if value == "n" else f"{symbol}={value}\n" for symbol, (value, _) in asked.items()
    )


def dropped(asked: Mapping[str, tuple[str, str]], result: Mapping[str, str]) -> list[Dropped]:
    """What did not come out as asked, in the order of the fragments."""
    return [
        Dropped(symbol, value, got, fragment)
        for symbol, (value, fragment) in asked.items()
        if (got := result.get(symbol, "n")) != value
    ]


def check(asked: Mapping[str, tuple[str, str]], result: Mapping[str, str]) -> None:
    """InfraError that names every option that the kernel's Kconfig did not accept."""
    if wrong := dropped(asked, result):
        raise InfraError(
            f"{len(wrong)} of {len(asked)} configuration options were not accepted",
            where=wrong[0].fragment,
            hint="mend the fragment: a dependency is missing or the symbol is gone",
            detail="\n".join(map(str, wrong)),
        )
