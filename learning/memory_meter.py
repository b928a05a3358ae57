"""What a training step holds in memory: on the CPU its tensors, counted; on a GPU what torch reserves there.

Rule: what is counted is what the step needs in addition to the data set, which is in host memory once for all workers.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..program.errors import WorkloadError

# In addition to a step's peak a tenth of it stays free, as in HDP (Mirzaei et al., Parallel Computing 2025).
MARGIN = 1.1
# Those without an exception of their own: the CPU's allocator, CUDA itself, cuBLAS and cuDNN.
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


class Meter(Protocol):
    """Measures what is made under it: `with meter: ...`. peak: bytes held at most since `restart`."""

    peak: float

    def restart(self) -> None:
        """Begin a new measurement."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that were made under it and are alive: parameters, activations, gradients, moments, batch.

    Storages are counted, once each, from the operation that makes them until nothing holds them. Room that an operation
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
    """Bytes that torch has reserved on a GPU: blocks of its allocator, free parts of them included."""

    peak = 0.0

    def __init__(self, device: str = "cuda") -> None:
        self._device = device

    def restart(self) -> None:
        reset_peak(self._device)
        self.peak = float(torch.cuda.memory_reserved(self._device))

    def __enter__(self) -> Reserved:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize(self._device)
        self.peak = float(torch.cuda.max_memory_reserved(self._device))


def of(device: str) -> Meter:
    """The measure of a torch device, "cpu" or "cuda:0"."""
    return Tensors() if device == "cpu" else Reserved(device)


def free(device: str, sharing: int) -> float:
    """One rank's part of what is free on the GPU, of so many that share it; a CPU's budget must be stated, so
    infinity there."""
    return float("inf") if device == "cpu" else float(torch.cuda.mem_get_info(device)[0]) / sharing


def release() -> None:
    """Give a GPU's memory back: tensors in cycles of Python's objects first, then the blocks that torch keeps."""
    gc.collect()
    torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    """Free what earlier workers of this process have left on a GPU, and reset its peak to what is in use then."""
    if device != "cpu":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # or there are no statistics yet
        release()
        torch.cuda.reset_peak_memory_stats(device)


def fits(action: Callable[[], object], meter: Meter, budget: float) -> bool:
    """Whether `action` runs in `budget` bytes with a tenth of its peak to spare, and not out of memory.

    Beyond a stated budget it is not broken off, since a worker would keep what the step had made so far.
    """
    meter.restart()
    try:
        with meter:
            action()
    except (MemoryError, RuntimeError, WorkloadError) as error:
        if not _out_of_memory(error):
            raise
        return False
    return MARGIN * meter.peak <= budget


def _out_of_memory(error: BaseException) -> bool:
    """Whether that is what went wrong, in a worker's step or elsewhere."""
    cause = error.__cause__ if isinstance(error, WorkloadError) else error
    if isinstance(cause, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(cause, RuntimeError) and any(words in str(cause) for words in OUT_OF_MEMORY)
