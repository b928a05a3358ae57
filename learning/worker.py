"""The worker that trains: one replica of a model, its share of the data, its random stream.

Rules: all mutation happens inside `Compute.run`; torch's global stream belongs to the worker while it computes; the
same calls give the same bits alone in a process (a rank) and beside other workers in one (a simulation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..algorithms.costs import Works
from ..algorithms.rounds import Round
from ..algorithms.sampling import Sampling
from ..algorithms.scores import Scores
from ..algorithms.worker import EVALUATION_BATCH, evaluation_blocks, share
from ..program.effects import Array, Compute, Value
from ..program.streams import stream, torch_seed
from . import flat_storage, optimizers
from .batch_norm import estimate
from .buffers import Buffers, unchanged
from .dataset import Dataset
from .guard import Guarded
from .models import merge_units, units
from .parameter_memory import Memory
from .passes import Passes, Source, squares
from .recipe import Recipe
from .snapshots import Snapshots
from .trial import Trial
from .unit_passes import UnitPasses
from .unit_steps import UnitWise

T = TypeVar("T")


def set_threads(count: int) -> None:
    """Let torch compute with `count` threads in this process. Bits depend on it: it is the scenario's number."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


class TorchWorker(UnitWise, Snapshots, Trial, Guarded):
    """algorithms.worker.Worker with a torch model.

    params, grads: float32 (P + 1,), the last element the mean training loss; params are the model's own memory.
    buffers: float32, those that are averaged (see Buffers). Assigning to them copies into that memory.
    model: taken over, from the CPU to `device`. shared_process: other workers compute in this process too, so torch's
    stream is swapped. warm: take a throw-away step now, so that torch's first-use costs do not fall into the run.
    data_seed: of order, augmentation and BatchNorm's estimates, `seed` by default. loaders: threads that load batches
    ahead. unreached: places of the parameters that the loss does not reach (see Passes.unreached). health: whether to
    raise NotFinite where a loss, a gradient's norm or a parameter is not finite. ValueError where that step fails.
    What fails later in the user's own code is a WorkloadError.
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
    ) -> None:
        self.index = index
        self.model = model.train()
        self.works = works
        self._sampling, self._seed = sampling, seed if data_seed is None else data_seed
        self._passes = Passes(
            self.model, data, recipe, seed=self._seed, worker=index, each=sampling.scored, loaders=loaders
        )
        self._tests = np.arange(*share(len(data.test_y), index, workers))
        self.evaluation_blocks = evaluation_blocks(len(data.test_y), workers)
        self._test_x = Source(data.test_x, loaders, share(len(data.test_y), index, workers)[1])
        self._test_y = torch.from_numpy(data.test_y)
        missing = {id(p) for place, p in enumerate(model.parameters()) if place in unreached}
        self._hold(optimizer, unit_bytes, torch.device(device), missing)
        self._scores = Scores(self._passes.examples, self._seed) if sampling.scored else None
        self._exchanged = False  # whether the last update was by `grads`
        self._activations = 0  # known once warm
        self._shared = shared_process
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "torch", index))
            self._stream = torch.get_rng_state()
            if warm:
                self._warm_up(data)
        self._health = health
        if not shared_process:
            torch.set_rng_state(self._stream)

    def _hold(
        self, optimizer: Mapping[str, Any], unit_bytes: int, device: torch.device, unreached: Collection[int]
    ) -> None:
        """Move parameters, gradients and buffers into flat storage."""
        modules = merge_units(units(self.model), unit_bytes) if len(self.works.units) > 1 else [self.model]
        parameters = [list(m.parameters()) for m in modules]
        self._memory = Memory(parameters, self.works.held, self.index, self.chunks, device, unreached)
        self.model.to(device)  # the buffers; parameters are there, as many at a time as the placement allows
        self._buffers = Buffers(self.model)
        self._params, self._grads = self._memory.host_params, self._memory.host_grads
        layout = self._memory.layout
        # What stays as it is has gradient 0, set here once: autograd never touches it.
        self._grad_views = layout.select(flat_storage.views(self._memory.grads, layout.parameters))
        self._unreached = layout.unreached
        self._whole = self._memory.grads[:-1] if all(layout.trained) else None
        self._vectors: dict[str, Array] = {}
        self._optimizer = optimizers.make(optimizer, layout)
        self._chain = UnitPasses(modules, self._passes, self._memory)
        self.clips = self._optimizer.clips
        self._home: Literal["device", "host"] = "host" if self.works.held.host else "device"
        self._begin_units()

    @property
    def params(self) -> Value:
        """The parameters and the round's mean training loss so far: float32 (P + 1,); see Worker."""
        return self._params

    @params.setter
    def params(self, value: Value) -> None:
        _take(self._params, value)

    @property
    def grads(self) -> Value:
        """The gradient and the batch's training loss: float32 (P + 1,)."""
        return self._grads

    @grads.setter
    def grads(self, value: Value) -> None:
        _take(self._grads, value)

    @property
    def buffers(self) -> Value:
        """The buffers that are averaged for an evaluation: float32."""
        return self._buffers.vector.cpu().numpy()

    @buffers.setter
    def buffers(self, value: Value) -> None:
        self._set_buffers(value)

    def _set_buffers(self, value: Value) -> None:
        assert isinstance(value, np.ndarray)
        self._buffers.vector.copy_(torch.from_numpy(value))

    def step(self, round: Round, i: int) -> Compute[None]:
        """Local step i of the round; the mean of the round's losses so far goes into params[-1]."""
        return Compute(self.works.step, partial(self._run, self._step, round, i))

    def gradient(self, round: Round, i: int) -> Compute[None]:
        """The gradient of step i's batch into `grads`, its loss into grads[-1]."""
        return Compute(self.works.gradient, partial(self._run, self._gradient, round, i))

    def update(self, round: Round, i: int) -> Compute[None]:
        """Apply `grads` with the learning rate of step i."""
        return Compute(self.works.update, partial(self._guarded, self._update, round, i), on=self._home)

    def evaluate(self, buffers: Value) -> Compute[Value]:
        """[sum of losses, correct, count] over the worker's part of the test set with these buffers, float64 (3,)."""
        return Compute(self.works.evaluate, partial(self._run, self._evaluate, buffers, len(self._tests)))

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        """Call `function(params[:-1], *vectors)` on float32 (P,) arrays, which it may write to; see Worker."""
        return Compute(self.works.transform, partial(self._transform, function, names), on=self._home)

    @property
    def moments(self) -> tuple[Value, ...]:
        """The optimizer's vectors of P elements: views of its state, to be exchanged in place."""
        return tuple(self._optimizer.state[name].numpy() for name in self._optimizer.moments)  # on the CPU only

    def reset(self) -> Compute[None]:
        """Zero the optimizer's state, Adam's count of steps too."""
        return Compute(self.works.transform, self._reset, on=self._home)

    def estimate_buffers(self, seed_round: int, batches: int) -> Compute[Value]:
        """The averaged buffers, BatchNorm's statistics re-estimated, float32; the worker itself stays as it is."""
        return Compute(self.works.estimate(batches), partial(self._estimate, seed_round, batches))

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        """function(the worker's scores), on the host."""
        assert self._scores is not None, "only asked of a worker whose sampling is scored"
        return Compute(self.works.scores, partial(function, self._scores), on="host")

    def squares(self) -> Compute[Value]:
        """Sums of squares of the last update's gradient, the parameters and each of `moments`: float64."""
        return Compute(self.works.squares, self._all_squares)

    def memory(self) -> dict[str, int]:
        """Bytes at the peak, as counted: of the tensors on "device" and "host", and of "activations" beside them.

        On a GPU its allocator's own peak takes the place of "device" and "activations" together.
        """
        counted = self._memory.nbytes() | {"activations": self._activations}
        state = sum(v.untyped_storage().nbytes() for v in self._optimizer.state.values() if v.numel() > 1)
        counted[self._home] += state
        if self._memory.device.type == "cuda":
            counted |= {"device": torch.cuda.max_memory_allocated(self._memory.device), "activations": 0}
        return counted

    def digest(self) -> str:
        """SHA-256 of the parameters that this worker keeps."""
        self._memory.pull()
        return hashlib.sha256(self._memory.host_params[: len(self._memory.parameters)].tobytes()).hexdigest()

    def _run(self, body: Callable[..., T], *args: Any) -> T:
        """body(*args) with torch's stream at the worker's place in it."""
        if not self._shared:
            return self._guarded(body, *args)
        outer = torch.get_rng_state()
        torch.set_rng_state(self._stream)
        try:
            return self._guarded(body, *args)
        finally:
            self._stream = torch.get_rng_state()
            torch.set_rng_state(outer)

    def _ended(self, found: T) -> T:
        """What was found, once the device is done too: whoever times a computation reads the clock now."""
        if self._memory.device.type == "cuda":
            torch.cuda.synchronize(self._memory.device)
        return found

    def _step(self, round: Round, i: int) -> None:
        loss = self._backward(round, i)
        self._passes.doing = "the optimizer"
        self._check_norm(self._optimizer.apply(self._passes.gradients(), round.lr(self.index, i)))
        self._note_mean(loss, i)
        self._exchanged = False

    def _gradient(self, round: Round, i: int) -> None:
        loss = self._backward(round, i)
        fresh = self._passes.gradients()
        if self._whole is not None:
            every = zip(self._grad_views, fresh, strict=True)
            torch.cat([torch.zeros_like(v).view(-1) if g is None else g.view(-1) for v, g in every], out=self._whole)
        else:
            for view, grad in zip(self._grad_views, fresh, strict=True):
                view.zero_() if grad is None else view.copy_(grad)
        self._grads[-1] = loss

    def _update(self, round: Round, i: int) -> None:
        self._passes.doing = "the optimizer"
        whole = self.grads_squared.item() if self._memory.held.parts > 1 and self.clips else None
        self._check_norm(self._optimizer.apply(self._exchanged_gradients(), round.lr(self.index, i), whole))
        self._exchanged = True
        if self._memory.held.parts == 1:
            self._note_mean(self._grads.item(-1), i)
        elif self.staged:
            self._memory.pull()

    def _exchanged_gradients(self) -> optimizers.Gradients:
        """The mean gradients; none for a parameter that the loss does not reach, unless one came in this step.

        All workers see the same mean, and know which parameters these are, so they decide alike.
        """
        if not self._unreached:
            return self._grad_views
        idle = {place for place in self._unreached if not self._grad_views[place].any()}
        return [None if place in idle else view for place, view in enumerate(self._grad_views)]

    def _note_mean(self, loss: float, i: int) -> None:
        """The mean of the round's losses so far into params[-1]."""
        mean = self._params.item(-1) if i else loss
        self._params[-1] = mean + (loss - mean) / (i + 1)

    def _evaluate(self, buffers: Value, examples: int) -> Array:
        """The sums over the first `examples` of the worker's part; the worker's own buffers are put back."""
        self._passes.doing = "the evaluation"
        self._check_parameters()
        sums, own = np.zeros(3), self._buffers.vector.clone()
        self._set_buffers(buffers)
        self.model.eval()
        with torch.no_grad():
            for start in range(0, examples, EVALUATION_BATCH):
                chosen = self._tests[start : min(start + EVALUATION_BATCH, examples)]
                sums += self._judge(self._passes.forward(self._test_inputs(chosen)), chosen)
        self.model.train()
        self._buffers.vector.copy_(own)
        return sums

    def _test_inputs(self, chosen: Array) -> Tensor:
        return self._passes.placed(self._test_x.take(chosen))

    def _judge(self, outputs: Tensor, chosen: Array) -> Array:
        """[loss, correct, count] summed over the chosen test examples."""
        y = self._test_y.index_select(0, torch.from_numpy(chosen)).to(outputs.device)
        correct = int((outputs.argmax(1) == y).sum())
        loss = self._passes.evaluation_loss(outputs, y).item()
        self._check("the test loss", loss)
        return np.array([loss * len(y), correct, len(y)])

    def _transform(self, function: Callable[..., None], names: tuple[str, ...]) -> None:
        own = self._params[:-1]
        for name in names:
            if name not in self._vectors:
                self._vectors[name] = np.zeros_like(own)
        apart = self.staged and not self._memory.held.host
        if apart:
            self._memory.pull()
        function(own, *(self._vectors[name] for name in names))
        if apart:
            self._memory.push()

    def _reset(self) -> None:
        for vector in self._optimizer.state.values():
            vector.zero_()

    def _all_squares(self) -> Array:
        parts: dict[str, optimizers.Gradients] = {
            "gradient": self._grad_views if self._exchanged else self._passes.gradients(),
            "parameters": [self._memory.parameters],
        }
        parts |= {name: [self._optimizer.state[name]] for name in self._optimizer.moments}
        found = {name: squares(part) for name, part in parts.items()}
        for name, value in found.items():
            self._check(f"the norm of the {name}", value)
        return np.array(list(found.values()))

    def _estimate(self, seed_round: int, batches: int) -> Array:
        self._passes.doing = "the evaluation"
        chosen = stream(self._seed, "bn", seed_round, self.index).integers(
            0, self._passes.examples, (batches, self.works.step.samples)
        )
        devices = [self._memory.device] if self._memory.device.type == "cuda" else []
        # Dropout draws from a stream of this estimate, and torch's own is put back.
        with unchanged(self.model), torch.random.fork_rng(devices=devices):
            torch.manual_seed(torch_seed(self._seed, "bn", seed_round, self.index))
            # In micro-batches, since these are what the statistics in training are of.
            cuts = self._passes.chunks(self.works.step.samples)
            inputs = (self._passes.inputs(row[cut]) for row in chosen for cut in cuts)
            estimate(self.model, inputs, self._passes.forward)
            return self.buffers.copy()  # type: ignore[union-attr]

    def _backward(self, round: Round, i: int) -> float:
        """Leave the gradient of step i's batch in the parameters' .grad; its mean loss."""
        indices, position = self._next_batch(round, i)
        loss = self._passes.backward(indices, position)
        self._check("the training loss", loss)
        self._score(round, i, indices)
        return loss

    def _next_batch(self, round: Round, i: int) -> tuple[Array, int]:
        """(indices, position) of step i's batch."""
        self._at = round, i
        position, size = round.batch(self.index, i)
        if self._scores is not None and len(self._scores.chosen):
            return self._scores.take(size), position
        indices = self._sampling.indices(self._seed, self._passes.examples, self.index, position, size)
        self._look_ahead(round, i)
        return indices, position

    def _score(self, round: Round, i: int, indices: Array) -> None:
        if self._scores is not None:
            self._scores.record(indices, self._passes.losses, round.nominal(self.index, i))

    def _look_ahead(self, round: Round, i: int) -> None:
        """Let the loaders begin with the batches that are likely to come next."""
        ahead = self._passes.ahead
        for position, size in round.coming(self.index, i, ahead.threads):
            if not ahead.knows(position):
                indices = self._sampling.indices(self._seed, self._passes.examples, self.index, position, size)
                ahead.begin(position, indices)


def _take(own: Array, value: Value) -> None:
    """Copy an exchange's answer into the worker's memory, unless it is there already."""
    if value is not own:
        own[...] = value
