"""Plans for toy workers, and running them in lockstep."""

from __future__ import annotations

import dataclasses
from typing import Any

from kit.toy import ToyWorker
from paceline.algorithms.learning_rates import Constant
from paceline.algorithms.loop import train
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.splits import Shares
from paceline.algorithms.strategy import Strategy
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks


def plan(strategy: Strategy, n: int = 2, **given: Any) -> Plan:
    """20 steps of n workers with batches of 4 on 40 examples, unless `given` says otherwise."""
    shares = given.pop("shares", Shares((4,) * n, (1.0,) * n))
    defaults: dict[str, Any] = {"rate": Constant(0.05), "examples": 40, "budget": Interval(20, "steps")}
    return Plan(strategy, shares, **(defaults | given))


def run(
    p: Plan, momentum: float = 0.0, state: State | None = None, workers: list[ToyWorker] | None = None
) -> tuple[list[ToyWorker], list[State], list[dict[str, Any]]]:
    """(workers, final states, report lines) after the plan in lockstep."""
    lines: list[dict[str, Any]] = []
    workers = workers or [ToyWorker(w, p, momentum) for w in range(p.workers)]
    replicas: list[Any] = list(workers)  # of the Worker protocol they have what training on whole replicas needs
    hooks = Hooks(lambda w, seconds, fields: lines.append(fields), lambda *_: None)
    states = lockstep([train(w, p, dataclasses.replace(state or State())) for w in replicas], hooks)
    return workers, states, lines
