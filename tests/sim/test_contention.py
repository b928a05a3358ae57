"""Collectives that share links with each other or with background traffic, on bandwidths that change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.sim import ends
from paceline.config.timing import BackgroundTraffic, Device, Link, Network, Timing
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Broadcast,
    Collective,
    Compute,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    barrier,
    nothing,
)
from paceline.program.errors import ScenarioError
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.engine import simulate
from paceline.sim.flows import Course, Flows
from paceline.sim.network import Fabric, Price
from paceline.sim.transfers import Transfers, course

QUIET = Hooks()
BANDWIDTH, LATENCY, BYTES = 1e6, 1e-3, 400_000


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=1e-12)


# --- collectives of several groups ------------------------------------------------------------------------------------


def run(network: Network, *programs: Program[Any], nodes: tuple[int, ...] = (), **options: Any) -> list[Outcome]:
    devices = tuple(Device(f"device {i}", speed=1.0) for i in range(len(programs)))
    return simulate(list(programs), Timing(devices, network, nodes=nodes), QUIET, **options)


def clock(network: Network, *programs: Program[Any], **options: Any) -> list[float]:
    return [outcome.seconds for outcome in run(network, *programs, **options)]


def exchange(group: tuple[int, ...], after: int = 0, times: int = 1, nbytes: int = BYTES) -> Program[None]:
    """`times` all-reduces of the group, after computing for so many seconds."""
    yield from Compute(Work("step", after), nothing)
    for _ in range(times):
        yield from AllReduce(Phantom(nbytes), group=group)


STAR = Network("star", BANDWIDTH, LATENCY)
ALONE = 2 * LATENCY + BYTES / BANDWIDTH  # of two


def test_groups_that_share_no_link_leave_each_other_alone() -> None:
    """As if each had the network for itself, to the last bit."""
    pairs = [(0, 1), (2, 3)]
    together = clock(STAR, *(exchange(pairs[i // 2], times=7) for i in range(4)))
    world = clock(STAR, *(exchange((0, 1), times=7) for _ in range(2)))
    assert together == world * 2


def test_two_groups_on_one_bus_take_twice_as_long() -> None:
    pairs = [(0, 1), (2, 3)]
    found = clock(Network("bus", BANDWIDTH, LATENCY), *(exchange(pairs[i // 2]) for i in range(4)))
    assert found == near([2 * LATENCY + 2 * 2 * BYTES / BANDWIDTH] * 4)


NODES = (0, 0, 1, 1)
TWO_LEVEL = Network("two_level", BANDWIDTH, LATENCY, inside=Link(1e9, 1e-6))


def test_groups_that_cross_the_same_uplink_share_it() -> None:
    """(0, 2) alone for 1 s of its 2, both until its end, when (1, 3) has 1 s left; and the same within the nodes."""
    across = [(0, 2), (1, 3)] * 2
    nbytes = 2 * 10**6
    found = clock(TWO_LEVEL, *(exchange(across[i], i % 2, nbytes=nbytes) for i in range(4)), nodes=NODES)
    assert found == near([2 * LATENCY + 1 + 2, 2 * LATENCY + 1 + 2 + 1] * 2)
    within = clock(TWO_LEVEL, *(exchange((0, 1) if i < 2 else (2, 3), nbytes=nbytes) for i in range(4)), nodes=NODES)
    assert within == near([2e-6 + nbytes / 1e9] * 4)


def test_a_groups_collectives_are_served_one_after_another() -> None:
    def program(worker: int) -> Program[None]:
        handles = []
        for _ in range(3):
            handles.append((yield from Start(AllReduce(Phantom(BYTES)))))
        for handle in handles:
            yield from Wait(handle)

    first, second = run(STAR, program(0), program(1), trace=True)
    assert first.seconds == second.seconds == near(3 * ALONE)
    assert [span[1:] for span in first.lanes["network"]] == [(near(i * ALONE), near((i + 1) * ALONE)) for i in range(3)]


def test_a_worker_in_two_groups_has_one_port_for_both() -> None:
    """Worker 0 exchanges with 1 and with 2 at a time: its port carries twice the bytes."""

    def middle() -> Program[None]:
        handles = []
        for other in (1, 2):
            handles.append((yield from Start(AllReduce(Phantom(BYTES), group=(0, other)))))
        for handle in handles:
            yield from Wait(handle)

    outcomes = run(STAR, middle(), exchange((0, 1)), exchange((0, 2)), trace=True)
    end = near(2 * LATENCY + 2 * BYTES / BANDWIDTH)
    assert [outcome.seconds for outcome in outcomes] == [end] * 3
    lanes = outcomes[0].lanes  # spans of one lane never overlap, so each group has its own
    assert (lanes["network (0, 1)"], lanes["network (0, 2)"]) == ([("sync", 0.0, end)], [("sync", 0.0, end)])


def test_a_barrier_is_not_slowed_by_bytes() -> None:
    def program(worker: int) -> Program[float]:
        handle = yield from Start(AllReduce(Phantom(BYTES), group=(0, 1)))
        yield from barrier()
        yield from Wait(handle)
        return 0.0

    def other() -> Program[None]:
        yield from barrier()

    found = clock(STAR, program(0), program(1), other())
    assert found == [near(ALONE), near(ALONE), near(LATENCY)]


# --- what others send -------------------------------------------------------------------------------------------------


def with_others(**background: Any) -> float:
    return clock(Network("star", BANDWIDTH, LATENCY, background=(BackgroundTraffic(0, 1, **background),)), *_pair())[0]


def _pair(**more: Any) -> list[Program[None]]:
    return [exchange((0, 1), **more) for _ in range(2)]


def test_a_stream_takes_its_share_and_no_more() -> None:
    assert with_others(bandwidth=10 * BANDWIDTH) == near(2 * LATENCY + 2 * BYTES / BANDWIDTH)
    assert with_others(bandwidth=BANDWIDTH / 4) == near(2 * LATENCY + BYTES / BANDWIDTH / 0.75)
    assert with_others(bandwidth=BANDWIDTH, start=1e9) == near(ALONE)


def test_bytes_at_a_time_disturb_while_they_are_sent() -> None:
    """10,000 bytes every 0.1 s: each time the exchange shares for 0.02 s, so it loses 0.01 s each time."""
    losses = 4  # at 0 (for what is left after the latencies), 0.1, 0.2, 0.3 and 0.4 s
    found = with_others(nbytes=10_000, every=0.1)
    first = 2 * LATENCY  # the first 2 ms of the others' bytes lie in the latencies
    left_of_the_first = 10_000 / BANDWIDTH - first
    assert found == near(2 * LATENCY + BYTES / BANDWIDTH + left_of_the_first + losses * 10_000 / BANDWIDTH)
    assert with_others(nbytes=10_000, every=0.1, start=0.45) == near(ALONE)


def test_others_keep_no_run_alive_and_are_caught_up_with() -> None:
    """Nobody notices them while everybody computes; then they are where they would be, 5 ms into their 50.

    So both share for 90 ms, then 5 ms are ours alone, and the last 50,000 bytes share with the next 50,000.
    """
    network = Network(
        "star", BANDWIDTH, 0.0, background=(BackgroundTraffic(0, 1, nbytes=50_000, every=0.1, start=0.095),)
    )
    found = clock(network, *_pair(after=1000, nbytes=100_000))[0]
    assert found == near(1000 + 0.09 + 0.005 + 0.1)
    assert clock(network, *_pair(nbytes=0)) == [0.0, 0.0]


def test_others_elsewhere_do_not_disturb() -> None:
    quiet = Network("star", BANDWIDTH, LATENCY, background=(BackgroundTraffic(2, 3, BANDWIDTH),))
    programs = [*_pair(), *(exchange((i,)) for i in (2, 3))]
    assert clock(quiet, *programs)[0] == clock(STAR, *_pair())[0]


# --- from a price to a flow -------------------------------------------------------------------------------------------

ANY = [
    Network("star", BANDWIDTH, LATENCY),
    Network("star", ports=(BANDWIDTH,) * 6 + (BANDWIDTH / 3,), latency=LATENCY),
    Network("bus", BANDWIDTH, LATENCY),
    Network("two_level", BANDWIDTH, LATENCY, inside=Link(3 * BANDWIDTH, LATENCY / 7)),
    Network("matrix", matrix=tuple(tuple(BANDWIDTH * (1 + a + b) for b in range(7)) for a in range(7))),
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ANY),
    st.sampled_from(["ordered", "ring", "recursive_doubling", "rabenseifner", "tree", "two_level", "auto"]),
    st.sampled_from([AllReduce, AllGather, ReduceScatter, Broadcast]),
    st.sampled_from([(0, 1), (1, 2, 6), (0, 2, 3, 4, 5), tuple(range(7))]),
    st.sampled_from([0, 1000, 10**6]),
    st.floats(0, 0.999),
)
def test_a_collective_that_becomes_a_flow_ends_when_its_price_says(
    network: Network, collective: str, kind: type[Collective], members: tuple[int, ...], nbytes: int, when: float
) -> None:
    """At whatever moment it becomes one, as long as nothing shares its links: only sharing changes when it ends."""
    network = replace(network, collective=collective, reduce_bandwidth=3 * BANDWIDTH)
    fabric = Fabric(network, (0, 0, 0, 1, 1, 2, 2))
    price = fabric.group(members).price(kind, nbytes, root=1)
    flows, found, now = Flows(fabric.topology.capacity.__getitem__), [], when * price.seconds
    flows.add(course(price, 0.0, now), now, lambda: found.append(now))
    while (now := flows.due()) < math.inf:
        flows.advance(now)
    assert found == [near(price.seconds)]


def later(price: Price, start: float) -> Course:
    now = yield start
    yield from course(price, now, now)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ANY),
    st.lists(
        st.tuples(
            st.sampled_from([AllReduce, Broadcast]),
            st.sets(st.integers(0, 6), min_size=1, max_size=4),
            st.integers(0, 300_000),
            st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.7]),
        ),
        max_size=9,
    ),
)
def test_going_alone_where_nobody_is_takes_as_long_as_flowing_always(network: Network, begun: Any) -> None:
    env, fabric = simpy.Environment(), Fabric(network, (0, 0, 0, 1, 1, 2, 2))
    transfers, found = Transfers(env, fabric), [math.nan] * len(begun)
    courses = []
    for number, (kind, members, nbytes, start) in enumerate(begun):
        price = fabric.group(sorted(members)).price(kind, nbytes)
        courses.append(later(price, start))

        def begin(_: Any, number: int = number, price: Price = price) -> None:
            transfers.begin(price, lambda: found.__setitem__(number, env.now))

        env.timeout(start).callbacks.append(begin)
    env.run()
    assert found == near(ends(courses, fabric.topology.capacity))


# --- bandwidths that change -------------------------------------------------------------------------------------------


def timed(network: Network, *changes: tuple[float, str, float], nodes: tuple[int, ...] = ()) -> float:
    """Seconds of an all-reduce of workers 0 and 1 while links change: (when, name, factor)."""
    env, fabric = simpy.Environment(), Fabric(network, nodes)
    transfers, found = Transfers(env, fabric), []
    for when, name, factor in changes:
        env.timeout(when).callbacks.append(lambda _, name=name, factor=factor: transfers.set_bandwidth(name, factor))
    price = fabric.group((0, 1)).price(AllReduce, BYTES)
    env.timeout(0.01).callbacks.append(lambda _: transfers.begin(price, lambda: found.append(env.now - 0.01)))
    env.run()
    (seconds,) = found
    return seconds


BUS = Network("bus", BANDWIDTH, LATENCY)
MATRIX = Network("matrix", matrix=((0.0, BANDWIDTH), (BANDWIDTH, 0.0)), latency=LATENCY)


@pytest.mark.parametrize(
    ("network", "name", "nodes"),
    [(STAR, "worker 1", ()), (TWO_LEVEL, "node 0", (0, 1)), (BUS, "bus", ()), (MATRIX, "1 to 0", ())],
)
def test_a_link_that_slows_down_slows_what_crosses_it(network: Network, name: str, nodes: tuple[int, ...]) -> None:
    carry = (2 if network is BUS else 1) * BYTES / BANDWIDTH
    whole = 2 * LATENCY + carry
    assert timed(network, nodes=nodes) == near(whole)
    assert timed(network, (0.0, name, 0.5), nodes=nodes) == near(whole + carry)
    assert timed(network, (0.112, name, 0.5), nodes=nodes) == near(whole + carry - 0.1)
    assert timed(network, (0.112, name, 0.5), (0.312, name, 1), nodes=nodes) == near(whole + 0.1)
    assert timed(network, (0.112, name, 0), (9.112, name, 1), nodes=nodes) == near(whole + 9)
    assert timed(network, (0.0, name, 0.5), (0.005, name, 1), nodes=nodes) == timed(network, nodes=nodes)
    assert timed(network, (5.0, name, 0.5), nodes=nodes) == timed(network, nodes=nodes)


@pytest.mark.parametrize(
    ("network", "name"),
    [(STAR, "node 0"), (BUS, "worker 0"), (MATRIX, "1 to 9"), (TWO_LEVEL, "bus"), (STAR, "worker x")],
)
def test_a_link_that_is_not_there_is_refused(network: Network, name: str) -> None:
    with pytest.raises(ScenarioError, match=f"a {network.shape} network has no link '{name}'; write "):
        timed(network, (0.0, name, 0.5), nodes=(0, 1))
