"""Where a model that is not a plain nn.Sequential can be cut into units: at the calls of the blocks in its lists.

A list is an nn.Sequential, nn.ModuleList or nn.ModuleDict with two or more members that have parameters; lists in lists
count as one. Each call of such a member begins a unit, and so does the first call of a module after the last of them.
What the model does before the first block belongs to the first unit. A trial decides which of these places hold:

- The module is called once in a forward pass.
- Backward passes the place: one of the call's arguments is a tensor that carries all that comes before (see `marked`).

A parameter belongs to the first unit that uses it. Where later ones use it too, that unit is shared (costs.ModelCost).

The trial needs no numbers, so it runs on torch's meta device where the model can. It also counts what each unit costs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..algorithms.costs import Cut, ModelCost, together
from . import models
from .buffers import averaged
from .dataset import DataShape
from .measured_costs import (
    Allocations,
    examples,
    flop_counter,
    forward_fails,
    fused_attention,
    measured_cost,
    storage_of,
)
from .trees import called, leaves
from .user_code import FAILURES, in_words

LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The members of the model's lists that have parameters, by path; of lists within members, none."""
    found = dict[str, nn.Module]()

    def add(module: nn.Module, path: str, listed: bool) -> None:
        members = [(f"{path}.{name}".lstrip("."), child) for name, child in module.named_children()]
        members = [(name, child) for name, child in members if next(child.parameters(), None) is not None]
        within = type(module) in LISTS and (listed or len(members) > 1)
        for name, child in members:
            if within and type(child) not in LISTS:
                found[name] = child
            else:
                add(child, name, within)

    add(model, "", False)
    return found


def marked(args: Any, kwargs: Any, reached: Callable[[Tensor], None]) -> tuple[Any, Any, Tensor | None]:
    """The arguments of a call, the first tensor of them that carries a gradient replaced by a view of itself.

    The view is the third answer, None where there is no such tensor. Backward calls `reached` when it comes to the
    view: all that was computed since is done then, and nothing of what was computed before.
    """
    places = [*((args, i) for i in range(len(args))), *((kwargs, name) for name in kwargs)]
    for where, place in places:
        given = where[place]
        if isinstance(given, Tensor) and given.requires_grad and torch.is_grad_enabled():
            view = given.view_as(given)
            view.register_hook(reached)  # type: ignore[no-untyped-call]
            if where is args:
                return (*args[:place], view, *args[place + 1 :]), kwargs, view
            return args, {**kwargs, place: view}, view
    return args, kwargs, None


@dataclass
class Stretch:
    """What runs from one call of a module to the next."""

    path: str  # of the module; empty before the first
    used: set[int] = field(default_factory=set)  # places of parameters
    buffers: set[int] = field(default_factory=set)  # places of averaged buffers
    flops: float = 0.0
    nbytes: int = 0  # of outputs that have storage of their own


class _Operations(Allocations):  # type: ignore[no-untyped-call]
    """Notes what operations read, and the bytes of what they make, in the stretch that is last."""

    def __init__(self, model: nn.Module, stretches: list[Stretch]) -> None:
        super().__init__()
        self._stretches = stretches
        self._parameters = _by_storage(model.parameters())
        self._buffers = _by_storage(averaged(model).values())

    def note(self, given: set[int], nbytes: int) -> None:
        """See Allocations."""
        now = self._stretches[-1]
        now.nbytes += nbytes
        for storage in given:
            now.used.update(self._parameters.get(storage, ()))
            now.buffers.update(self._buffers.get(storage, ()))


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns, also those in mappings and dataclasses that torch's pytrees do not know."""
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):
            yield from _tensors([*leaf.values()])
        elif is_dataclass(leaf):
            yield from _tensors(vars(leaf))


def _by_storage(tensors: Any) -> dict[int, list[int]]:
    """The places of the tensors in each storage."""
    found = dict[int, list[int]]()
    for place, tensor in enumerate(tensors):
        found.setdefault(storage_of(tensor), []).append(place)
    return found


class _Watch:
    """Follows the calls of a model's modules in one forward pass."""

    def __init__(self, model: nn.Module, counter: FlopCounterMode, enter: Callable[[int, Any, Any], Any]) -> None:
        self.stretches = [Stretch("")]
        self.calls = dict[str, int]()
        self._model, self._counter, self._enter = model, counter, enter
        self._blocks, self._inside = blocks(model), ""
        self._hooks = list[Any]()

    def __enter__(self) -> None:
        for path, module in self._model.named_modules():
            if path and next(module.parameters(), None) is not None:
                self._hooks.append(module.register_forward_pre_hook(partial(self._begin, path), with_kwargs=True))
                self._hooks.append(module.register_forward_hook(partial(self._end, path)))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def paths(self) -> list[str]:
        """The modules that the stretches begin with."""
        return [stretch.path for stretch in self.stretches]

    def count(self) -> None:
        """Give the last stretch what was counted since it began."""
        self.stretches[-1].flops = self._counter.get_total_flops() - sum(s.flops for s in self.stretches[:-1])

    def _begin(self, path: str, _module: nn.Module, args: Any, kwargs: Any) -> Any:
        self.calls[path] = self.calls.get(path, 0) + 1
        if self._inside:
            return None
        self.count()
        self.stretches.append(Stretch(path))
        self._inside = path if path in self._blocks else ""
        return self._enter(len(self.stretches) - 1, args, kwargs)

    def _end(self, path: str, *_: Any) -> None:
        if path == self._inside:
            self._inside = ""

    def places(self) -> list[int]:
        """The stretches that may begin a unit: calls of blocks, and the one after the last of them."""
        called = [i for i, s in enumerate(self.stretches) if s.path in self._blocks and self.calls[s.path] == 1]
        if called and called[-1] + 1 < len(self.stretches):
            called.append(called[-1] + 1)
        return [i for i in called if self.calls[self.stretches[i].path] == 1]

    def spans(self) -> dict[int, tuple[int, int]]:
        """The first and the last stretch that uses each parameter, by the parameter's place in the model."""
        found = dict[int, tuple[int, int]]()
        for i, stretch in enumerate(self.stretches):
            found |= {place: (found.get(place, (i, i))[0], i) for place in stretch.used}
        return found

    def owners(self, starts: Sequence[int], parameters: int) -> list[int]:
        """Each parameter's unit. One that is not used goes with the parameter before it."""
        spans, found = self.spans(), list[int]()
        for place in range(parameters):
            before = found[-1] if found else 0
            found.append(bisect_right(starts, spans[place][0]) - 1 if place in spans else before)
        return found


def cost_of_own(model: str, args: Mapping[str, Any], shape: DataShape) -> ModelCost:
    """The cost of a user's model or of one of torchvision's, with its cut where its units are not a list of modules.

    On torch's meta device, where neither the model nor its passes take memory; on the CPU if something in the model
    needs numbers. ValueError as models.build, and where the model cannot take such an input.
    """
    try:
        return _measured(model, args, shape, "meta")
    except ValueError:
        return _measured(model, args, shape, "cpu")


def _measured(model: str, args: Mapping[str, Any], shape: DataShape, device: str) -> ModelCost:
    made = models.build(model, args, shape.input_shape, shape.classes, seed=0, device=device)
    with torch.device(device) if device == "meta" else nullcontext():
        if len(parts := models.units(made)) > 1:
            return measured_cost(made, shape, parts)
        try:
            return find(made, examples(shape, torch.device(device)))
        except FAILURES as error:
            raise ValueError(forward_fails(shape, error)) from error


def find(model: nn.Module, batches: Sequence[Any]) -> ModelCost:
    """The model's units, with their costs and their cut.

    batches: of k and of 2k examples, where the model is. Do not use the model afterwards; see measured_cost. What the
    model's forward raises is raised. The bytes are what more examples allocate more, as in measured_costs.measure.
    """
    model.train()
    with torch.random.fork_rng(devices=[]):
        fewer, more = (_watched(model, batch) for batch in batches)
        starts, why = [0], "its forward pass calls other modules from one time to the next"
        if fewer.paths == more.paths:
            starts, why = _starts(model, batches[0], more)
    names, k = list(dict(model.named_parameters())), len(leaves(batches[0])[0])
    owners, spans = more.owners(starts, len(names)), more.spans()
    parameters, buffers = list(model.parameters()), [buffer.numel() for buffer in averaged(model).values()]
    units, of_units, seen = list[ModelCost](), list[tuple[str, ...]](), set[int]()
    for unit, cut in enumerate(map(slice, starts, [*starts[1:], None])):
        small, large = fewer.stretches[cut], more.stretches[cut]
        own = [place for place, owner in enumerate(owners) if owner == unit]
        read = set[int]().union(*(s.buffers for s in large)) - seen
        seen |= read
        cost = ModelCost(
            parameters=sum(parameters[place].numel() for place in own),
            buffers=sum(buffers[place] for place in read),
            flops=sum(s.flops for s in large) / (2 * k),
            activations=(sum(s.nbytes for s in large) - sum(s.nbytes for s in small)) / k,
            shared=cut.stop is not None and any(place in spans and spans[place][1] >= cut.stop for place in own),
        )
        units.append(cost)
        of_units.append(tuple(names[place] for place in own))
    begins = tuple(more.paths[start] for start in starts[1:])
    return replace(together(units), cut=Cut(begins, tuple(of_units), "" if begins else why))


def _watched(model: nn.Module, batch: Any) -> _Watch:
    """The calls of a forward pass without gradients, with what they cost."""
    counter = flop_counter()
    watch = _Watch(model, counter, lambda _place, args, kwargs: (args, kwargs))
    torch.manual_seed(0)  # what the model does at random is the same in every pass and every process
    with torch.no_grad(), watch, fused_attention(), counter, _Operations(model, watch.stretches):
        called(model, batch)
        watch.count()
    return watch


def _starts(model: nn.Module, batch: Any, seen: _Watch) -> tuple[list[int], str]:
    """(the stretches with which units begin, why there is only one). seen: the calls of a forward pass."""
    spans = seen.spans()
    begin = min((a for a, _ in spans.values()), default=0)  # what comes before has no parameters
    places = [place for place in seen.places() if place > begin]
    if not places:
        return [0], "it has no list of blocks (nn.Sequential, nn.ModuleList) that it calls once each"
    try:
        reached = _reached(model, batch, seen.paths, set(places))
    except FAILURES as error:
        return [0], f"a trial of its backward pass fails: {in_words(error)}"
    trained = [p.requires_grad for p in model.parameters()]
    first = min((span[0] for place, span in spans.items() if trained[place]), default=0)
    held = [place for place in places if place in reached or place <= first]
    if not held:
        return [0], "no gradient passes between its blocks, or they change their inputs in place"
    starts = [0]
    for stop, after in pairwise([*held, len(seen.paths)]):
        used = [a for a, _ in spans.values() if starts[-1] <= a < after]
        if min(used, default=stop) < stop <= max(used, default=0):  # both units have parameters of their own
            starts.append(stop)
    return starts, "its blocks have no parameters of their own"


def _reached(model: nn.Module, batch: Any, paths: Sequence[str], places: set[int]) -> set[int]:
    """The places that a trial of the backward pass comes by. No numbers matter, so the loss is the outputs' sum."""
    found = set[int]()

    def enter(place: int, args: Any, kwargs: Any) -> Any:
        return marked(args, kwargs, lambda _: found.add(place))[:2] if place in places else (args, kwargs)

    torch.manual_seed(0)
    with torch.enable_grad():
        watch = _Watch(model, flop_counter(), enter)
        with watch:
            outputs = called(model, batch)
        ends = [t.sum() for t in _tensors(outputs) if t.requires_grad]
        if not ends:
            raise ValueError("none of the tensors that it returns carries a gradient")
        if watch.paths != paths:
            return set()
        torch.autograd.backward(ends)
    for parameter in model.parameters():
        parameter.grad = None
    return found
