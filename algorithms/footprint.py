"""How much memory a worker needs at its peak, predicted from its Works: what the worker of learning/ allocates.

Rule: parameters, gradients, optimizer state and buffers are exact; activations are what the model's table says of one
sample, times the largest micro-batch, and the batch's inputs, which no table holds. Tests hold both against the tensors
of a real worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from .worker import Works, slot_sizes


@dataclass(frozen=True)
class Footprint:
    """Bytes. device, host: parameters, gradients, optimizer state and buffers there. activations: beside them, on the
    device, inputs included. largest_unit: of one unit's parameters. fresh: a unit's gradient as autograd makes it, and
    its copies on the way to where it is kept."""

    device: float
    host: float
    activations: float
    largest_unit: float
    fresh: float


def footprint(works: Works, moments: int, inputs: int) -> Footprint:
    """The memory of a worker whose optimizer keeps `moments` vectors as long as its parameters. inputs: elements of one
    sample's input."""
    held, sizes = works.held, works.sizes
    kept, whole = sum(own for own, _ in sizes), [every for _, every in sizes]

    def buffers(count: int) -> int:
        return sum(slot_sizes(whole, count))

    home, slots, mirror, staging = (2 + moments) * kept, 0, 0, 0
    if held.staged and not held.host:
        mirror = 2 * kept
    if held.fetched:
        apart = held.host or held.staged
        gradients = 2 if len(works.chunks) == 1 else len(whole)
        slots = buffers(held.prefetch + 1) + buffers(2 if apart else gradients)
        if apart and held.parts > 1:
            staging = buffers(2 * held.prefetch) + buffers(gradients)
    device = slots + (0 if held.host else home)
    host = mirror + staging + (home if held.host else 0)
    # A micro-batch is a view of the batch, which is there as a whole.
    activations = works.cost.activations / 4 * max(works.chunks) + inputs * sum(works.chunks)
    unitwise = held.fetched or len(whole) > 1  # flattened there; and micro-batches add up
    fresh = max(whole) * (1 + unitwise + (len(works.chunks) > 1))
    return Footprint(*(held.item * elements for elements in (device, host, activations, max(whole), fresh)))
