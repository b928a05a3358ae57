"""`--emulate-network`: the star that a scenario's cluster describes, for the launcher to lay around the real run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from .config.machines import Cluster
from .config.network import build_network
from .config.scenario import Scenario
from .program.errors import ScenarioError
from .runtime.star import ON_STAR, Star
from .terminal import warn

_FLAG = "--emulate-network"


def star_for(scenarios: Sequence[tuple[str, Scenario]], ranks: int | None = None) -> Star | None:
    """The star on which the ranks of one mpirun run some titled scenarios; None where none of them asks for one.

    Prints a warning for what differs from the described network. ScenarioError for a network that is not a star, for
    scenarios on different networks, and where `ranks` is not the number of workers.
    """
    title, first = scenarios[0]
    star = _star_of(first)
    for other, scenario in scenarios[1:]:
        if _star_of(scenario) != star:
            raise ScenarioError(f"{_FLAG}: {title} and {other} need different networks; train them in two commands")
    if star is None:
        return None
    if ranks not in (None, len(star.nodes)):
        raise ScenarioError(
            f"{_FLAG}: -n {ranks}, but the star has a place for each of {len(star.nodes)} workers; leave out -n"
        )
    network = first.cluster.network
    if network.latency:
        warn(
            f"{_FLAG} adds no latency: cluster.network describes {network.latency * 1e6:g} us, and messages take what "
            "they take here"
        )
    if network.inside:
        warn(
            f"{_FLAG} shapes the nodes' uplinks alone: within a node messages pass through TCP as fast as they do here"
        )
    return star


def check_star(scenario: Scenario) -> None:
    """On a rank: ScenarioError where the scenario asks for a star, and the ranks were not started on one."""
    if scenario.train.emulate_network and ON_STAR not in os.environ:
        raise ScenarioError(
            f"{_FLAG}: these ranks were started by another mpirun; leave that out, so that paceline starts them on the "
            "star, or write --no-emulate-network"
        )


def _star_of(scenario: Scenario) -> Star | None:
    return described_star(scenario.cluster) if scenario.train.emulate_network else None


def described_star(cluster: Cluster) -> Star:
    """The star that a cluster describes: a node for each worker, or for each node of a two-level network.

    ScenarioError where it describes something else.
    """
    given, places = cluster.network, cluster.places
    nodes = tuple(place.node for place in places)
    if given.shape not in ("star", "two_level"):
        raise ScenarioError(f"{_FLAG}: cluster.network.shape is {given.shape}; only star and two_level can be laid")
    if given.shape == "star" and len(set(nodes)) < len(nodes):
        raise ScenarioError(
            f"{_FLAG}: workers share a node, and in a star each has a port of its own; leave out node, or write "
            "cluster.network.shape: two_level, whose nodes have a port each"
        )
    if cluster.background:
        raise ScenarioError(f"{_FLAG}: background traffic cannot be laid; write --set cluster.background=[]")
    # A real port has the whole bandwidth: what transfers lose of it, they lose here as well.
    whole = given.model_copy(update={"efficiency": 1.0})
    network = build_network(whole, None, [place.group.port for place in places], (), cluster.inside)
    rates = network.ports or (network.bandwidth,) * (max(nodes) + 1)
    if math.isinf(max(rates)):
        raise ScenarioError(f"{_FLAG}: how fast are the ports? give cluster.network a bandwidth, like 1 Gbit/s")
    return Star(nodes, rates)
