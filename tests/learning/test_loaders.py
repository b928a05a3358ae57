"""Loaders prepare batches ahead of time: the same bits as without, and errors show where the batch is asked for."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from kit.learning import make, make_plan, train_in_lockstep
from paceline.algorithms.rounds import Interval, State
from paceline.learning.loaders import AheadLoader
from paceline.learning.recipe import Augment, Recipe
from paceline.learning.sources import InputsInOrder


class Recorder:
    """Loads what it is told, and remembers the threads that asked."""

    def __init__(self, threads: int) -> None:
        self.asked: list[tuple[int, str]] = []
        self.ahead = AheadLoader(self.load, threads)

    def load(self, position: int, indices: np.ndarray) -> tuple[int, list[int]]:
        self.asked.append((position, threading.current_thread().name))
        if position == 13:
            raise ValueError("image 13 is broken")
        return position, list(indices)


def test_what_was_expected_is_loaded_by_a_loader_and_once():
    s = Recorder(2)
    s.ahead.begin(4, np.array([7, 8]))
    assert s.ahead.knows(4)
    assert s.ahead.get(0, np.array([1, 2])) == (0, [1, 2])
    assert s.ahead.get(4, np.array([7, 8])) == (4, [7, 8])
    assert not s.ahead.knows(4)
    assert {position: name.split("_")[0] for position, name in s.asked} == {0: "MainThread", 4: "paceline loader"}
    assert len(s.asked) == 2


def test_a_wrong_guess_costs_no_bits():
    s = Recorder(1)
    s.ahead.begin(4, np.array([7, 8]))
    assert s.ahead.get(4, np.array([9, 8])) == (4, [9, 8]), "other examples than were expected"
    s.ahead.begin(5, np.array([1]))
    s.ahead.get(8, np.array([1]))
    assert not s.ahead.knows(5), "what was passed by is dropped"


def test_what_a_loader_raises_is_raised_where_the_batch_is_asked_for():
    s = Recorder(1)
    s.ahead.begin(13, np.array([1]))
    s.ahead.begin(14, np.array([1]))
    assert s.ahead.get(12, np.array([1]))
    with pytest.raises(ValueError, match="image 13 is broken"):
        s.ahead.get(13, np.array([1]))
    assert s.ahead.get(14, np.array([1])) == (14, [1])


def test_coming_batches_are_those_of_the_next_rounds():
    plan = make_plan([8, 4], H=3)
    first = plan.next_round(State())
    second = plan.next_round(plan.ahead(State(), 1))
    expected = [*(first.batch(1, i) for i in (1, 2)), *(second.batch(1, i) for i in (0, 1))]
    assert first.coming(1, 0, 4) == expected
    assert first.coming(0, 2, 0) == []


@pytest.mark.parametrize("loaders", [1, 3])
def test_loaders_change_no_bits(loaders):
    plan = make_plan([16], H=3, budget=Interval(14, "steps"))  # the last round is shorter: a guess that fails
    recipe = Recipe(augment=Augment(1, True))
    (plain,), (loaded,) = (make(plan, shared=False, recipe=recipe, loaders=n) for n in (0, loaders))
    seen = []
    ahead = loaded._passes.ahead
    load = ahead._load
    ahead._load = lambda *batch: seen.append(threading.current_thread().name) or load(*batch)
    expected, found = train_in_lockstep(plan, [plain]), train_in_lockstep(plan, [loaded])
    assert np.array_equal(plain.params, loaded.params)
    assert expected == found
    assert sum(name.startswith("paceline loader") for name in seen) >= 12


def test_stored_examples_are_read_on_in_order_up_to_the_end():
    class Stored:
        shape, dtype, stored_bytes = (100, 2), np.dtype(np.float32), 0

        def __len__(self) -> int:
            return 100

        def take(self, indices: np.ndarray, out: np.ndarray) -> None:
            asked.append(list(indices))
            out[...] = indices[:, None]

    asked: list[list[int]] = []
    source = InputsInOrder(Stored(), loaders=2, stop=30)
    for _ in range(2):  # two evaluations
        for start in (10, 18, 26):
            wanted = np.arange(start, min(start + 8, 30))
            assert source.take(wanted)[:, 0].tolist() == list(wanted)
    assert sorted(asked) == sorted(2 * [list(range(10, 18)), list(range(18, 26)), list(range(26, 30))])
