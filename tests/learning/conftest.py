"""Each test of this folder gives back torch's threads and random stream."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _torch(torch_as_it_was: None) -> None:
    pass
