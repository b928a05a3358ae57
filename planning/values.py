"""What a way of a plan takes: a few of its rounds, simulated.

Rule: a way's value depends on the way alone, not on what was simulated before, so that a search which leaves ways out
finds what trying them all would find.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from ..algorithms.phantom import Phantoms
from ..algorithms.rounds import State
from ..config.scenario import validate
from ..config.sections import described
from ..config.timing import Timing
from ..job import Job, resolve
from ..program.errors import ScenarioError
from ..program.outcome import Hooks, Outcome
from ..studies.front import Node
from .lab import Lab, quiet
from .space import Way, collectives

ROUNDS = 2  # that are simulated without noise; the first is left out, since it begins with what is done once
DRAWS = 4  # clusters that are drawn where there is noise
NOISY = 32  # steps that are simulated on each of them, at least
LEAST_ROUNDS = 4
# How far a mean over these draws may lie below the value without noise. In expectation it never does: a clock is a
# maximum of sums of times, so that its mean is no less than the clock of the mean times (Jensen).
BELOW = 0.02


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
        return self._mixed(way, self._noisy, lambda part: self.drawn(part)[0])

    def without_noise(self, way: Way) -> float | None:
        """The same without noise."""
        return self._mixed(way, self._known, self._with_others)

    def _with_others(self, way: Way) -> float:
        """Seconds for a sample. What differs by its collective alone has the same program, and is simulated with it."""
        names = collectives(self.lab, way.team)
        job = self.job(way, ROUNDS)
        timing = quiet(job.timing)
        networks = [dataclasses.replace(timing.network, collective=name) for name in names]
        found = simulated(job, [dataclasses.replace(timing, network=network) for network in networks])
        self._known |= {(*way.key[:-1], name): clock.seconds for name, (clock, _) in zip(names, found, strict=True)}
        return found[names.index(way.collective)][0].seconds

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

    def job(self, way: Way, rounds: int) -> Job:
        """A way in which nothing changes, with a budget of so many rounds. ScenarioError where it cannot be had."""
        document = described(way.team.scenario)
        way.write(document)
        document |= {"budget": {"rounds": rounds}, "report": {"log": "1 rounds"}, "checkpoint": {}, "faults": []}
        document["workload"]["lr_schedule"] = "constant"
        job = self._latest = resolve(validate(document, "plan"), self.lab.folder, self._latest, self.lab.problem)
        # The evaluation at the end does not count, and takes long to simulate where units are fetched for it.
        job.problem.shape = dataclasses.replace(job.problem.shape, test=1)
        return job

    def drawn(self, way: Way) -> tuple[float, float]:
        """(mean, two standard deviations) of the seconds for a sample over the clusters drawn."""
        rounds = 1 + max(LEAST_ROUNDS, math.ceil(NOISY / way.H))
        job = self.job(way, rounds)
        noise = job.timing.noise
        draws = [dataclasses.replace(noise, seed=noise.seed + draw) for draw in range(DRAWS)]
        timings = [dataclasses.replace(job.timing, faults=(), noise=draw) for draw in draws]
        found = [clock.seconds for clock, _ in simulated(job, timings)]
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


def simulated(job: Job, timings: Sequence[Timing]) -> list[tuple[Clock, list[Outcome]]]:
    """The clock and the workers' outcomes on each of several clusters, at once where that can be."""
    from ..sim.clocks import NotAlike
    from ..sim.cohort import events_needed, most_clusters, simulate_together
    from ..sim.cohort_meetings import NeedsEvents

    if 1 < len(timings) <= most_clusters(timings[0]) and not events_needed(timings[0]):
        clocks = [Clock() for _ in timings]
        try:
            found = simulate_together(job.cohorts(_phantoms(job)), timings, [clock.hooks for clock in clocks])
        except (NotAlike, NeedsEvents):
            pass
        else:
            return list(zip(clocks, found, strict=True))
    return [_alone(job, timing) for timing in timings]


def _alone(job: Job, timing: Timing) -> tuple[Clock, list[Outcome]]:
    from ..sim.cohort import simulate
    from ..sim.cohort_meetings import NeedsEvents

    clock = Clock()
    try:
        return clock, simulate(job.cohorts(_phantoms(job)), timing, clock.hooks)
    except NeedsEvents:
        from ..sim.engine import simulate as by_event

        clock = Clock()
        return clock, by_event(job.shared_programs(_phantoms(job), State()), timing, clock.hooks)
