"""Which Debian mirror this host's apt uses, and with which options.

Formats: sources.list(5), both the one-line style and deb822. What is found is used to get packages and is kept
nowhere: the address of a person's mirror is no part of an artifact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RELEASES = frozenset(
    {"bullseye", "bookworm", "trixie", "forky", "sid", "oldoldstable", "oldstable", "stable", "testing", "unstable"}
)
"""Suites that only Debian's own archive has; its mirrors carry all of those that are alive."""

_CARRIED = re.compile(
    r"^(Acquire::(?:(?:https?|ftp)::[\w:.-]+|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-FutureTime))"
    r' "(.+)";$'
)


@dataclass(frozen=True)
class Mirror:
    """Where packages come from. `keyring` is what Signed-By names, None when it names no file."""

    uri: str
    keyring: Path | None = None

    def line(self, suite: str) -> str:
        """A sources.list(5) line for `suite`."""
        option = f"[signed-by={self.keyring}] " if self.keyring is not None else ""
        return f"deb {option}{self.uri} {suite} main"


def _keyring(value: str) -> Path | None:
    """The keyring file in a Signed-By value; a key given inline or by fingerprint is none."""
    first = value.split()[0].split(",")[0] if value.split() else ""
    return Path(first) if first.startswith("/") else None


def _one_line(text: str) -> Iterator[tuple[str, str, str]]:
    """(URI, suite, signed-by) of every `deb` line."""
    for line in text.splitlines():
        found = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if found is None:
            continue
        options = dict(o.split("=", 1) for o in (found[1] or "").split() if "=" in o)
        yield found[2], found[3], options.get("signed-by", "")


def _deb822(text: str) -> Iterator[tuple[str, str, str]]:
    """(URI, suite, signed-by) of every enabled stanza of type `deb`, one for each pair."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, fields.get("signed-by", "")


def mirrors(etc: Path = Path("/etc/apt")) -> list[Mirror]:
    """The Debian mirrors that apt uses, in its order, each once; none on a host that is not Debian.

    A source counts when its suite is a Debian release: security and third parties' archives have others.
    """
    found: list[tuple[str, str, str]] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources"):
            continue
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found += _deb822(text) if path.suffix == ".sources" else _one_line(text)
    kept: dict[str, Mirror] = {}
    for uri, suite, signed in found:
        # "security" archives of releases before bullseye had the suite NAME/updates; cdrom: wants a mount.
        if suite in RELEASES and not uri.startswith("cdrom:"):
            kept.setdefault(uri.rstrip("/"), Mirror(uri.rstrip("/"), _keyring(signed)))
    return list(kept.values())


def options(dump: str) -> list[str]:
    """From `apt-config dump`, what concerns the way to a mirror: proxies, certificates, retries, tolerated dates."""
    return [f'{found[1]} "{found[2]}"' for line in dump.splitlines() if (found := _CARRIED.match(line))]


def credentials(etc: Path = Path("/etc/apt")) -> Iterable[str]:
    """apt options that point at the host's apt_auth.conf(5) files, which a bootstrap does not look at by itself."""
    if (etc / "auth.conf").is_file():
        yield f'Dir::Etc::netrc "{etc / "auth.conf"}"'
    if (etc / "auth.conf.d").is_dir():
        yield f'Dir::Etc::netrcparts "{etc / "auth.conf.d"}"'
