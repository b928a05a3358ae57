"""The scenario of a training loop of the user's own: what LocalSync was told, in the words of a scenario file.

Rule: what it was not told is what the run itself shows: the optimizer's settings, the model's size, torch's threads,
and at the end the ranks' step times, the learning rates and the number of steps. So the run's record can be simulated.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .algorithms.learning_rates import Table, Used
from .algorithms.plan import Plan
from .config import scenario as scenarios
from .program.errors import ScenarioError, brief

if TYPE_CHECKING:
    import torch
    from torch import nn

OPEN = 10**15  # steps: the budget of a loop that has not said how long it is
UNKNOWN = 10  # training examples, where their number is not told: epochs then mean nothing
_TABLE = f"{Table.__module__}:{Table.__name__}"


def document_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    workers: int,
    strategy: str | Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
    scenario: str | Path | Mapping[str, Any] | None,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """The scenario as a document.

    arguments: of the strategy.
    scenario: the rest in a scenario's words, or a file with it.
    told: LocalSync's own arguments `steps`, `epochs`, `examples`, `batch`, `lr_schedule` and `every`, or None.
    ScenarioError where these contradict one another.
    """
    made = scenarios.read(scenario) if isinstance(scenario, str | Path) else copy.deepcopy(dict(scenario or {}))
    workload = made.setdefault("workload", {})
    if not isinstance(workload, dict):
        raise ScenarioError(f"LocalSync: workload is {brief(workload)}; write a mapping, like {{'batch': 32}}")
    made["strategy"] = _strategy(strategy, arguments, made.get("strategy"))
    if told["examples"] is not None and "data" in workload:
        raise ScenarioError("LocalSync: examples has no effect together with workload.data, which has its own")
    sized = {"name": "sized", "parameters": sum(p.numel() for p in model.parameters())}
    workload.setdefault("model", sized)
    workload.setdefault("data", _sized(told["examples"]))
    workload.setdefault("optimizer", settings_of(optimizer))
    if told["batch"] is not None:
        workload["batch"] = told["batch"]
    elif "total_batch" not in workload:
        workload.setdefault("batch", 1)
    workload["threads"] = _threads()
    if any(str(p.dtype) == "torch.float64" for p in model.parameters()):
        workload["precision"] = "fp64"
    if told["lr_schedule"] is not None:
        workload["lr_schedule"] = told["lr_schedule"]
    made.setdefault("cluster", {"workers": [{"count": workers, "speed": "1 samples/s"}]})
    budget = {unit: told[unit] for unit in ("steps", "epochs") if told[unit] is not None}
    made["budget"] = budget or made.get("budget", {"steps": OPEN})
    if "lr_schedule" in workload and is_open(made):
        raise ScenarioError("LocalSync: lr_schedule needs the length of the run; give steps=... or epochs=...")
    made.setdefault("report", {"log": "1 rounds"})
    if told["every"] is not None:
        made["report"] = {**made["report"], "every": told["every"]}
    made.pop("recorded", None)  # of a run that this one repeats
    return made


def is_open(document: Mapping[str, Any]) -> bool:
    """Whether the loop has not said how long it is."""
    return bool(document["budget"] == {"steps": OPEN})


def knows_examples(document: Mapping[str, Any]) -> bool:
    """Whether the number of training examples is known."""
    return bool(document["workload"]["data"] != _sized(None))


def _sized(examples: int | None) -> dict[str, Any]:
    return {"name": "sized", "train": UNKNOWN if examples is None else examples, "test": 1}


def validated(document: Mapping[str, Any], workers: int) -> scenarios.Scenario:
    """The scenario that the document describes. ScenarioError where it is wrong, or for other workers."""
    found = scenarios.validate(document, "LocalSync")
    if found.cluster.size != workers:
        raise ScenarioError(
            f"LocalSync: the scenario describes {found.cluster.size} workers and this mpirun has started {workers}; "
            f"write mpirun -n {found.cluster.size}, or describe {workers}"
        )
    if found.recovery.max_restarts or found.recovery.shrink:
        raise ScenarioError(
            "LocalSync: recovery: a loop of one's own ends with a lost worker; leave max_restarts and shrink out"
        )
    if found.faults:
        raise ScenarioError("LocalSync: faults: they strike `paceline train` and `paceline simulate`; leave them out")
    return found


def check_plan(plan: Plan, model: nn.Module, no_end: bool) -> None:
    """ScenarioError for what a loop of one's own cannot do."""
    strategy = plan.strategy
    if strategy.aggregation.synchronous:
        raise ScenarioError(
            "LocalSync exchanges parameters after local steps, and this strategy exchanges gradients in every step, at "
            "least at times; use torch's DistributedDataParallel, or `paceline train`"
        )
    if strategy.placement.sharded or strategy.placement.offloaded:
        raise ScenarioError("LocalSync: the parameters are where the model has them; write placement: replicated")
    if plan.estimate:
        raise ScenarioError("LocalSync: report.batch_norm: only averaged; re-estimating them needs the training data")
    if no_end and set(plan.shares.paces) != {1.0}:
        raise ScenarioError("LocalSync: workers of unequal pace end a run together; give steps=... or epochs=...")
    kinds = {(p.device.type, str(p.dtype)) for p in model.parameters()}
    if strategy.aggregation.averages_state and not kinds <= {("cpu", "torch.float32")}:
        raise ScenarioError("LocalSync: optimizer_state: write local; only fp32 state on a CPU is averaged")


def as_run(
    document: dict[str, Any], given: bool, used: Used | None, steps: int, seconds: Sequence[float]
) -> dict[str, Any]:
    """The document of a loop that has ended, with what the run has shown.

    given: whether the cluster was described; else its workers get the ranks' step times, which are `seconds`.
    used: the learning rates, where the loop chose them.
    steps: that were taken.
    """
    made = copy.deepcopy(document)
    workload = made["workload"]
    if is_open(made):
        made["budget"] = {"steps": steps}
    if not given:
        made["cluster"] = {"workers": [{"step_time": f"{time!r} s"} for time in seconds]}
    if used is not None:
        workload["optimizer"] = {**workload["optimizer"], "lr": max(used.rates)}
        if len(used.rates) > 1:
            workload["lr_schedule"] = {"name": _TABLE, "at": used.at, "rates": used.rates}
    return made


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A torch optimizer as a scenario writes it, by its first group; a user's own is told as plain SGD."""
    import torch.optim

    kind, group = type(optimizer), optimizer.param_groups[0]
    # A scheduler's warm-up may begin at 0. A scenario's learning rate must be above 0.
    lr = float(group["lr"]) or float(optimizer.defaults.get("lr", 0.0)) or 1.0
    if kind is torch.optim.SGD:
        return {"name": "sgd", "lr": lr} | {key: group[key] for key in ("momentum", "nesterov", "weight_decay")}
    if kind is torch.optim.AdamW:
        more = {key: group[key] for key in ("eps", "weight_decay")}
        return {"name": "adamw", "lr": lr, "betas": list(group["betas"])} | more
    if vars(torch.optim).get(kind.__name__) is not kind:
        return {"name": "sgd", "lr": lr}
    changed = {
        key: group[key] for key, usual in _defaults(kind).items() if key != "lr" and group.get(key, usual) != usual
    }
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}
    return {"name": f"torch.optim:{kind.__name__}", "lr": lr} | plain


def _defaults(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """The defaults of an optimizer's arguments, those left out that say only how it computes."""
    parameters = inspect.signature(kind).parameters.values()
    how = ("foreach", "fused", "capturable", "differentiable")
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in how}


def _strategy(strategy: str | Mapping[str, Any] | None, arguments: Mapping[str, Any], before: Any) -> dict[str, Any]:
    if strategy is None:
        if not isinstance(before, Mapping):
            raise ScenarioError("LocalSync: give a strategy, like 'qsr', or a scenario that has one")
        return {**before, **arguments}
    return {**({"preset": strategy} if isinstance(strategy, str) else strategy), **arguments}


def _threads() -> int:
    import torch

    return torch.get_num_threads()
