"""Provable lower bounds of a way's seconds for a sample, and the nodes of the search that are made of them.

Why they hold: a program's clock is made of sums and maxima of times, so that it is no less than what any chain of
effects takes that follow one another. Two such chains go from the end of one synchronous step's last exchange, for
which all workers wait, to that of the next step:

- a worker's update, its forward and backward passes, then the last gradient's exchange;
- the update and the passes until the first gradient is there, then all exchanges, which take turns on the network.

Of a round of local steps it is the computing of the worker that takes longest, then the exchange. What a worker copies
between host and device takes turns, too. A simulated clock also has what is left out here: waiting for copies, and what
exchanges and computations cost one another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import NamedTuple

from ..algorithms.costs import TAIL, Works
from ..algorithms.placements import PLACEMENTS, Placement
from ..config.timing import CollectiveAlgorithm, Device
from ..program.effects import AllGather, AllReduce, Move, Phantom, ReduceScatter
from ..program.wire import wire_bytes
from ..sim.network import Fabric
from ..studies.front import Node
from .lab import Lab, Team
from .methods import Method, methods
from .space import Division, Space, Way, divisions, placements, variants


class Exchange(NamedTuple):
    """Seconds on the network, of a step or of a sync."""

    total: float
    least: float  # of these, before the first pass and after the last one


class Root(NamedTuple):
    """A node, and what all of its ways have in common."""

    team: Team
    division: Division
    method: Method
    H: int  # the method's number of steps
    steps: float  # of the fastest worker between two syncs, the mean over the run
    placement: str
    node: Node[Way]


@dataclass(eq=False)
class Bounds:
    """The bounds of a lab's ways. They are remembered."""

    lab: Lab
    _fabrics: dict[tuple[Team, CollectiveAlgorithm], Fabric] = field(default_factory=dict, init=False)
    _moves: dict[tuple[object, ...], float] = field(default_factory=dict, init=False)
    _exchanges: dict[tuple[object, ...], Exchange] = field(default_factory=dict, init=False)
    _computings: dict[tuple[object, ...], tuple[float, float, float]] = field(default_factory=dict, init=False)

    def of(
        self, team: Team, division: Division, method: Method, H: int, place: Placement, collective: CollectiveAlgorithm
    ) -> float:
        """Seconds for a sample, at the least: the mean over the parts of the run."""
        return sum(
            part.share * self.of_part(team, division, part.synchronous, part.H, place, collective)
            for part in method.phases(H)
        )

    def of_part(
        self,
        team: Team,
        division: Division,
        synchronous: bool,
        H: int,
        place: Placement,
        collective: CollectiveAlgorithm,
    ) -> float:
        """Seconds for a sample, at the least."""
        lab = self.lab.cut(division.micro)
        computing, early, moving = self._computing(team, division, synchronous, H, place)
        number, batch, _ = division.kinds[0]
        works = lab.works(team, number, batch, place, synchronous)
        exchange = self._exchange(team, works, place, synchronous, collective)
        if not synchronous:
            round = max(computing, moving) + exchange.total
        elif place.sharded:
            round = max(computing + exchange.least, exchange.total, moving)
        else:
            round = max(computing + exchange.least, early + exchange.total, moving)
        return round / division.samples(H)

    def _computing(
        self, team: Team, division: Division, synchronous: bool, H: int, place: Placement
    ) -> tuple[float, float, float]:
        """Seconds of a round, of the worker that takes longest: its computing; until its first gradient; its copies."""
        key = (division, synchronous, H, type(place), place.prefetch, place.unit_bytes)  # whatever it sends, and how
        if key in self._computings:
            return self._computings[key]
        lab = self.lab.cut(division.micro)
        computing = early = moving = 0.0
        for number, batch, pace in division.kinds:
            step = lab.step(team, number, batch, place, synchronous)
            steps = division.steps(H, pace)
            computing = max(
                computing, step.update + step.passes if synchronous else step.first + (steps - 1) * step.whole
            )
            early = max(early, step.update + step.early)
            if place.offloaded:
                works = lab.works(team, number, batch, place, synchronous)
                moving = max(moving, steps * self._moving(works, team.devices[number], place))
        return self._computings.setdefault(key, (computing, early, moving))

    def _moving(self, works: Works, device: Device, place: Placement) -> float:
        """Seconds of a step's copies to the device, or of those to the host, whichever take longer."""
        from ..sim.base_driver import move_seconds

        key = (works, device, place.prefetch)
        if key not in self._moves:
            taken = {
                (to, n): move_seconds(device, Move(Phantom(works.held.item * n), to))
                for _, n in set(works.sizes)
                for to in ("device", "host")
            }
            units = range(len(works.units))
            loads = sum(taken["device", works.sizes[u][1]] for u in (*units, *_fetched_again(works, place)))
            unloads = sum(taken["host", works.sizes[u][1]] for u in units)
            self._moves[key] = max(loads, unloads) * len(works.chunks)
        return self._moves[key]

    def _exchange(
        self, team: Team, works: Works, place: Placement, synchronous: bool, collective: CollectiveAlgorithm
    ) -> Exchange:
        units = tuple(works.sizes)
        by_units = place.by_units(synchronous, len(units)) and synchronous
        chunks = len(works.chunks)
        key = (team, units, place.sharded, by_units, place.wire, place.prefetch, collective, chunks)
        if key not in self._exchanges:
            self._exchanges[key] = self._exchanged(team, works, place, by_units, collective)
        return self._exchanges[key]

    def _exchanged(
        self, team: Team, works: Works, place: Placement, by_units: bool, collective: CollectiveAlgorithm
    ) -> Exchange:
        from ..sim.network import Fabric

        if (team, collective) not in self._fabrics:
            network = dataclasses.replace(team.timing.network, collective=collective)
            self._fabrics[team, collective] = Fabric(network, team.timing.nodes)
        fabric, n, item = self._fabrics[team, collective], team.size, works.held.item
        wholes = [wire_bytes(item * whole, place.wire) for _, whole in works.sizes]
        price = {
            (kind, nbytes): fabric.price(kind, nbytes, n)[0]
            for kind in (AllReduce, AllGather, ReduceScatter)
            for nbytes in set(wholes)
        }
        if not by_units:
            total, _ = fabric.price(AllReduce, wire_bytes(item * sum(kept for kept, _ in works.sizes), place.wire), n)
            return Exchange(total, total)
        if not place.sharded:
            return Exchange(sum(price[AllReduce, nbytes] for nbytes in wholes), price[AllReduce, wholes[0]])
        again = _fetched_again(works, place)
        gathers = sum(price[AllGather, wholes[u]] for u in (*range(len(wholes)), *again)) * len(works.chunks)
        loss, _ = fabric.price(AllReduce, TAIL * item, n)
        total = gathers + sum(price[ReduceScatter, nbytes] for nbytes in wholes) + loss
        return Exchange(total, price[AllGather, wholes[0]] + price[ReduceScatter, wholes[0]] + loss)

    def roots(self, space: Space, teams: Iterable[Team]) -> list[Root]:
        """The nodes from which all ways of the space follow."""
        tried = methods(self.lab, space.keep, space.steps, space.placements)
        return [
            root for team in teams for m, method in enumerate(tried) for root in self._of_method(space, team, m, method)
        ]

    def _of_method(self, space: Space, team: Team, m: int, method: Method) -> Iterator[Root]:
        lab, synchronous = self.lab, method.synchronous
        if team.size == 1 and not synchronous:
            return
        for p, name in enumerate(method.placements):
            if not self._tried(space, team, method, name):
                continue
            found = placements(lab, name, synchronous, space)
            for d, division in (
                enumerate(divisions(lab, team, method.placed(name), space, method.synchronous)) if found else ()
            ):
                for (h, H), (u, place) in product(enumerate(method.steps), enumerate(found)):
                    where = (team.place, m, p, d, h, u)
                    make = partial(self._ways, space, team, division, method, H, name, place, where)
                    each = variants(lab, team, place, space)
                    bound = min(self.of(team, division, method, H, *variant) for variant in each)
                    node = Node(bound, division.gap(method, H), where, None, make)
                    yield Root(team, division, method, H, method.average(H, float), name, node)

    def _tried(self, space: Space, team: Team, method: Method, name: str) -> bool:
        """Whether a placement is tried with a method.

        Methods that change during the run take a simulation for each of their parts. So they keep parameters elsewhere
        only where some device does not hold the scenario's batch with replicated ones.
        """
        if team.size == 1 and PLACEMENTS[name]().sharded:
            return False
        if not method.looks or name == "replicated" or "method" in space.keep:
            return True
        caps = (self.lab.cap(team, number, method.placed("replicated")) for number in team.devices)
        return min(caps) < self.lab.batch

    def _ways(
        self,
        space: Space,
        team: Team,
        division: Division,
        method: Method,
        H: int,
        name: str,
        place: Placement,
        where: tuple[int, ...],
    ) -> Iterator[Node[Way]]:
        gap = division.gap(method, H)
        for v, (options, collective) in enumerate(variants(self.lab, team, place, space)):
            way = Way((*where, v), team, division, method, H, name, options, collective)
            yield Node(self.of(team, division, method, H, options, collective), gap, way.place, way)


def _fetched_again(works: Works, place: Placement) -> range:
    """The units that are fetched once more for the backward pass; see algorithms/unitwise.py."""
    units = len(works.units)
    if any(unit.shared for unit in works.units):
        return range(0)
    return range(max(0, units - min(place.prefetch, units) - 1))
