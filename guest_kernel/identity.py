"""Kernel ids: the name that a person types for a kernel, such as `6.12-mof.3-debug`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from provision.host.errors import UserError

SERIES = Path(__file__).parent / "series"

_ID = re.compile(r"(?P<base>\d+\.\d+)-(?P<kind>base|mof)(?:\.(?P<patches>\d+))?(?P<flavour>-debug|-cxl)?")


@dataclass(frozen=True)
class KernelId:
    """`BASE-base` (no patch), `BASE-mof` (the whole series) or `BASE-mof.N` (its first N patches).

    `patches` is None for the whole series. `debug` adds the kernel's own checks (locks, folio state, page tables), `cxl` the
    drivers of CXL memory. `lean` leaves debug information out, and with it what probes need; no id that a person types asks
    for that, nor for `debug` and `cxl` together.
    """

    base: str
    series: bool
    patches: int | None = None
    debug: bool = False
    lean: bool = False
    cxl: bool = False

    def __str__(self) -> str:
        kind = "mof" if self.series else "base"
        count = "" if self.patches is None else f".{self.patches}"
        flavours = "".join(f"-{name}" for name in ("debug", "cxl", "lean") if getattr(self, name))
        return f"{self.base}-{kind}{count}{flavours}"

    @property
    def localversion(self) -> str:
        """What is added to the kernel's release: `-mof.3-debug`."""
        return str(self).removeprefix(self.base)


def bases() -> list[str]:
    """The kernel versions that there is a series for."""
    return sorted(p.name for p in SERIES.iterdir() if (p / "series").is_file())


def known() -> str:
    """The ids as a person may type them, for messages."""
    return ", ".join(f"{b}-base, {b}-mof, {b}-mof.N" for b in bases()) + ", each also with -debug or with -cxl"


def check_series(kernel: KernelId) -> None:
    """UserError when it has no patch of the series."""
    if not kernel.series:
        raise UserError(
            f"{kernel} does not migrate lazily", where="--kernel", hint=f"name one such as {kernel.base}-mof"
        )


def parse(text: str) -> KernelId:
    """The id, or UserError with the known ones. `mof.0` is `base` under another name and is refused."""
    found = _ID.fullmatch(text)
    hint = f"known: {known()}"
    if found is None or found["base"] not in bases():
        raise UserError(f"unknown kernel id '{text}'", where="--kernel", hint=hint)
    series = found["kind"] == "mof"
    patches = None if found["patches"] is None else int(found["patches"])
    if patches is not None:
        if not series:
            raise UserError(f"'{text}': only mof kernels count patches", where="--kernel", hint=hint)
        length = len((SERIES / found["base"] / "series").read_text().split())
        if not 1 <= patches <= length:
            raise UserError(f"'{text}': the series has {length} patches", where="--kernel", hint=f"N is 1 to {length}")
    return KernelId(found["base"], series, patches, found["flavour"] == "-debug", cxl=found["flavour"] == "-cxl")
