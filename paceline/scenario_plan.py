"""From a scenario to its plan: the strategy with all that follows from the cluster, the budget, the reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from .algorithms.plan import Plan
from .algorithms.rounds import Interval, State
from .algorithms.splits import Shares, check_shares
from .algorithms.strategy import Strategy
from .config.lr_schedule import build_rate, warm_up_of
from .config.scenario import Budget, Scenario
from .config.strategy import build_strategy
from .config.timing import Timing
from .folders import look_for_modules
from .learning_problem import LearningProblem
from .memory_check import holds
from .program.errors import ScenarioError
from .program.import_paths import FAILURES, in_words
from .runtime.tracebacks import of_users_code


def strategy_of(scenario: Scenario, folder: Path) -> Strategy:
    """The strategy of the scenario, which lies in `folder`. ScenarioError where it makes no sense by itself."""
    look_for_modules(scenario, folder)
    return build_strategy(scenario.strategy)


def build_plan(problem: LearningProblem, timing: Timing) -> tuple[Plan, list[str]]:
    """The plan of the problem's scenario, and warnings where its method degenerates on this cluster.

    Python finds the scenario's modules already (folders.look_for_modules).
    ScenarioError where the scenario makes no sense.
    """
    scenario = problem.scenario
    workload, report, checkpoint = scenario.workload, scenario.report, scenario.checkpoint
    strategy = build_strategy(scenario.strategy)
    _check_placement(scenario, strategy, timing)
    if strategy.placement.sharded and not problem.optimizer_state.elementwise:
        raise ScenarioError(
            f"strategy.placement: {workload.optimizer.name} needs whole parameters (it is not elementwise), "
            "so they cannot be sharded; write placement: replicated or offloaded"
        )
    batch, budget = scenario.batch, _budget(scenario.budget)
    speeds = timing.speeds(batch)
    with _telling("strategy"):
        strategy.aggregation.check(len(timing.devices))
    with _telling("strategy.split"):
        held = holds(problem, strategy, timing)
        shares = strategy.split.shares(batch, timing.devices, held)
        check_shares(shares, len(timing.devices))
    if workload.total_batch and not strategy.split.chooses_batches:
        shares = shares.completed(workload.total_batch)
    epoch, warm_up = scenario.budget.epoch, warm_up_of(workload.lr_schedule, budget)
    with _telling("strategy"):
        resolved = strategy.resolve(shares, speeds, warm_up, problem.optimizer)
        step = _step(budget, epoch, shares, resolved, problem.shape.train)
        plan = Plan(
            strategy=resolved,
            shares=shares,
            rate=build_rate(workload.optimizer.lr, workload.lr_schedule, budget, step),
            examples=problem.shape.train,
            budget=budget,
            report=report.every,
            report_start=report.start,
            log=report.log,
            norms=report.norms,
            step_losses=report.step_losses,
            checkpoint=checkpoint.every,
            checkpoint_at=_checkpoints_at(checkpoint.at, budget),
            accounting=int(epoch.amount) if isinstance(epoch, Interval) else epoch,
            estimate=0 if report.batch_norm == "averaged" else report.batch_norm.re_estimated,
        )
        _check_precision(problem, plan)
        remarks = _unlike_local_steps(strategy, plan, speeds), _one_unit(problem, plan), _nearly_equal(scenario, plan)
        return plan, [*chain(*remarks)]


@contextmanager
def _telling(key: str) -> Iterator[None]:
    """Raise ValueErrors, and whatever a user's own member raises, as a ScenarioError that begins with the key."""
    try:
        yield
    except ScenarioError:
        raise
    except ValueError as error:
        raise ScenarioError(f"{key}: {error}") from None
    except FAILURES as error:
        if not of_users_code(error):
            raise
        raise ScenarioError(f"{key}: {in_words(error)}") from error


def _check_placement(scenario: Scenario, strategy: Strategy, timing: Timing) -> None:
    """ScenarioError for what this placement cannot do."""
    place = strategy.placement
    if (place.sharded or place.offloaded) and scenario.report.batch_norm != "averaged":
        raise ScenarioError(
            "report.batch_norm: re-estimating statistics needs the whole model, and with this placement a device holds "
            "only a few units; write batch_norm: averaged, or placement: replicated"
        )
    if place.sharded and scenario.checkpoint.optimizer == "shared":
        raise ScenarioError(
            "checkpoint.optimizer: each sharded worker has its own part of the optimizer's state, so it cannot be "
            "shared; write optimizer: local"
        )
    if place.wire != "fp32" and scenario.workload.precision == "fp64":
        raise ScenarioError(
            f"strategy.placement: only fp32 values are rounded to {place.wire}, and workload.precision is fp64; "
            "write wire: fp32, which sends values as they are"
        )
    apart = any(device.torch_device != "cpu" for device in timing.devices)
    if apart and not place.offloaded and strategy.aggregation.averages_state:
        raise ScenarioError(
            "strategy.aggregation: a GPU's optimizer state is not exchanged; write optimizer_state: local, or "
            "placement: offloaded"
        )


def _check_precision(problem: LearningProblem, plan: Plan) -> None:
    """ScenarioError where gradients would leave unit by unit in fp16: before a step is known not to be tried again."""
    place, synchronous = plan.strategy.placement, plan.strategy.aggregation.synchronous
    if problem.scenario.workload.precision != "fp16":
        return
    if place.by_units(synchronous, len(problem.phantoms(plan)[0].works.units)):
        raise ScenarioError(
            "workload.precision: in fp16 a step whose gradient overflows is tried again as a whole, and with this "
            "placement gradients leave unit by unit; write placement: {replicated: {overlap: false}}, or bf16"
        )


def _unlike_local_steps(strategy: Strategy, plan: Plan, speeds: Sequence[float]) -> Iterator[str]:
    """A warning where local steps end with a sync after every step, or with a single one at the end."""
    if plan.workers == 1:
        return
    yield from (f"strategy: {line}" for line in strategy.schedule.remarks(speeds))
    if plan.budget.unit == "rounds":
        return
    H = plan.first_round().H
    if H > 1 and plan.finished(plan.ahead(State(), 1)):
        yield (
            f"strategy: the whole budget is one round of {H} steps, so the workers meet only at its end; "
            "give a larger budget, or a schedule of shorter rounds"
        )


def _one_unit(problem: LearningProblem, plan: Plan) -> Iterator[str]:
    """A warning where a placement goes unit by unit, and the model cannot be cut into units."""
    cost, place, synchronous = problem.cost, plan.strategy.placement, plan.strategy.aggregation.synchronous
    whole = cost.cut.whole if cost.cut else ""
    if whole and 4 * cost.parameters > place.unit_bytes and place.by_units(synchronous and plan.workers > 1, 2):
        yield (
            f"workload.model: {problem.scenario.workload.model.name} is one unit, since {whole}; so all of it is in "
            "use at once, and no exchange runs while it computes"
        )


def _nearly_equal(scenario: Scenario, plan: Plan) -> Iterator[str]:
    """A warning where the total batch cannot be shared equally."""
    total, workers = scenario.workload.total_batch or 0, plan.workers
    if total % workers == 0:
        return
    used = sum(plan.shares.batches)
    if used == total:
        yield f"workload.total_batch: {total} is not a multiple of {workers}, so batches differ by a sample"
    else:
        yield f"workload.total_batch: {total} is not a multiple of {workers}, and a step uses {used} samples"


def _step(budget: Interval, epoch: str | Interval, shares: Shares, strategy: Strategy, examples: int) -> float | None:
    """How much of the budget a nominal step is; None where that depends on the rounds' lengths, or on their kind."""
    if budget.unit != "epochs":
        return 1.0 if budget.unit == "steps" else None
    if isinstance(epoch, Interval):
        return 1 / epoch.amount
    if epoch != "samples" or (strategy.aggregation.synchronous and set(shares.paces) != {1.0}):
        return None
    used = sum(batch * pace for batch, pace in zip(shares.batches, shares.paces, strict=True))
    return used / strategy.sampling.length(examples)


def _budget(budget: Budget) -> Interval:
    if budget.epochs is not None:
        return Interval(budget.epochs, "epochs")
    return Interval(budget.steps, "steps") if budget.steps is not None else Interval(budget.rounds or 0, "rounds")


def _checkpoints_at(at: tuple[Interval, ...], budget: Interval) -> tuple[Interval, ...]:
    """Where to write checkpoints. ScenarioError for a place that the run does not reach."""
    late = [place for place in at if place.unit == budget.unit and place.amount > budget.amount]
    if late:
        raise ScenarioError(
            f"checkpoint.at: {late[0].amount:g} {late[0].unit} lie after the end of the budget, {budget.amount:g}; "
            "leave them out"
        )
    return at
