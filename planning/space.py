"""The space of a plan: every way to train that it compares, as changes to a scenario.

A way says which workers are used, how the work is divided among them, with which method and how many local steps, where
parameters live, and how values travel. Its changes, written into the scenario, make a scenario that `train` and
`simulate` take as it is.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf
from typing import Any

from ..algorithms.placements import PLACEMENTS, Placement
from ..algorithms.splits import ByBatch, BySteps, Capacity, Shares
from ..algorithms.strategy import Strategy
from ..algorithms.unitwise import UNIT_BYTES
from ..config.scenario import assign
from ..config.timing import CollectiveAlgorithm
from ..learning.cost_tables import merged
from ..program.effects import Wire
from ..program.errors import ScenarioError
from .lab import EXCHANGING, LOCAL, Lab, Team
from .methods import Method

# Local steps that are tried, of the fastest worker. The most that were published for workers of unequal speed are 32
# (Biased Local SGD, arXiv 2508.08540). Post-local SGD takes 16 (arXiv 1808.07217), QSR begins with 4 (2310.14423).
STEPS = (2, 4, 8, 16, 32)
BUCKET = 25 << 20  # bytes of gradients that travel together in PyTorch's DDP
COLLECTIVES: tuple[CollectiveAlgorithm, ...] = ("ordered", "ring", "recursive_doubling", "rabenseifner", "tree")
# The preset of synchronous training by placement, with equal batches and with batches by speed.
EQUAL = {"replicated": "sync_sgd", "offloaded": "lsdp", "sharded": "fsdp", "sharded_offloaded": "fsdp_offload"}
BY_BATCH = {"replicated": "hdp", "offloaded": "lshdp"}
KEEPS = ("method", "H", "workers")


@dataclass(frozen=True)
class Space:
    """What is tried of each choice."""

    keep: frozenset[str] = frozenset()  # of KEEPS: as the scenario has it
    most: int | None = None  # samples of all workers in a step; None: about as many as the scenario's
    deadline: float = inf  # seconds in which the training must end
    steps: tuple[int, ...] = STEPS  # local steps between two syncs, other than 1
    placements: tuple[str, ...] = tuple(EQUAL)
    wires: tuple[Wire, ...] = ("fp32", "bf16")
    prefetch: tuple[int, ...] = (1, 2, 4)
    unit_bytes: tuple[int, ...] = (UNIT_BYTES, BUCKET)

    @property
    def limits(self) -> str:
        """What every way keeps to, in words."""
        kept = [f"--keep {name}" for name in KEEPS if name in self.keep]
        return listed(["memory", *(["--max-batch-total"] if self.most is not None else []), *kept])


@dataclass(frozen=True, eq=False)
class Division:
    """How a step or round is divided among a team's workers."""

    split: Any  # as a scenario has it
    batch: int  # the scenario's batch for one worker
    shares: Shares
    kinds: tuple[tuple[int, int, float], ...]  # (class, batch, pace), each that there is
    micro: int | None = None  # samples that are computed at a time; None: as the scenario says

    @property
    def total(self) -> int | None:
        """The samples of a step that are divided by speed; None where batches are equal."""
        return self.split.get("by_batch", {}).get("total") if isinstance(self.split, dict) else None

    def of_part(self, synchronous: bool) -> Division:
        """The same of a part of the run: batches that memory has a say in are those of the whole run."""
        if not self.total:
            return self
        given: dict[str, Any] = {"batches": [*self.shares.batches]}
        paces = (1.0,) * len(self.shares.batches) if synchronous else self.shares.paces
        if set(paces) != {1.0}:
            given["paces"] = [*paces]
        shares = Shares(self.shares.batches, paces)
        return dataclasses.replace(self, split={"given": given}, shares=shares)

    def steps(self, H: int, pace: float) -> int:
        """The steps of a worker of that pace, where the fastest takes H."""
        return self.shares.steps(H, pace)

    def gap(self, method: Method, H: int) -> float:
        """Samples of all workers between two syncs, the mean over a run."""
        return method.average(H, self.samples)

    def samples(self, H: int) -> int:
        """Samples of all workers in a round of H steps of the fastest."""
        return sum(self.steps(H, pace) * batch * count for (batch, pace), count in self._counts.items())

    @cached_property
    def _counts(self) -> Counter[tuple[int, float]]:
        """How many workers have a batch and a pace."""
        return Counter(zip(self.shares.batches, self.shares.paces, strict=True))


@dataclass(frozen=True, eq=False)
class Way:
    """A way to train."""

    place: tuple[int, ...]  # in the order of the space
    team: Team
    division: Division
    method: Method
    H: int  # the method's number of steps; 1 where gradients are exchanged in every step
    placement: str
    options: Placement
    collective: CollectiveAlgorithm

    @cached_property
    def gap(self) -> float:
        """Samples of all workers between two syncs, the mean over the run."""
        return self.division.gap(self.method, self.H)

    @cached_property
    def steps(self) -> float:
        """Steps of the fastest worker between two syncs, the mean over the run."""
        return self.method.average(self.H, float)

    def parts(self) -> list[tuple[float, Way]]:
        """(share of the samples, a way in which nothing changes), for each part of the run."""
        phases = self.method.phases(self.H)
        if len(phases) == 1:
            return [(1.0, self)]
        found = list[tuple[float, Way]]()
        for part in phases:
            method = Method(EXCHANGING if part.synchronous else LOCAL, (part.H,), (self.placement,))
            division = self.division.of_part(part.synchronous)
            found.append((part.share, dataclasses.replace(self, method=method, H=part.H, division=division)))
        return found

    @property
    def preset(self) -> str:
        """The method's name."""
        if not self.method.synchronous:
            return self.method.preset
        return (BY_BATCH if self.division.total else EQUAL).get(self.placement, EQUAL[self.placement])

    @cached_property
    def key(self) -> tuple[Hashable, ...]:
        """What distinguishes it from other ways, in whatever space it is found; its collective comes last."""
        return self.team.place, repr(self.strategy), self.division.batch, self.division.micro, self.collective

    @property
    def strategy(self) -> dict[str, Any]:
        """The scenario's `strategy:` section."""
        options, division, preset = self._options, self.division, self.preset
        found: dict[str, Any] = {"preset": preset, **self.method.arguments}
        if not self.method.synchronous:
            found[self.method.number] = self.H
            if division.split != self.method.usual:
                found["split"] = division.split
            if division.total and self.method.weighs:
                found["weights"] = "samples" if set(division.shares.paces) == {1.0} else "batches"
        elif division.total:
            found |= {"total": division.total} if preset in BY_BATCH.values() else {"split": division.split}
        elif division.split not in ("even", "by_steps"):
            found["split"] = division.split
        if options or (not self.method.synchronous and self.placement != "replicated"):
            found["placement"] = {self.placement: options} if options else self.placement
        return found

    @property
    def _options(self) -> dict[str, Any]:
        """The placement's options that are not the usual ones."""
        given, usual = vars(self.options), vars(PLACEMENTS[self.placement]())
        return {name: value for name, value in given.items() if value != usual[name]}

    def write(self, document: dict[str, Any]) -> None:
        """Write it into the document of a scenario with its workers."""
        document["strategy"] = self.strategy
        document["workload"].pop("total_batch", None)
        document["workload"]["batch"] = self.division.batch
        if self.division.micro is not None:
            document["workload"]["micro_batch"] = self.division.micro
        if self.collective != self.team.timing.network.collective:
            assign(document, "cluster.network.collective", self.collective, "collective")


def divisions(lab: Lab, team: Team, strategy: Strategy, space: Space, cut: bool = True) -> Iterator[Division]:
    """How the work may be divided among a team. Each is given once.

    strategy: its aggregation and placement count.
    cut: whether samples that do not fit all at once are tried in micro-batches as well.
    """
    caps = {c: lab.cap(team, c, strategy) for c in team.devices}
    if not all(caps.values()):
        return
    holds, synchronous = lab.capacity(team, strategy), not strategy.aggregation.local
    room = sum(map(caps.__getitem__, team.by_class))
    known: set[tuple[tuple[int, ...], tuple[float, ...]]] = set()
    for total in totals(lab, team, caps, space):
        for made in _of_total(lab, team, min(total, room), caps, holds, synchronous):
            what = (made.shares.batches, made.shares.paces)
            if what not in known:
                known.add(what)
                yield made
        if cut and total > room:
            yield from _in_parts(lab, team, total, caps, strategy)


def _in_parts(lab: Lab, team: Team, total: int, caps: dict[int, int], strategy: Strategy) -> Iterator[Division]:
    """Of batches that do not fit as a whole: those that do where they are computed in parts, each of which fits all.

    A part is a power of two, so that few are looked at.
    """
    micro, n = 1 << (min(caps.values()).bit_length() - 1), team.size
    inside = lab.cut(micro)
    larger = {c: inside.cap(team, c, strategy) for c in team.devices}
    if larger == caps or not all(larger.values()):
        return
    room = sum(map(larger.__getitem__, team.by_class))
    holds, synchronous = inside.capacity(team, strategy), not strategy.aggregation.local
    for made in _of_total(inside, team, min(total, room), larger, holds, synchronous):
        batches = made.shares.batches
        # Where parameters are sharded, all workers have as many parts, since each gathers them from all.
        enough = not strategy.placement.sharded or min(batches) >= -(-max(batches) // micro)
        if max(batches) > micro and enough and sum(batches) > n:
            yield dataclasses.replace(made, micro=micro)


def totals(lab: Lab, team: Team, caps: dict[int, int], space: Space) -> list[int]:
    """The samples of a step that are tried: as the scenario has them, and more where that costs no time."""
    workload, n = lab.scenario.workload, team.size
    first = [workload.total_batch] if workload.total_batch else [lab.batch * n, lab.batch * lab.size]
    found = [*first, lab.filled(team, caps)]
    if space.most is not None:
        larger = max(found)
        while larger < space.most:
            larger = min(2 * larger, space.most)
            found.append(larger)
        found = [min(total, space.most) for total in found]
    return [total for total in dict.fromkeys(found) if total >= n]


def _of_total(
    lab: Lab, team: Team, total: int, caps: dict[int, int], holds: Capacity, synchronous: bool
) -> Iterator[Division]:
    n, unequal = team.size, len(team.devices) > 1
    each = min(total // n, *caps.values())
    if each >= 1:
        if synchronous or not unequal:
            yield _division("even", each, Shares((each,) * n, (1.0,) * n), team)
        else:
            yield _division("by_steps", each, BySteps().shares(each, team.timing.devices), team)
    if not unequal or any(map(lab.level, team.devices.values())):
        return
    for paces in (False,) if synchronous else (False, True):
        try:
            shares = ByBatch(total=total, paces=paces).shares(each, team.timing.devices, holds)
        except ValueError:
            return
        if all(batch <= caps[c] for c, batch in zip(team.by_class, shares.batches, strict=True)):
            options = {"total": total} | ({"paces": True} if paces else {})
            yield _division({"by_batch": options}, max(1, each), shares, team)


def _division(split: Any, batch: int, shares: Shares, team: Team) -> Division:
    kinds = tuple(dict.fromkeys(zip(team.by_class, shares.batches, shares.paces, strict=True)))
    return Division(split, batch, shares, kinds)


def placements(lab: Lab, name: str, synchronous: bool, space: Space) -> list[Placement]:
    """A placement with each size of units that makes other units."""
    kind, precision = PLACEMENTS[name], lab.scenario.workload.precision
    if synchronous and precision == "fp16":
        return [kind(overlap=False)] if name == "replicated" else []
    if not synchronous and (kind().sharded or name == "replicated"):
        return [] if kind().sharded else [kind()]
    found: dict[int, Placement] = {}
    for nbytes in space.unit_bytes:
        found.setdefault(len(merged(lab.problem.cost, nbytes).units), kind(unit_bytes=nbytes))
    return list(found.values())


def collectives(lab: Lab, team: Team) -> tuple[CollectiveAlgorithm, ...]:
    """The algorithms of an all-reduce that are tried.

    `train` performs the ordered one, unless the scenario says `reduction: fast`: then the others are tried, too.
    """
    given = team.timing.network.collective
    if lab.scenario.reduction != "fast" or team.size == 1:
        return (given,)
    others: tuple[CollectiveAlgorithm, ...] = (given, *COLLECTIVES)
    if len(set(team.timing.nodes)) < team.size:  # some nodes have several workers
        others = (*others, "two_level")
    return tuple(dict.fromkeys(others))


def variants(lab: Lab, team: Team, place: Placement, space: Space) -> Iterator[tuple[Placement, CollectiveAlgorithm]]:
    """A placement with each type in which values travel and each prefetch, and each algorithm of an all-reduce."""
    wires = space.wires if lab.scenario.workload.precision != "fp64" and team.size > 1 else ("fp32",)
    prefetches = space.prefetch if place.sharded or place.offloaded else (1,)
    for wire, prefetch, collective in product(wires, prefetches, collectives(lab, team)):
        yield type(place)(wire, place.overlap, prefetch, place.unit_bytes), collective


def listed(names: Sequence[str]) -> str:
    """A list in words: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def check_keep(names: Sequence[str]) -> frozenset[str]:
    """The choices that stay as the scenario has them. ScenarioError for another name."""
    for name in names:
        if name not in KEEPS:
            raise ScenarioError(f"--keep {name}: write {', '.join(KEEPS[:-1])} or {KEEPS[-1]}")
    return frozenset(names)
