"""Options and fixtures of the test suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples in every run: a property that fails once in ten thousand is found by more examples, not by luck.
settings.register_profile("same examples", derandomize=True)
settings.load_profile("same examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens",
        action="store_true",
        help="write the files in tests/whole/golden from the code as it is; say in the commit why they change",
    )
    parser.addoption(
        "--rewrite-notebooks",
        action="store_true",
        help="store the outputs of the notebooks that run, instead of comparing them",
    )


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """One thread, and torch's random stream given back: a rank's worker owns both."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
