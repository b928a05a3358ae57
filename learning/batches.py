"""Which examples a worker's steps use, and what biased sampling learns from them."""

from __future__ import annotations

from ..algorithms.rounds import Round
from ..algorithms.sampling import Sampling
from ..algorithms.scores import Scores
from ..program.effects import Array
from .guard import Guard
from .passes import Passes, by_rest


class Batches:
    """The batches of worker `index`.

    losses: of each step's batch in the round.
    scores: of its sampling, None where that needs none.
    """

    def __init__(self, index: int, sampling: Sampling, seed: int, passes: Passes, guard: Guard) -> None:
        self._index, self._sampling, self._seed, self._passes, self._guard = index, sampling, seed, passes, guard
        self.losses: list[float] = []
        self.scores = Scores(passes.examples, seed) if sampling.scored else None

    def next(self, round: Round, i: int) -> tuple[Array, int]:
        """(indices, position) of step i's batch."""
        self._guard.at = round, i
        position, size = round.batch(self._index, i)
        if self.scores is not None and len(self.scores.chosen):
            return self.scores.take(size), position
        indices = self._sampling.draw(self._seed, self._passes.examples, self._index, position, size)
        self._look_ahead(round, i)
        return indices, position

    def score(self, round: Round, i: int, indices: Array, loss: float) -> None:
        """Note the loss of step i and, where the sampling needs them, those of the examples that it used.

        loss: as if everything counted.
        """
        if i == 0:
            self.losses.clear()
        self.losses.append(loss * by_rest(self._passes.missing))
        if self.scores is not None:
            self.scores.record(indices, self._passes.losses, round.nominal(self._index, i))

    def _look_ahead(self, round: Round, i: int) -> None:
        """Let the loaders begin with the batches that are likely to come next."""
        ahead = self._passes.ahead
        for position, size in round.coming(self._index, i, ahead.threads):
            if not ahead.knows(position):
                indices = self._sampling.draw(self._seed, self._passes.examples, self._index, position, size)
                ahead.begin(position, indices)
