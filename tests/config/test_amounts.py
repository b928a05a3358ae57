"""Numbers and strategies as people are told them."""

import math

import pytest

from paceline.config.amounts import count, duration, nbytes, rate
from paceline.config.strategy_names import strategy_name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-9, "2 ns"),
        (8.32e-5, "83.2 us"),
        (0.99996, "1 s"),
        (9.2149, "9.21 s"),
        (119, "119 s"),
        (121, "2.02 min"),
        (7199, "2 h"),
        (44640, "12.4 h"),
        (3e8, "3472 days"),
        (-3.2, "-3.2 s"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_rounds_to_a_unit_is_told_in_it():
    assert (duration(0.0123456, 4), duration(119.97), duration(119.97, 4)) == ("12.35 ms", "2 min", "2 min")
    assert (nbytes(999.96e6), nbytes(999.6e6, 4)) == ("1 GB", "999.6 MB")


def test_bytes_and_counts():
    assert [nbytes(size) for size in (0, 512, 24409000, 11.2e12, 1e30)] == [
        "0 B",
        "512 B",
        "24.4 MB",
        "11.2 TB",
        "1000000000000 EB",
    ]
    assert [count(number) for number in (0, 43136, 99999, 100000, 3.4e6, 0.5)] == [
        "0",
        "43,136",
        "99,999",
        "100 k",
        "3.4 M",
        "0.5",
    ]
    assert [rate(number) for number in (0.01234, 7.534, 67612.4, 1.2e6, None)] == [
        "0.0123 samples/s",
        "7.53 samples/s",
        "67,612 samples/s",
        "1.2 M samples/s",
        "-",
    ]


STEPS = {"by_class": {"cpu": 2, "gpu": 16}}


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"preset": "local_sgd", "H": 8}, "local_sgd H=8"),
        ({"preset": "local_sgd", "schedule": {"fixed": 8}}, "local_sgd H=8"),
        ({"split": "by_steps", "schedule": {"fixed": 8}, "aggregation": "parameters"}, "local_sgd H=8"),
        ({"schedule": {"fixed": 8}, "aggregation": "parameters"}, "local_sgd H=8, even"),
        ({"preset": "ddp"}, "ddp"),
        ({"aggregation": "gradients"}, "sync_sgd"),
        ({"preset": "biased_local_sgd", "H": 16, "split": STEPS}, "biased_local_sgd H=16, by_class 2/16"),
        ({"preset": "post_local_sgd", "t": "150 epochs"}, "post_local_sgd t=150 epochs"),
        ({"preset": "local_sgd", "schedule": {"qsr": {"alpha": 0.02}}}, "local_sgd, qsr 0.02"),
        ({"preset": "local_sgd", "placement": {"replicated": {"wire": "bf16"}}}, "local_sgd, replicated bf16"),
        ({"schedule": {"fixed": 5}, "aggregation": {"outer_sgd": {"lr": 0.5}}}, "diloco H=5 lr=0.5"),
        ({"preset": "fednova", "H": 3, "split": {"given": {"paces": [1, 0.5]}}}, "fednova H=3, given paces=1/0.5"),
        ({"preset": "not_here:method", "H": 3}, "method H=3"),
    ],
)
def test_a_strategy_in_a_few_words(section, name):
    assert strategy_name(section) == name


def test_every_preset_has_its_own_name():
    from paceline.algorithms.presets import PRESETS

    needed = {"post_local_sgd": {"t": "3 epochs"}, "qsr": {"alpha": 0.1}}
    for preset in PRESETS:
        assert strategy_name({"preset": preset} | needed.get(preset, {})).split()[0] == preset
