"""The units of a model whose forward pass is its own code: the time from the call of one block to that of the next.

The model's forward and torch's backward run as they are, in a thread that is paused where a unit ends. So whatever the
code between the blocks does belongs to a unit, tensors may go from any unit to any later one, and the bits are those of
the model in one piece. What a unit is, and which models can be cut so: see cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .cutting import marked
from .parameter_memory import Memory
from .passes import Passes
from .paused import Paused
from .unit_passes import UnitPasses


class PausedPasses(UnitPasses):
    """begins: unit u + 1 begins when the model calls begins[u]. parameters: of each unit.

    Backward needs the same boundaries. Torch's engine computes a graph's nodes in the reverse order of their making, so
    a node that is made where a unit begins comes when backward is through with this unit, and not before.
    """

    def __init__(
        self,
        begins: Sequence[nn.Module],
        parameters: Sequence[Sequence[nn.Parameter]],
        passes: Passes,
        memory: Memory,
    ) -> None:
        super().__init__([], parameters, passes, memory)
        self._begins, self._run = begins, Paused()
        self._units: list[int] = []  # that the pass has entered; backward, that it has not left
        self._target: tuple[Any, int] = None, 0
        self._loss = 0.0

    def forward(self, unit: int, x: Any = None) -> Any:
        """See UnitPasses.forward. A block that the model leaves out in this pass is a unit without work."""
        self._passes.doing = "the model's forward"
        self._go_on(unit, partial(self._train, x))
        return self._flow

    def loss(self, y: Any, whole: int) -> float:
        self._target = y, whole
        self._run.resume()
        return self._loss

    def backward(self, unit: int, add: bool) -> None:
        self._passes.doing = "backward"
        if self._run.running and self._units[-1] == unit:
            self._run.resume()
        trained = [p for p in self._parameters[unit] if p.requires_grad]
        self._keep(unit, iter([p.grad for p in trained]), add)
        for p in trained:
            p.grad = None

    def evaluate(self, unit: int, x: Any = None) -> Any:
        self._passes.doing = "the evaluation"
        self._go_on(unit, partial(self._evaluate, x))
        return self._flow

    def forget(self) -> None:
        self._run.abandon()
        self._passes.forget()
        super().forget()

    def _go_on(self, unit: int, body: Any) -> None:
        """Run up to the end of the unit; `body` is the pass that begins with the first one."""
        if unit == 0:
            self._units = [0]
            self._run.begin(body)
        elif self._units[-1] == unit:
            self._run.resume()

    def _train(self, x: Any) -> None:
        with self._forgetting():
            with self._pausing():
                self._flow = self._passes.forward(x)
            self._run.pause()
            loss = self._passes.loss(self._flow, *self._target)
        self._loss, self._flow, self._target = loss.item(), None, (None, 0)
        self._run.pause()
        loss.backward()  # type: ignore[no-untyped-call]

    def _evaluate(self, x: Any) -> None:
        self._passes.model.eval()
        try:
            with torch.no_grad(), self._pausing():
                self._flow = self._passes.forward(x)
        finally:
            self._passes.model.train()

    @contextmanager
    def _pausing(self) -> Iterator[None]:
        """Pause the model's forward where a unit begins."""
        hooks = [
            module.register_forward_pre_hook(partial(self._enter, unit), with_kwargs=True)
            for unit, module in enumerate(self._begins, start=1)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, unit: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The model calls the unit's first module."""
        if unit <= self._units[-1]:
            raise RuntimeError(
                f"the model calls its block {unit} ({type(module).__name__}) after block {self._units[-1]}, and not so "
                "when it was cut into units; blocks in lists must be called in one order, once each"
            )
        self._units.append(unit)
        self._run.pause()
        return marked(args, kwargs, partial(self._leave, unit))[:2]

    def _leave(self, unit: int, _gradient: Tensor) -> None:
        """Backward is through with the unit."""
        if self._units.pop() != unit:
            raise RuntimeError(f"the gradient comes from the model's unit {unit} and not from those after it")
        self._run.pause()
