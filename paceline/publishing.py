"""`paceline validate --published`: published training times, predicted by the simulator from a few of their own rows.

This module makes the scenario of a row and simulates its clock; studies/published.py calibrates and judges.
Rule: what is not given with a row is one number for all groups, with a source, in the constants below. None was fitted
to the rows that are predicted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from .algorithms.costs import ModelCost, together
from .config.catalogue import catalogue
from .config.published import PublishedRun
from .config.scenario import Scenario, load, validate
from .config.timing import Noise, Timing
from .folders import look_for_modules
from .job import Job
from .learning_problem import LearningProblem
from .program.outcome import Hooks
from .scenario_plan import build_plan
from .speeds import timing_of

# The part of its nominal rate that a link's payload reaches: 370 of the 450 GB/s of NVLink, as measured with NCCL (a
# maintainer of NCCL in NVIDIA/nccl-tests, issue 212).
EFFICIENCY = 370 / 450
# Seconds of a message step of a ring, over NVLink, PCI Express and a network: `hwLat` in NCCL, src/graph/tuning.cc.
NVLINK, PCIE, NETWORK = 3.4e-6, 5.7e-6, 14e-6
# How much equal GPUs differ: on five clusters their times varied by 8 % on average (Sinha et al., SC 2022, arXiv
# 2208.11035). That is taken for the distance of a box plot's whiskers, which is 5.4 times the sigma of a normal
# distribution.
SIGMA = 0.08 / 5.4
DRAWN = 512  # such GPUs that are drawn for a time: it is averaged over the clusters that they make
DRAWS = (4, 16)  # fewest and most of these clusters
# Bytes of gradients that travel together: the bucket_cap_mb of PyTorch's DDP. It fills its buckets from the last layer
# on, so that what is left over is in the first layers.
BUCKET = 25 << 20
EVEN = 32  # equal units of a model whose architecture is not known

PEAKS = {"tf32": "tf32", "bf16": "bf16", "float8": "bf16"}  # a row's precision -> the key of the catalogue's peak
HALF = ("bf16", "float8")  # precisions whose parameters and gradients travel in bf16
ROUNDS = 2  # that are simulated; the first is left out


class ClockOf:
    """A scenario's virtual clock, whose devices and links can be given other speeds."""

    def __init__(self, scenario: Scenario, folder: Path, cost: ModelCost | None = None) -> None:
        """cost: of the model, if it is not the scenario's."""
        problem = LearningProblem(scenario, folder)
        if cost is not None:
            problem.cost = cost
        timing = timing_of(scenario, None, problem)
        problem.timing = timing
        look_for_modules(scenario, folder)
        plan, remarks = build_plan(problem, timing)
        # The plan is used again and again, so that its program is recorded and replayed.
        self._job = Job(scenario, plan, timing, problem, None, remarks, [], again=True)
        self._workers = problem.phantoms(plan)

    def step(self, speed: float, across: float, inside: float) -> float:
        """Seconds of a step, averaged over the GPUs that may be drawn."""
        timing, n = scaled(self._job.timing, speed, across, inside), len(self._workers)
        if not timing.noise.worker_sigma or n == 1:  # one GPU alone is an average one
            return self._seconds(replace(timing, noise=Noise()))
        draws = range(min(max(DRAWN // n, DRAWS[0]), DRAWS[1]))
        return fmean(self._seconds(replace(timing, noise=replace(timing.noise, seed=seed))) for seed in draws)

    def _seconds(self, timing: Timing) -> float:
        from .sim.cohort import simulate

        clock: list[float] = []
        job = replace(self._job, timing=timing)
        hooks = Hooks(log=lambda worker, seconds, fields: clock.append(seconds))
        outcomes = simulate(job.cohorts(self._workers), timing, hooks)
        steps = job.scenario.budget.steps
        if steps is not None:
            return max(outcome.seconds for outcome in outcomes) / steps
        return (clock[-1] - clock[0]) / (ROUNDS - 1) / job.plan.first_round().H


@dataclass(frozen=True)
class RowSimulation:
    """The simulation of a row: steps of one micro-batch, and of two where it accumulates several."""

    clocks: tuple[ClockOf, ...]
    accumulate: int  # micro-batches of a step
    work: float  # what a pace counts, of one worker in a step

    def pace(self, speed: float, across: float, inside: float) -> float:
        """Seconds of one worker for what the pace counts.

        Each further micro-batch adds as much as the second does: its gradients are added up without an exchange.
        """
        first, *second = (clock.step(speed, across, inside) for clock in self.clocks)
        return (first + (self.accumulate - 1) * sum(more - first for more in second)) / self.work


def scaled(timing: Timing, speed: float, across: float, inside: float) -> Timing:
    """The cluster with devices `speed` times as fast, and with links that reach these shares of their rates."""
    devices = {
        id(device): replace(device, speed=(device.speed or 1.0) * speed) for device in dict.fromkeys(timing.devices)
    }
    network = timing.network
    several = len(set(timing.nodes)) > 1
    network = replace(network, bandwidth=network.bandwidth * (across if several else inside))
    if network.inside is not None:
        network = replace(network, inside=replace(network.inside, bandwidth=network.inside.bandwidth * inside))
    return replace(timing, devices=tuple(devices[id(device)] for device in timing.devices), network=network)


def simulation_of(run: PublishedRun) -> RowSimulation:
    """The simulation of a row that is told in numbers."""
    where = f"the scenario of {run.model} on {len(run.devices)} workers"
    counts = (1, 2) if run.accumulate > 1 else (1,)
    clocks = [ClockOf(validate(described(run, count), where), Path(), cost_of(run)) for count in counts]
    return RowSimulation(tuple(clocks), run.accumulate, run.work)


def simulation_from(path: Path, work: float) -> RowSimulation:
    """The simulation of a row that a scenario describes, without the speed and efficiency that it is written with."""
    settings = ["cluster.nodes.0.devices.0.speed=1 samples/s", f"cluster.network.efficiency={EFFICIENCY!r}"]
    return RowSimulation((ClockOf(load(path, settings), path.parent),), 1, work)


def described(run: PublishedRun, accumulate: int = 1) -> dict[str, Any]:
    """The scenario of a row, as a user could write it. Its devices do as many samples/s as their peaks have Tflop/s.

    accumulate: micro-batches in a step.
    """
    total = tuple(batch * accumulate for batch in run.batches)
    uneven = len(set(total)) > 1
    split: dict[str, Any] = {"split": {"by_batch": {"total": sum(total), "max": list(total)}}} if uneven else {}
    wire = "bf16" if run.precision.startswith(HALF) else "fp32"
    sharded = run.method == "fsdp"
    placement: dict[str, Any] = {"sharded" if sharded else "replicated": {"wire": wire, "unit_bytes": 0}}
    workload = {"model": "mlp", "batch": max(total), "optimizer": {"lr": 0.1}}
    if accumulate > 1:
        workload["micro_batch"] = max(run.batches)
    return {
        "workload": workload,
        "cluster": {"nodes": list(_nodes(run)), "network": _network(run), "noise": {"worker_sigma": SIGMA}},
        "strategy": {"preset": run.method, "placement": placement} | split | run.arguments,
        "budget": {"rounds": ROUNDS},
        "report": {"log": "1 rounds"},
    }


def _nodes(run: PublishedRun) -> Iterator[dict[str, Any]]:
    """Equal nodes that follow one another are one entry."""
    per_node = len(run.devices) // run.nodes
    nodes = [run.devices[start : start + per_node] for start in range(0, len(run.devices), per_node)]
    for devices, alike in groupby(nodes):
        entries = [
            {"device": name, "count": len(list(same)), "speed": f"{_peak(name, run.precision)!r} samples/s"}
            for name, same in groupby(devices)
        ]
        yield {"count": len(list(alike)), "devices": entries}


def _peak(device: str, precision: str) -> float:
    """Tflop/s of a device, to compare it with others of its group; 1 where the catalogue does not know it."""
    known = catalogue().devices.get(device)
    if known is None:
        return 1.0
    key = PEAKS.get(precision, "fp16" if "fp16" in precision or "amp" in precision else "fp32")
    return known.peaks.get(key, next(iter(known.peaks.values()))) / 1e12


def _network(run: PublishedRun) -> dict[str, Any]:
    """Rings: NCCL's cross each node's link once in each direction, whatever the number of its GPUs."""
    per_node = len(run.devices) // run.nodes
    hop = NVLINK if run.inside.startswith("nvlink") else PCIE
    inside = {"bandwidth": run.inside, "latency": f"{hop!r} s", "efficiency": EFFICIENCY}
    if run.nodes == 1:
        return {"link": run.inside, "latency": f"{hop!r} s", "efficiency": EFFICIENCY, "collective": "ring"}
    # A ring's message steps are in turn over the network and within a node: this is their mean.
    latency = (NETWORK + (per_node - 1) * hop) / per_node
    across = {"bandwidth": f"{run.across!r} B/s", "latency": f"{latency!r} s", "efficiency": EFFICIENCY}
    shape = {"shape": "two_level", "inside": inside} if per_node > 1 else {}
    return across | shape | {"collective": "ring"}


def cost_of(run: PublishedRun) -> ModelCost:
    """The model's cost: units as its architecture has them, or equal ones, with as many parameters as published.

    Replicated, they are merged to the buckets in which DDP exchanges gradients.
    """
    known = _architecture(re.sub(r"[^a-z0-9]", "", run.model.lower()))
    if known is None or abs(known.parameters / run.parameters - 1) > 0.05:
        known = together([ModelCost(1, 0, 1.0, 0.0)] * EVEN)
    scale = run.parameters / known.parameters
    units = [replace(unit, parameters=max(1, round(unit.parameters * scale))) for unit in known.units]
    return together(units if run.method == "fsdp" else buckets(units))


@cache
def _architecture(plain: str) -> ModelCost | None:
    """The cost of the architecture whose name a model's begins with, punctuation left out; None where there is none."""
    from .learning import architectures
    from .learning.data import shape_of
    from .learning.works import cost_of as cost

    names = {re.sub(r"[^a-z0-9]", "", name): name for name in architectures.NAMES}
    alike = max((short for short in names if plain.startswith(short)), key=len, default=None)
    if alike is None:
        return None
    name = names[alike]
    return cost(name, {}, shape_of("tokens" if architectures.takes_tokens(name) else "imagenet", {}))


def buckets(units: Sequence[ModelCost]) -> list[ModelCost]:
    """Units merged from the last one on until BUCKET bytes of gradients are together, as DDP does."""
    found: list[ModelCost] = []
    held: list[ModelCost] = []
    for unit in reversed(units):
        held.insert(0, unit)
        if sum(4 * part.parameters for part in held) >= BUCKET:
            found.insert(0, replace(together(held), units=()))
            held = []
    return [replace(together(held), units=()), *found] if held else found
