"""Where batches come from: inputs and targets by their places, as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..program.effects import Array
from .dataset import Packed, Stored, kind_of
from .images import Images
from .loaders import AheadLoader
from .pieces import Pieces
from .trees import Tree, leaves, mapped


class Source:
    """Examples by their places, from memory or from where they are stored, as dataset.batch_kind says.

    target: whether they are targets.
    """

    def __init__(self, x: Array | Stored, target: bool = False) -> None:
        kind = kind_of(x, target)
        self._dtype = torch.from_numpy(np.empty(0, kind)).dtype
        plain = isinstance(x, np.ndarray) and x.dtype == kind and not isinstance(x, np.memmap)
        self._tensor = torch.from_numpy(x) if plain else None
        self._x: Stored = Packed([x], dtype=kind) if isinstance(x, np.ndarray) else x

    @property
    def in_memory(self) -> bool:
        """Whether the examples need neither be read nor be converted."""
        return self._tensor is not None

    def pieces(self, indices: Array, pieces: Pieces) -> Tensor:
        """A fresh tensor as from `take`, of pieces of the examples, which are images."""
        if not isinstance(self._x, Images):
            return pieces.cut(self.take(indices))
        made = torch.empty((len(indices), *self._x.shape[1:]), dtype=self._dtype)
        self._x.take(indices, made.numpy(), pieces)
        return made

    def take(self, indices: Array) -> Tensor:
        """A fresh tensor (len(indices), *shape of an example).

        Torch aligns it, and a matrix product's bits may depend on where memory begins.
        """
        if self._tensor is not None:
            return self._tensor.index_select(0, torch.from_numpy(indices))
        made = torch.empty((len(indices), *self._x.shape[1:]), dtype=self._dtype)
        self._x.take(indices, made.numpy())
        return made


class Inputs:
    """The inputs of a model by their places: a tensor, or a tuple or dict of them."""

    def __init__(self, x: Tree[Array | Stored]) -> None:
        self._sources: Tree[Source] = mapped(Source, x)

    def take(self, indices: Array) -> Tree[Tensor]:
        """Each input's examples at these places; see Source.take."""
        found: Tree[Tensor] = mapped(lambda source: source.take(indices), self._sources)
        return found

    def images(self, indices: Array, pieces: Pieces | None) -> Tensor:
        """The only input, images, at these places; or pieces of them."""
        assert isinstance(self._sources, Source), "see recipe.check"
        return self._sources.take(indices) if pieces is None else self._sources.pieces(indices, pieces)


class InputsInOrder(Inputs):
    """Inputs that are asked for in order, by one thread. Those that are not in memory are read ahead.

    loaders: threads that read on up to, not including, `stop`.
    """

    def __init__(self, x: Tree[Array | Stored], loaders: int, stop: int) -> None:
        super().__init__(x)
        plain = all(source.in_memory for source in leaves(self._sources))
        self._stop, self._ahead = (
            stop,
            AheadLoader(lambda _, indices: Inputs.take(self, indices), loaders * (not plain)),
        )

    def take(self, indices: Array) -> Tree[Tensor]:
        """See Inputs."""
        for n in range(1, self._ahead.threads + 1):
            later = indices + n * len(indices)
            later = later[later < self._stop]
            if len(later) and not self._ahead.knows(int(later[0])):
                self._ahead.begin(int(later[0]), later)
        return self._ahead.get(int(indices[0]), indices)
