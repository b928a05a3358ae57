"""The phantom worker: the same program, the same messages, no numbers. Used by timing-only runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

from ..program.effects import Array, Compute, Move, Phantom, Value, nothing
from ..program.fold import parts
from .costs import TAIL, Works
from .metrics import TEST_LOSS, Metric, numbers
from .rounds import Round
from .scores import Scores
from .worker import UnitValues, Whole


def _unit(kept: int, whole: int) -> UnitValues:
    """A unit of `whole` bytes; the worker keeps `kept` of them."""
    all_of_it, gradient = Phantom(whole), Phantom(whole)
    if kept == whole:
        return UnitValues(all_of_it, all_of_it, gradient, gradient)
    return UnitValues(Phantom(kept), all_of_it, gradient, Phantom(kept))


class PhantomWorker:
    """A worker that computes nothing: only its work and its bytes are known.

    moments: names of the vectors of the optimizer's state.
    clips: see Worker.
    blocks: its evaluation_blocks.
    metrics: see Worker.
    """

    def __init__(
        self,
        index: int,
        works: Works,
        moments: Sequence[str] = (),
        clips: bool = False,
        blocks: int = 1,
        metrics: tuple[Metric, ...] = (TEST_LOSS,),
    ) -> None:
        self.index = index
        self.works = works
        item, kept = works.held.item, sum(size for size, _ in works.sizes)
        self.params: Value = Phantom(item * kept)
        self.grads: Value = Phantom(item * kept)
        self.buffers: Value = Phantom(item * works.cost.buffers)
        self.loss: Value = Phantom(TAIL * item)
        self.step_losses: Sequence[float] = ()
        self.grads_squared: Value = Phantom(8)
        self.units = [_unit(item * own, item * whole) for own, whole in works.sizes]
        self.chunks, self.clips, self.staged = len(works.chunks), clips, works.held.staged
        self.evaluation_blocks, self.metrics = blocks, metrics
        self.moments: Mapping[str, Value] = {name: Phantom(item * works.cost.parameters) for name in moments}
        self._place: Literal["device", "host"] = "host" if works.held.host else "device"
        self._estimate = partial(Phantom, item * works.cost.buffers)
        self._squares = partial(Phantom, 8 * (2 + len(moments)))
        self._sums = partial(Phantom, 8 * numbers(metrics))

    @property
    def kind(self) -> Hashable:
        """What else, in addition to plan and index, tells the programs of phantoms apart."""
        works = self.works
        chunks = tuple(works.chunks)
        return works.cost, works.held, chunks, works.evaluate.samples, tuple(self.moments), self.clips, self.metrics

    def steps(self, round: Round, start: int = 0) -> Compute[None]:
        works = self.works
        return Compute(works.step, nothing, times=round.steps[self.index] - start, first=works.first(start))

    def gradient(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.gradient, nothing)

    def update(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.update, nothing, on=self._place)

    def forward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        return Compute(self.works.unit("forward", unit, self.works.chunks[chunk]), nothing)

    def backward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        return Compute(self.works.unit("backward", unit, self.works.chunks[chunk]), nothing)

    def load(self, unit: int, phase: str) -> Move:
        return Move(self.units[unit].gathered, "device", phase=phase)

    def unload(self, unit: int, chunk: int) -> Move:
        return Move(self.units[unit].gradient, "host")

    def reload(self, unit: int) -> Move:
        return Move(self.units[unit].reduced, "device")

    def pull(self, what: Whole) -> Move:
        return Move(self.params if what == "parameters" else self.grads, "host")

    def push(self, what: Whole) -> Move:
        return Move(self.params if what == "parameters" else self.grads, "device")

    def squared_norm(self) -> Compute[Value]:
        return Compute(self.works.norm, partial(Phantom, 8), on=self._place)

    def evaluate_unit(self, buffers: Value, block: int, unit: int) -> Compute[Value]:
        start, stop = parts(self.works.evaluate.samples, self.evaluation_blocks)[block]
        return Compute(self.works.unit("evaluate", unit, stop - start), self._sums)

    def evaluate(self, buffers: Value) -> Compute[Value]:
        return Compute(self.works.evaluate, self._sums)

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        return Compute(self.works.transform, nothing, on=self._place)

    def reset(self) -> Compute[None]:
        return Compute(self.works.transform, nothing, on=self._place)

    def estimate_buffers(self, seed_round: int, batches: int) -> Compute[Value]:
        return Compute(self.works.estimate(batches), self._estimate)

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        return Compute(self.works.scores, partial(Phantom, nbytes), on="host")

    def squares(self) -> Compute[Value]:
        return Compute(self.works.squares, self._squares)

    def digest(self) -> str:
        return ""

    def snapshot(self) -> dict[str, Array]:
        return {}

    def restore(self, arrays: dict[str, Array]) -> None:
        pass


class Phantoms(Sequence[PhantomWorker]):
    """Phantom workers, each made when it is asked for: of a million workers only one of each kind runs a program.

    indexes: the workers' numbers.
    works: the Works of each.
    others: PhantomWorker's other arguments.
    """

    def __init__(self, indexes: Sequence[int], works: Sequence[Works], **others: Any) -> None:
        self.works = works
        self._indexes, self._others = indexes, others

    def __len__(self) -> int:
        return len(self.works)

    @overload
    def __getitem__(self, place: int) -> PhantomWorker: ...

    @overload
    def __getitem__(self, place: slice) -> list[PhantomWorker]: ...

    def __getitem__(self, place: int | slice) -> PhantomWorker | list[PhantomWorker]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return PhantomWorker(self._indexes[place], self.works[place], **self._others)
