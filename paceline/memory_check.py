"""Does a scenario fit into its devices' memory?

Rule: a scenario whose parameters, gradients and optimizer state do not fit is refused, since their size is certain. The
size of activations is an estimate: where they may not fit, a warning says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from .algorithms.balance import largest_fitting
from .algorithms.costs import Footprint, StepPath, Works, footprint
from .algorithms.learning_rates import Constant
from .algorithms.placements import Placement
from .algorithms.plan import Plan
from .algorithms.rounds import Interval
from .algorithms.splits import Capacity, Shares
from .algorithms.strategy import Strategy
from .config.machines import Cluster
from .config.scenario import Scenario
from .config.timing import Device, Timing
from .learning.works import make_works
from .learning_problem import LearningProblem
from .program.effects import AllGather, AllReduce, ReduceScatter
from .program.errors import ScenarioError
from .program.traffic import received
from .program.wire import wire_bytes
from .runtime.resident import resident_peak

RECORDED = ("device", "host", "activations", "fresh", "exchange", "vectors")  # of a footprint, in summary.json


def predicted(works: Sequence[Works], problem: LearningProblem, plan: Plan) -> list[Footprint]:
    """For each worker, the memory that it needs at the peak."""
    state = problem.optimizer_state.size
    inputs = -(-problem.shape.batch_bytes // 4)
    strategy = plan.strategy
    synchronous, vectors = strategy.aggregation.synchronous, strategy.aggregation.vectors

    def one(each: Works) -> Footprint:
        by_units = strategy.placement.by_units(synchronous, len(each.units))
        path: StepPath = "units" if by_units else "flat" if synchronous else "local"
        exchange = _exchanging(each, strategy.placement, by_units and synchronous, plan.workers)
        return replace(footprint(each, state, inputs, path, vectors), exchange=exchange)

    known = {each: one(each) for each in dict.fromkeys(works)}
    return [known[each] for each in works]


def _exchanging(works: Works, place: Placement, by_units: bool, workers: int) -> float:
    """Bytes of the buffers for what travels. Exchanges share them, so the largest exchange decides."""
    largest = max(whole for _, whole in works.sizes) if by_units else sum(kept for kept, _ in works.sizes)
    nbytes = wire_bytes(works.held.item * largest, place.wire)
    kinds = (ReduceScatter, AllGather) if place.sharded else (AllReduce,)
    return max(received(kind, nbytes, workers, place.wire != "fp32") for kind in kinds)


def record(works: Sequence[Works], problem: LearningProblem, plan: Plan) -> dict[str, list[float]]:
    """The predicted bytes of each worker's arrays, those of the data set included."""
    kinds = list(dict.fromkeys(works))
    found, made = predicted(kinds, problem, plan), dict[str, list[float]]()
    for name in RECORDED:
        known = {kind: vars(need)[name] for kind, need in zip(kinds, found, strict=True)}
        made[name] = [known[each] for each in works]
    if goes_on(problem.scenario, plan):
        made["syncs"] = _syncs(works, problem, plan)
    return made | {"data": [problem.data_bytes] * len(works)}


def parts(works: Sequence[Works], problem: LearningProblem, plan: Plan) -> dict[str, dict[str, list[float]]]:
    """For "device" and "host", by what it is, each worker's bytes. Their sums are `record`'s device and host.

    buffers: what a step holds in addition, of parameters and gradients that are at work.
    """
    state, kinds = problem.optimizer_state.size, list(dict.fromkeys(works))
    split = dict[Works, dict[str, dict[str, float]]]()
    for kind, need in zip(kinds, predicted(kinds, problem, plan), strict=True):
        whole = kind.held.item * sum(kept for kept, _ in kind.sizes)
        home = {"parameters": whole, "gradients": whole, "optimizer": state * whole}
        place, elsewhere = ("host", "device") if kind.held.host else ("device", "host")
        buffers = {place: vars(need)[place] - sum(home.values()), elsewhere: vars(need)[elsewhere]}
        split[kind] = {place: home | {"buffers": buffers[place]}, elsewhere: {"buffers": buffers[elsewhere]}}
    return {
        place: {
            part: [split[each][place].get(part, 0.0) for each in works]
            for part in dict.fromkeys(part for each in kinds for part in split[each][place])
        }
        for place in ("device", "host")
    }


def goes_on(scenario: Scenario, plan: Plan) -> bool:
    """Whether each worker keeps copies of the last two syncs, so that the others go on without a lost one."""
    return scenario.recovery.shrink and not plan.strategy.placement.sharded


def _syncs(works: Sequence[Works], problem: LearningProblem, plan: Plan) -> list[float]:
    """Bytes of these copies: of optimizer state and outer vectors, and of worker 0's parameters."""
    own = problem.optimizer_state.size + plan.strategy.aggregation.vectors
    parameters = [each.held.item * sum(kept for kept, _ in each.sizes) for each in works]
    return [2.0 * nbytes * (own + (worker == 0)) for worker, nbytes in enumerate(parameters)]


def holds(problem: LearningProblem, strategy: Strategy, timing: Timing) -> Capacity:
    """A function (device, most) -> the largest batch that the device is predicted to hold, for splits without a limit.

    It returns None where parameters, gradients and optimizer state do not fit: `check_memory` refuses the scenario.
    """
    needing = Strategy(aggregation=strategy.aggregation, placement=strategy.placement)  # what memory depends on
    workers, staged = len(timing.devices), [device.torch_device != "cpu" for device in timing.devices]

    def need(device: Any, batch: int) -> Footprint:
        shares = Shares((batch,) * workers, (1.0,) * workers)
        plan = Plan(needing, shares, Constant(1.0), problem.shape.train, Interval(1, "steps"))
        works = make_works(plan, problem.cost, 0, problem.recipe, staged)
        return predicted([works[timing.devices.index(device)]], problem, plan)[0]

    def largest(device: Any, most: int) -> int | None:
        if device.memory is None or _held(device, need(device, 1))["memory"] > device.memory:
            return None

        def fits(batch: int) -> bool:
            return bool(_at_peak(device, need(device, batch)) <= device.memory)

        return max(1, largest_fitting(fits, most))

    return largest


def _shared(device: Device) -> bool:
    """Whether the device uses the host's memory."""
    return device.host_link is None and device.host_memory is None


def _held(device: Device, need: Footprint) -> dict[str, float]:
    """The certain bytes in each memory: parameters, gradients, optimizer state and buffers."""
    shared = _shared(device)
    return {"memory": need.device + shared * need.host, "host_memory": 0.0 if shared else need.host}


def _at_peak(device: Device, need: Footprint) -> float:
    """Bytes in the device's memory at the peak of a step, activations included. An estimate."""
    vectors = need.vectors if _shared(device) else 0.0  # which lie in host memory
    return _held(device, need)["memory"] + need.activations + need.fresh + vectors


def check_memory(problem: LearningProblem, plan: Plan, timing: Timing) -> Iterator[str]:
    """Yield a warning for each device whose memory may not suffice. ScenarioError where it certainly does not.

    A device without a host link shares the host's memory.
    """
    if all(device.memory is None and device.host_memory is None for device in timing.devices):
        return
    works = problem.phantoms(plan).works
    keys = _keys(problem.scenario.cluster, timing)
    for device, each in dict.fromkeys(zip(timing.devices, works, strict=True)):
        (need,) = predicted([each], problem, plan)
        limits = {"memory": device.memory, "host_memory": device.host_memory}
        for key, size in _held(device, need).items():
            if (limit := limits[key]) is None:
                continue
            if size > limit:
                mistake = _too_much(plan.strategy.placement, key, _shared(device), size, limit)
                raise ScenarioError(f"cluster.{keys[device]}.{key}: {mistake}")
            if key == "memory" and (whole := _at_peak(device, need)) > limit:
                vectors = ", the aggregation's vectors" if need.vectors and _shared(device) else ""
                yield (
                    f"cluster.{keys[device]}.memory: parameters, gradients, optimizer state{vectors} and activations "
                    f"of {max(each.chunks)} samples at a time are about {gib(whole)} of {gib(limit)}; "
                    "a smaller batch or micro_batch may be needed"
                )


def _keys(cluster: Cluster, timing: Timing) -> dict[Device, str]:
    """The key in the scenario, like "workers[0]", of each device."""
    ends = accumulate(len(block.nodes) for block in cluster.blocks)
    return {timing.devices[end - 1]: block.key for block, end in zip(cluster.blocks, ends, strict=True)}


def _too_much(place: Placement, key: str, shared: bool, size: float, limit: float) -> str:
    """What needs too much memory, and what helps. shared: whether device and host have one memory."""
    held, ways = "parameters, gradients and optimizer state", list[str]()
    if not (place.sharded or place.offloaded):
        ways = ["placement: sharded", "placement: offloaded"]
    elif key == "memory":
        held = f"{place.prefetch + 1} units' parameters, two units' gradients and what else is held there"
        ways = ["a smaller unit_bytes or prefetch"]
    if place.sharded != place.offloaded and (place.sharded or key == "host_memory" or shared):
        ways += ["placement: sharded_offloaded"]
    ways += ["more workers"] if place.sharded else []
    return f"{held} need {gib(size)} of {gib(limit)}; write {' or '.join(ways)}"


def gib(size: float, digits: int = 6) -> str:
    """Bytes in words. digits: of MiB."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.{digits}g} MiB"


def measured(worker: Any, survivors: Any, loaded: int) -> dict[str, int]:
    """Bytes: what a real worker has counted, and what its process held after imports and at most.

    survivors: what keeps syncs in case that a worker is lost; None where nothing does.
    loaded: what the process held after imports.
    """
    counted: dict[str, int] = worker.memory()
    counted |= {} if survivors is None else {"syncs": survivors.kept.nbytes}
    return counted | {"resident_before": loaded, "resident_peak": resident_peak()}
