"""What biased sampling knows of the training examples: the last seen loss of each.

Every worker keeps an equal table, since what each has seen is gathered from all at a refresh. A score is the training
loss of an example at the step that used it: it costs no forward pass of its own.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..program.effects import Array
from ..program.streams import stream

Merge = Literal["latest", "min"]
FIELDS = 3  # what travels of each example seen: index, loss, step


class Scores:
    """One worker's table and what it has seen since the last refresh.

    losses: float32 (examples,), +inf where not seen yet, so those are taken first.
    steps: int64 (examples,).
    chosen: the indices that this worker trains on until the next refresh (empty for a worker that samples uniformly).
    """

    def __init__(self, examples: int, seed: int) -> None:
        self._seed = seed
        self.losses = np.full(examples, np.inf, np.float32)
        self.steps = np.full(examples, -1, np.int64)
        self.chosen = np.empty(0, np.int64)
        self._taken = 0
        self._seen: list[Array] = []

    def take(self, count: int) -> Array:
        """The next `count` chosen indices."""
        self._taken += count
        return self.chosen[self._taken - count : self._taken]

    def record(self, indices: Array, losses: Array, step: int) -> None:
        """Note the losses (float32) of the examples that a step used."""
        rows = np.empty((len(indices), FIELDS))
        rows[:, 0], rows[:, 1], rows[:, 2] = indices, losses, step
        self._seen.append(rows)

    def seen(self) -> Array:
        """All that was noted since the last refresh: float64, (index, loss, step) one after another."""
        rows, self._seen = self._rows(), []
        return rows.ravel()

    def merge(self, gathered: Array, rule: Merge) -> None:
        """Enter what all workers have seen. "latest": the newest step's loss, the higher of two at the same step.

        "min": the lowest loss ever seen, as the released code merges: a score of one worker's example cannot rise.
        """
        rows = gathered.reshape(-1, FIELDS)
        if rule == "min":
            np.minimum.at(self.losses, rows[:, 0].astype(np.int64), rows[:, 1].astype(np.float32))
            return
        # Written in this order, the last row of an example is the newest, and of those the highest loss.
        rows = rows[np.lexsort((rows[:, 1], rows[:, 2]))]
        index, step = rows[:, 0].astype(np.int64), rows[:, 2].astype(np.int64)
        newer = step >= self.steps[index]
        self.losses[index[newer]] = rows[newer, 1]
        self.steps[index[newer]] = step[newer]

    def choose(self, round: int, candidates: int, wanted: int, part: slice) -> None:
        """Draw `candidates` examples, keep the `wanted` with the highest loss, shuffle them, take `part`."""
        random = stream(self._seed, "top_loss", round)
        drawn = random.permutation(len(self.losses))[:candidates]
        # A stable sort of a random order: equal losses (unseen ones) stay random.
        best = drawn[np.argsort(-self.losses[drawn], kind="stable")[:wanted]]
        self.chosen = random.permutation(best)[part]
        self._taken = 0

    def snapshot(self) -> dict[str, Array]:
        """Arrays from which `restore` goes on."""
        return {
            "losses": self.losses.copy(),
            "steps": self.steps.copy(),
            "chosen": self.chosen[self._taken :].copy(),
            "seen": self._rows(),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back."""
        self.losses, self.steps = np.array(arrays["losses"]), np.array(arrays["steps"])
        self.chosen, self._taken = np.array(arrays["chosen"]), 0
        self._seen = [np.array(arrays["seen"])]

    def _rows(self) -> Array:
        return np.concatenate(self._seen) if self._seen else np.empty((0, FIELDS))
