"""What the table of a plan tells of a way: its time, who is idle, what travels, what memory holds, what bounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass, field

from ..config.timing import Network
from ..memory_check import predicted
from .lab import quiet
from .space import Way
from .values import ROUNDS, Values, simulated


@dataclass(frozen=True)
class Measured:
    """A way's steady state. Seconds are of a sample."""

    seconds: float
    spread: float  # two standard deviations of them, over the clusters drawn; 0 without noise
    quiet: float  # without noise
    no_latency: float  # and on a network without latency
    computing: float  # and on a network that takes no time
    idle: tuple[float, ...]  # of each worker, the share of the time that it does not compute
    sent: float  # bytes between two syncs, of the worker that sends most
    memory: tuple[float, ...]  # of each worker, bytes of its device at the peak of a step, as predicted


@dataclass(eq=False)
class Measures:
    """The measures of a lab's ways."""

    values: Values
    _known: dict[Hashable, Measured] = field(default_factory=dict, init=False)

    def of(self, way: Way) -> Measured:
        """The way's measures. ScenarioError where it cannot be had."""
        parts = [(share, self._part(part), part.gap) for share, part in way.parts()]
        if len(parts) == 1:
            return parts[0][1]

        def mean(name: str) -> float:
            return sum(share * float(vars(part)[name]) for share, part, _ in parts)

        # What is a share of time is averaged over time, what is of a sync over the syncs.
        times = [share * part.quiet / mean("quiet") for share, part, _ in parts]
        syncs = [share * way.gap / gap for share, _, gap in parts]
        each = zip(*(part.idle for _, part, _ in parts), strict=True)
        memory = zip(*(part.memory for _, part, _ in parts), strict=True)
        return Measured(
            mean("seconds"),
            mean("spread"),
            mean("quiet"),
            mean("no_latency"),
            mean("computing"),
            tuple(sum(time * share for time, share in zip(times, worker, strict=True)) for worker in each),
            sum(count * part.sent for count, (_, part, _) in zip(syncs, parts, strict=True)),
            tuple(map(max, memory)),
        )

    def _part(self, way: Way) -> Measured:
        """Of a way in which nothing changes. It is simulated on three networks at once."""
        if way.key in self._known:
            return self._known[way.key]
        job = self.values.job(way, ROUNDS)
        timing = quiet(job.timing)
        network = timing.network
        inside = network.inside and dataclasses.replace(network.inside, latency=0.0)
        no_latency = dataclasses.replace(network, latency=0.0, inside=inside, beside_latency=0.0)
        free = Network(shape=network.shape, inside=inside and dataclasses.replace(inside, bandwidth=float("inf")))
        timings = [dataclasses.replace(timing, network=each) for each in (network, no_latency, free)]
        (clock, outcomes), (quicker, _), (computing, _) = simulated(job, timings)
        needs = predicted(job.problem.phantoms(job.plan).works, job.problem, job.plan)
        sent = max(sum(n for phase, n in one.sent.items() if phase not in ("begin", "evaluate")) for one in outcomes)
        seconds, spread = self.values.drawn(way) if self.values.noisy else (clock.seconds, 0.0)
        found = self._known[way.key] = Measured(
            seconds,
            spread,
            clock.seconds,
            quicker.seconds,
            computing.seconds,
            tuple(max(0.0, 1 - one.computing / ROUNDS / clock.round) if clock.round else 0.0 for one in outcomes),
            sent / ROUNDS,
            tuple(need.device + need.activations + need.fresh for need in needs),
        )
        return found
