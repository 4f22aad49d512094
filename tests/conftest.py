"""What all tests share: the options of the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--debug-kernel",
        action="store_true",
        help="guests that tests open themselves run 6.12-mof-debug for 6.12-mof, and may leave no complaint in its log",
    )
