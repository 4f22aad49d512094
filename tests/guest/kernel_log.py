"""For the tests in this folder: what a guest's kernel complains of."""

from __future__ import annotations

from controller import complaints as _complaints
from tests.guest.conftest import Lab


def complaints(lab: Lab) -> list[str]:
    """Lines of the guest's log that do not belong there, and what kmemleak finds lost; empty for a kernel that is well."""
    return _complaints.found(lab.shell)
