"""What a training step holds in memory: on the CPU its tensors, counted; on a GPU what torch reserves there.

Rule: what is counted is what the step needs beside the data set, which lies in the host's memory once for all.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Beside what a step holds at its most, a tenth of it stays free, as in HDP (Mirzaei et al., Parallel Computing 2025).
MARGIN = 1.1


class Meter(Protocol):
    """Measures what is made under it: `with meter: ...`. peak: bytes held at most since `restart`."""

    peak: float

    def restart(self) -> None:
        """Measure anew."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that were made under it and are alive: parameters, activations, gradients, moments, batch.

    Storages are counted, once each, from the operation that makes them until nobody holds them. Room that an operation
    takes within itself, and NumPy's arrays, are not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0.0, 0.0
        self._alive = set[int]()

    def restart(self) -> None:
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in given | self._alive:
                self._note(t.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        self._alive.add(key)
        self.now += nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, nbytes).atexit = False

    def _drop(self, key: int, nbytes: int) -> None:
        self._alive.discard(key)
        self.now -= nbytes


class Reserved:
    """Bytes that torch has reserved on the current GPU: blocks of its allocator, free parts of them included."""

    peak = 0.0

    def restart(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.peak = float(torch.cuda.memory_reserved())

    def __enter__(self) -> Reserved:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize()
        self.peak = float(torch.cuda.max_memory_reserved())


def of(device: str) -> Meter:
    """The measure of a torch device, "cpu" or "cuda"."""
    return Reserved() if device == "cuda" else Tensors()


def free(device: str, ranks: int) -> float:
    """One rank's part of what is free on the current GPU, of `ranks` on the node; a CPU's budget must be stated, so
    infinitely much there."""
    if device != "cuda":
        return float("inf")
    sharing = -(-ranks // torch.cuda.device_count())
    return float(torch.cuda.mem_get_info()[0]) / sharing


def fits(action: Callable[[], object], meter: Meter, budget: float) -> bool:
    """Whether `action` runs in `budget` bytes with a tenth of its peak to spare, and not out of memory.

    Beyond a stated budget it is not broken off, since a worker would keep what the step had made so far.
    """
    meter.restart()
    try:
        with meter:
            action()
    except (MemoryError, torch.OutOfMemoryError):
        return False
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the CPU's allocator has no exception of its own
            raise
        return False
    return MARGIN * meter.peak <= budget
