"""The half of the worker that says what went wrong, and where: in the user's own code, or in the numbers.

Rule: nothing here costs a step more than noting what it is at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..algorithms.rounds import Round
from ..program.errors import NotFinite, PacelineError, WorkloadError
from .parameter_memory import Memory
from .passes import Passes
from .user_code import FAILURES, in_words

T = TypeVar("T")


class Guarded:
    """Base of TorchWorker, which sets the attributes below."""

    index: int
    _passes: Passes
    _memory: Memory
    _ended: Callable[[T], T]
    _health = False  # whether numbers are watched; a step that is only tried may give anything
    _at: tuple[Round, int] | None = None  # the step that it is in, or took last

    def _guarded(self, body: Callable[..., T], *args: Any) -> T:
        """body(*args); what the user's code raises in it becomes a WorkloadError that says where that was."""
        try:
            return self._ended(body(*args))
        except PacelineError:
            raise
        except FAILURES as error:
            shown = in_words(error)
            raise WorkloadError(f"{self._where()}: {self._passes.doing} failed: {shown}") from error

    def _where(self) -> str:
        """Worker and step, for errors; a step is numbered as reports count it once it is done."""
        if self._at is None:
            return f"worker {self.index}, before step 1"
        round, i = self._at
        return f"worker {self.index}, step {round.nominal(self.index, i) + 1}"

    def _check(self, quantity: str, value: float) -> None:
        """NotFinite unless the value is finite, where the run's health is watched."""
        if self._health and not math.isfinite(value):
            raise NotFinite(f"{self._where()}: {quantity} is {value}")

    def _check_parameters(self) -> None:
        parameters = self._memory.parameters
        if self._health and parameters.numel():
            for extreme in torch.aminmax(parameters):
                self._check("a parameter", extreme.item())

    def _check_norm(self, norm: Tensor | None) -> None:
        if norm is not None:
            self._check("the gradient's norm", norm.item())
