"""Quantities with units: "25 Gbit/s", "50 us", "24 GB", "125 Tflop/s", "900 samples/s", "1 epoch".

Rule: a quantity without a unit is an error (only 0 needs none), and it is written back as it can be read again.
Prefixes are powers of ten, but for KiB, MiB, GiB, TiB; b is never a byte: bit/s and B/s are spelled out.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from ..algorithms import progress

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_PREFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {f"{p}B": f for p, f in _PREFIX.items()} | {f"{p}iB": 1024.0**k for k, p in enumerate("KMGT", 1)}
_BANDWIDTH = {f"{p}bit/s": f / 8 for p, f in _PREFIX.items()} | {f"{p}B/s": f for p, f in _PREFIX.items()}
_FLOPS = {f"{p}flop/s": f for p, f in _PREFIX.items()}
_CLOCK = {f"{p}Hz": f for p, f in _PREFIX.items()}
_SPEED = {"samples/s": 1.0, "ksamples/s": 1e3}
_INTERVAL = {"epoch": "epochs", "step": "steps", "round": "rounds"}


def _parse(value: Any, units: dict[str, float], example: str) -> float:
    """`value` in the base unit; ValueError with an example where it has no unit, a wrong one, or is no number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*([^\d\s].*?)\s*", value) if isinstance(value, str) else None
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise ValueError(f"{value!r} is no quantity with a unit; write it like {example!r}")
    if match[2] not in units:
        raise ValueError(f"{value!r} has the unit {match[2]!r}; write one of {', '.join(units)}, like {example!r}")
    if not math.isfinite(number * units[match[2]]):
        raise ValueError(f"{value!r} is too large a number; write it like {example!r}")
    return number * units[match[2]]


def _quantity(units: dict[str, float], base: str, example: str, positive: bool) -> Any:
    def read(value: Any) -> float:
        number = _parse(value, units, example)
        if number < 0 or (positive and number == 0):
            raise ValueError(f"{value!r} must be {'above' if positive else 'at least'} 0, like {example!r}")
        return number

    return BeforeValidator(read), PlainSerializer(lambda number: f"{number!r} {base}")


Seconds = Annotated[float, *_quantity(_SECONDS, "s", "50 us", positive=False)]
Duration = Annotated[float, *_quantity(_SECONDS, "s", "2 ms", positive=True)]
Bandwidth = Annotated[float, *_quantity(_BANDWIDTH, "B/s", "25 Gbit/s", positive=True)]
Bytes = Annotated[float, *_quantity(_BYTES, "B", "24 GB", positive=True)]
Flops = Annotated[float, *_quantity(_FLOPS, "flop/s", "125 Tflop/s", positive=True)]
Clock = Annotated[float, *_quantity(_CLOCK, "Hz", "2.25 GHz", positive=True)]
FreeBandwidth = Annotated[float, *_quantity(_BANDWIDTH, "B/s", "25 Gbit/s", positive=False)]  # 0 where nothing is sent
Speed = Annotated[float, *_quantity(_SPEED, "samples/s", "900 samples/s", positive=True)]


def read_seconds(value: Any, example: str) -> float:
    """Seconds of 0 or more from a spelling like '1 h'; ValueError where it is none."""
    seconds = _parse(value, _SECONDS, example)
    if seconds < 0:
        raise ValueError(f"{value!r} must be at least 0, like {example!r}")
    return seconds


def read_bytes(value: Any) -> float:
    """Bytes from their spelling, like '4 GiB'; ValueError where they are none."""
    number = _parse(value, _BYTES, "4 GiB")
    if number <= 0:
        raise ValueError(f"{value!r} must be above 0, like '4 GiB'")
    return number


def read_interval(value: Any) -> progress.Interval:
    """An interval from its spelling, like '1 epoch'; ValueError where it is none."""
    if isinstance(value, progress.Interval):
        return value
    number = r"([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)"
    match = re.fullmatch(rf"\s*{number}\s*([a-z]+?)s?\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in _INTERVAL:
        raise ValueError(f"{value!r} is no interval; write it like '1 epoch', '200 steps' or '5 rounds'")
    amount, unit = float(match[1]), _INTERVAL[match[2]]
    if amount <= 0 or (unit != "epochs" and amount != int(amount)):
        raise ValueError(f"{value!r}: a whole number of {unit} above 0, or a part of an epoch like '0.5 epochs'")
    return progress.Interval(amount, unit)  # type: ignore[arg-type]


def _written(every: progress.Interval) -> str:
    """With all digits of the amount; a whole one without a point."""
    amount = int(every.amount) if every.amount == int(every.amount) else every.amount
    return f"{amount!r} {every.unit}"


Interval = Annotated[
    progress.Interval,
    BeforeValidator(read_interval),
    PlainSerializer(_written),
]
