"""What a model without a table costs: forward passes of a few examples, counted. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..algorithms.costs import ModelCost, together
from .buffers import averaged
from .dataset import DataShape
from .models import units
from .trees import Tree, called, leaves, mapped
from .user_code import FAILURES, in_words

KINDS = {"int64": torch.int64, "bool": torch.bool}
EXAMPLES = 2  # BatchNorm in training refuses a single value per channel


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the outputs that have storage of their own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and storage_of(t) not in given]
        self.note(given, sum(t.numel() * t.element_size() for t in made))
        return out

    def note(self, given: set[int], nbytes: int) -> None:
        """An operation has read these storages and allocated so many bytes."""
        self.nbytes += nbytes


def storage_of(tensor: Tensor) -> int:
    """What tells storages apart, on the meta device as well, where data_ptr is 0 for all."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def fused_attention() -> Iterator[None]:
    """On the meta device, attention by the CPU's fused kernel, as on a CPU: torch would take the formula's single steps
    there, which keep a matrix of tokens x tokens that no kernel used in training keeps.
    """
    plain, kernel = (
        nn.functional.scaled_dot_product_attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    )

    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> Any:
        mask = attn_mask
        if (
            not q.is_meta
            or dropout_p
            or not q.dim() == k.dim() == v.dim() == 4
            or (mask is not None and mask.requires_grad)
        ):
            return plain(q, k, v, mask, dropout_p, is_causal, **more)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.where(mask, 0.0, -torch.inf)
        return kernel(q, k, v, is_causal=is_causal, attn_mask=mask, scale=more.get("scale"))[0]

    nn.functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = plain


def flop_counter() -> FlopCounterMode:
    """torch's counter, which also knows attention on the CPU: two matrix products, as on other devices. Several query
    heads may share keys and values."""

    def attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        batch, heads, queries, size = q
        return int(2 * batch * heads * queries * k[-2] * (size + v[-1]))

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: attention})


def measure(forward: Callable[..., object], inputs: Sequence[Tree[Tensor]]) -> tuple[float, float, list[Any]]:
    """(FLOPs, bytes allocated of one example's forward pass, the outputs). inputs: batches of k and of 2k examples.

    The bytes are what more examples allocate more, so that statistics of a batch do not count.
    """
    nbytes, outputs, flops = list[int](), list[Any](), 0.0
    for batch in inputs:
        counter, allocations = flop_counter(), Allocations()
        with torch.no_grad(), fused_attention(), counter, allocations:
            outputs.append(called(forward, batch))
        flops = counter.get_total_flops() / len(leaves(batch)[0])
        nbytes.append(allocations.nbytes)
    return flops, (nbytes[1] - nbytes[0]) / len(leaves(inputs[0])[0]), outputs


def examples(shape: DataShape, device: torch.device) -> list[Tree[Tensor]]:
    """Batches for `measure`: random numbers, and zeros for tokens and truth values."""

    def made(count: int, each: tuple[int, ...], kind: str) -> Tensor:
        size = (count, *each)
        return torch.rand(size, device=device) if kind == "float32" else torch.zeros(size, dtype=KINDS[kind]).to(device)

    batches = list[Tree[Tensor]]()
    for count in (EXAMPLES, 2 * EXAMPLES):
        every = iter([made(count, *one) for one in shape.inputs])
        batches.append(mapped(lambda _, every=every: next(every), shape.kinds))  # type: ignore[misc]
    return batches


def measured_cost(model: nn.Module, shape: DataShape, parts: Sequence[nn.Module] | None = None) -> ModelCost:
    """The cost of any model and of its units, in the terms of cost_tables.UnitCost.

    shape: of the data that it takes.
    parts: its units, where they are known. A parameter that several share counts with the first of them.
    On the meta device nothing is computed, and the model needs no memory. The same is found there as on a CPU, except
    for a copy where images are flattened: it does not know in which order a convolution stores its channels.

    FLOPs are those that flop_counter knows. Do not use the model afterwards: its BatchNorm statistics have moved. (A
    copy would not help, since a user's model may hold closures over its own layers.) ValueError where the model cannot
    take such an input.
    """
    found, shared = list[ModelCost](), set[int]()
    model.train()
    known = {id(buffer) for buffer in averaged(model).values()}
    parts = units(model) if parts is None else parts
    buffers = {unit: sum(b.numel() for b in unit.buffers() if id(b) in known) for unit in parts}
    owners, device = dict[Tensor, int](), next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        flow: list[Any] = list(examples(shape, device))
        try:
            for unit, exchanged in buffers.items():
                flops, activations, flow = measure(unit, flow)
                own = [p for p in unit.parameters() if p not in owners]
                shared |= {owners[p] for p in unit.parameters() if p in owners}
                owners.update(dict.fromkeys(own, len(found)))
                found.append(ModelCost(sum(p.numel() for p in own), exchanged, flops, activations))
        except FAILURES as error:  # whatever a user's model does
            raise ValueError(forward_fails(shape, error)) from error
    return together([replace(each, shared=place in shared) for place, each in enumerate(found)])


def forward_fails(shape: DataShape, error: BaseException) -> str:
    """What to say of a model that cannot take its input."""
    shown = " and ".join(str((EXAMPLES, *each)) for each, _ in shape.inputs)
    return f"the model's forward fails on an input of {shown}: {in_words(error)}"
