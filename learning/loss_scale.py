"""Loss scaling: in fp16 small gradients would be 0, so backward begins with the loss times a large number.

The scale follows torch.amp.GradScaler: it is halved where a gradient overflows, and doubled after 2000 steps without
an overflow. GradScaler skips such a step. Here it is tried again with the smaller scale, as in QSR's recipes, so each
step of the plan is taken, and programs and clocks see nothing of it.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..program.effects import Array
from .guard import Guard
from .passes import Passes
from .torch_stream import TorchStream

GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000
SCALE = "loss_scale"  # in snapshots


class LossScale:
    """Backward passes of one worker, scaled where the precision is fp16. None of the units' passes is."""

    def __init__(self, passes: Passes, stream: TorchStream, guard: Guard, first: float | None) -> None:
        """first: the scale at the beginning; None: nothing is scaled."""
        self._passes, self._stream, self._guard, self._scales = passes, stream, guard, first is not None
        self._scale, self._without = first or 1.0, 0  # the scale, and the steps since it last changed

    def backward(self, indices: Array, position: int) -> float:
        """Passes.backward. With fp16, the whole batch is tried again with smaller scales until its gradient is finite.

        Each try has the same data, random numbers and buffers as the first. A loss that is not finite is not tried
        again, since it does not depend on the scale. NotFinite where even a scale below 1 does not help.
        """
        if not self._scales:
            return self._passes.backward(indices, position)
        place, buffers = self._stream.now(), {name: b.clone() for name, b in self._passes.model.named_buffers()}
        while True:
            loss = self._passes.backward(indices, position, self._scale)
            if not math.isfinite(loss):
                return loss
            if self._unscaled():
                self._grow()
                return loss
            if self._scale < 1:
                self._guard.check("the gradient's norm", math.inf)
                return loss
            self._scale, self._without = self._scale * BACKOFF, 0
            self._stream.go_back(place)
            for name, buffer in self._passes.model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])

    def _unscaled(self) -> bool:
        """Divide the gradients by the scale; whether they are finite."""
        there = [grad for grad in self._passes.gradients() if grad is not None]
        if not there:
            return True
        found = torch.zeros(1, device=there[0].device)
        inverse = torch.full((1,), 1.0 / self._scale, device=there[0].device)
        torch._amp_foreach_non_finite_check_and_unscale_(there, found, inverse)  # as GradScaler does it
        return not found.item()

    def _grow(self) -> None:
        self._without += 1
        if self._without == INTERVAL:
            self._scale, self._without = self._scale * GROWTH, 0

    def snapshot(self) -> dict[str, Array]:
        """The scale and the steps since it last changed, float64 (2,); nothing where nothing is scaled."""
        return {SCALE: np.array([self._scale, self._without])} if self._scales else {}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back."""
        if self._scales:
            scale, without = arrays[SCALE].tolist()
            self._scale, self._without = scale, int(without)
