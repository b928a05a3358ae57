"""Prices on an idle network: each collective algorithm and each network shape against its formula."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import yaml

from kit.paths import DOCS
from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.network import NetworkSpec
from paceline.config.timing import BackgroundTraffic, CollectiveAlgorithm, Link, Network, NetworkShape
from paceline.program.effects import AllGather, AllReduce, Broadcast, Collective, ReduceScatter
from paceline.program.errors import ScenarioError
from paceline.program.traffic import traffic
from paceline.sim.collectives import ALGORITHMS, SHORT
from paceline.sim.network import Fabric
from paceline.sim.topology import SHAPES

ALPHA, BANDWIDTH, ADDING = 3e-5, 2e9, 5e9
BETA, GAMMA = 1 / BANDWIDTH, 1 / ADDING
MEMBERS = range(2, 10)
SIZES = (0, 8, SHORT, SHORT + 1, 100_001, 10**8)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=1e-15)


def network(collective: str, shape: str = "star", **more: Any) -> Network:
    return Network(shape, BANDWIDTH, ALPHA, collective=collective, reduce_bandwidth=ADDING, **more)


def seconds(kind: type[Collective], nbytes: int, n: int, *args: Any, **more: Any) -> float:
    nodes = more.pop("nodes", ())
    return Fabric(network(*args, **more), nodes).price(kind, nbytes, n)[0]


# --- formulas of METHODS, on a star: alpha, beta and gamma of every algorithm -----------------------------------------


def floor_lg(n: int) -> int:
    return n.bit_length() - 1


def ceil_lg(n: int) -> int:
    return (n - 1).bit_length()


def recursive_doubling(n: int, m: float) -> float:
    if n == 2 ** floor_lg(n):
        return floor_lg(n) * (ALPHA + m * BETA + m * GAMMA)
    return (floor_lg(n) + 2) * (ALPHA + m * BETA) + (floor_lg(n) + 1) * m * GAMMA


def ring(n: int, m: float) -> float:
    part = (n - 1) / n * m
    return 2 * (n - 1) * ALPHA + 2 * part * BETA + part * GAMMA


def rabenseifner(n: int, m: float) -> float:
    part = (n - 1) / n
    if n == 2 ** floor_lg(n):
        return 2 * floor_lg(n) * ALPHA + 2 * part * m * BETA + part * m * GAMMA
    return (2 * floor_lg(n) + 2) * ALPHA + (2 * part + 2) * m * BETA + (1 + part) * m * GAMMA


def tree(n: int, m: float) -> float:
    return 2 * ceil_lg(n) * (ALPHA + m * BETA) + ceil_lg(n) * m * GAMMA


def auto(n: int, m: float) -> float:
    return recursive_doubling(n, m) if m <= 2048 else rabenseifner(n, m)


def ordered(n: int, m: float) -> float:
    if (n - 1) * m <= 65_536:
        return ALPHA + (n - 1) * m * (BETA + GAMMA)
    return 2 * ALPHA + (n - 1) / n * m * (2 * BETA + GAMMA)


FORMULAS = {f.__name__: f for f in (recursive_doubling, ring, rabenseifner, tree, auto, ordered)}


@pytest.mark.parametrize("n", MEMBERS)
@pytest.mark.parametrize("algorithm", FORMULAS)
def test_all_reduce_takes_its_formula(algorithm: str, n: int) -> None:
    for nbytes in SIZES:
        assert seconds(AllReduce, nbytes, n, algorithm) == near(FORMULAS[algorithm](n, nbytes))


@pytest.mark.parametrize("n", MEMBERS)
def test_gathers_scatters_and_broadcasts_take_their_formulas(n: int) -> None:
    for m in SIZES:
        part = (n - 1) / n * m
        for algorithm in ("ring", "recursive_doubling", "rabenseifner", "tree", "two_level", "auto"):
            assert seconds(AllGather, m, n, algorithm) == near((n - 1) * ALPHA + part * BETA)
            assert seconds(ReduceScatter, m, n, algorithm) == near((n - 1) * ALPHA + part * (BETA + GAMMA))
        assert seconds(AllGather, m, n, "ordered") == near(ALPHA + part * BETA)
        assert seconds(ReduceScatter, m, n, "ordered") == near(ALPHA + part * (BETA + GAMMA))
        for algorithm in ("ordered", "tree"):
            assert seconds(Broadcast, m, n, algorithm) == near(ceil_lg(n) * (ALPHA + m * BETA))


def test_one_worker_alone_sends_nothing() -> None:
    for algorithm in (*FORMULAS, "two_level"):
        for kind in (AllReduce, AllGather, ReduceScatter, Broadcast):
            price = Fabric(network(algorithm)).group([3]).price(kind, 10**6)
            assert (price.seconds, price.traffic.sent, price.links) == (0.0, 0.0, frozenset())


@pytest.mark.parametrize("n", MEMBERS)
def test_bytes_that_a_member_sends(n: int) -> None:
    """The ordered exchange's are the transport's to the last bit; the others' as their messages add up."""
    m, surplus = 10**6, n - 2 ** floor_lg(n)
    low, part = 2 ** floor_lg(n), 2 * (n - 1) / n * m
    expected = {
        "ring": part,
        "tree": part,
        "recursive_doubling": (floor_lg(n) * low + 2 * surplus) * m / n,
        "rabenseifner": (low * part + 2 * surplus * m) / n,
    }
    for algorithm, sent in expected.items():
        assert Fabric(network(algorithm)).price(AllReduce, m, n)[1].sent == near(sent)
    for kind in (AllReduce, AllGather, ReduceScatter, Broadcast):
        assert Fabric(network("ordered")).price(kind, m, n)[1] == traffic(kind, m, n)


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", MEMBERS)
def test_on_a_bus_all_bytes_pass_one_after_another(n: int) -> None:
    m, surplus = 10**7, n - 2 ** floor_lg(n)
    low = 2 ** floor_lg(n)
    added = (n - 1) / n * m * GAMMA
    assert seconds(AllReduce, m, n, "ordered", "bus") == near(2 * ALPHA + 2 * (n - 1) * m * BETA + added)
    assert seconds(AllReduce, m, n, "ring", "bus") == near(2 * (n - 1) * (ALPHA + m * BETA) + added)
    assert seconds(Broadcast, m, n, "ring", "bus") == near(ceil_lg(n) * ALPHA + (n - 1) * m * BETA)
    steps, additions = floor_lg(n) + 2 * bool(surplus), floor_lg(n) + bool(surplus)
    carried = floor_lg(n) * low + 2 * surplus
    expected = steps * ALPHA + carried * m * BETA + additions * m * GAMMA
    assert seconds(AllReduce, m, n, "recursive_doubling", "bus") == near(expected)


INSIDE = Link(50e9, 1e-6)
NODES = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)


def two_level(kind: type[Collective], m: int, n: int, algorithm: str, nodes: tuple[int, ...] = NODES) -> float:
    return seconds(kind, m, n, algorithm, "two_level", inside=INSIDE, nodes=nodes)


def test_within_a_node_only_its_links_count() -> None:
    m = 10**8
    expected = 6 * INSIDE.latency + 1.5 * m / INSIDE.bandwidth + 0.75 * m * GAMMA
    assert two_level(AllReduce, m, 4, "ring") == near(expected)
    assert two_level(AllReduce, m, 4, "ordered") == near(expected - 4 * INSIDE.latency)


def test_between_nodes_the_uplink_is_what_limits() -> None:
    m, n = 10**8, 12
    part = (n - 1) / n * m
    # A ring crosses each uplink once in each direction; of the exchange of all with all, 4 * 8 pairs do, of 11 each.
    assert two_level(AllReduce, m, n, "ring") == near(22 * ALPHA + part * (2 * BETA + GAMMA))
    assert two_level(AllReduce, m, n, "ordered") == near(2 * ALPHA + 4 * 8 / 11 * 2 * part * BETA + part * GAMMA)
    assert two_level(AllReduce, m, n, "ring", tuple(range(12))) == near(22 * ALPHA + part * (2 * BETA + GAMMA))
    assert two_level(AllReduce, m, n, "ring", (0,) * 12) < two_level(AllReduce, m, n, "ring") / 4


@pytest.mark.parametrize("nodes", [NODES, (0, 1, 1, 1, 2, 2), (0, 1, 0, 1, 0), (0, 0, 0)])
def test_two_level_reduces_in_the_node_then_across_then_broadcasts(nodes: tuple[int, ...]) -> None:
    sizes = [nodes.count(node) for node in set(nodes)]
    inside, across = ceil_lg(max(sizes)), len(sizes)
    for m in (1000, 10**8):
        ends = 2 * inside * (INSIDE.latency + m / INSIDE.bandwidth) + inside * m * GAMMA
        expected = ends + (auto(across, m) if across > 1 else 0)
        assert two_level(AllReduce, m, len(nodes), "two_level", nodes) == near(expected)
        if across > 1:
            assert two_level(AllReduce, m, len(nodes), "auto", nodes) == near(expected)
    assert two_level(AllReduce, 10**8, 3, "auto", (0, 1, 2)) == near(rabenseifner(3, 10**8))


def test_a_matrix_has_a_link_for_every_ordered_pair() -> None:
    matrix = ((0.0, 1e9, 4e9), (2e9, 0.0, 8e9), (5e9, 5e8, 0.0))
    m = 3 * 10**8
    # Around the ring 0 -> 1 -> 2 -> 0 the slowest link is 1e9; of all pairs, each with half of a member's bytes, 5e8.
    found = seconds(AllReduce, m, 3, "ring", "matrix", matrix=matrix)
    assert found == near(4 * ALPHA + 2 * 2 / 3 * m / 1e9 + 2 / 3 * m * GAMMA)
    found = seconds(AllReduce, m, 3, "ordered", "matrix", matrix=matrix)
    assert found == near(2 * ALPHA + 2 / 3 * m / 5e8 + 2 / 3 * m * GAMMA)
    fabric = Fabric(network("tree", "matrix", matrix=matrix))
    from_0, from_2 = (fabric.price(Broadcast, m, 3, root)[0] for root in (0, 2))
    assert from_0 == near(2 * ALPHA + m / 4e9 + m / 1e9)  # 0 -> 2, then 0 -> 1
    assert from_2 == near(2 * ALPHA + m / 5e8 + m / 5e9)  # 2 -> 1, then 2 -> 0
    with pytest.raises(ScenarioError, match="needs the bandwidth from worker"):
        fabric.price(AllReduce, m, 4)


def test_a_star_is_as_fast_as_its_slowest_port() -> None:
    ports = (BANDWIDTH, BANDWIDTH, BANDWIDTH / 4, BANDWIDTH)
    for algorithm in ("ordered", "ring"):
        slow = seconds(AllReduce, 10**8, 4, algorithm, ports=ports)
        assert slow == near(FORMULAS[algorithm](4, 10**8) + 1.5 * 10**8 * 3 * BETA)
        assert seconds(AllReduce, 10**8, 2, algorithm, ports=ports) == near(FORMULAS[algorithm](2, 10**8))
    # A binomial broadcast to worker 2 from 0 comes first, and to 3 from 1 with the rest.
    assert seconds(Broadcast, 10**8, 4, "tree", ports=ports) == near(2 * ALPHA + (4 + 4) * 10**8 * BETA)


def test_efficiency_is_the_part_of_the_bandwidth_that_is_reached() -> None:
    bandwidth = {"bandwidth": "1 GB/s"}
    matrix = {"matrix": [[0, "1 GB/s"], ["1 GB/s", 0]]}
    ports = [{"count": 2, "port": "1 GB/s"}]
    for shape, given, workers in (
        ("star", bandwidth, [{"count": 2}]),
        ("star", bandwidth, ports),
        ("bus", bandwidth, [{"count": 2}]),
        ("matrix", matrix, [{"count": 2}]),
    ):
        whole, part = (
            Fabric(described(workers, network={"shape": shape, "efficiency": e, **given})).price(AllReduce, 10**9, 2)[0]
            for e in (1, 0.8)
        )
        assert part == near(whole / 0.8)


def test_the_tables_of_shapes_and_algorithms_are_what_scenarios_can_say() -> None:
    assert tuple(SHAPES) == get_args(NetworkShape)
    assert tuple(ALGORITHMS) == get_args(CollectiveAlgorithm)


# --- what METHODS states ----------------------------------------------------------------------------------------------


def test_vit_l_16_at_1_gbit_takes_the_stated_seconds() -> None:
    """P = 304,326,632 parameters in fp16, 4 workers: an all-reduce 7.30 s; two gathers and a scatter 10.96 s."""
    nbytes = 2 * 304_326_632
    fabric = Fabric(Network("star", 1e9 / 8))
    assert fabric.price(AllReduce, nbytes, 4)[0] == pytest.approx(7.30, abs=5e-3)
    fsdp = 2 * fabric.price(AllGather, nbytes, 4)[0] + fabric.price(ReduceScatter, nbytes, 4)[0]
    assert fsdp == pytest.approx(10.96, abs=5e-3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ScenarioError, match="network collective is 'gossip'; write one of ordered, ring"):
        Fabric(Network(collective="gossip"))
    with pytest.raises(ScenarioError, match="two_level network needs inside"):
        Fabric(Network("two_level"))


# --- the scenario's section -------------------------------------------------------------------------------------------


def described(workers: list[dict[str, Any]] | None = None, **more: Any) -> Network:
    groups = workers or [{"count": 2}]
    cluster = Cluster.model_validate({"workers": [{"speed": "1 samples/s"} | group for group in groups], **more})
    return build_timing(cluster, None, "", 0).network


def test_what_is_written_is_what_is_priced() -> None:
    found = described(
        network={
            "shape": "two_level",
            "bandwidth": "25 Gbit/s",
            "latency": "50 ms",
            "efficiency": 0.8,
            "inside": {"bandwidth": "nvlink3", "latency": "2 us", "efficiency": 0.5},
            "collective": "auto",
            "reduce_bandwidth": "20 GB/s",
        },
        background=[{"from": 0, "to": 1, "bytes": "100 MB", "every": "1 s", "start": "3 s"}],
    )
    assert found == Network(
        "two_level",
        25e9 / 8 * 0.8,
        0.05,
        inside=Link(found.inside.bandwidth if found.inside else 0, 2e-6),
        collective="auto",
        reduce_bandwidth=20e9,
        background=(BackgroundTraffic(0, 1, None, 100e6, 1.0, 3.0),),
    )
    assert found.inside is not None
    assert 1e11 < found.inside.bandwidth < 2e11  # half of 300 GB/s
    short = described(network={"shape": "two_level", "link": "1gbe", "inside": "nvlink3"}).inside
    assert short == Link(2 * found.inside.bandwidth, 0.0)
    ports = described([{"count": 2}, {"port": "10gbe"}], network={"bandwidth": "25 Gbit/s"}).ports
    assert ports == (25e9 / 8, 25e9 / 8, 10e9 / 8)
    rows = [["0 B/s", "1 GB/s"], ["2 GB/s", 0]]
    assert described(network={"shape": "matrix", "matrix": rows}).matrix == ((0.0, 1e9), (2e9, 0.0))


FAST = {"bandwidth": "1 GB/s"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"network": {"shape": "two_level", **FAST}}, "shape two_level needs inside, like inside: {bandwidth"),
        (
            {"network": {"shape": "matrix"}},
            r"cluster.network: shape matrix needs matrix, like matrix: \[\[0, 1 Gbit/s\]",
        ),
        ({"network": {"inside": FAST}}, "inside is for shape: two_level, and this is a star; remove one"),
        ({"network": {"matrix": [["0 B/s"]]}}, "matrix is for shape: matrix, and this is a star"),
        ({"network": {"shape": "matrix", "matrix": [[0, "1 GB/s"]]}}, "row 0 has 2 bandwidths for 1 rows"),
        ({"network": {"shape": "matrix", "matrix": [[0, 0], [0, 0]]}}, "the bandwidth from 0 to 1 is 0"),
        ({"network": {"shape": "matrix", "matrix": [[0]]}}, "cluster.network.matrix is for 1 workers, and there are 2"),
        ({"network": {"shape": "matrix", "matrix": [[0]], **FAST}}, "matrix and bandwidth are both given; keep one"),
        ({"network": {"efficiency": 1.5, **FAST}}, "less than or equal to 1"),
        ({"network": {"efficiency": 0.5}}, "cluster.network.efficiency has no effect on a network without a bandwidth"),
        ({"network": {"collective": "gossip"}}, "'ordered', 'ring', 'recursive_doubling'"),
        ({"workers": [{"port": "1 GB/s"}], "network": {"shape": "bus", **FAST}}, "cluster.workers: port is for a star"),
        ({"background": [{"from": 0, "to": 1, **FAST}]}, "cluster.background has no effect on a network without"),
        ({"background": [{"from": 1, "to": 1, **FAST}]}, "from and to are both 1"),
        ({"background": [{"from": 0, "to": 1}]}, "how much. give bandwidth"),
        ({"background": [{"from": 0, "to": 1, "bytes": "1 MB"}]}, "bytes and every belong together"),
        ({"background": [{"from": 0, "to": 2, **FAST}], "network": FAST}, r"background\[0\]: worker 2 does not exist"),
    ],
)
def test_a_network_that_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises((ScenarioError, ValueError), match=message):
        described(**more)


PAGE = (DOCS / "network.md").read_text()


def test_the_page_names_every_shape_algorithm_and_key() -> None:
    fields = NetworkSpec.model_fields
    names = [*get_args(fields["shape"].annotation), *get_args(fields["collective"].annotation)]
    first = re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)
    assert first == ["shape", *names[:4], "collective", *names[4:]]
    for key in fields:
        assert f"`{key}" in PAGE, key


def test_the_pages_background_is_read() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found = described([{"count": 4}], network=FAST, background=yaml.safe_load(text)["cluster"]["background"]).background
    assert found == (BackgroundTraffic(0, 1, 2e9 / 8), BackgroundTraffic(2, 3, None, 100e6, 1.0, 5.0))
