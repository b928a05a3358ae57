"""What a way of a plan takes: a few of its rounds, simulated.

Rule: a way's value depends on the way alone, not on what was simulated before, so that a search which leaves ways out
finds what trying them all would find.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from .algorithms.phantom import Phantoms
from .algorithms.rounds import State
from .config.scenario import Scenario, assign, validate
from .config.sections import described
from .config.timing import Network, Timing
from .job import Job, resolve
from .plan_lab import Lab, quiet
from .plan_space import Way
from .program.errors import ScenarioError
from .program.outcome import Hooks, Outcome
from .studies.front import Node

ROUNDS = 2  # that are simulated without noise; the first is left out, since it begins with what is done once
DRAWS = 4  # clusters that are drawn where there is noise
NOISY = 32  # steps that are simulated on each of them, at least
LEAST_ROUNDS = 4
# How far a mean over these draws may lie below the value without noise. In expectation it never does: a clock is a
# maximum of sums of times, so that its mean is no less than the clock of the mean times (Jensen).
BELOW = 0.02


@dataclass(frozen=True)
class Measured:
    """A way's steady state."""

    seconds: float  # of a sample
    spread: float  # two standard deviations of that, over the clusters drawn; 0 without noise
    idle: tuple[float, ...]  # of each worker, the share of the time that it does not compute
    sent: float  # bytes between two syncs, of the worker that sends most


def scenario_of(way: Way, changes: Mapping[str, Any] | None = None) -> Scenario:
    """The way as a scenario. changes: further keys."""
    document = described(way.team.scenario)
    document["workload"].pop("total_batch", None)
    for key, value in {**way.changes, **(changes or {})}.items():
        assign(document, key, value, key)
    return validate(document, "plan")


@dataclass(eq=False)
class Values:
    """The values of a lab's ways, each simulated once."""

    lab: Lab
    refused: dict[str, Way] = field(default_factory=dict)  # why ways cannot be had, each reason with its first way
    _known: dict[Hashable, float | None] = field(default_factory=dict, init=False)
    _noisy: dict[Hashable, float | None] = field(default_factory=dict, init=False)
    _latest: Job | None = field(default=None, init=False)

    def __len__(self) -> int:
        """The number of ways that were simulated, or parts of ways."""
        return len(self._known.keys() | self._noisy.keys())

    @property
    def noisy(self) -> bool:
        """Whether times vary."""
        noise = self.lab.scenario.cluster.noise
        sigmas = (noise.sigma, noise.worker_sigma, noise.run_sigma or 0.0, noise.network_sigma or 0.0)
        return noise.source == "profile" or max(sigmas) > 0

    def seconds(self, way: Way) -> float | None:
        """Seconds for a sample, with the scenario's noise; None where the way cannot be had."""
        if not self.noisy:
            return self.without_noise(way)
        return self._mixed(way, self._noisy, lambda part: self._mean(part)[0])

    def without_noise(self, way: Way) -> float | None:
        """The same without noise."""
        return self._mixed(way, self._known, lambda part: self._steady(part)[0])

    def _mixed(self, way: Way, known: dict[Hashable, float | None], simulate: Callable[[Way], float]) -> float | None:
        """The mean over the parts of the run. known: of the parts that were simulated before."""
        total = 0.0
        for share, part in way.parts():
            if part.key not in known:
                try:
                    known[part.key] = simulate(part)
                except ScenarioError as error:
                    self.refused.setdefault(str(error), part)
                    known[part.key] = None
            seconds = known[part.key]
            if seconds is None:
                return None
            total += share * seconds
        return total

    def refined(self, nodes: Sequence[Node[Way]]) -> list[Node[Way]]:
        """The nodes for a search with noise: before a way is simulated with noise, it is simulated without."""
        return list(map(self._refined, nodes)) if self.noisy else list(nodes)

    def _refined(self, node: Node[Way]) -> Node[Way]:
        way = node.candidate
        bound = node.bound * (1 - BELOW)
        if way is None:
            return Node(bound, node.gap, node.place, None, lambda: map(self._refined, node.children()))

        def simulated() -> Iterator[Node[Way]]:
            seconds = self.without_noise(way)
            if seconds is not None:
                yield Node(seconds * (1 - BELOW), node.gap, node.place, way)

        return Node(bound, node.gap, node.place, None, simulated)

    def measured(self, way: Way) -> Measured:
        """What the table tells of a way. ScenarioError where it cannot be had."""
        parts = [(share, self._part(part), part.gap) for share, part in way.parts()]
        seconds = sum(share * part.seconds for share, part, _ in parts)
        # What is a share of time is averaged over time, what is of a sync over the syncs.
        times = [share * part.seconds / seconds for share, part, _ in parts]
        syncs = [share * way.gap / gap for share, _, gap in parts]
        idle = zip(*(part.idle for _, part, _ in parts), strict=True)
        return Measured(
            seconds,
            sum(share * part.spread for share, part, _ in parts),
            tuple(sum(t * share for t, share in zip(times, each, strict=True)) for each in idle),
            sum(n * part.sent for n, (_, part, _) in zip(syncs, parts, strict=True)),
        )

    def _part(self, way: Way) -> Measured:
        seconds, round, outcomes = self._steady(way)
        idle = tuple(max(0.0, 1 - one.computing / ROUNDS / round) if round else 0.0 for one in outcomes)
        sent = max(sum(n for phase, n in one.sent.items() if phase not in ("begin", "evaluate")) for one in outcomes)
        seconds, spread = self._mean(way) if self.noisy else (seconds, 0.0)
        return Measured(seconds, spread, idle, sent / ROUNDS)

    def _steady(self, way: Way) -> tuple[float, float, list[Outcome]]:
        job = self.job(way, ROUNDS)
        return _period(job, quiet(job.timing))

    def relaxed(self, way: Way, latency: bool) -> float:
        """Seconds for a sample without noise on a network that takes no time; latency: or on one without latency."""
        return sum(share * self._relaxed(part, latency) for share, part in way.parts())

    def _relaxed(self, way: Way, latency: bool) -> float:
        job = self.job(way, ROUNDS)
        timing = quiet(job.timing)
        network = timing.network
        if latency:
            inside = network.inside and dataclasses.replace(network.inside, latency=0.0)
            network = dataclasses.replace(network, latency=0.0, inside=inside, beside_latency=0.0)
        else:
            network = Network()
        return _period(job, dataclasses.replace(timing, network=network))[0]

    def job(self, way: Way, rounds: int) -> Job:
        """A way in which nothing changes, with a budget of so many rounds. ScenarioError where it cannot be had."""
        changes = {
            "budget": {"rounds": rounds},
            "report": {"log": "1 rounds"},
            "checkpoint": {},
            "faults": [],
            "workload.lr_schedule": "constant",
        }
        self._latest = resolve(scenario_of(way, changes), self.lab.folder, self._latest)
        return self._latest

    def _mean(self, way: Way) -> tuple[float, float]:
        """(mean, two standard deviations) of the seconds for a sample over the clusters drawn."""
        rounds = 1 + max(LEAST_ROUNDS, math.ceil(NOISY / way.H))
        job = self.job(way, rounds)
        noise = job.timing.noise
        draws = [dataclasses.replace(noise, seed=noise.seed + draw) for draw in range(DRAWS)]
        found = _together(job, [dataclasses.replace(job.timing, faults=(), noise=draw) for draw in draws])
        return fmean(found), 2 * stdev(found)


class Clock:
    """Reads the clock at the end of each round."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, int]] = []
        self.hooks = Hooks(log=lambda worker, seconds, fields: self._lines.append((seconds, fields["samples"])))

    @property
    def seconds(self) -> float:
        """Of a sample, from the end of the first round on."""
        (begin, before), (end, after) = self._lines[0], self._lines[-1]
        return (end - begin) / (after - before)

    @property
    def round(self) -> float:
        """Seconds of a round."""
        return (self._lines[-1][0] - self._lines[0][0]) / (len(self._lines) - 1)


def _phantoms(job: Job) -> Phantoms:
    return job.problem.phantoms(job.plan)


def _together(job: Job, timings: Sequence[Timing]) -> list[float]:
    """Seconds for a sample on each of several clusters, at once where that can be."""
    from .sim.clocks import NotAlike
    from .sim.cohort import events_needed, most_clusters, simulate_together
    from .sim.cohort_meetings import NeedsEvents

    if not events_needed(timings[0]) and most_clusters(timings[0]) >= len(timings):
        clocks = [Clock() for _ in timings]
        try:
            simulate_together(job.cohorts(_phantoms(job)), timings, [clock.hooks for clock in clocks])
        except (NotAlike, NeedsEvents):
            pass
        else:
            return [clock.seconds for clock in clocks]
    return [_period(job, timing)[0] for timing in timings]


def _period(job: Job, timing: Timing) -> tuple[float, float, list[Outcome]]:
    """(seconds for a sample, seconds of a round, outcomes of all rounds)."""
    from .sim.cohort import simulate
    from .sim.cohort_meetings import NeedsEvents

    clock = Clock()
    try:
        outcomes = simulate(job.cohorts(_phantoms(job)), timing, clock.hooks)
    except NeedsEvents:
        from .sim.engine import simulate as by_event

        clock = Clock()
        outcomes = by_event(job.shared_programs(_phantoms(job), State()), timing, clock.hooks)
    return clock.seconds, clock.round, outcomes
