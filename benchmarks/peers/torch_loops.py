"""Training loops over torch.distributed as a careful user writes them: DDP, fully_shard, PostLocalSGD, Accelerate.

Each takes a model to train, batches (`next()` gives inputs and targets) and the options of torch.optim.SGD.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


class Loop:
    """The steps. What differs is set up by those below."""

    model: torch.nn.Module
    optimizer: Any
    batches: Any

    def steps(self, count: int) -> None:
        """Train `count` steps."""
        for _ in range(count):
            x, y = self.batches.next()
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
            self.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.after()
            loss.item()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def after(self) -> None:
        """What follows a step."""


class Ddp(Loop):
    """DistributedDataParallel: gradients as views of the buckets, no broadcast of buffers."""

    def __init__(self, model: torch.nn.Module, batches: Any, options: dict[str, Any]) -> None:
        self.model = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.batches = batches
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options, fused=True)


class FullyShard(Loop):
    """fully_shard on each part. The last `kept` parts stay gathered between forward and backward."""

    def __init__(self, parts: list[torch.nn.Module], kept: int, batches: Any, options: dict[str, Any]) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        for unit, part in enumerate(parts):
            fully_shard(part, mesh=mesh, reshard_after_forward=unit < len(parts) - kept)
        self.model, self.batches = torch.nn.Sequential(*parts), batches
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options, foreach=True)  # sharded ones are not fused


class PostLocal(Loop):
    """torch's PostLocalSGD without a first phase: parameters are averaged every H steps, gradients never."""

    def __init__(self, model: torch.nn.Module, H: int, batches: Any, options: dict[str, Any]) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
        from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
        from torch.distributed.optim import PostLocalSGDOptimizer

        self.model = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        state = PostLocalSGDState(  # type: ignore[no-untyped-call]
            None, None, start_localSGD_iter=0, post_local_gradient_allreduce=False
        )
        self.model.register_comm_hook(state, post_localSGD_hook)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a period of 1 is not recommended
            averager = PeriodicModelAverager(period=H)
        local = torch.optim.SGD(self.model.parameters(), **options, fused=True)
        self.optimizer, self.batches = PostLocalSGDOptimizer(local, averager), batches


class Accelerated(Loop):
    """Accelerate's LocalSGD: parameters are averaged every H steps. Accelerate is not a dependency."""

    @staticmethod
    def missing() -> str | None:
        """Why it cannot run here; None if it can."""
        absent = [name for name in ("accelerate", "huggingface_hub") if find_spec(name) is None]
        return f"{', '.join(absent)} not installed (pip install 'paceline[bench]')" if absent else None

    def __init__(self, model: torch.nn.Module, H: int, batches: Any, options: dict[str, Any]) -> None:
        from accelerate import Accelerator
        from accelerate.local_sgd import LocalSGD

        self.accelerator, self.batches = Accelerator(cpu=True), batches
        optimizer = torch.optim.SGD(model.parameters(), **options, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.local = LocalSGD(accelerator=self.accelerator, model=self.model, local_sgd_steps=H)
        assert self.local.enabled  # else it has not seen the other ranks, and would average nothing
        self.local.__enter__()  # until the process ends: blocks of other loops come in between

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)

    def after(self) -> None:
        self.local.step()
