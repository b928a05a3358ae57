"""The scenario's faults in a real run: what cannot be done for real, and what a rank does to itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .algorithms.rounds import State
from .config.faults import SlowLink, remaining, workers_hit
from .config.scenario import Scenario
from .config.timing import Timing
from .emulated_network import described_star
from .job import Job
from .program.errors import ScenarioError
from .records import struck
from .runtime.faults import RankFaults
from .runtime.star import Port
from .terminal import say


def check_real(title: str, scenario: Scenario, timing: Timing) -> None:
    """ScenarioError where a fault cannot be done for real."""
    for place, fault in enumerate(scenario.faults):
        if not isinstance(fault, SlowLink):
            continue
        where = f"{title}: faults[{place}]"
        if not scenario.train.emulate_network:
            raise ScenarioError(
                f"{where}: only the links of an emulated network can be made slow for real; write --emulate-network"
            )
        inner, hint = scenario.cluster.network.shape == "two_level", 'write link: "worker 0"'
        if inner:
            hint = 'within a node no link is shaped; write link: "node 0", for its uplink'
        kind = (fault.link or "").partition(" ")[0]
        shaped = kind == "node" if inner else kind in ("worker", "")
        if not shaped or not workers_hit(fault, timing.nodes):
            raise ScenarioError(f"{where}.link: {fault.link or 'all links'} cannot be made slow for real; {hint}")


def rank_faults(job: Job, rank: int, directory: Path, state: State, seconds: float) -> RankFaults | None:
    """The faults of this rank that have not struck yet; None where no fault names it.

    state: with which the program begins.
    seconds: of the run's parts before the first one of these processes.
    """
    found = remaining(job.scenario.faults, struck.read(directory))
    own = [(number, fault) for number, fault in found if rank in workers_hit(fault, job.timing.nodes)]
    if not own:
        return None
    linked = any(isinstance(fault, SlowLink) for _, fault in own)
    faults = RankFaults(own, job.timing.noise.seed, _slowing(job, rank) if linked else None)
    faults.go_on(state.round, state.step, seconds)
    return faults


def _slowing(job: Job, rank: int) -> Callable[[float], None] | None:
    """What makes the port of this rank's node slower; None where another rank there does it."""
    star = described_star(job.scenario.cluster)
    node = star.nodes[rank]
    if star.nodes.index(node) != rank:
        return None
    port = Port(node, star.rates[node])

    def slow(factor: float) -> None:
        try:
            port.slow(factor)
        except OSError as error:
            say(f"faults: a slow link: {error}")

    return slow
