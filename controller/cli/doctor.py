"""`mof doctor`: what this host can do, and the command that mends each thing it cannot."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> int:
    """Check this host: programs, memory, space, accelerator. Status 3 when something is missing that runs need."""
    from provision.guest import accelerator
    from provision.host import doctor as checks
    from provision.host.cache import Cache
    from provision.host.errors import InfraError

    cache = Cache()
    kvm: checks.KvmAnswer | None = None
    with suppress(InfraError):  # no QEMU: among the findings already
        kvm = accelerator.remembered(accelerator.find_qemu(), cache)
    findings = checks.examine(cache.root, kvm)
    failed = not all(f.ok for f in findings)
    if as_json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
        return 3 if failed else 0
    for finding in findings:
        mend = f"  -> {finding.mend}" if finding.mend else ""
        print(f"{finding.state.value:8} {finding.name:18} {finding.found}{mend}")
    return 3 if failed else 0
