"""Transfers that share links: rates are max-min fair, and no byte is lost."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.sim import ends
from paceline.sim.flows import Course, Demand, Flows, fair_rates


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=1e-12)


# --- fair rates -------------------------------------------------------------------------------------------------------


def one(*links: str, streams: float = 1.0, load: float = 1.0) -> Demand:
    return Demand(dict.fromkeys(links, load), streams, 1.0)


@pytest.mark.parametrize(
    ("demands", "rates"),
    [
        ([one("a")], [10]),
        ([one("a"), one("a")], [5, 5]),
        ([one("a"), one("a", "b"), one("b")], [8, 2, 2]),  # what the second cannot use, the first gets
        ([one("a", "b"), one("a"), one("b")], [2, 8, 2]),
        ([one("a", streams=3), one("a")], [7.5, 2.5]),
        ([one("a", load=3), one("a")], [2.5, 2.5]),  # three connections of one collective are one rate
        ([one("a", "free"), one("free")], [10, math.inf]),
        ([one("a"), one("stopped", "a")], [10, 0]),
        ([], []),
    ],
)
def test_rates_are_max_min_fair(demands: list[Demand], rates: list[float]) -> None:
    capacity = {"a": 10.0, "b": 4.0, "free": math.inf, "stopped": 0.0}
    assert fair_rates(demands, capacity.__getitem__) == near(rates)


LINKS = "abcdefg"
DEMANDS = st.lists(
    st.builds(
        Demand,
        st.dictionaries(st.sampled_from(LINKS), st.integers(1, 4).map(float), min_size=1, max_size=4),
        st.integers(1, 3).map(float),
        st.integers(1, 1000).map(float),
    ),
    min_size=1,
    max_size=9,
)
CAPACITIES = st.fixed_dictionaries({link: st.integers(1, 100).map(float) for link in LINKS})


@settings(max_examples=150, deadline=None)
@given(DEMANDS, CAPACITIES)
def test_everyone_has_a_bottleneck(demands: list[Demand], capacity: dict[str, float]) -> None:
    """Max-min fairness by definition: no link is overfull, and each flow crosses a full one on which none gets more."""
    rates = fair_rates(demands, capacity.__getitem__)
    used = {link: sum(r * d.loads.get(link, 0) for r, d in zip(rates, demands, strict=True)) for link in LINKS}
    for link in LINKS:
        assert used[link] <= capacity[link] * (1 + 1e-9)
    for rate, demand in zip(rates, demands, strict=True):
        assert any(
            used[link] >= capacity[link] * (1 - 1e-9)
            and all(
                rate / demand.streams >= r / d.streams * (1 - 1e-9)
                for r, d in zip(rates, demands, strict=True)
                if link in d.loads
            )
            for link in demand.loads
        )


# --- transfers in time ------------------------------------------------------------------------------------------------


def once(start: float, demand: Demand) -> Course:
    yield start
    yield demand


def test_a_transfer_that_comes_later_shares_what_is_left() -> None:
    """100 bytes at 10 bytes/s; after 4 s another 30 come: 60 left, 30 at 5 bytes/s until 10 s, then 30 at 10."""
    demands = [Demand({"a": 1.0}, 1.0, 100.0), Demand({"a": 1.0}, 1.0, 30.0)]
    assert ends([once(0, demands[0]), once(4, demands[1])], {"a": 10.0}) == near([13, 10])


def test_bandwidth_that_changes_counts_from_then_on() -> None:
    def slow(flows: Flows) -> None:
        flows.set_capacity("a", 5.0, 4.0)  # 60 bytes left
        flows.set_capacity("a", 0.0, 6.0)  # 50
        flows.set_capacity("a", 10.0, 100.0)

    assert ends([once(0, Demand({"a": 1.0}, 1.0, 100.0))], {"a": 10.0}, slow) == near([105])


def test_who_shares_nothing_is_not_touched() -> None:
    """To the last bit, however often others come and go."""
    lonely = once(0.1, Demand({"b": 1.0}, 1.0, 0.7))
    others = [once(0.11 * i, Demand({"a": 1.0}, 1.0, 1.0)) for i in range(9)]
    assert ends([lonely, *others], {"a": 3.0, "b": 1.3})[0] == 0.1 + 0.7 / 1.3


@settings(max_examples=60, deadline=None)
@given(DEMANDS, CAPACITIES, st.data())
def test_no_byte_is_lost_and_no_link_carries_more_than_it_can(
    demands: list[Demand], capacity: dict[str, float], data: st.DataObject
) -> None:
    starts = [data.draw(st.integers(0, 20)) for _ in demands]
    found = ends([once(s, d) for s, d in zip(starts, demands, strict=True)], capacity)
    for start, end, demand in zip(starts, found, demands, strict=True):
        alone = max(load * demand.nbytes / capacity[link] for link, load in demand.loads.items())
        assert end - start >= alone * (1 - 1e-9)
    for link in LINKS:
        crossing = [i for i, demand in enumerate(demands) if link in demand.loads]
        if crossing:
            carried = sum(demands[i].loads[link] * demands[i].nbytes for i in crossing)
            assert carried <= capacity[link] * (max(found[i] for i in crossing) - min(starts[i] for i in crossing)) * (
                1 + 1e-9
            )
