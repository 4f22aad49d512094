"""What can be measured by itself. Light: the command line imports it before it knows which command it is."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Group(StrEnum):
    """What `--only` chooses from."""

    START = "start"
    PAGES = "pages"
    PROBES = "probes"
    DRAIN = "drain"
    MANY = "many"
    MEMORY = "memory"
    MIGRATION = "migration"

    @property
    def by_itself(self) -> bool:
        """Whether it is measured only when it is named: it builds two kernels beside the one that is measured."""
        return self is Group.MIGRATION


def chosen(only: Collection[Group] | None) -> list[Group]:
    """The groups that are to be measured, each once, in our order; None or none: all but those that must be named."""
    return [one for one in Group if (one in only if only else not one.by_itself)]
