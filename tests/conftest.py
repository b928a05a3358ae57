"""Options of the test suite."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples in every run: a property that fails once in ten thousand is found by more examples, not by luck.
settings.register_profile("same examples", derandomize=True)
settings.load_profile("same examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens",
        action="store_true",
        help="write what tests/golden holds from the code as it is; say in the commit why it changes",
    )
