"""What can be measured by itself. Light: the command line imports it before it knows which command it is."""

from __future__ import annotations

from enum import StrEnum


class Group(StrEnum):
    """What `--only` chooses from."""

    START = "start"
    PAGES = "pages"
    PROBES = "probes"
    DRAIN = "drain"
    MANY = "many"
