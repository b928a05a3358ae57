"""The worker that trains: one replica of a model, its share of the data, its random stream.

Rules: all mutation happens inside `Compute.run`; torch's global stream belongs to the worker while it computes; the
same calls give the same bits alone in a process (a rank) and next to other workers in one (a simulation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from ..algorithms.costs import TAIL, Works
from ..algorithms.rounds import Round
from ..algorithms.sampling import Sampling
from ..algorithms.scores import Scores
from ..algorithms.worker import EVALUATION_BATCH, UnitValues, Whole
from ..program.effects import Array, Compute, Move, Value
from ..program.fold import parts
from ..program.streams import torch_seed
from . import optimizer_by_name
from .batch_norm import estimated_buffers
from .batches import Batches
from .buffers import Buffers
from .dataset import Dataset
from .evaluation import Evaluation
from .flat_gradients import FlatGradients
from .guard import Guard
from .loss_scale import LossScale
from .losses import Loss
from .models import exchanged_units
from .optimizers import GradientList
from .parameter_memory import Memory
from .passes import Passes, note_mean, squares
from .paused_passes import PausedPasses
from .recipe import Recipe
from .snapshots import Snapshots
from .torch_stream import TorchStream
from .trial import Trial, try_forward
from .unit_passes import UnitPasses
from .unit_steps import UnitSteps
from .user_code import FAILURES, in_words

T = TypeVar("T")


class TorchWorker:
    """algorithms.worker.Worker with a torch model; what its methods mean is said there. Its parts have one job each:

    memory: where parameters and gradients lie.
    flat: the gradient as one vector.
    passes, units: forward and backward of the whole model, and unit by unit.
    batches: which examples come next.
    steps: a step unit by unit.
    snapshots: what outlives a round.
    stream: the worker's place in torch's random stream.
    guard: what went wrong, and where.
    """

    def __init__(
        self,
        index: int,
        workers: int,
        model: nn.Module,
        data: Dataset,
        *,
        recipe: Recipe,
        optimizer: Mapping[str, Any],
        sampling: Sampling,
        seed: int,
        works: Works,
        unit_bytes: int,
        shared_process: bool,
        warm: bool = True,
        data_seed: int | None = None,
        loaders: int = 0,
        device: str = "cpu",
        unreached: Collection[int] = (),
        health: bool = True,
        loss: Loss | None = None,
    ) -> None:
        """ValueError where a step that is tried beforehand fails. What fails later in the user's code: WorkloadError.

        model: taken over, from the CPU to `device`.
        data_seed: of order, augmentation and BatchNorm's estimates; `seed` by default.
        shared_process: whether other workers compute in this process.
        warm: take a throw-away step now, so that torch's first-use costs do not fall into the run.
        loaders: threads that load batches ahead. loss: the recipe's, if other workers share it.
        unreached: places of the parameters that the loss does not reach; see Passes.unreached.
        health: whether to raise NotFinite where a loss, a gradient's norm or a parameter is not finite.
        """
        self.index, self.works = index, works
        self.model = model.train()
        self._seed = seed if data_seed is None else data_seed
        each, chunks = sampling.scored, self.chunks
        self._passes = passes = Passes(
            *(model, data, recipe), seed=self._seed, worker=index, chunks=chunks, each=each, loaders=loaders, loss=loss
        )
        parameters, modules, cut = exchanged_units(model, works, unit_bytes)
        missing = {id(p) for place, p in enumerate(model.parameters()) if place in unreached}
        self._memory = memory = Memory(parameters, works, index, torch.device(device), missing)
        model.to(device)  # the buffers; parameters are there, as many at a time as the placement allows
        buffers = self._buffers = Buffers(model)
        self._params, self._grads = memory.host_params, memory.host_grads
        self._flat = FlatGradients(memory.grads[: len(memory.parameters)], memory.layout)
        self._optimizer = optimizer_by_name.make(optimizer, memory.layout)
        guard = self._guard = Guard(index, passes, memory)
        self._units: UnitPasses = (PausedPasses if cut else UnitPasses)(modules, parameters, passes, memory)
        self._batches = Batches(index, sampling, self._seed, passes, guard)
        tested = self._evaluation = Evaluation(index, workers, data, recipe, works, passes, self._units, buffers, guard)
        self._steps = UnitSteps(passes, self._units, memory, self._batches, guard)
        self.loss: Value = self._steps.loss
        self.step_losses: Sequence[float] = self._batches.losses
        self.grads_squared: Any = np.zeros(1)
        self.clips, self.evaluation_blocks, self.metrics = self._optimizer.clips, tested.blocks, tested.judge.metrics
        self._home: Literal["device", "host"] = "host" if works.held.host else "device"
        self._exchanged, self._tried = False, Trial()  # whether the last update was by `grads`
        self._begin(data, seed, shared_process, warm, recipe.first_scale)
        self._guard.watching = health

    def _begin(self, data: Dataset, seed: int, shared_process: bool, warm: bool, first_scale: float | None) -> None:
        """Go to the beginning of the worker's random stream, after a step to warm up."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "torch", self.index))
            self._stream = TorchStream(shared_process, self._memory)
            self._scale = LossScale(self._passes, self._stream, self._guard, first_scale)
            own = self._memory, self._buffers, self._stream, self._optimizer, self._batches, self._scale
            self._snapshots = Snapshots(self.index, *own)
            if warm:
                with self._snapshots.undone():
                    self._warm_up(data)
        self._stream.begin()

    @property
    def params(self) -> Value:
        """float32 (P + TAIL,): the parameters, the model's own memory, 0, and the round's mean training loss so far."""
        return self._params

    @params.setter
    def params(self, value: Value) -> None:
        _take(self._params, value)

    @property
    def grads(self) -> Value:
        """float32 (P + TAIL,): the gradient, what of the batch does not count, and its loss as if everything did."""
        return self._grads

    @grads.setter
    def grads(self, value: Value) -> None:
        _take(self._grads, value)

    @property
    def buffers(self) -> Value:
        """float32: the buffers that are averaged for an evaluation; see Buffers."""
        return self._buffers.vector.cpu().numpy()

    @buffers.setter
    def buffers(self, value: Value) -> None:
        self._buffers.set(value)

    @property
    def units(self) -> Sequence[UnitValues]:
        """What is exchanged of each unit: float32 vectors."""
        return self._memory.values

    @property
    def chunks(self) -> int:
        """Micro-batches of a step."""
        return len(self.works.chunks)

    @property
    def staged(self) -> bool:
        """Whether the device has memory of its own."""
        return self.works.held.staged

    @property
    def moments(self) -> Mapping[str, Value]:
        """The optimizer's vectors of P elements: views of its state, to be exchanged in place."""
        return {name: self._optimizer.state[name].numpy() for name in self._optimizer.moments}  # on the CPU only

    @property
    def loss_is_mean(self) -> bool | None:
        """Whether a user's loss may be cut in parts; see losses.is_mean. True before it was tried."""
        return self._tried.loss_is_mean

    def steps(self, round: Round, start: int = 0) -> Compute[None]:
        """The round's local steps from `start` on; the mean of the round's losses so far goes into params[-1]."""
        each = range(start, round.steps[self.index])
        i = iter(each)
        run = partial(self._run, lambda: self._step(round, next(i)))
        return Compute(self.works.step, run, times=len(each), first=self.works.first(start))

    def gradient(self, round: Round, i: int) -> Compute[None]:
        """The gradient of step i's batch into `grads`, with its loss behind it."""
        return Compute(self.works.gradient, partial(self._run, self._gradient, round, i))

    def update(self, round: Round, i: int) -> Compute[None]:
        """Apply `grads` with the learning rate of step i."""
        return Compute(self.works.update, partial(self._run, self._update, round, i), on=self._home)

    def forward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        work = self.works.unit("forward", unit, self.works.chunks[chunk])
        return Compute(work, partial(self._run, self._steps.forward, round, i, chunk, self.chunks, unit))

    def backward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        work = self.works.unit("backward", unit, self.works.chunks[chunk])
        return Compute(work, partial(self._run, self._steps.backward, chunk, unit))

    def load(self, unit: int, phase: str) -> Move:
        return Move(self.units[unit].gathered, "device", partial(self._memory.load, unit), phase)

    def unload(self, unit: int, chunk: int) -> Move:
        return Move(self.units[unit].gradient, "host", partial(self._memory.unload, unit, chunk > 0))

    def reload(self, unit: int) -> Move:
        return Move(self.units[unit].reduced, "device", partial(self._memory.reload, unit))

    def pull(self, what: Whole) -> Move:
        return Move(self._params if what == "parameters" else self._grads, "host", partial(self._memory.pull, what))

    def push(self, what: Whole) -> Move:
        return Move(self._params if what == "parameters" else self._grads, "device", partial(self._memory.push, what))

    def squared_norm(self) -> Compute[Value]:
        return Compute(self.works.norm, self._squares, on=self._home)

    def evaluate(self, buffers: Value) -> Compute[Value]:
        """Sums and counts of `metrics` over the worker's part of the test set with these buffers; see Worker."""
        body = self._evaluation.whole
        return Compute(self.works.evaluate, partial(self._run, body, buffers, len(self._evaluation.tests)))

    def evaluate_unit(self, buffers: Value, block: int, unit: int) -> Compute[Value]:
        start, stop = parts(self.works.evaluate.samples, self.evaluation_blocks)[block]  # as priced: see make_works
        work = self.works.unit("evaluate", unit, stop - start)
        return Compute(work, partial(self._run, self._evaluation.unit, buffers, block, unit))

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        """Call `function(params[:-TAIL], *vectors)` on float32 (P,) arrays, which it may write to; see Worker."""
        return Compute(self.works.transform, partial(self._transform, function, names), on=self._home)

    def reset(self) -> Compute[None]:
        return Compute(self.works.transform, self._optimizer.reset, on=self._home)

    def estimate_buffers(self, seed_round: int, batches: int) -> Compute[Value]:
        """The averaged buffers, BatchNorm's statistics re-estimated, float32; the worker itself stays as it is."""
        return Compute(self.works.estimate(batches), partial(self._estimate, seed_round, batches))

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        assert self._batches.scores is not None, "only asked of a worker whose sampling is scored"
        return Compute(self.works.scores, partial(function, self._batches.scores), on="host")

    def squares(self) -> Compute[Value]:
        return Compute(self.works.squares, self._all_squares)

    def memory(self) -> dict[str, int]:
        """Bytes at the peak, as counted: of the tensors on "device" and "host", and of "activations" beyond them.

        On a GPU its allocator's own peak takes the place of "device" and "activations" together.
        """
        counted = self._memory.nbytes() | {"activations": self._tried.activations}
        state = sum(v.untyped_storage().nbytes() for v in self._optimizer.state.values() if v.numel() > 1)
        counted[self._home] += state
        if self._memory.device.type == "cuda":
            counted |= {"device": torch.cuda.max_memory_allocated(self._memory.device), "activations": 0}
        return counted

    def digest(self) -> str:
        """SHA-256 of the parameters that this worker keeps."""
        self._memory.pull()
        return hashlib.sha256(self._params[: len(self._memory.parameters)].data).hexdigest()

    def snapshot(self) -> dict[str, Array]:
        """See Snapshots.take. NotFinite where a parameter is not finite, so that no checkpoint holds one."""
        self._guard.check_parameters()
        return self._snapshots.take()

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back; see Snapshots.restore."""
        self._snapshots.restore(arrays)

    def forget(self) -> None:
        """Drop what a step that was broken off has left: inputs, activations, autograd's gradients."""
        self._steps.forget()
        self._passes.forget()

    def _run(self, body: Callable[..., T], *args: Any) -> T:
        """body(*args) with torch's stream at the worker's place in it."""
        if not self._stream.shared:
            return self._guard.run(body, *args)
        with self._stream:
            return self._guard.run(body, *args)

    def _warm_up(self, data: Dataset) -> None:
        """Take one step and evaluate as many examples, or fewer, before the run begins."""
        batch, passes = self.works.step.samples, self._passes
        indices = np.arange(batch) % passes.examples
        try:
            self._tried = try_forward(passes, self._units, data, indices, max(self.works.chunks))
            if self._memory.held.fetched:
                self._steps.warm_up(indices, self.works.chunks)
                for unit in range(len(self.units)):
                    self._evaluation.unit(self.buffers, 0, unit)
                self._memory.grads.zero_()
            else:
                passes.backward(indices, 0)
                passes.doing = "the optimizer"
                self._optimizer.apply(passes.gradients(), 0.0)
                self._evaluation.whole(self.buffers, min(batch, EVALUATION_BATCH, len(self._evaluation.tests)))
        except FAILURES as error:  # whatever a user's model or loss does
            raise ValueError(
                f"worker {self.index}: a training step of {batch} examples fails in {passes.doing}: {in_words(error)}"
            ) from error
        self._tried.check(passes.criterion.name, self.chunks)
        self.forget()

    def _step(self, round: Round, i: int) -> None:
        loss = self._passes.settle(self._backward(round, i))
        self._guard.check("the training loss", loss)
        self._passes.doing = "the optimizer"
        self._guard.check_norm(self._optimizer.apply(self._passes.gradients(), round.lr(self.index, i)))
        note_mean(self._params, loss, i)
        self._exchanged = False

    def _gradient(self, round: Round, i: int) -> None:
        loss = self._backward(round, i)
        self._flat.keep(self._passes.gradients())
        self._passes.forget()  # autograd's own: they would stay until the next step
        self._steps.note(loss)

    def _update(self, round: Round, i: int) -> None:
        self._steps.settle()
        self._passes.doing = "the optimizer"
        whole = self.grads_squared.item() if self._memory.held.parts > 1 and self.clips else None
        self._guard.check_norm(self._optimizer.apply(self._flat.exchanged(), round.lr(self.index, i), whole))
        self._exchanged = True
        if self._memory.held.parts == 1:
            note_mean(self._params, self._grads.item(-1), i)
        elif self.staged:
            self._memory.pull()

    def _squares(self) -> Array:
        self._steps.settle()
        found = squares([self._memory.grads])
        self._guard.check("the gradient's norm", found)
        return np.array([found])

    def _transform(self, function: Callable[..., None], names: tuple[str, ...]) -> None:
        own, vectors = self._params[:-TAIL], self._snapshots.vectors
        for name in names:
            if name not in vectors:
                vectors[name] = np.zeros_like(own)
        apart = self.staged and not self._memory.held.host
        if apart:
            self._memory.pull()
        function(own, *(vectors[name] for name in names))
        if apart:
            self._memory.push()

    def _all_squares(self) -> Array:
        parts: dict[str, GradientList] = {
            "gradient": self._flat.views if self._exchanged else self._passes.gradients(),
            "parameters": [self._memory.parameters],
        }
        parts |= {name: [self._optimizer.state[name]] for name in self._optimizer.moments}
        found = {name: squares(part) for name, part in parts.items()}
        for name, value in found.items():
            self._guard.check(f"the norm of the {name}", value)
        return np.array(list(found.values()))

    def _estimate(self, seed_round: int, batches: int) -> Array:
        self._passes.doing = "the evaluation"
        drawn = batches, self.works.step.samples, self._seed, seed_round, self.index
        return estimated_buffers(self._passes, self._buffers, *drawn)

    def _backward(self, round: Round, i: int) -> float:
        """Leave the gradient of step i's batch in the parameters' .grad; its loss. See Passes.backward."""
        indices, position = self._batches.next(round, i)
        loss = self._scale.backward(indices, position)
        self._guard.check("the training loss", loss)
        self._batches.score(round, i, indices, loss)
        return loss


def _take(own: Array, value: Value) -> None:
    """Copy an exchange's answer into the worker's memory, unless it is there already."""
    if value is not own:
        own[...] = value
