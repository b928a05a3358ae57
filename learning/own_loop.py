"""The worker of a user's own training loop: their model and optimizer, as methods that exchange parameters see them.

Rules: the loop computes the steps, and nothing here calls the model except to evaluate it. Exchanges work on a copy in
host memory (pull, push), so the model's parameters stay where the user's program has them, on whatever device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..algorithms.costs import TAIL, Works
from ..algorithms.metrics import TEST_LOSS, Metric
from ..algorithms.rounds import Round
from ..algorithms.sampling import Sampling
from ..algorithms.scores import Scores
from ..algorithms.worker import Whole
from ..program.effects import Array, Compute, Move, Value
from ..program.errors import NotFinite, ScenarioError
from .buffers import Buffers
from .flat_storage import views, zeros
from .passes import note_mean, squares

NAMES = {"momentum_buffer": "momentum"}  # torch's name of a vector -> the scenario's, where it has another
# What an evaluation answers: for each name, "test_loss" among them, a sum over this rank's examples and their number.
Sums = Mapping[str, tuple[float, float]]
Evaluate = Callable[[], Sums]


class OwnLoopWorker:
    """The part of algorithms.worker.Worker that methods which exchange parameters use; its methods are said there.

    evaluate: the user's evaluation of the model on this rank's part of the test set.
    """

    staged = True  # its exchanges work on a copy

    def __init__(
        self,
        index: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        works: Works,
        *,
        sampling: Sampling,
        examples: int,
        seed: int,
        evaluate: Evaluate | None = None,
        health: bool = True,
    ) -> None:
        """ValueError where a parameter is neither fp32, bf16, fp16 nor fp64, or where there is none."""
        self.index, self.model, self.works = index, model, works
        self._optimizer, self._evaluate, self._health = optimizer, evaluate, health
        self.metrics: tuple[Metric, ...] = (TEST_LOSS,)
        self._sampling, self._examples, self._seed = sampling, examples, seed
        self._parameters = [p for p in model.parameters() if p.numel()]
        dtype = item_type(self._parameters)
        size = sum(p.numel() for p in self._parameters)
        vector = zeros(size + TAIL, dtype, torch.device("cpu"), pinned=self._parameters[0].is_cuda)
        self._views = views(vector[:-TAIL], self._parameters)
        self._params: Array = vector.numpy()
        self._vectors: dict[str, Array] = {}
        self._moments: dict[str, Tensor] = {}
        self._buffers = Buffers(model) if evaluate is not None else None
        self.step_losses: list[float] = []  # of the loop's batches in the last round
        self.scores = Scores(examples, seed) if sampling.scored else None
        self._noted: tuple[Round, int, float] | None = None  # the step that the loop has just taken, and its loss
        self._pull()

    # What the loop tells and asks.

    def indices(self, round: Round, i: int) -> Array:
        """The examples of step i's batch."""
        position, size = round.batch(self.index, i)
        if self.scores is not None and len(self.scores.chosen):
            return self.scores.take(size)
        return self._sampling.draw(self._seed, self._examples, self.index, position, size)

    def note(
        self, round: Round, i: int, loss: float, losses: Array | None = None, indices: Array | None = None
    ) -> None:
        """The loop has taken step i of the round. losses: of its examples, which are at `indices`."""
        if self.scores is not None and losses is not None and indices is not None:
            self.scores.record(indices, losses, round.nominal(self.index, i))
        self._noted = round, i, loss

    def turn(self) -> None:
        """A step of the loop, as the program counts it: the mean of the round's losses so far goes into params[-1]."""
        assert self._noted, "the loop notes its step first"
        round, i, loss = self._noted
        if not i:
            self.step_losses = []
        self.step_losses.append(loss)
        note_mean(self._params, loss, i)
        if i + 1 == round.steps[self.index] and self._parameters[0].is_cuda:
            torch.cuda.synchronize(self._parameters[0].device)  # the steps end here, and not in the copy that follows

    # What the program asks.

    def steps(self, round: Round, start: int = 0) -> Compute[None]:
        return Compute(self.works.step, self.turn, times=round.steps[self.index], first=self.works.first(start))

    @property
    def params(self) -> Value:
        """(P + TAIL,): a copy of the parameters, as of the last pull, 0, and the round's mean training loss so far."""
        return self._params

    @params.setter
    def params(self, value: Value) -> None:
        if value is not self._params:
            self._params[...] = value

    def pull(self, what: Whole) -> Move:
        return Move(self._params, "host", self._pull)

    def push(self, what: Whole) -> Move:
        return Move(self._params, "device", self._push)

    @property
    def moments(self) -> dict[str, Value]:
        """The optimizer's vectors by name, in the order in which it made them: its state becomes views of them.

        A parameter without a state (it had no gradient yet) has zeros there, and goes on without one.
        """
        names = self._names()
        for name in names:
            if name not in self._moments:
                self._moments[name] = torch.zeros(len(self._params) - TAIL, dtype=self._parameters[0].dtype)
            for p, place in zip(self._parameters, views(self._moments[name], self._parameters), strict=True):
                state = self._optimizer.state.get(p, {})
                if name in state and state[name].data_ptr() != place.data_ptr():
                    place.copy_(state[name])
                    state[name] = place
        return {NAMES.get(name, name): self._moments[name].numpy() for name in names}

    def reset(self) -> Compute[None]:
        return Compute(self.works.transform, self._optimizer.state.clear)

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        return Compute(self.works.transform, partial(self._transform, function, names))

    @property
    def buffers(self) -> Value:
        """See Buffers; empty where nothing is evaluated. Narrow ones are averaged as fp32, which NumPy has."""
        if self._buffers is None:
            return np.empty(0, np.float32)
        vector = self._buffers.vector.cpu()
        return (vector if vector.dtype == torch.float64 else vector.float()).numpy()

    def evaluate(self, buffers: Value) -> Compute[Value]:
        return Compute(self.works.evaluate, partial(self._evaluated, buffers))

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        assert self.scores is not None, "only asked of a worker whose sampling is scored"
        return Compute(self.works.scores, partial(function, self.scores), on="host")

    def squares(self) -> Compute[Value]:
        return Compute(self.works.squares, self._all_squares)

    def digest(self) -> str:
        """SHA-256 of the parameters."""
        self._pull()
        return hashlib.sha256(self._params[:-TAIL].data).hexdigest()

    def snapshot(self) -> dict[str, Array]:
        """The vectors of `transform` that outlive a round, and what biased sampling knows. The rest is the user's."""
        found = {f"vector.{name}": vector.copy() for name, vector in self._vectors.items() if name[0] != "_"}
        scores = {} if self.scores is None else self.scores.snapshot()
        return found | {f"scores.{name}": array for name, array in scores.items()}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back."""
        taken = {"vector": dict[str, Array](), "scores": dict[str, Array]()}
        for name, array in arrays.items():
            kind, _, inner = name.partition(".")
            taken[kind][inner] = np.array(array)
        if any(vector.shape != self._params[:-TAIL].shape for vector in taken["vector"].values()):
            raise ScenarioError(
                "LocalSync: the saved state is that of another model; load the model that it belongs to"
            )
        self._vectors = taken["vector"]
        if self.scores is not None:
            self.scores.restore(taken["scores"])

    def _pull(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._views, [p.detach() for p in self._parameters])

    def _push(self) -> None:
        self._check()
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in self._parameters], self._views)

    def _check(self) -> None:
        """NotFinite where a parameter is not finite after an exchange, if numbers are watched."""
        if self._health and not np.isfinite(self._params[:-TAIL].sum(dtype=np.float64)):
            raise NotFinite(f"worker {self.index}: a parameter is not finite after an exchange")

    def _transform(self, function: Callable[..., None], names: tuple[str, ...]) -> None:
        self._pull()
        own = self._params[:-TAIL]
        for name in names:
            if name not in self._vectors:
                self._vectors[name] = np.zeros_like(own)
        function(own, *(self._vectors[name] for name in names))
        self._push()

    def _evaluated(self, buffers: Value) -> Array:
        """The sum and the count of each of `metrics`, which are those that the user's evaluation names."""
        if self._evaluate is None or self._buffers is None:
            return np.zeros(2)
        training = self.model.training
        self.model.eval()
        with self._buffers.lent(buffers) if self._buffers.vector.numel() else nullcontext(), torch.no_grad():
            found = self._evaluate()
        self.model.train(training)
        others = [name for name in found if name != TEST_LOSS.name]
        self.metrics = (TEST_LOSS, *map(Metric, others))
        return np.array([part for name in (TEST_LOSS.name, *others) for part in found[name]], np.float64)

    def _all_squares(self) -> Array:
        """See Worker.squares; each vector is added up as a whole, so that the bits are those of other workers."""
        self._pull()
        vectors = [torch.cat([self._of(name, p).reshape(-1) for p in self._parameters]) for name in self._names()]
        gradients = [p.grad for p in self._parameters]
        whole = [[vector] for vector in (torch.from_numpy(self._params[:-TAIL]), *vectors)]
        return np.array([squares(gradients), *map(squares, whole)])

    def _names(self) -> list[str]:
        """The names of the optimizer's vectors, in the order in which it made them."""
        states = self._optimizer.state
        return list(dict.fromkeys(name for p in self._parameters for name in _vectors(p, states.get(p, {}))))

    def _of(self, name: str, parameter: Tensor) -> Tensor:
        """The parameter's part of an optimizer's vector; zeros where it has none."""
        found: Tensor | None = self._optimizer.state.get(parameter, {}).get(name)
        return torch.zeros_like(parameter) if found is None else found


def _vectors(parameter: Tensor, state: Mapping[str, Any]) -> list[str]:
    """The names in an optimizer's state of a parameter of what has an element for each of the parameter's."""
    return [n for n, t in state.items() if isinstance(t, Tensor) and t.shape == parameter.shape and t.ndim]


def item_type(parameters: list[nn.Parameter]) -> torch.dtype:
    """The type of the exchanged copy: fp64 where a parameter is, else fp32. ValueError where that cannot be."""
    types = {p.dtype for p in parameters}
    if not types:
        raise ValueError("the model has no parameters; make them before LocalSync, for example by one forward pass")
    other = types - {torch.float32, torch.float64, torch.bfloat16, torch.float16}
    if other:
        raise ValueError(f"a parameter of the model is {min(map(str, other))}; only floating-point ones are averaged")
    return torch.float64 if torch.float64 in types else torch.float32
