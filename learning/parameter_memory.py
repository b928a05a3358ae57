"""Where a worker keeps its parameters and gradients: all or a part, in the device's memory or the host's.

Three places:
- Home is where they are kept between steps and where the optimizer steps: on the device, or on the host (offloaded).
- Slots are on the device. Where home holds a part of each unit or is on the host, a unit's parameters are fetched into
  a slot before use. Units take slots in turn (costs.slots), so memory for a few units suffices.
- Staging buffers are on the host, since exchanges (MPI) read and write host memory only. A device with memory of its
  own needs them: a mirror of home, or, where units are sharded, buffers that units take in turn like slots.

Rule: flat storage throughout. Exchanges see host memory as NumPy vectors, so nothing is packed for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ..algorithms.costs import TAIL, Holding, ModelCost, Works, slots, unit_sizes
from ..algorithms.worker import UnitValues, Whole
from ..program.effects import Array
from .flat_storage import views, zeros
from .optimizers import Layout


class Slots:
    """Buffers that units take in turn; see costs.slots. sizes: elements of each unit."""

    def __init__(
        self, sizes: Sequence[int], count: int, like: Tensor, pinned: bool = False, shared: Sequence[bool] = ()
    ) -> None:
        of_buffers, self._places = slots(sizes, count, shared)
        self._sizes = sizes
        self.buffers = [zeros(size, like.dtype, like.device, pinned) for size in of_buffers]
        self._at = {buffer.untyped_storage().data_ptr(): buffer for buffer in self.buffers if buffer.numel()}

    def of(self, unit: int) -> Tensor:
        """The unit's slot."""
        return self.buffers[self._places[unit]][: self._sizes[unit]]

    def all(self) -> list[Tensor]:
        """Every unit's slot."""
        return [self.of(unit) for unit in range(len(self._sizes))]

    def pack(self, saved: Tensor) -> Tensor | tuple[Tensor, torch.Size, tuple[Any, ...], Any]:
        """What autograd keeps of a tensor for backward. Of a slot: only its place, as it will be fetched again.

        Of others: a detached tensor, since torch never frees a graph that holds its own tensors unless backward runs.
        """
        buffer = self._at.get(saved.untyped_storage().data_ptr())
        return saved.detach() if buffer is None else (buffer, saved.size(), saved.stride(), saved.storage_offset())

    @staticmethod
    def unpack(kept: Tensor | tuple[Tensor, torch.Size, tuple[Any, ...], Any]) -> Tensor:
        """The tensor again: of a slot, with what is in it now."""
        if isinstance(kept, Tensor):
            return kept
        buffer, size, stride, offset = kept
        return buffer.as_strided(size, stride, offset)


class Memory:
    """One worker's parameters and gradients, taken from the units' parameters, which become views of this.

    units: each unit's own parameters; those that it shares with an earlier unit are that one's.
    works: how they are held, and which of them later units use too; see costs.ModelCost.
    unreached: ids of the parameters that the loss does not reach.

    params, grads: at home, 1-D: one unit after the other and, where the worker keeps all, TAIL elements for the loss.
    host_params, host_grads: the same as exchanges see them; the same memory where home is on the host.
    layout: the parameters at home, for the optimizer.
    kept: elements of each unit at home.
    values: what is exchanged of each unit.
    slots: where parameters are fetched to; None where they stay at home.

    What is the same memory ("apart": home is on the host, or exchanges cannot reach the device's memory):

        all, on the device         values.kept = gathered = home; values.gradient = reduced = home
        parts, on the device       gathered = slots; gradient = two buffers on the device; kept, reduced = home
        all, on the host           kept = gathered = gradient = reduced = home; load, unload copy to and from buffers
        parts, apart               gathered, gradient = buffers on the host; load, unload copy to and from the device's
        on the device, apart       home has a mirror on the host, which is what is exchanged
    """

    def __init__(
        self,
        units: Sequence[Sequence[nn.Parameter]],
        works: Works,
        index: int,
        device: torch.device,
        unreached: Collection[int] = (),
    ) -> None:
        self.held, self._units, self._index = (held := works.held), units, index
        self._unreached = unreached
        self._own = [sum(p.numel() for p in unit) for unit in units]
        sizes = _sizes(units, held)
        self.kept, self._whole = [kept for kept, _ in sizes], [whole for _, whole in sizes]
        first = next(p for unit in units for p in unit)
        self._device = torch.empty(0, dtype=first.dtype, device=device)
        home = torch.device("cpu") if held.host else device
        self.params, self.grads = self._zeros(home), self._zeros(home)
        self._host = [self._zeros(torch.device("cpu")) if held.mirrored else v for v in (self.params, self.grads)]
        self.host_params, self.host_grads = (v.numpy() for v in self._host)
        self.layout = self._take()
        self.pull()
        self.slots: Slots | None = None
        self._gradients, self._reduced = self._slice(self.grads), self._slice(self._host[1])
        kept = self._gathered = self._slice(self._host[0])
        self._away = self._reduced
        if held.fetched:
            self._fetch_into_slots(len(works.chunks), [unit.shared for unit in works.units])
        values = zip(kept, self._gathered, self._away, self._reduced, strict=True)
        self.values = [UnitValues(*(v.numpy() for v in four)) for four in values]

    def _zeros(self, where: torch.device) -> Tensor:
        pinned = self._device.is_cuda and where.type == "cpu"
        return zeros(sum(self.kept), self._device.dtype, where, pinned)

    def _fetch_into_slots(self, chunks: int, shared: Sequence[bool]) -> None:
        """Make the buffers of what is fetched, and the parameters views of their units' slots."""
        held, host, pinned = self.held, torch.empty(0, dtype=self._device.dtype), self._device.is_cuda
        counts = held.buffers(len(self._units), chunks)
        self.slots = Slots(self._whole, counts.parameters, self._device, shared=shared)
        gradients = Slots(self._whole, counts.gradients, self._device)
        self._gradients = gradients.all()
        if held.parts > 1 and held.apart:
            self._gathered = Slots(self._whole, counts.host_parameters, host, pinned).all()
            self._away = Slots(self._whole, counts.host_gradients, host, pinned).all()
        elif held.parts > 1:
            self._gathered, self._away = self.slots.all(), self._gradients
        for u, unit in enumerate(self._units):
            for p, view in zip(unit, views(self.slots.of(u), list(unit)), strict=True):
                p.data = view

    @property
    def device(self) -> torch.device:
        """Where the worker computes."""
        return self._device.device

    @property
    def parameters(self) -> Tensor:
        """The parameters at home, without the loss."""
        return self.params[:-TAIL] if self.held.parts == 1 else self.params

    def gradient(self, unit: int) -> Tensor:
        """Where backward leaves the unit's gradient, on the device: (elements of the unit's parameters,)."""
        whole, own = self._gradients[unit], self._own[unit]
        if self.held.parts > 1:
            whole[own:] = 0.0  # the padding: another unit was here
        return whole[:own]

    def load(self, unit: int) -> None:
        """Copy the unit's parameters from the host into its slot."""
        assert self.slots is not None
        slot, source = self.slots.of(unit), self._gathered[unit]
        slot.copy_(source[: len(slot)])

    def unload(self, unit: int, add: bool) -> None:
        """Copy the unit's gradient to the host, or add it to what is there."""
        size = self._own[unit] if self.held.parts == 1 else self._whole[unit]  # without the loss
        there, here = self._away[unit][:size], self._gradients[unit][:size]
        if add:
            there.add_(here.cpu())
        else:
            there.copy_(here)

    def reload(self, unit: int) -> None:
        """Copy the unit's exchanged gradient from the host's mirror to the device."""
        self._slice(self.grads)[unit].copy_(self._reduced[unit])

    def pull(self, what: Whole = "parameters") -> None:
        """Copy all of them from the device to the host's mirror; the loss after them is the host's own."""
        here, there = self._pair(what)
        there.copy_(here)

    def push(self, what: Whole = "parameters") -> None:
        """Copy all of them from the host's mirror to the device."""
        here, there = self._pair(what)
        here.copy_(there)

    def _pair(self, what: Whole) -> tuple[Tensor, Tensor]:
        """(at home, as exchanges see it), without the loss."""
        at = 0 if what == "parameters" else 1
        size = len(self.parameters)
        return (self.params, self.grads)[at][:size], self._host[at][:size]

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is a view of the parameters on the device."""
        place = tensor.untyped_storage().data_ptr()
        held = self.slots.buffers if self.slots else [self.params]
        return any(place == each.untyped_storage().data_ptr() for each in held)

    def nbytes(self) -> dict[str, int]:
        """Bytes of parameters, gradients and buffers in the "device" and in the "host" memory."""
        slots = self.slots.buffers if self.slots else []
        device = [*slots, *self._gradients] + ([] if self.held.host else [self.params, self.grads])
        every = [*device, self.params, self.grads, *self._host, *self._gathered, *self._away]
        sizes = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in every}
        on_device = {v.untyped_storage().data_ptr() for v in device}
        total = sum(sizes[place] for place in on_device)
        return {"device": total, "host": sum(sizes.values()) - total}

    def _slice(self, vector: Tensor) -> list[Tensor]:
        """The vector at home, unit by unit."""
        ends = list(accumulate(self.kept))
        return [vector[end - size : end] for end, size in zip(ends, self.kept, strict=True)]

    def _take(self) -> Layout:
        """Copy the worker's parts of the parameters home; where all stay on the device they become views of it."""
        pieces: list[Tensor] = []
        trained: list[bool] = []
        matrices: list[bool] = []
        unreached: list[int] = []
        for unit, home in zip(self._units, self._slice(self.params), strict=True):
            start = self._index * len(home) if self.held.parts > 1 else 0
            at = 0
            for p in [*unit, None]:  # None: what is left behind the unit's parameters, padding or the loss
                size = len(home) if p is None else p.numel()
                piece = home[max(at - start, 0) : max(at + size - start, 0)]
                if p is not None:
                    skipped = max(start - at, 0)
                    piece.copy_(p.detach().reshape(-1)[skipped : skipped + len(piece)])
                    piece = piece.view(p.shape) if self.held.parts == 1 else piece
                    if not self.held.fetched:
                        p.data = piece
                elif self.held.parts == 1:
                    break  # what is left is the loss's
                if piece.numel():
                    if id(p) in self._unreached:
                        unreached.append(sum(trained))
                    pieces.append(piece)
                    trained.append(p is not None and p.requires_grad)
                    matrices.append(p is not None and p.ndim > 1)
                at += size
        return Layout(pieces, trained, matrices, unreached)


def fill(units: Sequence[Sequence[nn.Parameter]], held: Holding, kept: Sequence[Array]) -> None:
    """Copy what workers keep into the units' parameters: the reverse of what `Memory` takes.

    kept: the parameters at home, 1-D, of every worker in turn, or of one worker where each keeps all. ValueError where
    the lengths do not fit.
    """
    sizes = kept_sizes(units, held)
    if len(kept) != held.parts or any(vector.shape != (sum(sizes),) for vector in kept):
        lengths = ", ".join(str(vector.size) for vector in kept)
        raise ValueError(f"workers keep {lengths} elements; expected {held.parts} times {sum(sizes)}")
    for unit, end, size in zip(units, accumulate(sizes), sizes, strict=True):
        whole = torch.cat([torch.from_numpy(vector[end - size : end]) for vector in kept])
        for p, view in zip(unit, views(whole, list(unit)), strict=True):
            p.detach().copy_(view)


def kept_sizes(units: Sequence[Sequence[nn.Parameter]], held: Holding) -> list[int]:
    """Elements of each unit that a worker keeps."""
    return [kept for kept, _ in _sizes(units, held)]


def _sizes(units: Sequence[Sequence[nn.Parameter]], held: Holding) -> list[tuple[int, int]]:
    """(elements kept, elements of the whole) of each unit; see unit_sizes."""
    return unit_sizes([ModelCost(sum(p.numel() for p in unit), 0, 0.0, 0.0) for unit in units], held)
