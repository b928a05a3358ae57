"""The sampling axis: which examples does a step use?

A worker asks with the *position* of its batch: the number of samples that all workers of the run have drawn before it.
The plan knows the position of every batch, whatever the batches, the paces and H are. So a sampler is a pure
function of (seed, worker, position): it keeps nothing between batches, workers need not agree on anything at run time,
batches can be loaded ahead, and a run resumes from the number of samples alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from ..program.effects import AllGather, Array, Effect, Phantom, Program
from ..program.errors import ScenarioError, brief
from ..program.streams import stream
from .per_worker import Workers
from .rounds import Round, State
from .scores import FIELDS, Merge, Scores
from .splits import Shares
from .worker import Worker

CHECKED = 10_000  # rounds that are gone through before a run


class Rounds(Protocol):
    """What a sampling asks about the rounds of a run; `plan.Plan` answers."""

    @property
    def examples(self) -> int:
        """Training examples."""

    def first_round(self) -> Round:
        """The round that a run begins with."""

    def rounds(self) -> Iterator[Round]:
        """All rounds of a run, from the beginning."""

    def ahead(self, state: State, rounds: int) -> State:
        """The state after so many more rounds, or at the end."""

    def used(self, mark: tuple[int, int, int], until: State) -> list[int]:
        """Samples that each worker uses from a mark to a later state."""


class Sampling:
    """Base of the members: which examples does a batch hold? By default it follows from the batch's position alone."""

    @property
    def scored(self) -> bool:
        """Whether workers must note the loss of each example."""
        return False

    @property
    def by_step(self) -> bool:
        """Whether positions run step by step through all workers, instead of worker by worker through a round."""
        return False

    def prepare(self, w: Worker, plan: Rounds, state: State) -> Iterable[Effect[Any]]:
        """What a worker does for its sampling before the round that begins at `state`."""
        return ()

    def resolve(self, shares: Shares) -> Sampling:
        """The sampling with what depends on the workers' shares filled in; ValueError where they do not fit."""
        return self

    def check(self, plan: Rounds) -> None:
        """ScenarioError where the plan's rounds ask for examples that cannot be had."""

    def length(self, examples: int) -> int:
        """Samples in an epoch, padding included."""
        return examples

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        """`count` indices into `examples` training examples, for the batch at `position`."""
        raise NotImplementedError

    def draw(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        """As `indices`; ScenarioError where a user's own member answers with something else."""
        found = self.indices(seed, examples, worker, position, count)
        whole = isinstance(found, np.ndarray) and found.dtype.kind in "iu" and found.shape == (count,)
        if not whole or found.min() < 0 or found.max() >= examples:
            raise ScenarioError(
                f"strategy.sampling: {type(self).__name__}.indices gave {brief(found)} for worker {worker}; return an "
                f"array of {count} whole numbers from 0 to {examples - 1}"
            )
        return found


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> Array:
    """The order of the training examples in an epoch; shared by all workers."""
    return stream(seed, "shuffle", epoch).permutation(examples)


@dataclass(frozen=True)
class Shuffled(Sampling):
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
class Sliced(Sampling):
    """HDP's sampler: each worker has a contiguous slice of every epoch's permutation, in proportion to its batch.

    All take the same number of steps. The last step repeats the permutation's first examples (tail: pad) or is left out
    (drop); apart from that, every example is used exactly once. Mirzaei et al., Parallel Computing 2025, 103164.

    batches: per worker; `resolve` fills them in.
    """

    tail: Literal["pad", "drop"] = "pad"
    batches: tuple[int, ...] = field(default=(), init=False)
    by_step = True

    def __post_init__(self) -> None:
        if self.tail not in ("pad", "drop"):
            raise ValueError(f"tail is {self.tail!r}; write pad or drop")

    def resolve(self, shares: Shares) -> Sampling:
        if set(shares.paces) != {1.0}:
            raise ValueError("sampling sliced gives all workers the same number of steps; write sampling: shuffled")
        resolved = Sliced(self.tail)
        object.__setattr__(resolved, "batches", shares.batches)
        return resolved

    def steps(self, examples: int) -> int:
        """Steps in an epoch."""
        total = sum(self.batches)
        if self.tail == "drop" and total > examples:
            raise ValueError(f"sampling sliced drops all {examples} training examples, fewer than a step's {total}")
        return examples // total if self.tail == "drop" else -(-examples // total)

    def length(self, examples: int) -> int:
        return self.steps(examples) * sum(self.batches)

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        steps, before = self.steps(examples), sum(self.batches[:worker])
        epoch, step = divmod(position // sum(self.batches), steps)
        begin = steps * before + step * count
        return permutation(seed, epoch, examples).take(range(begin, begin + count), mode="wrap")


@dataclass(frozen=True)
class Uniform(Sampling):
    """With replacement, each worker from a stream of its own."""

    def indices(self, seed: int, examples: int, worker: int, position: int, count: int) -> Array:
        return stream(seed, "uniform", worker, position).integers(0, examples, count)


@dataclass(frozen=True)
class TopLoss(Shuffled):
    """Biased sampling: the slow workers train on examples of high loss, the fast ones on shuffled ones.

    Every `refresh` rounds, ratio * k candidates are drawn without replacement, and the k of the highest last seen loss
    go to `workers`, shuffled and sliced among them; k is what these use until the next refresh. Lim et al., arXiv
    2508.08540.
    workers: numbers; "slow" are those of pace below 1.
    refresh: "auto" is about one pass over the data.
    """

    ratio: float = 4.0
    refresh: int | Literal["auto"] = "auto"
    merge: Merge = "latest"
    workers: Workers | Literal["slow"] = "slow"
    scored = True

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise ValueError(f"ratio is {self.ratio!r}; write a number of 1 or more, like 4")
        if self.refresh != "auto" and (not isinstance(self.refresh, int) or self.refresh < 1):
            raise ValueError(f"refresh is {self.refresh!r}; write a whole number of rounds, 1 or more, or auto")
        if self.merge not in ("latest", "min"):
            raise ValueError(f"merge is {self.merge!r}; write latest or min")

    def resolve(self, shares: Shares) -> Sampling:
        paces = shares.paces
        if self.workers != "slow":
            if any(not 0 <= w < len(paces) for w in self.workers) or len(set(self.workers)) < len(self.workers):
                raise ValueError(f"workers {list(self.workers)}: there are workers 0 to {len(paces) - 1}, each once")
            return self
        return dataclasses.replace(self, workers=tuple(w for w, pace in enumerate(paces) if pace < 1))

    def interval(self, plan: Rounds) -> int:
        """Rounds between two refreshes: "auto" is N // (samples in the first round), as the released code has it."""
        return self.refresh if self.refresh != "auto" else max(1, plan.examples // plan.first_round().samples)

    def check(self, plan: Rounds) -> None:
        """Every refresh of the first CHECKED rounds, as H may change; those after it are checked when they come."""
        slow = self.workers if self.workers != "slow" else ()
        if not slow:
            return
        first = plan.first_round().samples
        if self.refresh == "auto" and first > plan.examples:
            raise ScenarioError(
                f"strategy.sampling.top_loss: refresh auto is one pass over the data, but a round uses {first} samples "
                f"and there are {plan.examples} training examples; write a smaller H or batch, or "
                "strategy.sampling={top_loss: {refresh: 1}}"
            )
        used = [
            sum(round.steps[worker] * round.batches[worker] for worker in slow)
            for round in islice(plan.rounds(), CHECKED)
        ]
        every = self.interval(plan)
        for start in range(0, len(used), every):
            self._candidates(plan, sum(used[start : start + every]))

    def _candidates(self, plan: Rounds, wanted: int) -> int:
        """From how many examples the slow workers' `wanted` ones are chosen; ScenarioError where there are too few."""
        candidates, known, every = round(self.ratio * wanted), plan.examples, self.interval(plan)
        if candidates <= known:
            return candidates
        most = math.floor(100 * known / wanted) / 100
        raise ScenarioError(
            f"strategy.sampling.top_loss: ratio {self.ratio:g} times the {wanted} samples that the slow workers use "
            f"between refreshes ({every} round{'s' if every > 1 else ''}) is more than the {known} training examples; "
            f"write {f'ratio: {most:g} or less, or ' if most >= 1 else ''}a smaller refresh, H or batch"
        )

    def prepare(self, w: Worker, plan: Rounds, state: State) -> Program[None]:
        slow = self.workers if self.workers != "slow" else ()
        if state.round % self.interval(plan) or not slow:
            return
        if state.round:
            sizes = tuple(FIELDS * n for n in plan.used(state.refreshed, state))
            seen = yield from w.on_scores(Scores.seen, 8 * sizes[w.index])
            if isinstance(seen, Phantom):  # which counts in bytes
                sizes = tuple(8 * size for size in sizes)
            gathered = yield from AllGather(seen, sizes=sizes, phase="scores")
            yield from w.on_scores(lambda scores: scores.merge(gathered, self.merge))
        state.refreshed = state.mark()
        need = plan.used(state.refreshed, plan.ahead(state, self.interval(plan)))
        ends = np.cumsum([0, *(need[worker] for worker in slow)])
        wanted = int(ends[-1])
        candidates = self._candidates(plan, wanted)
        mine = slow.index(w.index) if w.index in slow else None
        part = slice(0, 0) if mine is None else slice(int(ends[mine]), int(ends[mine + 1]))
        yield from w.on_scores(lambda scores: scores.choose(state.round, candidates, wanted, part))


# The members by the names that scenarios use.
SAMPLINGS: dict[str, Callable[..., Sampling]] = {
    "shuffled": Shuffled,
    "sliced": Sliced,
    "uniform": Uniform,
    "top_loss": TopLoss,
}
