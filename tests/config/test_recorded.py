"""What a run notes about a million workers is a few lines, and is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as library
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.paths import ROOT
from paceline.config import yaml
from paceline.config.recorded import Recorded, compact, expanded


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([8, 8, 4], [8, 8, 4]),
        ([8] * 20, [{"times": 20, "values": [8]}]),
        (
            [8] * 50_000 + [6] * 3 + [4] * 50_000,
            [{"times": 50_000, "values": [8]}, 6, 6, 6, {"times": 50_000, "values": [4]}],
        ),
        ([8, 8, 4] * 9 + [7], [{"times": 9, "values": [8, 8, 4]}, 7]),
    ],
)
def test_what_repeats_is_said_once(values: list[int], written: list[Any]) -> None:
    assert compact(values) == written


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(1, 30)), max_size=5))
def test_batches_are_read_as_they_were(parts: list[tuple[list[int], int]]) -> None:
    batches = [batch for block, times in parts for batch in block * times]
    read = Recorded.model_validate(yaml.parse(yaml.dump({"batches": compact(tuple(batches))}), "there"))
    assert expanded(read.batches) == batches


FILES = [path for folder in ("scenarios", "profiles", "config") for path in sorted((ROOT / folder).glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_parsers_read_the_same(path):
    """LibYAML's parser is the fast one; PyYAML's own words the errors."""
    text = path.read_text()
    assert library.load(text, yaml._FastLoader) == library.load(text, yaml._Loader)
