"""Whole trainings against closed forms, in both simulation engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paceline.algorithms.aggregations import Aggregation, Gradients, Parameters
from paceline.algorithms.costs import ModelCost, Works
from paceline.algorithms.loop import train
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import Shares
from paceline.algorithms.strategy import Strategy
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate

QUIET = Hooks()
NETWORK = Network("star", 1e6, 1e-3)
SILENT = Noise()
PARAMETERS = 10_000
BYTES = 4 * (PARAMETERS + 2)
Engine = Callable[[list[Any], tuple[float, ...], Timing], list[Outcome]]


def simpy(programs: list[Any], paces: tuple[float, ...], timing: Timing) -> list[Outcome]:
    return simulate(programs, timing, QUIET)


def cohort(programs: list[Any], paces: tuple[float, ...], timing: Timing) -> list[Outcome]:
    """Workers of one pace make a cohort: all have the same batch."""
    groups: dict[float, list[int]] = {}
    for worker, pace in enumerate(paces):
        groups.setdefault(pace, []).append(worker)
    return simulate_cohorts([Cohort(programs[g[0]], tuple(g)) for g in groups.values()], timing, QUIET)


engines = pytest.mark.parametrize("engine", [simpy, cohort])


def trained(
    engine: Engine,
    strategy: Strategy,
    paces: tuple[float, ...],
    steps: tuple[float, ...],
    budget: Interval,
    noise: Noise = SILENT,
) -> list[Outcome]:
    """Phantoms through the real loop on devices of the given seconds per step; an evaluation takes 0.5 s."""
    kinds: dict[float, Device] = {}
    for seconds in steps:
        tables = {"step": ((8.0, seconds),), "gradient": ((8.0, seconds),), "update": ((1.0, 0.0),)}
        kinds.setdefault(seconds, Device(f"{seconds} s", tables | {"evaluate": ((8.0, 0.5),)}))
    plan = Plan(strategy, Shares((8,) * len(steps), paces), lambda progress: 0.1, 1000, budget)
    works = Works(ModelCost(PARAMETERS, 0, 1e6, 1e4), 8, 8)
    programs = [train(PhantomWorker(i, works), plan, State()) for i in range(len(steps))]
    return engine(programs, paces, Timing(tuple(kinds[seconds] for seconds in steps), NETWORK, noise))


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=1e-12)


def begin(members: int) -> float:
    """Seconds of the binomial broadcast that begins a training."""
    return float(np.ceil(np.log2(members)) * (1e-3 + BYTES / 1e6))


def exchange(members: int) -> float:
    """Seconds of an all-reduce of the model: ring or, up to 64 KB received, gathered."""
    if (members - 1) * BYTES <= 65_536:
        return 1e-3 + (members - 1) * BYTES / 1e6
    return 2e-3 + 2 * (members - 1) / members * BYTES / 1e6


@engines
def test_synchronous_sgd_takes_the_slowest_step_and_the_exchange(engine: Engine) -> None:
    steps = (0.1, 0.025, 0.07)
    outcomes = trained(engine, Strategy(aggregation=Gradients()), (1.0,) * 3, steps, Interval(50, "steps"))
    for outcome, step in zip(outcomes, steps, strict=True):
        assert outcome.seconds == near(begin(3) + 50 * (max(steps) + exchange(3)))
        assert outcome.computing == near(50 * step)
        assert outcome.idle == near(1 - 50 * step / outcome.seconds)
        assert outcome.syncs == {"begin": 1, "gradients": 50, "evaluate": 1}
        assert outcome.sent["gradients"] == near(50 * 2 * 2 / 3 * BYTES)
        assert outcome.evaluating == near(0.5 + 1e-3 + 2 * 16 / 1e6)  # the loss's sum and count


@engines
@pytest.mark.parametrize("paces", [(1.0, 0.4, 0.1), (1.0, 1.0, 1.0)])
def test_local_sgd_takes_the_slowest_round_of_each_workers_own_steps(engine: Engine, paces: tuple[float, ...]) -> None:
    steps = (0.01, 0.03, 0.1)
    strategy = Strategy(schedule=Fixed(16), aggregation=Parameters())
    outcomes = trained(engine, strategy, paces, steps, Interval(5, "rounds"))
    taken = [max(1, int(16 * pace + 0.5)) for pace in paces]
    assert taken in ([16, 6, 2], [16, 16, 16])
    round_seconds = max(H * step for H, step in zip(taken, steps, strict=True)) + exchange(3)
    for outcome, H, step in zip(outcomes, taken, steps, strict=True):
        assert outcome.seconds == near(begin(3) + 5 * round_seconds)
        assert outcome.computing == near(5 * H * step)
        assert outcome.result.round == 5


def largest(workers: int, sigma: float) -> tuple[float, float]:
    """Mean and standard deviation of the largest of `workers` lognormal factors of mean 1, by quadrature."""
    z = np.linspace(-12, 12, 400_001)
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
    density = workers * below ** (workers - 1) * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    value = np.exp(sigma * z - sigma * sigma / 2)
    mean, square = (float(np.sum(density * v) * (z[1] - z[0])) for v in (value, value * value))
    return mean, math.sqrt(square - mean * mean)


@engines
@pytest.mark.parametrize(("workers", "sigma"), [(2, 0.5), (16, 0.2)])
@pytest.mark.parametrize("aggregation", [Gradients(), Parameters()])
def test_noise_costs_the_mean_of_the_largest_draw(
    engine: Engine, workers: int, sigma: float, aggregation: Aggregation
) -> None:
    """Each step lasts as long as its slowest worker: E[max of n lognormals], within three standard errors."""
    rounds, step = 2000, 0.01
    outcomes = trained(
        engine,
        Strategy(aggregation=aggregation),
        (1.0,) * workers,
        (step,) * workers,
        Interval(rounds, "steps"),
        Noise(sigma, 3),
    )
    mean, deviation = largest(workers, sigma)
    found = (outcomes[0].seconds - begin(workers)) / rounds - exchange(workers)
    assert found == pytest.approx(step * mean, abs=3 * step * deviation / math.sqrt(rounds))
    assert mean > 1.1  # far from what no noise would give
