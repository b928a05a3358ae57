"""A scenario with fewer workers: what is left to describe when some are gone.

Rule: the workers that stay keep their order and are numbered from 0 again. What a list says of each worker stays with
it. What the scenario says of all workers together, like `workload.total_batch`, does not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..algorithms.per_worker import NUMBERS, RELATIVE
from ..algorithms.presets import PRESETS
from ..algorithms.strategy import AXES
from ..program.errors import ScenarioError
from .arguments import axis_of, hints_of, kinds_of, marks_of
from .faults import Fault, SlowLink, numbered
from .machines import Cluster, NodeGroup, WorkerGroup
from .members import known
from .scenario import Scenario, StrategySpec


def remaining(workers: int, gone: Collection[int]) -> tuple[int, ...]:
    """The workers of so many that are left, in their order: worker i of the next part was the i-th of these.

    ScenarioError where none is left, or where one that is gone does not exist.
    """
    lost = set(gone)
    for worker in lost:
        if not 0 <= worker < workers:
            raise ScenarioError(f"worker {worker} does not exist; there are workers 0 to {workers - 1}")
    left = tuple(worker for worker in range(workers) if worker not in lost)
    if not left:
        raise ScenarioError(f"no worker is left of {workers}")
    return left


def without(scenario: Scenario, gone: Collection[int]) -> Scenario:
    """The scenario without some of its workers. ScenarioError where that makes no sense.

    gone: their numbers. Faults and background traffic of these workers are left out.
    """
    fewer = _Fewer(scenario.cluster, remaining(scenario.cluster.size, gone), frozenset(gone))
    changed = {
        "cluster": fewer.cluster,
        "strategy": fewer.strategy(scenario.strategy),
        "faults": tuple(fewer.faults(scenario.faults)),
    }
    return scenario.model_copy(update=changed)


@dataclass(frozen=True)
class _Fewer:
    """How parts of a scenario change when workers are gone."""

    before: Cluster
    left: tuple[int, ...]
    gone: frozenset[int]

    @cached_property
    def now(self) -> dict[int, int]:
        """The number of each worker that is left -> its new number."""
        return {worker: number for number, worker in enumerate(self.left)}

    @cached_property
    def nodes(self) -> dict[int, int]:
        """The same of the nodes that still have a worker."""
        old, new = self.before.places, self.cluster.places
        return {old[worker].node: new[number].node for worker, number in self.now.items()}

    @cached_property
    def cluster(self) -> Cluster:
        given, network = self.before, self.before.network
        if network.matrix is not None:
            matrix = tuple(self.each("cluster.network.matrix", row) for row in network.matrix)
            network = network.model_copy(update={"matrix": self.each("cluster.network.matrix", matrix)})
        flows = tuple(
            flow.model_copy(update={"sender": self.now[flow.sender], "receiver": self.now[flow.receiver]})
            for flow in given.background
            if flow.sender in self.now and flow.receiver in self.now
        )
        changed: dict[str, Any] = {"network": network, "background": flows}
        if given.workers is not None:
            changed["workers"] = tuple(_groups(given.workers, self.gone))
        if given.nodes is not None:
            changed["nodes"] = tuple(_node_groups(given.nodes, self.gone))
        return given.model_copy(update=changed)

    def each(self, key: str, values: Sequence[Any]) -> tuple[Any, ...]:
        """What a list with one value for each worker says of those that are left."""
        if len(values) != self.before.size:
            raise ScenarioError(f"{key} has {len(values)} values for {self.before.size} workers; list one per worker")
        return tuple(values[worker] for worker in self.left)

    def strategy(self, spec: StrategySpec) -> StrategySpec:
        document = {key: value for key, value in spec if value is not None or key in (spec.model_extra or {})}
        preset = spec.preset and known(spec.preset, PRESETS, "strategy.preset", "preset")
        found = {
            key: self._member(key, value) if key in AXES else self._argument(preset, key, value) if preset else value
            for key, value in document.items()
        }
        return StrategySpec.model_validate(found)

    def _member(self, axis: str, value: Any) -> Any:
        """An axis member as the scenario spells it; see members.py."""
        if not isinstance(value, dict) or len(value) != 1:
            return value
        ((name, arguments),) = value.items()
        kind = known(name, AXES[axis], f"strategy.{axis}", axis)
        if not isinstance(arguments, dict):
            return {name: self._argument(kind, next(iter(hints_of(kind)), ""), arguments)}
        return {name: {key: self._argument(kind, key, each) for key, each in arguments.items()}}

    def _argument(self, kind: Callable[..., Any], name: str, value: Any) -> Any:
        """An argument of a member or preset: a list that speaks of single workers, or another member."""
        mark = marks_of(kind).get(name)
        if mark is None or not isinstance(value, list | tuple):
            axes = [axis for each in kinds_of(hints_of(kind).get(name)) if (axis := axis_of(each))]
            return self._member(axes[0], value) if axes else value
        if mark == NUMBERS:
            return [self.now[worker] for worker in value if worker in self.now]
        values = self.each(f"strategy: {name}", value)
        return _scaled(values) if mark == RELATIVE else [*values]

    def faults(self, faults: Sequence[Fault]) -> Iterator[Fault]:
        """Those that can still happen. They keep their numbers, by which it is known which have struck."""
        for number, fault in numbered(faults):
            if not isinstance(fault, SlowLink):
                if fault.worker in self.now:
                    yield fault.model_copy(update={"number": number, "worker": self.now[fault.worker]})
            elif (link := self._link(fault.link or "")) is not None:
                yield fault.model_copy(update={"number": number, "link": link or None})

    def _link(self, name: str) -> str | None:
        """The new name of a link, as SlowLink has it; None where it is gone."""
        ends = [self.now, self.now] if " to " in name else [self.nodes if name.startswith("node ") else self.now]
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        if any(number not in left for number, left in zip(numbers, ends, strict=False)):
            return None
        new = iter([left[number] for number, left in zip(numbers, ends, strict=False)])
        return re.sub(r"\d+", lambda _: str(next(new)), name)


def _scaled(values: Sequence[float]) -> list[float]:
    """Paces among which the fastest is 1 again."""
    return [value / max(values) for value in values]


def _groups(groups: Sequence[WorkerGroup], gone: Collection[int]) -> Iterator[WorkerGroup]:
    """Groups of workers that are numbered from 0, as far as they are left."""
    start = 0
    for group in groups:
        left = group.count - sum(start <= worker < start + group.count for worker in gone)
        if left:
            yield group.model_copy(update={"count": left})
        start += group.count


def _node_groups(groups: Sequence[NodeGroup], gone: Collection[int]) -> Iterator[NodeGroup]:
    """Groups of nodes, as far as workers are left in them. A node that has lost some stands for itself."""
    start = 0
    for group in groups:
        size, whole = group.size, 0  # of a node; nodes of the group that lie behind
        places = [divmod(worker - start, size) for worker in sorted(gone) if 0 <= worker - start < group.count * size]
        for node in dict.fromkeys(node for node, _ in places):
            if node > whole:
                yield group.model_copy(update={"count": node - whole})
            devices = tuple(_groups(group.each, [place for its, place in places if its == node]))
            if devices:
                yield group.model_copy(update={"count": 1, "devices": devices})
            whole = node + 1
        if whole < group.count:
            yield group.model_copy(update={"count": group.count - whole})
        start += group.count * size
