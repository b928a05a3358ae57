"""A Compute that is made several times: one event and one running sum, in every engine."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from paceline.config.faults import Pause
from paceline.config.timing import Device, Noise, Timing
from paceline.program.effects import Compute, Program, Work, nothing
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.base_driver import running
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.cohort_noise import running_sums
from paceline.sim.engine import simulate

STEP, FIRST = Work("step", 8), Work("step", 12)
RESIDUALS = (0.7, 1.0, 1.0, 1.3)


def computing(*times: int) -> Program[None]:
    for count in times:
        yield from Compute(STEP, nothing, times=count, first=FIRST if count % 3 else None)


def counted(count: int) -> tuple[list[int], Program[int]]:
    """(the calls that were made, a program that answers with the last call's answer)."""
    calls: list[int] = []

    def run() -> int:
        calls.append(len(calls))
        return len(calls)

    def program() -> Program[int]:
        return (yield from Compute(STEP, run, times=count))

    return calls, program()


def test_each_call_is_made_and_the_answer_is_the_last_ones():
    device = Device("d", speed=80.0)
    for run in (
        lambda p: lockstep([p], Hooks())[0],
        lambda p: simulate([p], Timing((device,)), Hooks())[0].result,
        lambda p: simulate_cohorts([Cohort(p, (0,))], Timing((device,)), Hooks())[0].result,
    ):
        calls, program = counted(5)
        assert run(program) == 5
        assert calls == [0, 1, 2, 3, 4]


def both(timing: Timing, *times: int) -> tuple[list[Outcome], list[Outcome]]:
    """By events and by cohorts."""
    workers = len(timing.devices)
    return (
        simulate([computing(*times) for _ in range(workers)], timing, Hooks()),
        simulate_cohorts([Cohort(computing(*times), tuple(range(workers)))], timing, Hooks()),
    )


NOISES: list[tuple[Noise, dict[str, Any]]] = [
    (Noise(), {}),
    (Noise(sigma=0.3, seed=1), {}),
    (Noise(worker_sigma=0.2, run_sigma=0.1, seed=2), {}),
    (Noise(seed=3), {"residuals": RESIDUALS}),
    (Noise(seed=4), {"residuals": RESIDUALS, "correlation": 0.5, "lasting": 0.25}),
]


@pytest.mark.parametrize(("noise", "varies"), NOISES)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_engines_add_up_alike(noise, varies, workers):
    fast, slow = Device("fast", speed=80.0, **varies), Device("slow", speed=30.0, **varies)
    timing = Timing(tuple((fast, slow)[i % 2] for i in range(workers)), noise=noise)
    events, cohorts = both(timing, 1, 7, 500, 1, 64, 3)
    assert [repr((o.seconds, o.computing)) for o in events] == [repr((o.seconds, o.computing)) for o in cohorts]


@pytest.mark.parametrize(("noise", "varies"), NOISES)
def test_cohorts_that_share_a_class_add_up_as_single_workers_do(noise, varies):
    """Their columns are every second one of a block, whose rows must still be added one after the other."""
    timing = Timing((Device("d", speed=80.0, **varies),) * 5, noise=noise)
    times = (9, 9, 9, 300, 300, 2)
    events = simulate([computing(*times) for _ in range(5)], timing, Hooks())
    cohorts = simulate_cohorts([Cohort(computing(*times), w) for w in ((0, 2, 4), (1, 3))], timing, Hooks())
    assert [repr(o.seconds) for o in events] == [repr(o.seconds) for o in cohorts]


def test_one_by_one_or_at_once_the_same_factors_are_drawn():
    device = Device("d", speed=80.0, residuals=RESIDUALS)
    timing = Timing((device, device, device), noise=Noise(seed=5))
    (at_once, _), (one_by_one, _) = both(timing, 300), both(timing, *(3,) * 100)
    found = np.array([[o.seconds for o in outcomes] for outcomes in (at_once, one_by_one)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_without_noise_it_is_a_running_sum():
    timing = Timing((Device("d", speed=80.0),))
    events, cohorts = both(timing, 999)
    total = 0.0
    for _ in range(999):
        total += 0.1
    assert [o.seconds for o in (*events, *cohorts)] == [total, total]
    (with_first, _), slower = both(timing, 1001), 0.15
    for _ in range(1000):
        slower += 0.1
    assert with_first[0].seconds == slower
    assert running(0.1, 0.1, 999) == total
    assert total != 0.1 * 999


@pytest.mark.parametrize("columns", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("rows", [1, 2, 9, 300])
def test_rows_are_added_one_after_the_other(rows, columns):
    each = np.random.default_rng(rows).random((rows, columns))
    total = np.zeros(columns)
    for row in each:
        total = total + row
    np.testing.assert_array_equal(running_sums(each[None])[0], total)


def test_every_call_has_a_span():
    device = Device("d", speed=80.0)
    (outcome,) = simulate([computing(3, 1)], Timing((device,), noise=Noise(sigma=0.1)), Hooks(), trace=True)
    spans = outcome.lanes["compute"]
    assert [name for name, *_ in spans] == ["step"] * 4
    for (_, _, stop), (_, start, _) in pairwise(spans):
        assert start == pytest.approx(stop, abs=1e-15)
    assert spans[-1][2] == pytest.approx(outcome.seconds, abs=1e-15)


def test_a_pause_falls_into_one_of_the_calls():
    device = Device("d", speed=80.0)
    pause = Pause.model_validate({"name": "pause", "worker": 0, "at": "0.2 s", "duration": "1 s"})
    timing = Timing((device,), faults=(pause,))
    (outcome,) = simulate([computing(5)], timing, Hooks(), trace=True)
    assert outcome.seconds == pytest.approx(1.55)
    lasted = [stop - start for _, start, stop in outcome.lanes["compute"]]
    assert lasted == pytest.approx([0.15, 1.1, 0.1, 0.1, 0.1])
