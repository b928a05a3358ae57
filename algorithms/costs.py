"""What a model costs: the work of each phase of a step, the sizes of its units, and the memory that a worker needs.

The footprint is what the worker of learning/ allocates at its peak. Parameters, gradients, optimizer state and buffers
are exact. Activations are an estimate: the table's bytes of one sample times the largest micro-batch, and the inputs of
the batch. Tests compare both with the tensors of a real worker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from ..program.effects import Work
from ..program.fold import parts

# Elements that travel behind the parameters, or their gradient: what of a batch does not count, and its loss.
TAIL = 2


@dataclass(frozen=True)
class Cut:
    """How a model that is not a plain list of modules is cut into units."""

    begins: tuple[str, ...]  # paths of modules: unit u + 1 begins when the model calls begins[u]
    parameters: tuple[tuple[str, ...], ...]  # each unit's, by name
    whole: str = ""  # why the model is one unit, where it cannot be cut


@dataclass(frozen=True)
class ModelCost:
    """What a model costs, summed over its units."""

    parameters: int  # elements
    buffers: int  # elements of those that are averaged for an evaluation
    flops: float  # of one sample's forward pass; a multiply-add counts as two
    activations: float  # bytes that one sample's forward pass allocates
    units: tuple[ModelCost, ...] = ()  # the same of each unit; none: the model is a single unit
    shared: bool = False  # whether later units use its parameters too, as a tied output layer does an embedding's
    cut: Cut | None = None  # None: the units are the members of a list of modules


def together(units: Sequence[ModelCost]) -> ModelCost:
    """The cost of units that follow one another."""
    return ModelCost(
        parameters=sum(u.parameters for u in units),
        buffers=sum(u.buffers for u in units),
        flops=math.fsum(u.flops for u in units),
        activations=math.fsum(u.activations for u in units),
        units=tuple(units),
    )


class UnitBuffers(NamedTuple):
    """How many buffers, each for one unit at a time, a worker has where units are fetched before use."""

    parameters: int = 0  # on the device
    gradients: int = 0
    host_parameters: int = 0  # in host memory, where exchanges read and write
    host_gradients: int = 0


@dataclass(frozen=True)
class Holding:
    """How a worker holds its model."""

    parts: int = 1  # it keeps one of so many equal parts; 1: all of it
    host: bool = False  # in host memory
    staged: bool = False  # its device has memory of its own, which exchanges cannot reach
    prefetch: int = 1  # units that are fetched ahead
    item: int = 4  # bytes of a parameter

    @property
    def fetched(self) -> bool:
        """Whether a unit's parameters are brought to the device before each use."""
        return self.parts > 1 or self.host

    @property
    def mirrored(self) -> bool:
        """Whether parameters and gradients on the device have a copy in host memory, which is what is exchanged."""
        return self.staged and not self.host

    @property
    def apart(self) -> bool:
        """Whether what is exchanged lies in another memory than the one that computes."""
        return self.host or self.staged

    def buffers(self, units: int, chunks: int) -> UnitBuffers:
        """The buffers of a model of so many units, whose steps have so many micro-batches.

        Parameters: those of the unit in use and of the units fetched ahead. Gradients: one is computed while the one
        before leaves, so two suffice; but over several micro-batches they add up where they are exchanged, and there
        each unit's needs a place of its own. Parts of a unit are exchanged in host memory where that is apart: on the
        way in, prefetch units are being gathered while as many are being copied to the device.
        """
        if not self.fetched:
            return UnitBuffers()
        kept_apart, adding = self.apart and self.parts > 1, 2 if chunks == 1 else units
        gradients = 2 if self.apart else adding
        return UnitBuffers(self.prefetch + 1, gradients, *((2 * self.prefetch, adding) if kept_apart else (0, 0)))


class Works:
    """The kinds of work of one worker, each made once, for the torch worker and the phantom alike.

    cost: of the model, with the units that are exchanged one by one.
    chunks: the number of micro-batches in a step.
    alone: whether its steps are local ones, without an exchange.

    How prices are cut. A speed, a table of step times or a datasheet prices whole steps, while a program may compute a
    step in pieces: a gradient and an update, or many units, forward and backward. If each piece were priced by itself,
    the pieces would not add up to the step, and a unit-wise placement would look faster or slower than it is for no
    other reason. So each piece names the whole that it belongs to (Work.whole) and its share (Work.fraction): a device
    prices the whole and cuts the price by the share. A unit's share is its part of the model's flops. Only what a
    profile has measured in pieces is priced in pieces (config/tables.py).
    """

    def __init__(
        self,
        cost: ModelCost,
        batch: int,
        test_samples: int,
        chunks: int = 1,
        held: Holding | None = None,
        alone: bool = False,
    ) -> None:
        self.cost, self.held = cost, held or Holding()
        self.units = cost.units or (cost,)
        self.sizes = unit_sizes(self.units, self.held)
        ends = list(accumulate((max(1, len(unit.units)) for unit in self.units), initial=0))
        self._finest = list(pairwise(ends))
        self.chunks = [stop - start for start, stop in parts(batch, chunks)]
        forward, touched = cost.flops * batch, 4.0 * cost.parameters
        # Backward computes a gradient for the inputs and one for the weights: twice the forward's work.
        gradient = 3 * forward, 2 * touched + 2 * cost.activations * batch
        update = 4.0 * cost.parameters, 5 * touched
        both = gradient[0] + update[0], gradient[1] + update[1]
        self.step = Work("step", batch, *both)
        self.first_step = Work("step", batch, *both, first=True)
        # A step with an exchange may have been measured by itself: its gradient takes longer than a local step's.
        pieces = self.step if alone else Work("synchronous step", batch, *both)
        self.gradient = Work("gradient", batch, *gradient, whole=pieces)
        self._updated = Work("update", 0, *update, whole=pieces)
        self.update = self._own_part("host update" if self.held.host else "update", update, self._updated)
        # Elementwise over the parameters and two vectors: read, combined, one written.
        self.transform = Work("transform", 0, 2.0 * cost.parameters, 3 * touched)
        self.norm = self._own_part("norm", (2.0 * cost.parameters, touched), pieces)
        self.evaluate = Work(
            "evaluate", test_samples, cost.flops * test_samples, touched + cost.activations * test_samples
        )
        self.scores = Work("scores")
        self._batch = batch
        self._others: dict[tuple[str, int, int], Work] = {}

    def _own_part(self, phase: str, cost: tuple[float, float], whole: Work) -> Work:
        """Work on the parameters that this worker keeps. cost: flops and bytes for all parameters."""
        part = 1 / self.held.parts
        return Work(phase, 0, cost[0] * part, cost[1] * part, fraction=part, whole=whole)

    def first(self, start: int) -> Work | None:
        """The first of a round's local steps from `start` on, where it costs something else: it follows an exchange."""
        return None if start else self.first_step

    def unit(self, phase: str, unit: int, samples: int) -> Work:
        """A unit's "forward" or "backward" on so many samples, or its "evaluate" on a block of the test set."""
        key = (phase, unit, samples)
        if key not in self._others:
            own, times = self.units[unit], 2 if phase == "backward" else 1
            whole = self.evaluate if phase == "evaluate" else self.gradient
            fraction = own.flops / self.cost.flops if self.cost.flops else 1 / len(self.units)
            fraction *= samples / whole.samples if whole.samples else 1.0
            touched = 4.0 * own.parameters + own.activations * samples
            self._others[key] = Work(
                phase,
                samples,
                times * own.flops * samples,
                touched,
                unit,
                self._finest[unit],
                "fetched" if self.held.fetched else "kept",
                fraction=fraction,
                whole=whole,
            )
        return self._others[key]

    @property
    def squares(self) -> Work:
        """Norms for a report: an evaluation of no examples."""
        return self.estimate(0)

    def estimate(self, batches: int) -> Work:
        """Forward passes over `batches` batches of the worker's size, priced as so many times one."""
        key = ("estimate", 0, batches)
        if key not in self._others:
            cost, batch = self.cost, self._batch
            one = Work("evaluate", batch, cost.flops * batch, 4.0 * cost.parameters + cost.activations * batch)
            all_of_them = batches * batch, batches * one.flops, batches * one.bytes
            self._others[key] = Work("evaluate", *all_of_them, fraction=batches, whole=one)
        return self._others[key]


def unit_sizes(units: Sequence[ModelCost], held: Holding) -> list[tuple[int, int]]:
    """(elements kept, elements of the whole) of each unit.

    Sharded, a unit is padded so that it falls into equal parts. Otherwise the last one has TAIL elements more.
    """
    if held.parts == 1:
        return [(u.parameters + TAIL * (i == len(units) - 1),) * 2 for i, u in enumerate(units)]
    kept = [-(-u.parameters // held.parts) for u in units]
    return [(size, size * held.parts) for size in kept]


def slots(sizes: Sequence[int], count: int, shared: Sequence[bool] = ()) -> tuple[list[int], list[int]]:
    """(elements of each buffer, each unit's buffer) where units of these sizes take `count` buffers in turn.

    A unit that is shared has a buffer to itself, where it stays while later units use it.
    """
    apart = [unit for unit, is_shared in enumerate(shared) if is_shared and count]
    turns = [unit for unit in range(len(sizes)) if unit not in apart]
    count = min(count, len(turns))
    found = [max(sizes[unit] for unit in turns[first::count]) for first in range(count)]
    places = {unit: turn % max(count, 1) for turn, unit in enumerate(turns)}
    places |= {unit: count + place for place, unit in enumerate(apart)}
    return found + [sizes[unit] for unit in apart], [places[unit] for unit in range(len(sizes))]


# How steps are computed: unit by unit, the model at once into a flat gradient, or at once without an exchange.
StepPath = Literal["units", "flat", "local"]


@dataclass(frozen=True)
class Footprint:
    """What a worker holds in memory at its peak, in bytes."""

    device: float  # parameters, gradients, optimizer state and buffers in the device's memory
    host: float  # the same in host memory
    activations: float  # in addition, on the device, inputs included
    largest_unit: float  # parameters of the largest unit
    fresh: float  # gradients as autograd makes them, until they are where they are kept or used
    exchange: float = 0.0  # buffers in host memory for what travels
    vectors: float = 0.0  # in host memory, of the aggregation


def footprint(works: Works, state: float, inputs: int, path: StepPath = "units", vectors: int = 0) -> Footprint:
    """The memory of a worker. Its `exchange` is left at 0, since it depends on the other workers.

    state: bytes of its optimizer's state, as a multiple of the parameters' bytes.
    inputs: elements of one sample's input.
    path: how its steps are computed.
    vectors: of the aggregation, as long as the parameters.
    """
    held, sizes, shared = works.held, works.sizes, [unit.shared for unit in works.units]
    kept, whole = sum(own for own, _ in sizes), [every for _, every in sizes]

    def elements(*counts: int, apart: Sequence[bool] = ()) -> int:
        return sum(sum(slots(whole, count, apart)[0]) for count in counts)

    home, buffers = (2 + state) * kept, held.buffers(len(whole), len(works.chunks))
    device: float = elements(buffers.parameters, apart=shared if held.fetched else ())
    device += elements(buffers.gradients) + (0 if held.host else home)
    host = elements(buffers.host_parameters, buffers.host_gradients) + (home if held.host else 2 * kept * held.mirrored)
    # A micro-batch is a view of the batch, which stays in memory as a whole.
    activations = works.cost.activations / 4 * max(works.chunks) + inputs * sum(works.chunks)
    # Autograd allocates new gradients for a unit, or for the whole model. With micro-batches there is one more, which
    # is added to the sum so far. Inside a unit there are also two gradients of outputs, each at most as large as the
    # unit's activations; in measured steps the two never took more than the unit's parameters.
    # A local step has no other gradients: it does not touch the flat gradient, which `device` counts.
    between = max(unit.activations for unit in works.units) / 4 * max(works.chunks)
    # The gradient of a shared unit's parameters, from the units that share them, waits for its own backward pass.
    unit = max(whole) + min(2 * between, max(whole)) + sum(w for w, waits in zip(whole, shared, strict=True) if waits)
    fresh = {"units": unit, "flat": kept, "local": 0}[path] + max(whole) * (len(works.chunks) > 1)
    counts = (device, host, activations, max(whole), fresh, 0, vectors * kept)
    return Footprint(*(held.item * elements for elements in counts))
