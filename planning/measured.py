"""`paceline plan --measured`: how fast the machines are, from one number that a user has: what they do now.

Rule: each device that its datasheet alone describes is taken to reach the same share of it. So there is one factor, and
it is the one with which the scenario as it stands has the measured rate in virtual time. How much faster one device is
than another still comes from the datasheets. No memory is read faster than a datasheet says.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config.cluster import EFFICIENCY
from ..config.machines import Cluster, WorkerGroup
from ..config.scenario import assign, validate
from ..config.timing import Device, Timing
from ..job import Job, resolve
from ..learning_problem import LearningProblem
from ..memory_check import holds
from ..program.errors import ScenarioError
from .lab import quiet
from .values import ROUNDS, simulated

SLOWEST = 1e-9  # the least factor on what datasheets promise
HALVINGS = 40  # of the range of the factor's logarithm: to the eleventh digit


class _Group(NamedTuple):
    """Workers that are described alike."""

    key: str  # of a document, like "cluster.workers.0"
    group: WorkerGroup
    device: Device
    batch: int  # of the first one

    @property
    def efficiency(self) -> float:
        return EFFICIENCY if self.group.efficiency is None else self.group.efficiency


def calibrated(document: dict[str, Any], folder: Path, rate: float) -> tuple[dict[str, Any], str, LearningProblem]:
    """(the document with devices that reach the measured share of their datasheets; what is to be known of it; its
    problem, as far as it was looked at).

    rate: samples/s of all workers, as the document has them train now. Its batches fit into memory, then.

    ScenarioError where no device is described by its datasheet alone, or where they cannot be so fast.
    """
    cluster = validate(document, "scenario").cluster
    steady = {"budget": {"rounds": ROUNDS}, "report": {"log": "1 rounds"}, "checkpoint": {}, "faults": []}
    job = resolve(validate(document | steady, "scenario"), folder)
    groups = _groups(job, cluster)
    unknown = [each for each in groups if each.device.flops is not None]
    if not unknown:
        raise ScenarioError("--measured: no worker's speed comes from a datasheet, so nothing is left to be found")
    most = min(1 / each.efficiency for each in unknown)
    factor = _factor(job, [each.device for each in unknown], rate, most)
    made = copy.deepcopy(document)
    for number, node in enumerate(cluster.nodes or ()):  # those whose devices are the type's
        made["cluster"]["nodes"][number].setdefault(
            "devices", [{"device": group.device, "count": group.count} for group in node.each]
        )
    for each in unknown:
        changes: dict[str, Any] = {"efficiency": min(1.0, each.efficiency * factor)}
        if each.device.memory_bandwidth < math.inf:
            changes["memory_bandwidth"] = f"{each.device.memory_bandwidth * min(1.0, factor)!r} B/s"
        for name, value in changes.items():
            assign(made, f"{each.key}.{name}", value, "--measured")
    for each in groups:
        if each.group.max_batch is None and _predicted(job, each) < each.batch:
            assign(made, f"{each.key}.max_batch", each.batch, "--measured")
    return made, f"as measured, devices are {factor:.3g} times as fast as by their datasheets", job.problem


def _groups(job: Job, cluster: Cluster) -> list[_Group]:
    found, first = dict[str, _Group](), 0
    for block in cluster.blocks:
        key = f"cluster.{block.key.replace('[', '.').replace(']', '')}"
        found.setdefault(key, _Group(key, block.group, job.timing.devices[first], job.plan.shares.batches[first]))
        first += len(block.nodes)
    return list(found.values())


def _predicted(job: Job, each: _Group) -> float:
    """The largest batch that a group's devices are predicted to hold."""
    if each.device.memory is None:
        return math.inf
    return holds(job.problem, job.plan.strategy, job.timing)(each.device, each.batch) or 0


def _factor(job: Job, devices: Sequence[Device], rate: float, most: float) -> float:
    """The factor on the datasheets' speeds with which all workers do `rate` samples/s; `most` at the most."""
    timing = quiet(job.timing)
    shape = job.problem.shape
    unknown = {id(timing.devices[job.timing.devices.index(device)]) for device in devices}

    def reached(factor: float) -> float:
        (clock, _), *_ = simulated(job, [_faster(timing, unknown, factor)])
        return 1 / clock.seconds

    job.problem.shape = dataclasses.replace(shape, test=1)  # the evaluation at the end does not count
    best, least = reached(most), reached(SLOWEST)
    if not least < rate <= best:
        raise ScenarioError(
            f"--measured {rate:g} samples/s: training as the scenario says, at the peaks of their datasheets these "
            f"workers would do {best:.5g} samples/s; write what all workers do together, or what else is different"
        )
    low, high = math.log(SLOWEST), math.log(most)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(math.exp(middle)) < rate else (low, middle)
    job.problem.shape = shape
    return math.exp(high)


def _faster(timing: Timing, which: Iterable[int], factor: float) -> Timing:
    """The cluster with so many times faster devices. which: their identities."""
    made = {
        id(device): dataclasses.replace(
            device,
            flops=(device.flops or 0.0) * factor,
            memory_bandwidth=device.memory_bandwidth * min(1.0, factor),
        )
        if id(device) in which
        else device
        for device in timing.devices
    }
    return dataclasses.replace(timing, devices=tuple(made[id(device)] for device in timing.devices))
