"""What the workers of a run's next part get from those of the part before, where their number or their batches differ.

A part ends with a sync, at which all workers have equal parameters. The rule:

- Model, outer optimizer's vectors, budget, learning rate and schedule go on. The split is made again.
- A worker that stays keeps its own optimizer state, buffers (BatchNorm's statistics) and random stream.
- A new worker gets worker 0's optimizer state and buffers, and a random stream of its own, from the beginning.
- What only the lost workers had is lost with them: optimizer state, BatchNorm's statistics, random streams.
- The place in the data is kept. With `shuffled` it is the number of samples, so no example is left out of an epoch or
  used twice in it. With `sliced` it is the same place of the epoch, to a step: its slices are cut again.
- Biased sampling keeps its table of losses. What workers have used since the last refresh is not entered, and those
  that train on examples of high loss train on shuffled ones until the next refresh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .algorithms.plan import Plan
from .algorithms.rounds import State
from .algorithms.splits import Shares
from .learning.snapshot_names import DEVICE_RNG, DIVIDED, PARAMETERS, RNG
from .program.effects import Array
from .program.errors import brief


class Division(NamedTuple):
    """How the work of a part is divided."""

    batches: tuple[int, ...]  # samples per step of each worker
    paces: tuple[float, ...]
    rounds_per_epoch: int | None  # where the budget's epochs are reference ones

    @classmethod
    def of(cls, plan: Plan) -> Division:
        """The division of a plan's work."""
        epoch = plan.rounds_per_epoch if plan.accounting == "reference" else None
        return cls(plan.shares.batches, plan.shares.paces, epoch)


@dataclass(frozen=True, eq=False)
class Handover:
    """From one part of a run to the next."""

    before: Division
    plan: Plan  # of the part that begins
    members: Sequence[int | None]  # of each worker, its number in the part before; None: it is new

    @classmethod
    def by_number(cls, before: Division, plan: Plan) -> Handover:
        """Worker i goes on as worker i. The last ones are gone, or are new."""
        return cls(before, plan, [i if i < len(before.batches) else None for i in range(plan.workers)])

    @classmethod
    def by_name(cls, before: Division, plan: Plan, then: Sequence[int], now: Sequence[int]) -> Handover:
        """Workers by their numbers at the start of the run: those of the part before, and those of the one to begin."""
        return cls(before, plan, [then.index(worker) if worker in then else None for worker in now])

    @property
    def same(self) -> bool:
        """Whether nothing is handed over: all workers go on as they were."""
        return [*self.members] == [*range(self.plan.workers)] and self.before[:2] == Division.of(self.plan)[:2]

    def state(self, state: State) -> State:
        """The state that the next part begins with, made of the one that the part before has reached."""
        begun = dataclasses.replace(state)
        if self.same:
            return begun
        begun.samples = self._samples(state.samples)
        if self.plan.accounting == "reference" and self.before.rounds_per_epoch:
            then, now = self.before.rounds_per_epoch, self.plan.rounds_per_epoch
            begun.epoch_offset += state.round / then - state.round / now
        if self.plan.strategy.sampling.scored:
            begun.refreshed = begun.mark()
        return begun

    def _samples(self, samples: int) -> int:
        """The number of samples at the same place of the same epoch."""
        sampling, examples = self.plan.strategy.sampling, self.plan.examples
        if not sampling.by_step:
            return samples
        batches = self.before.batches
        then = sampling.resolve(Shares(batches, (1.0,) * len(batches))).length(examples)
        now, step = sampling.length(examples), sum(self.plan.shares.batches)
        epoch, place = divmod(samples, then)
        return epoch * now + place * now // (then * step) * step

    def snapshot(
        self, worker: int, read: Callable[[int], Mapping[str, Array]], fresh: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What a worker of the next part begins with.

        read: the snapshot of a worker of the part before. Asked for the worker's own and for worker 0's at most.
        fresh: the snapshot of a new worker, as it was made.
        """
        member = self.members[worker]
        source = 0 if member is None else member
        arrays = dict(read(source))
        if self.same:
            return arrays
        if worker == 0 and source != 0:
            arrays[PARAMETERS] = read(0)[PARAMETERS]
        elif worker > 0 and source == 0:
            del arrays[PARAMETERS]
        arrays |= {name: array[:0] for name, array in arrays.items() if name in DIVIDED}
        own = (RNG, DEVICE_RNG) if member is None else ()
        return arrays | {name: fresh[name] for name in own if name in fresh}

    def lines(self, gone: Sequence[int] | None = None) -> Iterator[str]:
        """What is kept, shared out and lost, for the user. Nothing where all workers go on as they were.

        gone: the workers that are gone, by the numbers that the user knows; by default those of the part before.
        """
        if self.same:
            return
        plan, n, before = self.plan, self.plan.workers, len(self.before.batches)
        number = f"{_workers(n)} instead of {before}: " if n != before else ""
        yield (
            f"{number}the work is divided again, into batches of {brief([*plan.shares.batches])}; model, budget, "
            "learning rate and the place in the data are kept"
        )
        if gone is None:
            gone = [worker for worker in range(before) if worker not in self.members]
        if gone:
            yield f"of {_these(gone)}, optimizer state, BatchNorm statistics and random stream are lost"
        new = [worker for worker, member in enumerate(self.members) if member is None]
        if new:
            begin = "begin" if len(new) > 1 else "begins"
            yield f"{_these(new)} {begin} with worker 0's optimizer state and BatchNorm statistics"
        sampling = plan.strategy.sampling
        if sampling.by_step:
            yield "each epoch is cut into new slices, so in this epoch some examples are used twice, and others not"
        if sampling.scored:
            yield "losses seen since the last refresh are lost; slow workers use shuffled examples until the next one"


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _these(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"worker{'' if len(numbers) == 1 else 's'} {shown}"
