"""Models as lists of units, each taking the output of the one before.

Rule: a model is built from the stream named "model" alone: the same for every worker, whatever torch drew before, and
torch's global stream is as it was afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from ..algorithms.costs import Works
from ..algorithms.unitwise import UNIT_BYTES
from ..program.errors import brief, nearest
from ..program.streams import torch_seed
from . import (
    architectures,
    buffers,
    cost_tables,
    flat_storage,
    language_models,
    torchvision_tables,
    torchvision_units,
    user_code,
    vision_models,
)
from .layers import Block, ChannelsLast
from .model_arguments import Shape
from .trees import Tree
from .vit import vit


def build(
    model: str,
    args: Mapping[str, Any],
    input_shape: Tree[Shape],
    classes: int | None,
    seed: int,
    device: str = "cpu",
) -> nn.Module:
    """The model by name or import path, on the CPU, with its initial parameters.

    input_shape: of one example, without the batch; of each where a model has several inputs. classes: outputs that the
    data need; None where they do not say. ValueError: unknown name or argument, failing import or factory.
    device: "meta" for a model without numbers.
    """
    what, options = f"model {model!r} with input {input_shape}, {classes} classes", dict(args)
    if torchvision_tables.named(model):
        factory = _torchvision(model.removeprefix(torchvision_tables.PREFIX))
    elif user_code.named(model):
        factory = user_code.load(model, "model")
    else:
        options = cost_tables.resolve(model, args, input_shape, classes)
        architectures.check_trainable(model)
        factory, what = _factory(model), f"model {model}"
    with torch.random.fork_rng(devices=[]), torch.device(device) if device != "cpu" else nullcontext():
        torch.manual_seed(torch_seed(seed, "model"))
        made = user_code.call(factory, what, input_shape, classes, **options)
    if not isinstance(made, nn.Module):
        raise ValueError(f"model {model!r} gave a {type(made).__name__}; its factory must return a torch.nn.Module")
    if any(nn.parameter.is_lazy(p) for p in (*made.parameters(), *made.buffers())):
        raise ValueError(f"model {model!r} has lazy layers without sizes; call it once on an example in its factory")
    if not any(p.requires_grad and p.numel() for p in made.parameters()):
        raise ValueError(f"model {model!r} has no parameters to train")
    flat_storage.check(dict(made.named_parameters()), "parameter", device)
    flat_storage.check(buffers.averaged(made), "buffer", device)
    return made


def on_meta(model: str, args: Mapping[str, Any], input_shape: Shape, classes: int) -> nn.Sequential:
    """A model of `architectures` on torch's meta device, without numbers. Its members are its units."""
    options = cost_tables.resolve(model, args, input_shape, classes)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        made: nn.Sequential = user_code.call(_factory(model), f"model {model}", input_shape, classes, **options)
        return made


def _factory(model: str) -> Callable[..., nn.Sequential]:
    return MODELS[architectures.family(model) if model in architectures.NAMES else model]


def _torchvision(name: str) -> Callable[..., nn.Module]:
    """A factory of torchvision's model, untrained; ValueError where torchvision or the model is missing."""
    models: Any = user_code.torchvision(f"model {torchvision_tables.PREFIX}{name}").models
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no model {name!r}{nearest(name, known)}")

    def make(input_shape: Shape, classes: int, **options: Any) -> nn.Module:
        size = {"image_size": input_shape[-1]} if name.startswith("vit_") else {}
        made: nn.Module = models.get_model(name, weights=None, num_classes=classes, **size | options)
        return made

    return make


def units(model: nn.Module) -> list[nn.Module]:
    """The model's units: the members of an nn.Sequential, or torchvision's blocks; any other model is one unit.

    An nn.Sequential that was given a forward or parameters of its own is more than its members, and so is one unit. A
    member that begins by changing its input in place stays with the one before, since backward begins again from a
    unit's output. Members that share buffers make the model one unit. A parameter that members share belongs to the
    first of them; see own_parameters.
    """
    more = "forward" in vars(model) or [*model.parameters(recurse=False), *model.buffers(recurse=False)]
    if type(model) is not nn.Sequential or not len(model) or more:
        return torchvision_units.split(model) or [model]
    held = [id(buffer) for member in model for buffer in member.buffers()]
    if len(set(held)) < len(held):
        return [model]
    runs: list[list[nn.Module]] = []
    for member in model:
        first = next((m for m in member.modules() if not list(m.children())), member)
        if runs and getattr(first, "inplace", False):
            runs[-1].append(member)
        else:
            runs.append([member])
    return [run[0] if len(run) == 1 else nn.Sequential(*run) for run in runs]


def merge_units(given: list[nn.Module], least: float = UNIT_BYTES) -> list[nn.Module]:
    """The units, consecutive small ones merged until each has `least` bytes of parameters; see cost_tables.groups."""
    sizes = [sum(p.numel() * p.element_size() for p in own) for own in own_parameters(given)]
    return [
        given[start] if stop == start + 1 else nn.Sequential(*given[start:stop])
        for start, stop in cost_tables.groups(sizes, least)
    ]


def own_parameters(given: Sequence[nn.Module]) -> list[list[nn.Parameter]]:
    """Each unit's parameters, without those that an earlier unit has as well."""
    found, seen = list[list[nn.Parameter]](), set[nn.Parameter]()
    for unit in given:
        found.append([p for p in unit.parameters() if p not in seen])
        seen.update(found[-1])
    return found


class Exchanged(NamedTuple):
    """What is exchanged one by one of a model."""

    parameters: list[list[nn.Parameter]]  # each unit's own; those that it shares with an earlier unit are that one's
    modules: list[nn.Module]  # the units, each taking the output of the one before; or, where `cut`, what begins them
    cut: bool = False  # whether unit u + 1 begins where the model's own forward calls modules[u]


def exchanged_units(model: nn.Module, works: Works, unit_bytes: int) -> Exchanged:
    """What is exchanged one by one of a model: units of at least `unit_bytes`, or the whole model, as the works say.

    ValueError where the works are those of another model: they may come from a profile that is older than the code.
    """
    found = _exchanged(model, works, unit_bytes)
    counts = [sum(p.numel() for p in own) for own in found.parameters]
    known = [unit.parameters for unit in works.units]
    if counts != known:
        raise ValueError(
            f"the model's units have {brief(counts)} parameters, and had {brief(known)} when it was measured; if its "
            "code has changed since the profile was made, write that again with `paceline profile SCENARIO`"
        )
    return found


def _exchanged(model: nn.Module, works: Works, unit_bytes: int) -> Exchanged:
    cut = works.cost.cut
    if cut is not None:
        named = dict(model.named_parameters())
        own = [[named[name] for name in names if name in named] for names in cut.parameters]
        modules = dict(model.named_modules())
        return Exchanged(own, [modules[path] for path in cut.begins if path in modules], cut=True)
    members = merge_units(units(model), unit_bytes) if len(works.units) > 1 else [model]
    return Exchanged(own_parameters(members), members)


def mlp(input_shape: Shape, classes: int, *, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """See cost_tables.mlp."""
    made: list[nn.Module] = []
    before: list[nn.Module] = [nn.Flatten()]
    width = torch.Size(input_shape).numel()
    for size in hidden:
        after: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
        made.append(nn.Sequential(*before, nn.Linear(width, size), nn.ReLU(inplace=True), *after))
        width, before = size, []
    return nn.Sequential(*made, nn.Sequential(*before, nn.Linear(width, classes)))


def cnn(input_shape: Shape, classes: int, *, channels: tuple[int, ...], dropout: float) -> nn.Sequential:
    """See cost_tables.cnn."""
    made: list[nn.Module] = []
    width, height, breadth = input_shape
    for size in channels:
        order: list[nn.Module] = [] if made else [ChannelsLast()]
        conv = nn.Conv2d(width, size, 3, padding=1)
        made.append(nn.Sequential(conv, *order, nn.ReLU(inplace=True), nn.MaxPool2d(2)))
        width, height, breadth = size, height // 2, breadth // 2
    drop: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*made, nn.Sequential(nn.Flatten(), *drop, nn.Linear(width * height * breadth, classes)))


def resnet20(input_shape: Shape, classes: int, *, width: float) -> nn.Sequential:
    """See cost_tables.resnet20. Convolutions and the classifier begin xavier-uniform."""
    widths = cost_tables.resnet_widths(width)
    stem = nn.Conv2d(input_shape[0], widths[0], 3, padding=1, bias=False)
    made: list[nn.Module] = [nn.Sequential(stem, ChannelsLast(), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))]
    size = widths[0]
    for stage, out in enumerate(widths):
        for block in range(3):
            made.append(Block(size, out, 2 if stage and not block else 1))
            size = out
    made.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(size, classes)))
    model = nn.Sequential(*made)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, Block):
            nn.init.zeros_(module.norm2.weight)
    return model


MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet20": resnet20,
    "vit": vit,
    "resnet": vision_models.resnet,
    "vgg": vision_models.vgg,
    "efficientnet": vision_models.efficientnet,
    "bert": language_models.bert,
    "gpt": language_models.gpt,
    "llama": language_models.llama,
}
