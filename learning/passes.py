"""Forward and backward passes: from the indices of a batch to its gradient.

Rule: a batch's bits depend on its indices, its position and torch's stream alone, not on other workers in the process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..program.effects import Array
from ..program.fold import parts
from ..program.streams import stream, torch_seed
from . import user_code
from .augment import augment
from .buffers import unchanged
from .dataset import Dataset
from .loaders import AheadLoader
from .losses import Found, Loss
from .matching import shown
from .mixup import mixed, mixed_loss
from .pieces import Pieces
from .recipe import Augment, Recipe
from .sources import Inputs, Source
from .trees import Tree, called, leaves, mapped

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision -> what autocast computes in


class Passes:
    """A model and its training data.

    chunks: micro-batches of a batch; None: as few as the recipe allows.
    each: note the losses of single examples, in `losses`.
    loaders: threads that load batches ahead.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        worker: int,
        chunks: int | None = None,
        each: bool = False,
        loaders: int = 0,
        loss: Loss | None = None,
    ) -> None:
        self.model = model
        self.trained = [p for p in model.parameters() if p.requires_grad and p.numel()]
        self.doing = ""  # what it is at, for errors: a name costs nothing until something fails
        self.examples = len(data.train_y)
        self.criterion = loss or Loss(recipe, data)
        self._counted, self._whole = 0.0, 1  # what counts so far in the batch, where everything does: its examples
        self._like = self.trained[0]
        self._pixels = data.pixels
        self._x, self._y = Inputs(data.train_x), Source(data.train_y, target=True)
        self._recipe, self._seed, self._worker, self._each = recipe, seed, worker, each
        self._chunks, self._seen = chunks, list[Array]()
        self.ahead = AheadLoader(self.load, loaders)

    def forward(self, x: Tree[Tensor], module: nn.Module | None = None, final: bool = True) -> Any:
        """The outputs of the model, or of one of its modules; the final ones in fp32 whatever the precision within."""
        module = module or self.model
        if (half := HALF.get(self._recipe.precision)) is None:
            return called(module, x)
        with torch.autocast(self.device.type, half):
            outputs = called(module, x)
        return outputs.float() if final and isinstance(outputs, Tensor) else outputs

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._like.device

    def inputs(self, indices: Array) -> Tree[Tensor]:
        """Training examples as they are in the data."""
        found: Tree[Tensor] = mapped(self.placed, self._x.take(indices))
        return found

    def augmented(self, indices: Array, random: np.random.Generator) -> Tree[Tensor]:
        """Training examples as they are trained on, except for mixup."""
        how = self._recipe.augment
        return self.inputs(indices) if how is None else self.placed(self._changed(indices, how, random))

    def targets(self, indices: Array) -> Tensor:
        """Their targets."""
        return self.placed(self._y.take(indices))

    def placed(self, values: Tensor) -> Tensor:
        """Values on the model's device; real numbers in the precision of its parameters."""
        return values.to(self._like.device, self._like.dtype if values.is_floating_point() else None)

    def prepare(self, indices: Array, position: int) -> tuple[Tree[Tensor], Tree[Tensor]]:
        """The batch (inputs, targets), augmented, where the model is."""
        self._seen, self.doing = [], "reading the data"
        self._counted, self._whole = 0.0, len(indices)
        x, y = self.ahead.get(position, indices)
        return mapped(self.placed, x), mapped(self.placed, y)

    @property
    def losses(self) -> Array:
        """Each example's loss in the last batch, float32 (batch,)."""
        return np.concatenate(self._seen)

    def load(self, position: int, indices: Array) -> tuple[Tree[Tensor], Tree[Tensor]]:
        """The batch (inputs, targets), augmented; a pure function of its arguments. See mixup.py for mixed targets."""
        how = self._recipe.augment
        if how is None:
            return self._x.take(indices), self._y.take(indices)
        random = stream(self._seed, "augment", self._worker, position)
        x, y = self._changed(indices, how, random), self._y.take(indices)
        return mixed(x, y, how.mixup, self.chunks(len(x)), random) if how.mixup else (x, y)

    def _changed(self, indices: Array, how: Augment, random: np.random.Generator) -> Tensor:
        pieces = how.resized_crop and Pieces(how.resized_crop, len(indices), random)
        return augment(self._x.images(indices, pieces or None), how, random, self._pixels)

    def chunks(self, count: int) -> list[slice]:
        """A batch of `count` in micro-batches, of sizes that differ by one at most."""
        number = self._chunks or -(-count // (self._recipe.micro_batch or count))
        return [slice(start, stop) for start, stop in parts(count, number)]

    def backward(self, indices: Array, position: int, scale: float = 1.0) -> float:
        """Leave the gradient of the batch's loss, times `scale`, in the parameters' .grad, and return that loss, as if
        everything counted: see `loss` and `missing`.

        Autograd makes new gradients: zeroing and adding into flat ones took 10 % longer.
        """
        x, y = self.prepare(indices, position)
        self.forget()
        chunks, whole = self.chunks(len(indices)), len(indices)
        total = 0.0
        for cut in chunks:
            inputs, targets = (x, y) if len(chunks) == 1 else (part(x, cut), part(y, cut))
            self.doing = "the model's forward"
            loss = self.loss(self.forward(inputs), targets, whole)
            self.doing = "backward"
            (loss if scale == 1.0 else loss * scale).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    def loss(self, outputs: Any, y: Tree[Tensor], whole: int) -> Tensor:
        """From what backward begins: these examples' part in the loss of a batch of `whole` examples, as if everything
        in it counted. What does is noted."""
        self.doing = "the loss"
        criterion = mixed_loss(self.criterion) if isinstance(y, tuple) else self.criterion
        try:
            found: Found = criterion(outputs, y, self._each)  # type: ignore[arg-type]
        except user_code.FAILURES:
            self.doing = f"the loss of outputs {shown(outputs)} and targets {shown(leaves(y)[0])}"
            raise
        if found.each is not None:
            self._seen.append(found.each.cpu().numpy())
        if found.counted is None:
            count: int = (y[0] if isinstance(y, tuple) else y).shape[0]  # type: ignore[union-attr]
            self._counted += count
            return found.value if count == whole else found.value * (count / whole)
        self._counted += float(found.counted) / self.criterion.full
        return found.value / (whole * self.criterion.full)

    @property
    def missing(self) -> float:
        """The share of the last batch that does not count. Its gradient is that of `backward`, divided by the rest."""
        return 1.0 - self._counted / self._whole

    def settle(self, loss: float) -> float:
        """Divide the gradient of the last batch by what counts in it, and answer the loss divided so."""
        missing = self.missing
        if not missing:
            return loss
        torch._foreach_mul_([p.grad for p in self.trained if p.grad is not None], by_rest(missing))
        return loss * by_rest(missing)

    def forget(self) -> None:
        """Drop the gradients."""
        for p in self.trained:
            p.grad = None

    def gradients(self) -> list[Tensor | None]:
        """The new gradients; none for parameters that the loss did not reach."""
        return [p.grad for p in self.trained]

    def unreached(self) -> set[int]:
        """The places, among all parameters, of those that are trained although the loss does not reach them.

        Tried with the first two examples, so that all workers find the same; what counts in these is noted in the loss.
        The model stays as it is. Where the trial fails, the answer is empty: the step that a worker tries next says
        why.
        """
        with torch.random.fork_rng(devices=[]), unchanged(self.model):
            torch.manual_seed(torch_seed(self._seed, "reached"))
            try:
                self.backward(np.arange(2) % self.examples, 0)
                missing = {id(p) for p in self.trained if p.grad is None}
                self.criterion.expect(1.0 - self.missing)
            except user_code.FAILURES:  # whatever a user's model or loss does
                missing = set()
            self.forget()
        return {place for place, p in enumerate(self.model.parameters()) if id(p) in missing}


def by_rest(missing: float) -> float:
    """The factor that divides by the share that is not missing. Where all is, it is not a number, as in torch."""
    return 1.0 / (1.0 - missing) if missing != 1.0 else math.nan


def note_mean(params: Array, loss: float, i: int) -> None:
    """The mean of the round's losses so far, with that of step i, into the vector's last element."""
    mean = params.item(-1) if i else loss
    params[-1] = mean + (loss - mean) / (i + 1)


def part(x: Tree[Tensor], cut: slice) -> Tree[Tensor]:
    """These examples of each input or target."""
    found: Tree[Tensor] = mapped(lambda values: values[cut], x)
    return found


def squares(tensors: Sequence[Tensor | None]) -> float:
    """The sum of squares over all tensors that are there, added up in float64."""
    there = [t.detach() for t in tensors if t is not None]
    return sum(float(torch.linalg.vector_norm(t, dtype=torch.float64)) ** 2 for t in there)
