"""Numbers and strategies as people are told them."""

import math

import pytest

from paceline.config.strategy_names import strategy_name
from paceline.config.units import told_bytes, told_rate, told_seconds, told_whole


def test_durations_with_more_digits_and_unknown_ones():
    assert [told_seconds(x) for x in (0.99996, 9.2149, None, math.nan, math.inf)] == ["1 s", "9.21 s", "-", "-", "-"]
    assert (told_seconds(0.0123456, 4), told_seconds(119.97, 4)) == ("12.35 ms", "2 min")
    assert (told_bytes(999.6e6, 4), told_bytes(24409000, 4)) == ("999.6 MB", "24.41 MB")


def test_whole_numbers_and_rates():
    assert [told_whole(number) for number in (0, 43136, 99999, 100000, 3.4e6)] == [
        "0",
        "43,136",
        "99,999",
        "100 k",
        "3.4 M",
    ]
    rates = {0.01234: "0.0123 samples/s", 67640.4: "67,640 samples/s", 1.2e6: "1.2 M samples/s", None: "-"}
    assert {rate: told_rate(rate) for rate in rates} == rates
    assert told_rate(7.534, "") == "7.53"


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
