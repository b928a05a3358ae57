"""Snapshots of a worker: everything that outlives a round, so that a resumed run goes on with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..algorithms.costs import TAIL
from ..program.effects import Array
from .batches import Batches
from .buffers import Buffers
from .loss_scale import LossScale
from .optimizers import Optimizer
from .parameter_memory import Memory
from .snapshot_names import DEVICE_RNG, DIVIDED, OPTIMIZER, PARAMETERS, SCORES, VECTOR
from .torch_stream import TorchStream


class Snapshots:
    """Takes and restores the snapshots of worker `index`. vectors: those of its transforms, by name."""

    def __init__(
        self,
        index: int,
        memory: Memory,
        buffers: Buffers,
        stream: TorchStream,
        optimizer: Optimizer,
        batches: Batches,
        scale: LossScale,
    ) -> None:
        self._index, self._memory, self._buffers, self._stream, self._scale = index, memory, buffers, stream, scale
        self._optimizer, self._scores = optimizer, batches.scores
        self.vectors: dict[str, Array] = {}
        self._gets_parameters = index > 0 and memory.held.parts == 1  # worker 0's, so it saves none

    def take(self) -> dict[str, Array]:
        """All that outlives a round, by name. Large ones are the worker's own memory, for use before it goes on:

        params: worker 0's, which the loop broadcasts, or a sharded worker's part.
        buffers, counts, buffer.<name>: see Buffers.snapshot.
        rng, device_rng: see TorchStream.snapshot.
        loss_scale: see LossScale.snapshot.
        optimizer.<name>: the optimizer's vectors.
        units: of a sharded worker, the elements that it keeps of each unit.
        scores.<name>: see Scores.snapshot.
        vector.<name>: the vectors that `transform` has made.
        """
        arrays = self._state()
        if self._gets_parameters:
            del arrays[PARAMETERS]
        return arrays

    def _state(self) -> dict[str, Array]:
        """The same with the parameters of every worker."""
        self._memory.pull()
        return {
            PARAMETERS: self._memory.host_params,
            **{OPTIMIZER + name: vector.cpu().numpy() for name, vector in self._optimizer.state.items()},
            # With other units, the concatenated parts may have the same length but belong to other parameters.
            **({"units": np.array(self._memory.kept)} if self._memory.held.parts > 1 else {}),
            # A name that begins with "_" does not outlive a round.
            **{VECTOR + name: vector for name, vector in self.vectors.items() if name[0] != "_"},
            **self._small(),
        }

    def _small(self) -> dict[str, Array]:
        """Copies of what is not as long as the parameters."""
        scores = {} if self._scores is None else self._scores.snapshot()
        return {
            **self._buffers.snapshot(),
            **self._stream.snapshot(),
            **self._scale.snapshot(),
            **{SCORES + name: array for name, array in scores.items()},
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. ValueError where it is another model's, or another optimizer's."""
        self._check(arrays)
        if PARAMETERS in arrays:
            self._restore_parameters(arrays[PARAMETERS])
        saved = {k.removeprefix(OPTIMIZER): np.array(v) for k, v in arrays.items() if k.startswith(OPTIMIZER)}
        self._optimizer.restore({name: torch.from_numpy(array) for name, array in saved.items()})
        self.vectors.clear()
        self.vectors |= {k.removeprefix(VECTOR): np.array(v) for k, v in arrays.items() if k.startswith(VECTOR)}
        self._restore_small(arrays)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Put a new worker back as it was, after a trial. Of its large arrays only the parameters need a copy: its
        optimizer's state begins again. So a trial takes no more memory than the steps of the run.
        """
        self._memory.pull()
        parameters, small = self._memory.host_params.copy(), self._small()
        yield
        self._restore_parameters(parameters)
        self._optimizer.reset()
        self._restore_small(small)

    def _restore_parameters(self, parameters: Array) -> None:
        self._memory.host_params[:] = parameters
        self._memory.push()

    def _restore_small(self, arrays: dict[str, Array]) -> None:
        self._buffers.restore(arrays)
        if self._scores is not None:
            self._scores.restore({k.removeprefix(SCORES): v for k, v in arrays.items() if k.startswith(SCORES)})
        self._stream.restore(arrays)
        self._scale.restore(arrays)

    def _check(self, arrays: dict[str, Array]) -> None:
        """ValueError unless names, types and sizes are those of this worker.

        Three things may differ: worker 0's parameters, which the others do not save; a vector of `transform`, which is
        made when it is first used; a GPU's random stream, as a run may go on on another device.
        """
        arrays = {name: array for name, array in arrays.items() if name != DEVICE_RNG}
        here = self._state() | {name: self._memory.host_params[:-TAIL] for name in arrays if name.startswith(VECTOR)}
        here.pop(DEVICE_RNG, None)
        missing = {name for name in here.keys() - arrays.keys() if not name.startswith(VECTOR)}
        if missing - ({PARAMETERS} if self._gets_parameters else set()) or arrays.keys() - here.keys():
            raise ValueError(
                f"worker {self._index}: the checkpoint holds {', '.join(sorted(arrays))}; "
                f"expected {', '.join(sorted(here))}; write the placement, optimizer and precision of then"
            )
        if "units" in here and not np.array_equal(arrays["units"], here["units"]):
            raise ValueError(
                f"worker {self._index}: the checkpoint's model is cut into other units; write the unit_bytes of then"
            )
        for name, array in arrays.items():
            if array.dtype != here[name].dtype:
                raise ValueError(
                    f"worker {self._index}: {name} is {array.dtype} in the checkpoint, {here[name].dtype} here"
                )
            if array.shape != here[name].shape and name not in DIVIDED:
                raise ValueError(
                    f"worker {self._index}: {name} has {array.size} elements in the checkpoint, {here[name].size} here"
                )
