"""A model as a list of units, each taking the output of the one before: forward and backward one unit at a time.

Rule: the bits are those of the model in one piece (tests compare them), so computing unit by unit changes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .parameter_memory import Memory
from .passes import Passes
from .trees import Tree, leaves


class UnitPasses:
    """The units between their parameters in `memory` and the batches and the loss of `passes`."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        parameters: Sequence[Sequence[nn.Parameter]],
        passes: Passes,
        memory: Memory,
    ) -> None:
        """parameters: each unit's own."""
        self._modules, self._parameters, self._passes, self._memory = modules, parameters, passes, memory
        passes.trained = [p for own in parameters for p in own if p.requires_grad and p.numel()]  # in memory's order
        self._borrowed = [
            [p for p in module.parameters() if p.requires_grad and p not in set(own)]
            for module, own in zip(modules, parameters, strict=False)
        ]
        self._lent: dict[Tensor, Tensor] = {}  # gradients of parameters that earlier units have, until their backward
        self._saved: dict[int, int] | None = None  # storages that autograd keeps, while they are counted
        # Each unit's (input, output), from forward to backward. Those of the model need no gradient: None.
        self._ends: list[tuple[Tensor | None, Tensor]] = []
        self._flow: Tensor | None = None  # between two units: what the next takes, backward the gradient of its output

    def __len__(self) -> int:
        return len(self._parameters)

    def forward(self, unit: int, x: Tree[Tensor] | None = None) -> Tensor:
        """The unit's output. x: the model's inputs, for the first unit."""
        between = None
        if x is None:
            assert self._flow is not None
            x = between = self._flow.detach().requires_grad_(self._flow.requires_grad)
        self._passes.doing = "the model's forward"
        with self._forgetting():
            out: Tensor = self._passes.forward(x, self._modules[unit], unit == len(self._modules) - 1)
        self._ends.append((between, out))
        self._flow = out
        return out

    def loss(self, y: Tree[Tensor], whole: int) -> float:
        """The loss of the last unit's output, from which backward begins; see Passes.loss."""
        assert self._flow is not None
        loss = self._passes.loss(self._flow, y, whole)
        self._passes.doing = "backward"
        (self._flow,) = torch.autograd.grad(loss, [self._flow])
        return loss.item()

    def backward(self, unit: int, add: bool) -> None:
        """The gradient of the unit's parameters into memory, or added to what is there; then the unit is forgotten."""
        self._passes.doing = "backward"
        x, out = self._ends.pop()
        parameters = self._parameters[unit]
        trained, borrowed = [p for p in parameters if p.requires_grad], self._borrowed[unit]
        further = x is not None and x.requires_grad
        wanted: list[Any] = [*trained, *borrowed, x] if further else [*trained, *borrowed]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if wanted and out.requires_grad:
            found = torch.autograd.grad(out, wanted, self._flow, allow_unused=True)
        self._flow = found[-1] if further else None
        grads = [self._with_lent(p, grad) for p, grad in zip([*trained, *borrowed], found, strict=False)]
        self._lent.update((p, g) for p, g in zip(borrowed, grads[len(trained) :], strict=True) if g is not None)
        self._keep(unit, iter(grads), add)

    def _with_lent(self, parameter: Tensor, grad: Tensor | None) -> Tensor | None:
        """The gradient, added to that of the later units that share the parameter, in the order of autograd's sum."""
        lent = self._lent.pop(parameter, None)
        return grad if lent is None else lent if grad is None else lent + grad

    def _keep(self, unit: int, found: Any, add: bool) -> None:
        target = self._memory.gradient(unit)
        if not target.numel():
            return
        grads = [next(found) if p.requires_grad else None for p in self._parameters[unit]]
        flat = [
            torch.zeros_like(p).view(-1) if g is None else g.reshape(-1)
            for p, g in zip(self._parameters[unit], grads, strict=True)
        ]
        if add:
            target.add_(torch.cat(flat))
        else:
            torch.cat(flat, out=target)

    def evaluate(self, unit: int, x: Tree[Tensor] | None = None) -> Tensor:
        """The unit's output in an evaluation."""
        self._passes.doing = "the evaluation"
        module = self._modules[unit].eval()
        with torch.no_grad():
            inputs = self._flow if x is None else x
            assert inputs is not None
            self._flow = self._passes.forward(inputs, module, unit == len(self._modules) - 1)
        module.train()
        return self._flow

    def activations(self, x: Tree[Tensor]) -> tuple[int, Any]:
        """(bytes that a step on x holds next to the parameters when backward begins, the outputs): what autograd keeps,
        and the whole batch that x is a part of, whether autograd keeps it or not."""
        whole = [values.untyped_storage() for values in leaves(x)]
        self._saved = {storage.data_ptr(): storage.nbytes() for storage in whole}
        for unit in range(len(self)):
            self.forward(unit, x if unit == 0 else None)
        found, outputs = sum(self._saved.values()), self._flow
        self.forget()
        return found, outputs

    def forget(self) -> None:
        """Drop what lies between forward and backward."""
        self._saved = self._flow = None
        self._ends.clear()
        self._lent.clear()

    def _forgetting(self) -> Any:
        """Where parameters are fetched, keep autograd from keeping them: they will be fetched again."""
        slots = self._memory.slots
        if self._saved is not None:
            return torch.autograd.graph.saved_tensors_hooks(self._count, lambda kept: kept)
        return nullcontext() if slots is None else torch.autograd.graph.saved_tensors_hooks(slots.pack, slots.unpack)

    def _count(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if self._saved is not None and not self._memory.holds(saved):
            self._saved[storage.data_ptr()] = storage.nbytes()
        return saved.detach()  # see Slots.pack
