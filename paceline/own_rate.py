"""The learning rate of a training loop of the user's own: the scenario sets it, or the loop does and it is noted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .algorithms.learning_rates import Used
from .algorithms.plan import Plan
from .algorithms.rounds import Round
from .program.errors import ScenarioError

if TYPE_CHECKING:
    import torch


class OwnRate:
    """The rate of an optimizer. scenario: whether the scenario's lr_schedule sets it.

    used: the rates that the loop has used, where it chooses them; else None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scenario: bool) -> None:
        self._optimizer = optimizer
        self.used = None if scenario else Used()
        self._progress = 0.0  # the plan's at the loop's next step
        self._first = True  # whether that step begins a round
        self._hook: Any = None if scenario else optimizer.register_step_pre_hook(self._before_step)

    @property
    def now(self) -> float:
        """The optimizer's."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def chosen(self) -> float:
        """The one that all ranks must have chosen alike; 0 where the scenario sets it."""
        return 0.0 if self.used is None else self.now

    def planned(self, plan: Plan) -> Plan:
        """The plan with this rate in it. ScenarioError where it looks at rates that the loop has not chosen yet."""
        if self.used is None:
            return plan
        found = dataclasses.replace(plan, rate=self.used)
        self.tell(0.0, True)
        try:
            found.strategy.sampling.check(found)
        except ScenarioError as error:
            raise ScenarioError(f"{error}; it looks at later rounds, so give LocalSync the lr_schedule") from None
        return found

    def tell(self, progress: float, first: bool) -> None:
        """The loop's next step is at `progress`, and the rate that the optimizer has now counts as its rate."""
        self._progress, self._first = progress, first
        if self.used is not None:
            self.used.tell(progress, self.now)

    def set(self, round: Round, rank: int, i: int) -> None:
        """The loop's next step is step i of the round: set its rate, if the scenario says it."""
        if self.used is None:
            for group in self._optimizer.param_groups:
                group["lr"] = round.lr(rank, i)

    def close(self) -> None:
        """Leave the optimizer alone from now on."""
        if self._hook is not None:
            self._hook.remove()

    def _before_step(self, *_: Any) -> None:
        """The optimizer is about to step: the rate that it has is the one that counts."""
        if self.used is None or self.now == self.used.rates[-1]:
            return
        if self._first:
            raise ScenarioError(
                f"LocalSync: the learning rate was {self.used.rates[-1]:g} when the round began, and is {self.now:g} "
                "in its first step; make the scheduler before LocalSync, and call its step() before sync.step()"
            )
        self.tell(self._progress, False)
