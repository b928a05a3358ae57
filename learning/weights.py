"""Weights from elsewhere: a state_dict that a model begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..program.errors import brief
from .user_code import in_words

SHOWN = 3  # differences that an error names


@dataclass(frozen=True, eq=False)
class Weights:
    """A state_dict. name: the file that it comes from, for errors."""

    name: str
    tensors: Mapping[str, Any]

    def copy_into(self, model: nn.Module) -> None:
        """Give the model these parameters and buffers. ValueError where names, shapes or types do not fit."""
        different = self._differences(model.state_dict())
        if different:
            more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
            raise ValueError(f"init {self.name} does not fit the model: {'; '.join(different[:SHOWN])}{more}")
        try:
            model.load_state_dict(self.tensors, strict=False)  # a tied tensor may be missing under its second name
        except RuntimeError as error:  # a module that loads in its own way
            raise ValueError(f"init {self.name} does not fit the model: {in_words(error)}") from error

    def _differences(self, own: Mapping[str, Any]) -> list[str]:
        """What does not fit, a text for each name."""
        found = []
        first = self._tied(own)
        for name, tensor in own.items():
            other = first.get(name)
            if name not in self.tensors:
                found += [] if other else [f"it lacks {brief(name)}"]
            elif unlike := _unlike(name, self.tensors[name], tensor):
                found += unlike
            elif other and not torch.equal(self.tensors[name], self.tensors[other]):
                found.append(f"{brief(other)} and {brief(name)} differ, and are one tensor in the model")
        return found + [f"the model has no {brief(name)}" for name in self.tensors if name not in own]

    def _tied(self, own: Mapping[str, Any]) -> dict[str, str]:
        """For each name of a tensor that the file holds under another name as well, or only under that: the other."""
        names: dict[tuple[int, torch.Size], str] = {}
        places = {name: (t.data_ptr(), t.shape) for name, t in own.items() if isinstance(t, Tensor) and t.numel()}
        for name, place in places.items():
            if name in self.tensors:
                names.setdefault(place, name)
        return {name: names[place] for name, place in places.items() if names.get(place, name) != name}


def _unlike(name: str, given: Any, own: Any) -> list[str]:
    """How a tensor of the file differs from the model's, in shape or kind of numbers; empty where it fits."""
    if not isinstance(given, Tensor) or not isinstance(own, Tensor):
        same = isinstance(given, Tensor) == isinstance(own, Tensor)
        return [] if same else [f"{brief(name)} is a {type(given).__name__}, expected a {type(own).__name__}"]
    if given.shape != own.shape:
        return [f"{brief(name)} has shape {tuple(given.shape)}, expected {tuple(own.shape)}"]
    # Numbers of another precision are converted, as torch does; whole numbers in place of others are a mistake.
    if _kind(given) != _kind(own):
        return [f"{brief(name)} is {given.dtype}, expected {own.dtype}"]
    return []


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
