"""What every refusal of a topology has to be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision.host.errors import UserError


def refused(parse: Callable[[str], object], text: str, where: str, what: str, mend: str) -> None:
    """One line: the file, what is wrong with it, and the mend."""
    with pytest.raises(UserError) as caught:
        parse(text)
    line = str(caught.value)
    assert line.startswith(f"{where}: ")
    assert what in line
    assert mend in line
    assert caught.value.hint
    assert "\n" not in line
