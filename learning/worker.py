"""The worker that trains: one replica of a model, its share of the data, its random stream.

Rules: all mutation happens inside `Compute.run`; torch's global stream belongs to the worker while it computes; the
same calls give the same bits alone in a process (a rank) and beside other workers in one (a simulation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..algorithms.effects import Array, Compute, Value
from ..algorithms.plan import Round
from ..algorithms.sampling import Sampling
from ..algorithms.streams import torch_seed
from ..algorithms.worker import Works, share
from . import imports, optimizers, storage, tables
from .data import Dataset
from .units import float_buffers

T = TypeVar("T")
Loss = Callable[[Tensor, Tensor], Tensor]

EVALUATION_BATCH = 256  # examples per forward pass of an evaluation: fixed, so that its bits are


def resolve_loss(name: str) -> Loss:
    """cross_entropy, or the function at an import path: (outputs, targets) -> their mean loss, a scalar tensor."""
    tables.check_loss(name)
    return imports.load(name, "loss") if imports.named(name) else nn.functional.cross_entropy


def set_threads(count: int) -> None:
    """Let torch compute with `count` threads in this process. Bits depend on it: it is the scenario's number."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


class TorchWorker:
    """algorithms.worker.Worker on the CPU.

    params, grads: float32 (P + 1,), the last element the mean training loss; params are the model's own memory.
    buffers: float32, BatchNorm's running statistics likewise. Assigning to them copies into that memory.

    model: taken over. shared_process: other workers compute in this process too, so torch's stream is swapped.
    warm: take a throw-away step now, so that torch's first-use costs do not fall into the run. ValueError where the
    model is not fp32, or where that step fails.
    """

    def __init__(
        self,
        index: int,
        workers: int,
        model: nn.Module,
        data: Dataset,
        *,
        loss: Loss,
        optimizer: Mapping[str, Any],
        sampling: Sampling,
        seed: int,
        works: Works,
        shared_process: bool,
        warm: bool = True,
    ) -> None:
        self.index = index
        self.model = model.train()
        self.works = works
        self._loss, self._sampling, self._seed = loss, sampling, seed
        self._examples = len(data.train_y)
        self._train_x, self._train_y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
        part = slice(*share(len(data.test_y), index, workers))
        self._test_x, self._test_y = torch.from_numpy(data.test_x[part]), torch.from_numpy(data.test_y[part])
        self._hold(optimizer)
        self._shared = shared_process
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "torch", index))
            self._stream = torch.get_rng_state()
            if warm:
                self._warm_up()
        if not shared_process:
            torch.set_rng_state(self._stream)

    def _hold(self, optimizer: Mapping[str, Any]) -> None:
        """Move parameters, gradients and buffers into flat storage."""
        parameters, buffers = dict(self.model.named_parameters()), float_buffers(self.model)
        storage.check(parameters, "parameter")
        storage.check(buffers, "buffer")
        vector, views = storage.flatten(list(parameters.values()), extra=1)
        self._params: Array = vector.numpy()
        self._flat_grads = torch.zeros_like(vector)
        self._grads: Array = self._flat_grads.numpy()
        self._buffers: Array = storage.flatten(list(buffers.values()))[0].numpy()
        self._counts = [b for b in self.model.buffers() if not b.is_floating_point()]
        pairs = list(zip(parameters.values(), views, strict=True))
        grad_views = storage.views(self._flat_grads, views)
        self._trained = [p for p, _ in pairs if p.requires_grad]
        # What stays as it is has gradient 0, set here once: autograd never touches it.
        self._grad_views = [g for (p, _), g in zip(pairs, grad_views, strict=True) if p.requires_grad]
        self._whole = self._flat_grads[:-1] if len(self._trained) == len(pairs) else None
        self._optimizer = optimizers.make(optimizer, optimizers.Layout(views, [p.requires_grad for p, _ in pairs]))

    @property
    def params(self) -> Value:
        """The parameters and the round's mean training loss so far: float32 (P + 1,)."""
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
        """The floating-point buffers: float32."""
        return self._buffers

    @buffers.setter
    def buffers(self, value: Value) -> None:
        _take(self._buffers, value)

    def step(self, round: Round, i: int) -> Compute[None]:
        """Local step i of the round; the mean of the round's losses so far goes into params[-1]."""
        return Compute(self.works.step, partial(self._run, self._step, round, i))

    def gradient(self, round: Round, i: int) -> Compute[None]:
        """The gradient of step i's batch into `grads`, its loss into grads[-1]."""
        return Compute(self.works.gradient, partial(self._run, self._gradient, round, i))

    def update(self, round: Round, i: int) -> Compute[None]:
        """Apply `grads` with the learning rate of step i."""
        return Compute(self.works.update, partial(self._update, round, i))

    def evaluate(self, buffers: Value) -> Compute[Value]:
        """[sum of losses, correct, count] over the worker's part of the test set with these buffers, float64 (3,)."""
        return Compute(self.works.evaluate, partial(self._run, self._evaluate, buffers, len(self._test_y)))

    def snapshot(self) -> dict[str, Array]:
        """Copies of all that outlives a round: params (worker 0's, the loop broadcasts them), buffers, counts
        (BatchNorm's), rng (torch's stream, bytes) and the optimizer's vectors as optimizer.<name>."""
        saved = self._state()
        if self.index != 0:
            del saved["params"]
        return saved

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. ValueError where it is another model's, or another optimizer's."""
        here = self._state()
        missing = here.keys() - arrays.keys() - ({"params"} if self.index else set())
        if missing or arrays.keys() - here.keys():
            raise ValueError(
                f"worker {self.index}: the checkpoint holds {', '.join(sorted(arrays))}; "
                f"expected {', '.join(sorted(here))}"
            )
        for name, array in arrays.items():
            if array.shape != here[name].shape:
                raise ValueError(
                    f"worker {self.index}: {name} has {array.size} elements in the checkpoint, {here[name].size} here"
                )
        if "params" in arrays:
            self._params[:] = arrays["params"]
        self._buffers[:] = arrays["buffers"]
        for name, vector in self._optimizer.state.items():
            vector.numpy()[:] = arrays[f"optimizer.{name}"]
        counts, start = arrays["counts"], 0
        for count in self._counts:
            taken = counts[start : start + count.numel()]
            count.copy_(torch.from_numpy(np.array(taken)).view(count.shape))
            start += count.numel()
        stream = torch.from_numpy(np.array(arrays["rng"]))
        if self._shared:
            self._stream = stream
        else:
            torch.set_rng_state(stream)

    def _state(self) -> dict[str, Array]:
        counts = [c.numpy().astype(np.int64).ravel() for c in self._counts]
        stream = self._stream if self._shared else torch.get_rng_state()
        return {
            "params": self._params.copy(),
            "buffers": self._buffers.copy(),
            "counts": np.concatenate(counts) if counts else np.empty(0, np.int64),
            "rng": stream.numpy().copy(),
            **{f"optimizer.{name}": vector.numpy().copy() for name, vector in self._optimizer.state.items()},
        }

    def _run(self, body: Callable[..., T], *args: Any) -> T:
        """body(*args) with torch's stream at the worker's place in it."""
        if not self._shared:
            return body(*args)
        outer = torch.get_rng_state()
        torch.set_rng_state(self._stream)
        try:
            return body(*args)
        finally:
            self._stream = torch.get_rng_state()
            torch.set_rng_state(outer)

    def _step(self, round: Round, i: int) -> None:
        loss = self._backward(self._indices(round, i))
        self._optimizer.apply(self._fresh(), round.lr(self.index, i))
        mean = self._params.item(-1) if i else loss
        self._params[-1] = mean + (loss - mean) / (i + 1)

    def _gradient(self, round: Round, i: int) -> None:
        loss = self._backward(self._indices(round, i))
        fresh = self._fresh()
        if self._whole is not None:
            torch.cat([g.view(-1) for g in fresh], out=self._whole)
        else:
            for view, grad in zip(self._grad_views, fresh, strict=True):
                view.copy_(grad)
        self._grads[-1] = loss

    def _update(self, round: Round, i: int) -> None:
        self._optimizer.apply(self._grad_views, round.lr(self.index, i))

    def _evaluate(self, buffers: Value, examples: int) -> Array:
        """The sums over the first `examples` of the worker's part; the worker's own buffers are put back."""
        sums, own = np.zeros(3), self._buffers.copy()
        self._buffers[...] = buffers
        self.model.eval()
        with torch.no_grad():
            for start in range(0, examples, EVALUATION_BATCH):
                cut = slice(start, start + EVALUATION_BATCH)
                # Copies: torch aligns them, and a matrix product's bits may depend on where NumPy's memory begins.
                x, y = self._test_x[cut].clone(), self._test_y[cut].clone()
                outputs = self.model(x)
                correct = int((outputs.argmax(1) == y).sum())
                sums += (self._loss(outputs, y).item() * len(y), correct, len(y))
        self.model.train()
        self._buffers[...] = own
        return sums

    def _indices(self, round: Round, i: int) -> Array:
        position, size = round.batch(self.index, i)
        return self._sampling.indices(self._seed, self._examples, self.index, position, size)

    def _backward(self, indices: Array) -> float:
        """Leave the batch's gradient in the parameters' .grad, and return its mean loss.

        Autograd makes new gradients: zeroing and adding into flat ones took 10 % longer.
        """
        chosen = torch.from_numpy(indices)
        x, y = self._train_x.index_select(0, chosen), self._train_y.index_select(0, chosen)
        for p in self._trained:
            p.grad = None
        loss = self._loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _fresh(self) -> list[Tensor]:
        """The new gradients; zeros for parameters that the loss did not reach."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._trained]

    def _warm_up(self) -> None:
        """One step and one batch of evaluation, whose effects are taken back."""
        saved, batch = self._state(), self.works.step.samples
        try:
            self._backward(np.arange(batch) % self._examples)
            self._optimizer.apply(self._fresh(), 0.0)
            self._evaluate(self._buffers, min(EVALUATION_BATCH, len(self._test_y)))
        except Exception as error:  # whatever a user's model or loss does
            raise ValueError(f"a training step of {batch} examples fails: {imports.one_line(error)}") from error
        self.restore({k: v for k, v in saved.items() if k != "params" or self.index == 0})
        self._params[:] = saved["params"]


def _take(own: Array, value: Value) -> None:
    """Copy an exchange's answer into the worker's memory, unless it is there already."""
    if value is not own:
        own[...] = value
