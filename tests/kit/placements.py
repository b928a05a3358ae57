"""Every placement of a model, and a small transformer that is trained in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kit.learning import DIGITS, make_plan
from paceline.algorithms.aggregations import Gradients
from paceline.algorithms.costs import TAIL
from paceline.algorithms.loop import train
from paceline.algorithms.placements import Offloaded, Replicated, Sharded, ShardedOffloaded
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.learning.build import build_workers
from paceline.learning.worker import TorchWorker
from paceline.program.effects import Array
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks

BATCHES = (24, 16, 16, 8)
VIT = {"patch": 2, "dim": 32, "depth": 3, "heads": 2}
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
ADAMW = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1, "decay": "matrices"}
PLACEMENTS = {
    "flat": Replicated(overlap=False),
    "ddp": Replicated(unit_bytes=1),
    "fsdp": Sharded(unit_bytes=1),
    "fsdp-in-turn": Sharded(unit_bytes=1, overlap=False),
    "fsdp-merged": Sharded(unit_bytes=20_000, prefetch=2),
    "lsdp": Offloaded(unit_bytes=1),
    "lsdp-in-turn": Offloaded(unit_bytes=1, overlap=False),
    "fsdp-offload": ShardedOffloaded(unit_bytes=1),
    "fsdp-offload-far": ShardedOffloaded(unit_bytes=1, prefetch=2),
}


def plan_of(
    placement: Any, batches: Sequence[int] = BATCHES, steps: int = 20, lr: float = 0.05, aggregation: Any = None
) -> Plan:
    """A plan with this placement, which averages gradients unless told otherwise."""
    plan = make_plan(batches, aggregation=aggregation or Gradients("samples"), budget=Interval(steps, "steps"), lr=lr)
    return replace(plan, strategy=replace(plan.strategy, placement=placement))


def workers_of(
    plan: Plan, model: str = "vit", args: dict[str, Any] = VIT, optimizer: dict[str, Any] = SGD, **more: Any
) -> list[TorchWorker]:
    """The plan's workers, in one process unless told otherwise."""
    options: dict[str, Any] = {"model": model, "model_args": args, "optimizer": optimizer, "seed": 7}
    return build_workers(plan, DIGITS, **{"shared_process": True} | options | more)


def train_all(plan: Plan, workers: Sequence[Any]) -> tuple[list[dict[str, Any]], State]:
    """(report lines, worker 0's final state) after training in lockstep, with what is borrowed checked."""
    lines: list[dict[str, Any]] = []
    hooks = Hooks(lambda _w, _s, fields: lines.append(fields), lambda *_: None)
    states = lockstep([train(w, plan, State()) for w in workers], hooks, debug=True)
    return lines, states[0]


def parameters(workers: Sequence[Any]) -> Array:
    """All parameters of the model, in one vector, also where each worker keeps a part of them."""
    if workers[0].works.held.parts == 1:
        replica: Array = workers[0].params[:-TAIL].copy()
        return replica
    whole = []
    for u, cost in enumerate(workers[0].works.units):
        whole.append(np.concatenate([w.units[u].kept for w in workers])[: cost.parameters])
    return np.concatenate(whole)
