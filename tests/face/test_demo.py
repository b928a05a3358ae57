"""What `paceline demo` says about its figures, tried on made-up numbers."""

from __future__ import annotations

import pytest

from paceline.demo import core_share, times, trust

NAMES = ("local", "sync")


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(2.61, "2.61 times faster"), (0.86, "1.16 times slower"), (1.004, "as fast"), (0.996, "as fast")],
)
def test_slower_is_not_called_faster(ratio, said):
    assert times(ratio) == said


def test_an_error_stands_next_to_what_two_equal_runs_differ_by():
    lines = trust(NAMES, [0.9, 2.0], [1.0, 2.0], [1.02, 1.9], share=0.99)
    assert lines == [
        "local: the prediction is -10.0% off, two equal runs differ by 2.0%",
        "sync: the prediction is +0.0% off, two equal runs differ by 5.0%",
    ]


@pytest.mark.parametrize(
    ("again", "share", "why"),
    [
        ([1.0, 3.0], 0.99, "two equal runs differ by up to 50%"),
        ([1.0, 2.0], 0.47, "each of 2 processes had as little as 47% of a core"),
        (
            [0.6, 2.0],
            0.47,
            "each of 2 processes had as little as 47% of a core, and two equal runs differ by up to 40%",
        ),
    ],
)
def test_a_busy_machine_is_said(again, share, why):
    """Errors of a machine that did other things are not the prediction's: one line says so, and how large they are."""
    *_, last = trust(NAMES, [0.56, 0.4], [1.0, 2.0], again, share)
    assert last == f"warning: this machine was busy: {why}; the figures above are worth no more than that"


def test_the_share_of_a_core_is_measured():
    assert 0 < core_share(2) <= 1.01
