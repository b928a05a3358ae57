"""What the arguments of built-in models may be. Loads no torch, so that all are refused alike with and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import user_code

Shape = tuple[int, ...]
# What no layer has as many of; ten thousand blocks take seconds to plan with.
MOST, WIDEST, DEEPEST = 2**31 - 1, 2**20, 10_000


def checked(model: str, function: Callable[..., object], args: Mapping[str, Any]) -> dict[str, Any]:
    """The function's keyword-only defaults, overridden by `args`. ValueError where an argument cannot be used."""
    found = user_code.options(function, args, f"model {model}")
    return {name: _CHECKS[name](f"model {model}: {name}", value) for name, value in found.items()}


def image(input_shape: Shape, model: str) -> tuple[int, int, int]:
    """(channels, height, breadth) of the input; ValueError where it is not an image."""
    if len(input_shape) != 3:
        shown = "x".join(map(str, input_shape))
        raise ValueError(f"model {model} takes images, channels x height x width; the data's examples are {shown}")
    if input_shape[2] in (1, 3) and input_shape[0] not in (1, 3):
        shown = "x".join(map(str, input_shape))
        raise ValueError(
            f"model {model} takes images, channels x height x width; the data's examples are {shown}, channels last: "
            "transpose them"
        )
    return input_shape[0], input_shape[1], input_shape[2]


def sequence(input_shape: Shape, model: str) -> int:
    """The number of tokens in the input; ValueError where it is not a sequence."""
    if len(input_shape) != 1:
        shown = "x".join(map(str, input_shape))
        raise ValueError(
            f"model {model} takes sequences of tokens, and the data's examples are {shown}; "
            "write data: {name: tokens, sequence: 512}"
        )
    return input_shape[0]


def _sizes(what: str, value: Any) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, int) else value
    if not isinstance(sizes, list | tuple) or not all(isinstance(s, int) and 1 <= s <= MOST for s in sizes):
        raise ValueError(f"{what} is {value!r:.60}; write a list of layer sizes, from 1 to {MOST}, like [256, 128]")
    return tuple(sizes)


def _stages(what: str, value: Any) -> tuple[int, ...]:
    """How often each stage repeats its block. A stage has twice the channels of the one before."""
    known = isinstance(value, list | tuple) and 1 <= len(value) <= 8
    if not known or not all(isinstance(s, int) and 1 <= s <= 100 for s in value):
        raise ValueError(f"{what} is {value!r:.60}; write a number for each stage, from 1 to 100, like [3, 4, 6, 3]")
    return tuple(value)


def _rate(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{what} is {value!r}; write a share from 0 up to, not including, 1")
    return float(value)


def _ratio(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= WIDEST:
        raise ValueError(f"{what} is {value!r:.60}; write a number above 0 (1 is the usual width) and up to {WIDEST}")
    return float(value)


def _count(what: str, value: Any, most: int = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{what} is {value!r:.60}; write a whole number, 1 or more and up to {most}")
    return value


def _size(what: str, value: Any) -> int:
    return _count(what, value, WIDEST)


def _depth(what: str, value: Any) -> int:
    return _count(what, value, DEEPEST)


def _some(what: str, value: Any) -> int:
    return value if value == 0 and not isinstance(value, bool) else _size(what, value)


def _truth(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} is {value!r:.60}; write true or false")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("hidden", "channels"), _sizes),
    **dict.fromkeys(("blocks", "convolutions"), _stages),
    "dropout": _rate,
    **dict.fromkeys(("width", "mlp_ratio"), _ratio),
    "depth": _depth,
    "parameters": lambda what, value: _count(what, value, 10**12),
    **dict.fromkeys(("patch", "dim", "heads"), _count),
    **dict.fromkeys(("groups", "group_width", "kv_heads", "mlp_dim", "vocabulary", "positions"), _size),
    "predictions": _some,
    **dict.fromkeys(("bottleneck", "batch_norm", "tied"), _truth),
}
