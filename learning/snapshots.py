"""The half of the worker that lets a run go on: what outlives a round, out and in again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..algorithms.scores import Scores
from ..program.effects import Array
from .buffers import Buffers
from .optimizers import Optimizer
from .parameter_memory import Memory

SCORES = "scores."  # begins the names of biased sampling's arrays in snapshots
DEVICE_RNG = "device_rng"  # a GPU's stream of torch; there are none on the CPU, where a run may go on
_ANY_LENGTH = (f"{SCORES}chosen", f"{SCORES}seen")
VECTOR = "vector."  # begins the names of transform's vectors in snapshots


class Snapshots:
    """Base of TorchWorker, which sets the attributes below."""

    index: int
    _memory: Memory
    _optimizer: Optimizer
    _scores: Scores | None
    _params: Array
    _buffers: Buffers
    _vectors: dict[str, Array]
    _shared: bool
    _stream: Tensor
    _check_parameters: Callable[[], None]

    def snapshot(self) -> dict[str, Array]:
        """Copies of all that outlives a round: params (worker 0's, the loop broadcasts them), what Buffers.snapshot
        says, rng (torch's stream, bytes), on a GPU device_rng (its dropout's), the optimizer's vectors as
        optimizer.<name> and, where `transform` has made them, its own as vector.<name>; of a sharded worker units, the
        elements that it keeps of each. NotFinite where a parameter is, so that no checkpoint holds one."""
        self._check_parameters()
        saved = self._state()
        if self.index != 0 and self._memory.held.parts == 1:
            del saved["params"]
        return saved

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. ValueError where it is another model's, or another optimizer's."""
        arrays, stream = dict(arrays), arrays.get(DEVICE_RNG)
        arrays.pop(DEVICE_RNG, None)
        here = self._state() | {name: self._params[:-1] for name in arrays if name.startswith(VECTOR)}
        here.pop(DEVICE_RNG, None)
        missing = {name for name in here.keys() - arrays.keys() if not name.startswith(VECTOR)}
        shared = {"params"} if self.index and self._memory.held.parts == 1 else set()
        if missing - shared or arrays.keys() - here.keys():
            raise ValueError(
                f"worker {self.index}: the checkpoint holds {', '.join(sorted(arrays))}; "
                f"expected {', '.join(sorted(here))}; write the placement and optimizer of then"
            )
        if "units" in here and not np.array_equal(arrays["units"], here["units"]):
            raise ValueError(
                f"worker {self.index}: the checkpoint's model is cut into other units; write the unit_bytes of then"
            )
        for name, array in arrays.items():
            if array.dtype != here[name].dtype:
                raise ValueError(
                    f"worker {self.index}: {name} is {array.dtype} in the checkpoint, {here[name].dtype} here"
                )
            if array.shape != here[name].shape and name not in _ANY_LENGTH:
                raise ValueError(
                    f"worker {self.index}: {name} has {array.size} elements in the checkpoint, {here[name].size} here"
                )
        if "params" in arrays:
            self._params[:] = arrays["params"]
            self._memory.push()
        self._buffers.restore(arrays)
        for name, vector in self._optimizer.state.items():
            vector.copy_(torch.from_numpy(np.array(arrays[f"optimizer.{name}"])))
        self._vectors = {k.removeprefix(VECTOR): np.array(v) for k, v in arrays.items() if k.startswith(VECTOR)}
        if self._scores is not None:
            self._scores.restore({k.removeprefix(SCORES): v for k, v in arrays.items() if k.startswith(SCORES)})
        state = torch.from_numpy(np.array(arrays["rng"]))
        if self._shared:
            self._stream = state
        else:
            torch.set_rng_state(state)
        if stream is not None and self._memory.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(np.array(stream)), self._memory.device)

    def _state(self) -> dict[str, Array]:
        self._memory.pull()
        state = self._stream if self._shared else torch.get_rng_state()
        device = self._memory.device
        return {
            "params": self._params.copy(),
            **self._buffers.snapshot(),
            "rng": state.numpy().copy(),
            **({DEVICE_RNG: torch.cuda.get_rng_state(device).numpy().copy()} if device.type == "cuda" else {}),
            **{f"optimizer.{name}": vector.cpu().numpy().copy() for name, vector in self._optimizer.state.items()},
            # Parts of other units, put one behind the other, may be as long and mean other parameters.
            **({"units": np.array(self._memory.kept)} if self._memory.held.parts > 1 else {}),
            # What begins with "_" does not outlive a round.
            **({} if self._scores is None else {SCORES + k: v for k, v in self._scores.snapshot().items()}),
            **{VECTOR + name: vector.copy() for name, vector in self._vectors.items() if name[0] != "_"},
        }
