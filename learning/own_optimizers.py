"""Optimizers that a scenario names by their import path, over views of flat storage.

What outlives a step is what torch's own state_dict() has: the tensors and numbers of each parameter, and the numbers in
the parameter groups that are not arguments of the constructor. Tensors are moved into vectors after the first step,
and are views of them from then on, so that they are saved and exchanged like those of the built-in optimizers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..program.errors import nearest
from .flat_storage import views
from .optimizer_state import Carried
from .optimizers import GradientList, Layout, Optimizer, clip
from .user_code import FAILURES, call, load

# Names in `state` in addition to the optimizer's: which parameters have a state, and the numbers in their groups.
BEGUN, GROUPS = "_begun", "_groups"


class Factory:
    """Makes a torch.optim.Optimizer of the scenario's description. ValueError where it cannot be used."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._kind, self._said = load(spec["name"], "optimizer"), f"optimizer {spec['name']}"
        options = {key: value for key, value in spec.items() if key not in ("name", "decay", "clip")}
        self._options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        taken = inspect.signature(self._kind).parameters
        self._arguments = set(taken)
        if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            return
        for key in [*self._options, *(["weight_decay"] if spec.get("decay") == "matrices" else [])]:
            if key not in taken:
                mine = [name for name in taken if name not in ("params", "lr")]
                hint = nearest(key, mine) or f"; it takes {', '.join(mine)}"
                raise ValueError(f"{self._said} does not take {key}{hint}")

    def make(self, decaying: Sequence[Tensor], others: Sequence[Tensor] = ()) -> torch.optim.Optimizer:
        """An optimizer of these parameters. others: those without weight decay, a group of their own."""
        groups: list[dict[str, Any]] = [{"params": list(decaying)}] if decaying else []
        if others:
            groups.append({"params": list(others), "weight_decay": 0.0})
        made = call(self._kind, self._said, groups, **self._options)
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"{self._said} makes a {type(made).__name__}; name a subclass of torch.optim.Optimizer")
        closure = inspect.signature(made.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise ValueError(
                f"{self._said} needs a closure, which computes the gradient several times in a step; "
                "name one that uses the gradient of the step"
            )
        return made

    def counts(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The numbers in a parameter group that are the optimizer's own, like a count of all steps."""
        own = {key: value for key, value in group.items() if key not in self._arguments | {"params", "lr"}}
        own = {key: value.item() if _one(value) else value for key, value in own.items()}
        return {key: value for key, value in own.items() if type(value) in (int, float)}

    def trial(self, like: Tensor, decays: bool) -> tuple[dict[str, Any], dict[str, float]]:
        """(the state of a parameter after two steps, the numbers of its group)."""
        one = nn.Parameter(torch.ones_like(like))
        made = self.make([one]) if decays else self.make([], [one])
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):
                one.grad = torch.ones_like(like)
                call(made.step, f"{self._said}: a step")
        found = dict(made.state[one])
        for name, value in found.items():
            if not (isinstance(name, str) and (value is None or isinstance(value, Tensor | int | float))):
                raise ValueError(
                    f"{self._said} keeps {name!r}, a {type(value).__name__}, which cannot be saved; "
                    "name one that keeps tensors and numbers"
                )
            if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
                raise ValueError(f"{self._said} keeps {name!r} as {value.dtype}, which cannot be saved")
        return {name: value for name, value in found.items() if value is not None}, self.counts(made.param_groups[-1])


def _one(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


class OwnOptimizer(Optimizer):
    """The optimizer of a scenario's `{name: package.module:Name, lr: ..., argument: ...}`.

    moments: names in its state, as `carried` finds them.
    kept: of each trained parameter, an example of what its state holds, by name.
    """

    def __init__(self, layout: Layout, spec: Mapping[str, Any], moments: Sequence[str] = ()) -> None:
        decay, self._clip = spec.get("decay", "all"), spec.get("clip")
        self.clips, self.moments = self._clip is not None, tuple(moments)
        self._factory = Factory(spec)
        # Parameters that share the memory: torch's optimizers look for gradients at them.
        self._parameters = [nn.Parameter(p) for p in layout.select(layout.parameters)]
        groups = layout.groups(decay, 1.0)
        decaying = {place for group in groups if group.weight_decay for place in group.places}
        each = list(enumerate(self._parameters))
        # A worker that keeps nothing that is trained has an optimizer of a parameter that never gets a gradient.
        self._decaying = [p for i, p in each if i in decaying] if each else [nn.Parameter(torch.zeros(1))]
        self._others = [p for i, p in each if i not in decaying]
        self.kept: list[dict[str, Any]] = []
        counts: dict[str, float] = {}
        tried: dict[Any, dict[str, Any]] = {}
        for i, p in each:
            key = p.shape, i in decaying
            if key not in tried:
                tried[key], counts = self._factory.trial(p, i in decaying)
            self.kept.append(tried[key])
        self._counts = list(counts)
        self.state = {
            BEGUN: torch.zeros(len(self._parameters), dtype=torch.uint8),
            GROUPS: torch.zeros(bool(self._decaying) + bool(self._others), len(counts), dtype=torch.float64),
        }
        self._homes: list[dict[str, Tensor]] = [{} for _ in self._parameters]  # of each parameter, its views by name
        for name in dict.fromkeys([*moments, *(name for kept in self.kept for name in kept)]):
            self._find_home(name, layout)
        self.kept = [{n: v.to("meta") if isinstance(v, Tensor) else v for n, v in kept.items()} for kept in self.kept]
        self.reset()

    def apply(self, grads: GradientList, lr: float, squares: float | None = None) -> Tensor | None:
        """See Optimizer."""
        norm = clip(grads, self._clip, squares)
        for p, grad in zip(self._parameters, grads, strict=True):
            p.grad = grad
        for group in self._inner.param_groups:
            group["lr"] = lr
        self._inner.step()
        for p in self._parameters:
            p.grad = None
        self._take_home()
        return norm

    def reset(self) -> None:
        """Begin again with a new one."""
        super().reset()
        self._inner = self._factory.make(self._decaying, self._others)
        self._take_home()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See Optimizer."""
        self.reset()
        super().restore(state)
        for i, p in enumerate(self._parameters):
            if self.state[BEGUN][i]:
                self._inner.state[p] = {name: self._value(i, name, like) for name, like in self.kept[i].items()}
        for group, numbers in zip(self._inner.param_groups, self.state[GROUPS], strict=True):
            for key, number in zip(self._counts, numbers.tolist(), strict=True):
                if not math.isnan(number):
                    now = group.get(key)
                    group[key] = torch.full_like(now, number) if isinstance(now, Tensor) else _as(now, number)

    def _find_home(self, name: str, layout: Layout) -> None:
        """Memory for what the parameters keep by this name."""
        kept = {i: each[name] for i, each in enumerate(self.kept) if name in each}
        like = {i: value for i, value in kept.items() if isinstance(value, Tensor)}
        if name in self.moments:
            self.state[name], every = layout.zeros()
            homes = [every[i] for i in like]
        elif like:
            first, size = next(iter(like.values())), sum(value.numel() for value in like.values())
            self.state[name] = torch.zeros(size, dtype=first.dtype, device=first.device)
            homes = views(self.state[name], list(like.values()))
        else:
            self.state[name], homes = torch.zeros(len(self._parameters), dtype=torch.float64), []
        for i, home in zip(like, homes, strict=True):
            self._homes[i][name] = home

    def _value(self, i: int, name: str, like: Any) -> Tensor | float:
        return self._homes[i][name] if isinstance(like, Tensor) else _as(like, self.state[name][i].item())

    def _take_home(self) -> None:
        """Move what the optimizer keeps now into `state`."""
        for i, (p, homes) in enumerate(zip(self._parameters, self._homes, strict=True)):
            if not (now := self._inner.state.get(p)):
                continue
            self.state[BEGUN][i] = 1
            for name, value in now.items():
                if value is None or value is (home := homes.get(name)):
                    continue
                if isinstance(value, Tensor) and home is not None and value.shape == home.shape:
                    home.copy_(value)
                    now[name] = home
                elif isinstance(value, int | float) and home is None and name in self.state:
                    self.state[name][i] = value
                else:
                    raise RuntimeError(f"its {name!r} is not what it was in the first two steps, so it cannot be saved")
        for group, numbers in zip(self._inner.param_groups, self.state[GROUPS], strict=True):
            counts = self._factory.counts(group)
            for k, key in enumerate(self._counts):
                numbers[k] = counts.get(key, math.nan)


def _as(like: Any, number: float) -> float:
    return number if like is None else type(like)(number)


_known: dict[str, Carried] = {}


def carried(spec: Mapping[str, Any]) -> Carried:
    """What an optimizer carries, found by steps on two small parameters. ValueError where it cannot be used."""
    key = repr(sorted(spec.items()))
    if key not in _known:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _known[key] = _try({name: value for name, value in spec.items() if name != "clip"})
    return _known[key]


def _try(spec: Mapping[str, Any]) -> Carried:
    every = [torch.randn(48, 32), torch.randn(7)]
    try:
        kept = OwnOptimizer(Layout(every, [True, True]), spec).kept
    except ValueError:  # perhaps it is for matrices alone, like Muon
        every = every[:1]
        kept = OwnOptimizer(Layout(every, [True]), spec).kept
    names = dict.fromkeys(name for each in kept for name in each)
    large = {name for each in kept for name, v in each.items() if isinstance(v, Tensor) and v.numel() > 1}
    tensors = [name for name in names if name in large]
    moments = [name for name in tensors if all(map(_like, (each.get(name) for each in kept), every))]
    nbytes = sum(value.nbytes for each in kept for value in each.values() if isinstance(value, Tensor))
    size = round(nbytes / sum(p.nbytes for p in every), 1)
    others = tuple(name for name in tensors if name not in moments)
    return Carried(tuple(moments), size, others, _elementwise(spec, every))


def _like(value: Any, p: Tensor) -> bool:
    return isinstance(value, Tensor) and (value.shape, value.dtype) == (p.shape, p.dtype)


def _elementwise(spec: Mapping[str, Any], every: Sequence[Tensor]) -> bool:
    """Whether two optimizers, each with a part of the flattened parameters, take the steps of one with all of them."""
    grads = [[torch.randn_like(p) for p in every] for _ in range(3)]
    whole, cut = [p.clone() for p in every], every[0].numel() // 2 + 1

    def halves(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        first, *rest = (tensor.reshape(-1).clone() for tensor in tensors)
        return [[first[:cut]], [first[cut:], *rest]]

    def step(pieces: list[Tensor], each: Sequence[list[Tensor]]) -> None:
        matrices = [True, False][: len(pieces)]
        optimizer = OwnOptimizer(Layout(pieces, [True] * len(pieces), matrices), spec)
        for grad in each:
            optimizer.apply(grad, spec["lr"])

    step(whole, [[g.clone() for g in grad] for grad in grads])
    parts = halves(every)
    try:
        for k, part in enumerate(parts):
            step(part, [halves(grad)[k] for grad in grads])
    except FAILURES:
        return False
    one, two = (torch.cat([p.reshape(-1) for p in pieces]) for pieces in (whole, parts[0] + parts[1]))
    return torch.allclose(one, two, rtol=1e-5, atol=1e-7)
