"""What tests of the torch worker share: digits, plans of a few workers, workers on them, and training in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.learning_rates import Constant
from paceline.algorithms.loop import train
from paceline.algorithms.plan import Plan
from paceline.algorithms.presets import sync_sgd
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import Given
from paceline.config.timing import Device
from paceline.learning import data
from paceline.learning.build import build_workers
from paceline.learning.worker import TorchWorker
from paceline.program.effects import Array
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks

DIGITS = data.load("digits", {})
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


def make_plan(
    batches: Sequence[int] = (16, 16),
    H: int = 1,
    aggregation: Any = None,
    budget: Interval | None = None,
    lr: float = 0.05,
    **options: Any,
) -> Plan:
    """One epoch of digits, a worker for each batch size, unless told otherwise."""
    strategy = replace(sync_sgd(), schedule=Fixed(H), aggregation=aggregation or Parameters())
    shares = Given(batches=tuple(batches)).shares(16, [Device("cpu")] * len(batches))
    return Plan(strategy, shares, Constant(lr), 1437, budget or Interval(1, "epochs"), **options)


def make(
    plan: Plan,
    model: str = "mlp",
    args: dict[str, Any] | None = None,
    shared: bool = True,
    optimizer: dict[str, Any] = SGD,
    **more: Any,
) -> list[TorchWorker]:
    """The plan's workers. shared: they live in one process, as in lockstep."""
    options: dict[str, Any] = {"model": model, "model_args": args or {}, "optimizer": optimizer, "seed": 7} | more
    return build_workers(plan, DIGITS, shared_process=shared, **options)


def train_in_lockstep(
    plan: Plan, workers: Sequence[Any], state: State | None = None, saved: dict[int, dict[str, Array]] | None = None
) -> tuple[State, list[dict[str, Any]]]:
    """(worker 0's final state, report lines). saved: collects the snapshots of the last checkpoint, by worker."""
    lines: list[dict[str, Any]] = []

    def checkpoint(worker: int, _seconds: float, _state: Any, arrays: dict[str, Array]) -> None:
        if saved is not None:
            saved[worker] = arrays

    hooks = Hooks(lambda _worker, _seconds, fields: lines.append(fields), checkpoint)
    states = [replace(state) if state else State() for _ in workers]
    results = lockstep([train(w, plan, s) for w, s in zip(workers, states, strict=True)], hooks)
    return results[0], lines
