"""Workload programs: C sources of ours, compiled statically on the host into the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provision.host import process
from provision.host.cache import Cache, digest_file
from provision.host.deadline import Deadline
from provision.host.errors import InfraError
from provision.host.progress import Progress

FOLDER = Path(__file__).parent
FLAGS = ("-static", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


def ensure(cache: Cache, name: str, progress: Progress) -> Path:
    """The static binary of workload `name` (a folder beside this file), compiled if its sources have changed.

    InfraError with the compiler's words when it does not compile.
    """
    gcc = process.find("gcc")
    sources = sorted((FOLDER / name).glob("*.[ch]"))
    what = {
        "sources": {s.name: digest_file(s) for s in sources},
        "flags": list(FLAGS),
        "compiler": process.run([gcc, "--version"], deadline=Deadline.after(30)).output.splitlines()[0],
    }

    def maker(draft: Path) -> Mapping[str, Any]:
        progress.step(f"compiling {name}")
        units = [str(s) for s in sources if s.suffix == ".c"]
        try:
            process.run([gcc, *FLAGS, "-o", str(draft / name), *units], deadline=Deadline.after(300))
        except InfraError as wrong:
            raise InfraError(f"{name} does not compile", hint=wrong.message, detail=wrong.detail) from wrong
        return {}

    return cache.make("workload", name, what, maker, progress=progress).path / name
