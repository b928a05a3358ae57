"""A worker's place in torch's global random stream, which dropout draws from.

In a rank the stream belongs to the one worker. In a simulation many workers share the process: each keeps its own place
and computes inside `with stream:`, so it draws the same numbers as it would alone.
"""

from __future__ import annotations

import numpy as np
import torch

from ..program.effects import Array
from .parameter_memory import Memory
from .snapshot_names import DEVICE_RNG, RNG


class TorchStream:
    """The worker's place, at first where torch's stream is now.

    shared: whether other workers compute in this process.
    memory: says on which device the worker computes.
    """

    def __init__(self, shared: bool, memory: Memory) -> None:
        self.shared, self._memory = shared, memory
        self._place = torch.get_rng_state()

    def begin(self) -> None:
        """Set torch's stream to the worker's place, if no other worker uses it."""
        if not self.shared:
            torch.set_rng_state(self._place)

    def __enter__(self) -> None:
        """From here on torch draws from the worker's place. Of a shared stream only."""
        self._outer = torch.get_rng_state()
        torch.set_rng_state(self._place)

    def __exit__(self, *error: object) -> None:
        self._place = torch.get_rng_state()
        torch.set_rng_state(self._outer)

    def now(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where the stream is while the worker computes, and a GPU's, to go back there."""
        device = self._memory.device
        return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def go_back(self, place: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        """Go on from there, while the worker computes."""
        here, on_device = place
        torch.set_rng_state(here)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, self._memory.device)

    def snapshot(self) -> dict[str, Array]:
        """rng: torch's stream, in bytes. On a GPU also device_rng, that of its dropout."""
        place = self._place if self.shared else torch.get_rng_state()
        saved = {RNG: place.numpy().copy()}
        if self._memory.device.type == "cuda":
            saved[DEVICE_RNG] = torch.cuda.get_rng_state(self._memory.device).numpy().copy()
        return saved

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back."""
        place = torch.from_numpy(np.array(arrays[RNG]))
        if self.shared:
            self._place = place
        else:
            torch.set_rng_state(place)
        if DEVICE_RNG in arrays and self._memory.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(np.array(arrays[DEVICE_RNG])), self._memory.device)
