"""The sampling axis: which examples does a step use?

A worker asks with the *position* of its batch: the number of samples that the whole run has drawn before
it. Samplers are pure functions of (seed, worker, position), so a run resumes from two integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from .effects import Array
from .streams import stream


class Sampling(Protocol):
    """Which examples a batch holds."""

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        """`count` indices into `examples` training examples, for the batch at `position`."""


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> Array:
    """The order of the training examples in an epoch; shared by all workers."""
    return stream(seed, "shuffle", epoch).permutation(examples)


@dataclass(frozen=True)
class Shuffled:
    """Without replacement: the run walks one permutation per epoch, each batch takes the next slice.

    Every example is used exactly once per epoch, whatever the batches, paces and H, and nothing is padded:
    a batch that crosses an epoch's end goes on in the next epoch's permutation.
    """

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        epoch, begin = divmod(position, examples)
        taken = permutation(seed, epoch, examples)[begin : begin + count]
        while len(taken) < count:
            epoch += 1
            taken = np.concatenate([taken, permutation(seed, epoch, examples)[: count - len(taken)]])
        return taken


@dataclass(frozen=True)
class Uniform:
    """With replacement, each worker from a stream of its own."""

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        return stream(seed, "uniform", worker, position).integers(0, examples, count)
