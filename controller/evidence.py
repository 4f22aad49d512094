"""The run folder, written as things happen: what is in it is true up to the moment at which a run was cut off.

runs/<UTC time>-<experiment>-<short id>/
    manifest.json    everything needed to repeat the run; rewritten whole at each stage
    verdict.json     the result; also for a run that was lost or interrupted
    events.raw       64-byte records as QEMU wrote them; gone once events.parquet holds them
    lines.raw        what memtoy said, as QEMU wrote it (instruction clock); gone once workload/ holds it
    console.log      from the first byte
    workload/        per case the script and memtoy's answers, a line at a time
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from provision.host.errors import InfraError


def default_root() -> Path:
    """`MOF_RUNS`, or `runs` in the current folder."""
    return Path(os.environ.get("MOF_RUNS") or "runs")


def now() -> str:
    """UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one that is whole, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _new_id(name: str) -> str:
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{name}-{secrets.token_hex(3)}"


@contextmanager
def _making(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as wrong:
        raise InfraError(
            f"the run folder cannot be made: {wrong.strerror}",
            where=str(path),
            hint="free some space or set MOF_RUNS to a folder that you may write to",
        ) from wrong


def group_folder(root: Path, name: str) -> Path:
    """Make a folder for the folders of several runs that belong together. InfraError when that can't be done."""
    path = (root / _new_id(name)).absolute()
    with _making(path):
        path.mkdir(parents=True)
    return path


class RunFolder:
    """One run's evidence on disk."""

    def __init__(self, root: Path, experiment: str) -> None:
        """Make the folder; InfraError when that can't be done."""
        self.id = _new_id(experiment)
        self.path = (root / self.id).absolute()
        self.workload = self.path / "workload"
        self._manifest: dict[str, Any] = {"schema": 1, "run": self.id, "started": now(), "state": "running"}
        with _making(self.path):
            self.workload.mkdir(parents=True)
            self._save()

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._manifest

    def record(self, **facts: Any) -> None:
        """Add facts to manifest.json."""
        self._manifest.update(facts)
        self._save()

    def close(self, state: str) -> None:
        """`state`: complete, lost, failed or interrupted."""
        self.record(state=state, ended=now())

    def _save(self) -> None:
        write_atomically(self.path / "manifest.json", json.dumps(self._manifest, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text)

    def lines(self, name: str) -> IO[str]:
        """A file under workload/ that reaches the disk line by line."""
        return (self.workload / name).open("w", buffering=1)

    @property
    def events_raw(self) -> Path:
        return self.path / "events.raw"

    @property
    def lines_raw(self) -> Path:
        return self.path / "lines.raw"
