"""Optimizers over views of flat storage.

Rules: elementwise, over the same list of tensors whether the gradients are fresh from autograd or views of the
exchanged vector, so a local step and gradient + update give the same bits. The learning rate comes from the round. A
parameter without a gradient is left alone, as torch does: no decay, no momentum, no count of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from .flat_storage import views, zeros
from .optimizer_state import ADAM, VELOCITY

T = TypeVar("T")
DecayScope = Literal["all", "matrices"]
GradientList = Sequence[Tensor | None]  # one per trained parameter, None where the loss did not reach it


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a weight decay."""

    places: list[int]  # among the trained parameters
    weight_decay: float

    def of(self, items: Sequence[T]) -> list[T]:
        """The group's items of a list that has one per trained parameter."""
        return [items[place] for place in self.places]

    def with_gradients(self, grads: GradientList, own: Sequence[list[Any]]) -> list[list[Any]]:
        """The group's gradients that there are, and of the lists in `own` the items at their places."""
        found = self.of(grads)
        missing = {i for i, grad in enumerate(found) if grad is None}
        if not missing:
            return [found, *own]
        return [[item for i, item in enumerate(items) if i not in missing] for items in (found, *own)]


@dataclass(frozen=True)
class Layout:
    """A model's parameters as views of flat storage, without autograd, and which of them are trained.

    An optimizer's vectors are as long as all parameters together, so that they can be exchanged like these.
    """

    parameters: Sequence[Tensor]
    trained: Sequence[bool]
    matrices: Sequence[bool] | None = None  # whether each is a piece of a parameter with two dimensions or more
    unreached: Sequence[int] = ()  # places, among the trained ones, of parameters that the loss does not reach

    def select(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Those of `tensors`, one per parameter, whose parameters are trained."""
        return [t for t, trained in zip(tensors, self.trained, strict=True) if trained]

    def zeros(self) -> tuple[Tensor, list[Tensor]]:
        """(a vector of zeros, its views in the shapes of the trained parameters)."""
        first = self.parameters[0]
        size = sum(p.numel() for p in self.parameters)
        vector = zeros(size, first.dtype, first.device)
        return vector, self.select(views(vector, self.parameters))

    def groups(self, decay: DecayScope, weight_decay: float) -> list[ParameterGroup]:
        """The trained parameters with their weight decay, in at most two groups."""
        every = [p.ndim > 1 for p in self.parameters] if self.matrices is None else self.matrices
        matrices = [matrix for matrix, trained in zip(every, self.trained, strict=True) if trained]
        decays = [decay == "all" or matrix for matrix in matrices]
        found = [
            ParameterGroup([i for i, flag in enumerate(decays) if flag], weight_decay),
            ParameterGroup([i for i, flag in enumerate(decays) if not flag], 0.0),
        ]
        return [group for group in found if group.places]


class Optimizer(ABC):
    """Updates the trained parameters."""

    state: dict[str, Tensor]  # what it carries from step to step, by name, fp32; it goes into snapshots
    moments: tuple[str, ...]  # the names of those vectors in it that have one element per parameter of the model
    clips: bool  # whether it needs the norm of the whole gradient

    @abstractmethod
    def apply(self, grads: GradientList, lr: float, squares: float | None = None) -> Tensor | None:
        """One update; `grads` have the parameters' shapes and are clipped in place. Returns the norm that they had.

        squares: the sum of the whole gradient's squares, where `grads` are only a part of it. Without clipping, None.
        """

    def reset(self) -> None:
        """Put the state back to its beginning."""
        for vector in self.state.values():
            vector.zero_()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` was, by the same names."""
        for name, vector in self.state.items():
            vector.copy_(state[name])


class SGD(Optimizer):
    """SGD as torch.optim.SGD defines it: g += weight_decay x; v <- momentum v + g; x <- x - lr v.

    With nesterov x <- x - lr (g + momentum v). decay, clip: see config.workload.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay: DecayScope = "all",
        clip: float | None = None,
    ) -> None:
        self._clip = clip
        self._options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov}
        parameters = layout.select(layout.parameters)
        self.clips = clip is not None
        self.state: dict[str, Tensor] = {}
        self.moments: tuple[str, ...] = VELOCITY if momentum else ()
        velocity: Sequence[Tensor | None] = [None] * len(parameters)
        if momentum:
            # Zeros are what torch begins with in effect: its first v is g.
            self.state[VELOCITY[0]], velocity = layout.zeros()
        self._groups = [
            (group, (group.of(parameters), group.of(velocity))) for group in layout.groups(decay, weight_decay)
        ]

    def apply(self, grads: GradientList, lr: float, squares: float | None = None) -> Tensor | None:
        """See Optimizer. Fused: one pass over memory instead of up to four (15 % of a 4 M-parameter MLP's step)."""
        norm = clip(grads, self._clip, squares)
        for group, own in self._groups:
            fresh, parameters, velocity = group.with_gradients(grads, own)
            sgd(
                parameters,
                fresh,
                velocity,
                fused=True,
                lr=lr,
                dampening=0.0,
                maximize=False,
                weight_decay=group.weight_decay,
                **self._options,
            )
        return norm


class AdamW(Optimizer):
    """AdamW as torch.optim.AdamW defines it (Loshchilov and Hutter, arXiv 1711.05101).

    x <- x - lr weight_decay x; m, v: running means of g and g^2; x <- x - lr m' / (sqrt(v') + eps) with m', v' the
    means freed of their start at 0. decay, clip: see config.workload.
    """

    moments: tuple[str, ...] = ADAM

    def __init__(
        self,
        layout: Layout,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decay: DecayScope = "all",
        clip: float | None = None,
    ) -> None:
        self._clip = clip
        self._options: dict[str, Any] = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
        parameters = layout.select(layout.parameters)
        first, firsts = layout.zeros()
        second, seconds = layout.zeros()
        self.clips = clip is not None
        # One count per tensor, as torch wants it; equal except for those that the loss does not always reach.
        steps = torch.zeros(len(parameters), device=first.device)
        self.state = {"exp_avg": first, "exp_avg_sq": second, "step": steps}
        self._groups = [
            (group, (group.of(parameters), group.of(firsts), group.of(seconds), group.of(list(steps))))
            for group in layout.groups(decay, weight_decay)
        ]

    def apply(self, grads: GradientList, lr: float, squares: float | None = None) -> Tensor | None:
        """See Optimizer."""
        norm = clip(grads, self._clip, squares)
        for group, own in self._groups:
            fresh, parameters, firsts, seconds, steps = group.with_gradients(grads, own)
            adamw(
                parameters,
                fresh,
                firsts,
                seconds,
                [],
                steps,
                fused=True,
                amsgrad=False,
                lr=lr,
                weight_decay=group.weight_decay,
                maximize=False,
                **self._options,
            )
        return norm


def clip(grads: GradientList, most: float | None, squares: float | None = None) -> Tensor | None:
    """Scale the gradients in place so that their common norm is `most` at most, as torch.nn.utils.clip_grad_norm_;
    the norm that they had.

    squares: the sum of the squares, where it is not that of these gradients alone.
    """
    there = [] if most is None else [grad for grad in grads if grad is not None]
    if most is None or not there:
        return None
    if squares is None:
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(there)))
    else:
        norm = torch.tensor(squares, dtype=there[0].dtype, device=there[0].device).sqrt()
    torch._foreach_mul_(there, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adamw": AdamW}
