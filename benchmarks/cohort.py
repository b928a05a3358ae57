"""How fast does the cohort engine simulate, next to the same arithmetic written by hand in NumPy?

A scenario is resolved, then the engine runs it, timing-only; the engine alone is timed, by the processor's clock, as it
uses one core. By hand: peers/by_hand.py, the same draws, sums and maxima on the same core. Each run asserts how many
rounds and syncs it made, and that the clock of a shorter run is SimPy's.

Bars: .8 of NumPy by hand with noise at H = 8 and 32 for 1,024 workers, and .6 at H = 1; for 64 workers .6 and .25. For
1,024 workers with noise also 20 M worker-steps per second. Without noise the cost of a round should not depend on H:
those rows have H = 1 as their baseline, and a bar of 1.1, as far as medians are apart.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paceline.algorithms.rounds import State
from paceline.config.scenario import Scenario
from paceline.job import Job, resolve
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate as simulate_events

from .form import compare, rounded, spread
from .harness import Found, Run, alternate, process_seconds
from .peers import by_hand

SECONDS = 60
HOOKS = Hooks()
ENGINE, HAND = "cohort engine", "NumPy by hand"
RATE, RATED = 20e6, "20 M worker-steps/s"  # the bar of 1,024 workers with noise


class Kind(NamedTuple):
    """A scenario."""

    workers: int
    classes: int
    H: int
    sigma: float
    preset: str = "local_sgd"
    bar: float | None = None  # least share of NumPy's speed

    @property
    def case(self) -> str:
        noise = f"noise {self.sigma:g}" if self.sigma else "no noise"
        return f"{self.workers:,} workers, classes {self.classes}, {self.preset}, H = {self.H}, {noise}"


KINDS = (
    Kind(1024, 2, 1, 0.2, bar=0.6),
    Kind(1024, 2, 8, 0.2, bar=0.8),
    Kind(1024, 2, 32, 0.2, bar=0.8),
    Kind(1024, 2, 1, 0.2, "sync_sgd"),
    Kind(64, 2, 1, 0.2, bar=0.25),
    Kind(64, 2, 8, 0.2, bar=0.6),
    Kind(64, 2, 32, 0.2, bar=0.6),
    Kind(64, 1, 1, 0.0),
    Kind(64, 1, 1, 0.0, "sync_sgd"),
    Kind(64, 2, 1, 0.0, "sync_sgd"),
)
GROWING = (1, 8, 32)  # H of the runs without noise that are compared with one another
GROWN = 1.1  # the most that a round of theirs may take, as a share of one with H = 1


def job_of(workers: int, classes: int, H: int, rounds: int, sigma: float, preset: str = "local_sgd") -> Job:
    """A small model on digits; classes of workers whose speeds differ a little, and whose steps are as many."""
    strategy: dict[str, Any] = {"preset": preset}
    if preset == "local_sgd":
        strategy |= {"split": "even", "schedule": {"fixed": H}}
    speeds = [f"{1000 - 30 * number} samples/s" for number in range(classes)]
    document = {
        "seed": 7,
        "workload": {
            "model": {"name": "mlp", "hidden": [32]},
            "data": "digits",
            "batch": 8,
            "optimizer": {"name": "sgd", "lr": 0.1},
        },
        "cluster": {
            "workers": [{"speed": speed, "count": workers // classes} for speed in speeds],
            "network": {"bandwidth": "10 Gbit/s", "latency": "10 us"},
            "noise": {"sigma": sigma},
        },
        "strategy": strategy,
        "budget": {"rounds": rounds},
    }
    return resolve(Scenario.model_validate(document), Path())


def run(job: Job, engine: str = "cohort") -> tuple[float, list[Outcome]]:
    """(seconds of processor time, outcomes) of the engine alone."""
    workers = job.problem.phantoms(job.plan)
    programs: Any = job.cohorts(workers) if engine == "cohort" else job.programs(workers, State())
    simulate: Any = simulate_cohorts if engine == "cohort" else simulate_events
    outcomes: list[Outcome] = []
    seconds = process_seconds(lambda: outcomes.extend(simulate(programs, job.timing, HOOKS)))
    state = outcomes[-1].result
    assert state.round == job.plan.budget.amount
    assert sum(outcomes[-1].syncs[phase] for phase in ("parameters", "gradients") if phase in outcomes[-1].syncs) > 0
    return seconds, outcomes


def check(kind: Kind, rounds: int = 10) -> None:
    """Assert that the clock of a short run of this kind is SimPy's."""
    job = job_of(kind.workers, kind.classes, kind.H, rounds, kind.sigma, kind.preset)
    (_, found), (_, expected) = run(job), run(job, "simpy")
    assert [outcome.seconds for outcome in found] == [outcome.seconds for outcome in expected]


def microseconds(job: Job, rounds: int) -> float:
    """Processor time of a round in the engine."""
    return run(job)[0] / rounds * 1e6


def hand(kind: Kind, rounds: int) -> float:
    """Microseconds of processor time of the same round by hand."""
    step = np.repeat([8 / (1000 - 30 * number) for number in range(kind.classes)], kind.workers // kind.classes)
    seconds = process_seconds(lambda: by_hand.rounds(step, kind.H, rounds, kind.sigma, 1e-4))
    return seconds / rounds * 1e6


def rounds_of(kind: Kind, run: Run) -> int:
    """Fewer where rounds are long."""
    return 20 if run.small else 250 if kind.H == 32 else 1000


def measure(run_: Run) -> Found:
    """Each kind against NumPy by hand; then the growth with H where nothing is drawn."""
    found, share = Found(), run_.share(len(KINDS) + 1)
    for kind in KINDS:
        check(kind)
        rounds = rounds_of(kind, run_)
        job = job_of(kind.workers, kind.classes, kind.H, rounds, kind.sigma, kind.preset)
        blocks = {
            ENGINE: partial(microseconds, job, rounds),
            HAND: partial(hand, kind, rounds),
        }
        taken = alternate(blocks, share.turns(21))
        found.rows.append(compare(kind.case, ENGINE, HAND, taken, bar=kind.bar, limit=HAND, unit="us a round"))
        if kind.workers == 1024:
            constant = {**taken, RATED: [kind.workers * kind.H / RATE * 1e6] * len(taken[ENGINE])}
            found.rows.append(compare(kind.case, ENGINE, RATED, constant, bar=1.0, limit=HAND, unit="us a round"))
        found.figures[kind.case] = {
            "cohorts": len(job.cohorts(job.problem.phantoms(job.plan))),
            "rounds": rounds,
            "million worker-steps per second": rounded(kind.workers * kind.H / spread(taken[ENGINE])[0]),
            "milliseconds of fastest run": rounded(min(taken[ENGINE]) * rounds / 1e3),
        }
    rounds = 20 if run_.small else 1000
    jobs = {f"H = {H}": job_of(64, 1, H, rounds, 0.0) for H in GROWING}
    taken = alternate({name: partial(microseconds, job, rounds) for name, job in jobs.items()}, share.turns(21))
    for name in list(jobs)[1:]:
        case = "64 workers, no noise: a round's cost should not depend on H"
        found.rows.append(compare(case, name, "H = 1", taken, "time", bar=GROWN, limit="H = 1", unit="us a round"))
    return found
