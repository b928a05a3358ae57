"""Successive halving by virtual time, on trainings whose curves are written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import inf

import numpy as np
import pytest

from paceline.config.metrics import FALLING, RISING, Target
from paceline.learning.metrics import NAMES
from paceline.studies.halving import Halving, Point

TARGET = Target.read("accuracy 0.9")


class Curve:
    """A training of which all reports are known. taken: how many were asked for."""

    def __init__(self, seconds: float, values: Sequence[float], samples: int = 100) -> None:
        self._all = [Point(seconds * (n + 1), samples * (n + 1), value) for n, value in enumerate(values)]
        self.taken, self.closed = 0, False

    @property
    def points(self) -> Sequence[Point]:
        return self._all[: self.taken]

    @property
    def over(self) -> bool:
        return self.taken == len(self._all)

    def go_on(self) -> None:
        assert not self.closed
        self.taken += 1

    def close(self) -> None:
        self.closed = True

    def to(self, target: Target) -> float:
        """Seconds to the target, by all reports."""
        return next((p.seconds for p in self._all if target.reached(p.value)), inf)


def drawn(seed: int) -> list[Curve]:
    """Trainings that learn quickly for a sample or for a second, with noise, some never far enough."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(random.integers(2, 12)):
        limit, rate, count = random.uniform(0.85, 1.0), random.uniform(0.02, 0.3), int(random.integers(20, 60))
        steps = np.arange(1, count + 1)
        values = limit * (1 - np.exp(-rate * steps)) + random.normal(0, 0.01, count)
        made.append(Curve(random.uniform(0.5, 3.0), values.tolist()))
    return made


@pytest.mark.parametrize("seed", range(40))
def test_with_proof_it_finds_what_training_all_to_the_end_finds(seed: int) -> None:
    curves = drawn(seed)
    halving = Halving(curves, TARGET, horizon=30.0)
    halving.halve()
    first = halving.best
    halving.prove()
    times = [curve.to(TARGET) for curve in curves]
    if min(times) < inf:
        assert halving.best == min(times)
        assert times[halving.ranking()[0]] == min(times)
        # None was trained past its first report at or after the moment at which halving alone had a winner.
        assert all((c.taken - 1) * c.points[0].seconds < first for c in curves if c.taken)
    else:
        assert not halving.reached
        assert all(curve.over for curve in curves)
    halving.finish(range(len(curves)))
    assert {run: time for run, time in enumerate(times) if time < inf} == halving.reached
    reached = [run for run in halving.ranking() if run in halving.reached]
    assert reached == sorted(reached, key=lambda run: (times[run], run))


def test_halving_trains_less_than_a_race_of_all() -> None:
    curves = [Curve(1.0, [0.01 * (16 - n) * (r + 1) / 4 for r in range(40)]) for n in range(16)]
    halving = Halving(curves, TARGET, horizon=40.0)
    halving.halve()
    assert halving.reached == {0: 23.0}
    assert sum(c.taken for c in curves) < 16 * 23 / 2
    assert len(halving.cut) == 15 - sum(1 for c in curves if c.taken >= 23) + 1


def test_slow_epochs_are_no_reason_to_be_cut() -> None:
    """The last one is far behind by the clock, and learns twice as much from a sample: the others stop at 0.85."""
    quick = [Curve(1.0, [min(0.85 - 0.01 * n, 0.2 * (r + 1)) for r in range(64)]) for n in range(7)]
    slow = Curve(4.0, [min(0.95, 0.25 * (r + 1)) for r in range(16)])
    unseen = Curve(50.0, [0.1, 0.95])
    halving = Halving([*quick, slow, unseen], TARGET, horizon=64.0)
    halving.halve()
    assert halving.reached == {7: 16.0}
    assert 8 not in halving.cut  # it had not reported yet


def test_what_is_kept_is_never_cut() -> None:
    curves = [Curve(1.0, [0.1 * (8 - n)] * 8) for n in range(8)]
    halving = Halving(curves, Target.read("99%"), horizon=8.0, kept=frozenset({6}))
    halving.halve()
    assert curves[0].over
    assert curves[6].over
    assert 7 in halving.cut
    assert not curves[7].over


def test_a_loss_falls_to_its_target() -> None:
    curves = [Curve(1.0, [3.0, math.nan, 1.0]), Curve(1.0, [2.0, 1.5, 0.9]), Curve(2.0, [math.nan] * 3)]
    halving = Halving(curves, Target.read("test_loss 0.95"), horizon=3.0)
    halving.halve()
    halving.prove()
    assert halving.reached == {1: 3.0}
    assert halving.ranking() == [1, 0, 2]
    assert (halving.value(0), halving.value(1, seconds=2.0), halving.value(2)) == (-1.0, -1.5, -inf)


def test_ended_early_it_tells_what_it_knows() -> None:
    def end(halving: Halving) -> None:
        if halving.clock(0) >= 3:
            raise KeyboardInterrupt

    curves = [Curve(1.0, [0.1 * r for r in range(20)]), Curve(1.0, [0.05 * r for r in range(20)])]
    halving = Halving(curves, TARGET, horizon=20.0, tell=end)
    with pytest.raises(KeyboardInterrupt):
        halving.halve()
    assert halving.ranking() == [0, 1]
    assert halving.best == inf
    alone = Halving(curves[:1], TARGET, horizon=20.0)
    alone.halve()
    assert alone.reached == {0: 10.0}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("accuracy 0.96", ("accuracy", True, 0.96)),
        ("accuracy 96%", ("accuracy", True, 0.96)),
        ("perplexity 20", ("perplexity", False, 20.0)),
        ("bleu>=0.3", ("bleu", True, 0.3)),
        ("96%", ("accuracy", True, 0.96)),
    ],
)
def test_a_target_s_spelling(text: str, read: tuple[str, bool, float]) -> None:
    assert Target.read(text) == Target(*read)


def test_every_built_in_metric_has_a_direction() -> None:
    assert set(NAMES) < {*RISING, *FALLING}
    assert not {*RISING} & {*FALLING}


def test_of_a_metric_of_one_s_own_the_sign_must_be_said() -> None:
    with pytest.raises(ValueError, match="is not a target"):
        Target.read("bleu 0.3")
