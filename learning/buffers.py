"""A model's buffers: those that are averaged for an evaluation, in one flat vector, and the worker's own.

Rule: a buffer's module says what the buffer means, its type does not. The running statistics of batch norm and
instance norm are averaged, and so are the buffers that a module names in its attribute `averaged_buffers`. The mean of
other buffers may mean nothing: that of unit vectors is not a unit vector, that of a mask's -inf is not a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..program.effects import Array, Value
from ..program.errors import brief, nearest
from . import flat_storage

ATTRIBUTE = "averaged_buffers"
OWN = "buffer."  # begins the names in snapshots of the worker's own buffers that are not whole numbers


def averaged(model: nn.Module) -> dict[str, Tensor]:
    """The buffers to average, by name. ValueError where a module names one that it does not have."""
    chosen = set[int]()
    for path, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            chosen |= {id(module.running_mean), id(module.running_var)}
        chosen |= {id(buffer) for buffer in _named(module, path)}
    return {name: buffer for name, buffer in model.named_buffers() if id(buffer) in chosen}


def kept_apart(model: nn.Module) -> list[str]:
    """Names of the floating-point buffers of the model's state that stay each worker's own.

    Buffers that are not in the state dict are left out: they are constants, and need no average.
    """
    there, state = averaged(model), model.state_dict(keep_vars=True)
    return [n for n, b in model.named_buffers() if b.is_floating_point() and n in state and n not in there]


def _named(module: nn.Module, path: str) -> list[Tensor]:
    """What the module's attribute names."""
    names = getattr(module, ATTRIBUTE, ())
    where = f"the model's {path}.{ATTRIBUTE}" if path else f"the model's {ATTRIBUTE}"
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} is {brief(names)}; write a tuple of names of its buffers, like ('ema',)")
    there = {n: b for n, b in module.named_buffers(remove_duplicate=False) if b.is_floating_point()}
    for name in names:
        if name not in there:
            near = nearest(name, there)
            raise ValueError(f"{where} names {brief(name)}, which is not a floating-point buffer of it{near}")
    return [there[name] for name in names]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put all buffers back as they were, whatever the model does with them meanwhile."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if name in before:
                buffer.copy_(before[name])


class Buffers:
    """The buffers of one worker's model. The averaged ones become views of one fp32 vector."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._averaged = model, averaged(model)
        known = {id(buffer) for buffer in self._averaged.values()}
        self._places = [
            (module, name, buffer)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and id(buffer) in known
        ]
        self._vector = flat_storage.flatten(list(self._averaged.values()))

    @property
    def vector(self) -> Tensor:
        """The averaged ones. What a model has assigned to a buffer's name, instead of writing into it, is taken in."""
        for module, name, home in self._places:
            now = module._buffers[name]
            if now is not home and now is not None:
                home.copy_(now)
                module._buffers[name] = home
        return self._vector

    def set(self, values: Value) -> None:
        """Copy `values`, an array, into the averaged ones."""
        assert isinstance(values, np.ndarray)
        self.vector.copy_(torch.from_numpy(values))

    @contextmanager
    def lent(self, values: Value) -> Iterator[None]:
        """Let the model compute with these averaged buffers, and put its own back afterwards."""
        own = self.vector.clone()
        self.set(values)
        try:
            yield
        finally:
            self.vector.copy_(own)

    def snapshot(self) -> dict[str, Array]:
        """Copies of all buffers, by name:

        buffers: the averaged ones, fp32.
        counts: the worker's own whole numbers (BatchNorm's counts), int64.
        buffer.<name>: the bytes of each other one, since NumPy may not have its type.
        """
        counts = [b.cpu().numpy().astype(np.int64).ravel() for b in self._own().values() if _whole(b)]
        others = {n: b.cpu().reshape(-1).view(torch.uint8) for n, b in self._own().items() if not _whole(b)}
        return {
            "buffers": self.vector.cpu().numpy().copy(),
            "counts": np.concatenate(counts) if counts else np.empty(0, np.int64),
            **{OWN + name: b.numpy().copy() for name, b in others.items()},
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back, known to be of the same model."""
        self.vector.copy_(torch.from_numpy(np.array(arrays["buffers"])))
        start = 0
        for name, buffer in self._own().items():
            if _whole(buffer):
                saved = torch.from_numpy(np.array(arrays["counts"][start : start + buffer.numel()]))
                start += buffer.numel()
            elif not buffer.numel():  # bytes of nothing cannot be seen as another type
                continue
            else:
                saved = torch.from_numpy(np.array(arrays[OWN + name])).view(buffer.dtype)
            buffer.copy_(saved.view(buffer.shape))

    def _own(self) -> dict[str, Tensor]:
        """The others, by name, as they are now."""
        return {name: b for name, b in self._model.named_buffers() if name not in self._averaged}


def _whole(buffer: Tensor) -> bool:
    """Whether the buffer holds whole numbers, or truth values."""
    return not (buffer.is_floating_point() or buffer.is_complex())
