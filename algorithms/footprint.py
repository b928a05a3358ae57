"""How much memory a worker needs at its peak, predicted from its Works: what the worker of learning/ allocates.

Rule: parameters, gradients, optimizer state and buffers are exact; activations are what the model's table says of one
sample, times the largest micro-batch. Tests hold both against the tensors of a real worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from .worker import Works, unit_sizes


@dataclass(frozen=True)
class Footprint:
    """Bytes. device, host: parameters, gradients, optimizer state and buffers there. activations: beside them, on the
    device. largest_unit: of one unit's parameters."""

    device: float
    host: float
    activations: float
    largest_unit: float


def footprint(works: Works, moments: int) -> Footprint:
    """The memory of a worker whose optimizer keeps `moments` vectors as long as its parameters."""
    held, sizes = works.held, unit_sizes(works.units, works.held)
    kept, whole = sum(own for own, _ in sizes), sum(every for _, every in sizes)
    largest = max(every for _, every in sizes)
    # In turn: slots whose sizes are those of the largest unit each serves; here the largest of all, at most `whole`.
    home, slots, mirror, staging = (2 + moments) * kept, 0, 0, 0
    if held.staged and not held.host:
        mirror = 2 * kept
    if held.fetched:
        apart = held.host or held.staged
        partial = whole if len(works.chunks) > 1 else min(2 * largest, whole)
        slots = min((held.prefetch + 1) * largest, whole) + (min(2 * largest, whole) if apart else partial)
        if apart and held.parts > 1:
            staging = min(2 * held.prefetch * largest, whole) + partial
    device = slots + (0 if held.host else home)
    host = mirror + staging + (home if held.host else 0)
    activations = works.cost.activations * max(works.chunks)
    return Footprint(held.item * device, held.item * host, activations * held.item / 4, held.item * largest)
