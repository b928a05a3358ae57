"""Quantities with units: "25 Gbit/s", "50 us", "24 GB", "125 Tflop/s", "900 samples/s", "1 epoch".

Rule: a quantity without a unit is an error (only 0 needs no unit), and it is written so that it can be read again.
Prefixes are powers of ten, except in KiB, MiB, GiB and TiB. "b" alone is not a unit: bit/s and B/s are spelled out.
A quantity must lie within bounds that no machine reaches, so that everything computed from it is finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from ..algorithms import rounds
from ..program.errors import brief

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_PREFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {f"{p}B": f for p, f in _PREFIX.items()} | {f"{p}iB": 1024.0**k for k, p in enumerate("KMGT", 1)}
_BANDWIDTH = {f"{p}bit/s": f / 8 for p, f in _PREFIX.items()} | {f"{p}B/s": f for p, f in _PREFIX.items()}
_FLOPS = {f"{p}flop/s": f for p, f in _PREFIX.items()}
_CLOCK = {f"{p}Hz": f for p, f in _PREFIX.items()}
_SPEED = {"samples/s": 1.0, "ksamples/s": 1e3}
_INTERVAL = {"epoch": "epochs", "step": "steps", "round": "rounds"}
_LEAST, _MOST = 1e-30, 1e30  # of a quantity in its base unit; 0 is allowed as well
_LONGEST = 10**15  # steps, rounds or epochs
_EXACT = 100_000  # a whole number below it is told with all its digits
UNKNOWN = "-"  # what is said of a number that is not known

Count = Annotated[int, Field(ge=1, le=10**9)]  # of samples, workers, batches
StepCount = Annotated[int, Field(ge=1, le=_LONGEST)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[float, Field(ge=_LEAST, le=_MOST)]  # a learning rate or a norm: not 0 in single precision either
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
Share = Annotated[float, Field(ge=1e-9, le=1)]


def _parse(value: Any, units: dict[str, float], example: str) -> float:
    """`value` in the base unit. ValueError with an example where it is not a number with one of the units."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*([^\d\s].*?)\s*", value) if isinstance(value, str) else None
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise ValueError(f"{brief(value)} is not a quantity with a unit; write it like {example!r}")
    if match[2] not in units:
        unit = brief(match[2])
        raise ValueError(f"{brief(value)} has the unit {unit}; write one of {', '.join(units)}, like {example!r}")
    return number * units[match[2]]


def _read(value: Any, units: dict[str, float], base: str, example: str, positive: bool) -> float:
    """As `_parse`. ValueError also where the quantity is negative or out of bounds."""
    number = _parse(value, units, example)
    if number < 0 or (positive and number == 0):
        raise ValueError(f"{brief(value)} must be {'above' if positive else 'at least'} 0, like {example!r}")
    if number and not _LEAST <= number <= _MOST:
        raise ValueError(f"{brief(value)} must lie between {_LEAST:g} and {_MOST:g} {base}, like {example!r}")
    return number


def quantity_schema(units: Iterable[str], example: str) -> dict[str, Any]:
    """The JSON schema of a quantity's spelling."""
    names = "|".join(map(re.escape, units))
    return {"type": "string", "pattern": rf"^\s*[-+0-9.eE]+\s*({names})\s*$", "examples": [example]}


def _quantity(units: dict[str, float], base: str, example: str, positive: bool) -> Any:
    read = BeforeValidator(lambda value: _read(value, units, base, example, positive))
    spelled = quantity_schema(units, example)
    schema = WithJsonSchema(spelled if positive else {"anyOf": [spelled, {"const": 0}]}, mode="validation")
    return read, PlainSerializer(lambda number: f"{number!r} {base}"), schema


Seconds = Annotated[float, *_quantity(_SECONDS, "s", "50 us", positive=False)]
Duration = Annotated[float, *_quantity(_SECONDS, "s", "2 ms", positive=True)]
Bandwidth = Annotated[float, *_quantity(_BANDWIDTH, "B/s", "25 Gbit/s", positive=True)]
Bytes = Annotated[float, *_quantity(_BYTES, "B", "24 GB", positive=True)]
Flops = Annotated[float, *_quantity(_FLOPS, "flop/s", "125 Tflop/s", positive=True)]
Clock = Annotated[float, *_quantity(_CLOCK, "Hz", "2.25 GHz", positive=True)]
FreeBandwidth = Annotated[float, *_quantity(_BANDWIDTH, "B/s", "25 Gbit/s", positive=False)]  # 0: nothing can be sent
Speed = Annotated[float, *_quantity(_SPEED, "samples/s", "900 samples/s", positive=True)]


BYTES_SCHEMA = quantity_schema(_BYTES, "4 MiB")
SECONDS_SCHEMA = quantity_schema(_SECONDS, "2.5 s")


def read_seconds(value: Any, example: str, positive: bool = False) -> float:
    """Seconds from their spelling, like '1 h'. ValueError where it is wrong, or 0 and must be positive."""
    return _read(value, _SECONDS, "s", example, positive)


def read_speed(value: Any) -> float:
    """Samples/s from their spelling, like '900 samples/s'. ValueError where it is wrong."""
    return _read(value, _SPEED, "samples/s", "900 samples/s", positive=True)


def read_bytes(value: Any) -> float:
    """Bytes from their spelling, like '4 GiB'. ValueError where it is wrong."""
    return _read(value, _BYTES, "B", "4 GiB", positive=True)


def told_seconds(seconds: float | None, digits: int = 3) -> str:
    """Seconds for people, in the unit that suits them: "12.4 h", "5.76 ms"; "-" where they are not known."""
    return _scaled(seconds, {name: size for name, size in _SECONDS.items() if name != "µs"}, "s", digits)


def told_bytes(nbytes: float | None, digits: int = 3) -> str:
    """Bytes for people, by powers of ten: "11.2 TB"."""
    return _scaled(nbytes, {f"{prefix}B": size for prefix, size in _PREFIX.items()}, "B", digits)


def told_count(number: float | None, digits: int = 3) -> str:
    """A count for people: "512", "65.5 k", "2.6 M"."""
    return _scaled(number, _PREFIX, "", digits).rstrip()


def told_whole(number: float) -> str:
    """A number of rounds, steps or samples for people: with all its digits while these are few, "43,136"."""
    return f"{number:,.0f}" if number < _EXACT else told_count(number)


def told_rate(per_second: float | None, what: str = "samples/s") -> str:
    """So many a second, for people: "7.53 samples/s", "67,640 samples/s", "1.2 M samples/s"; "-" if not known."""
    if per_second is None or not math.isfinite(per_second):
        return UNKNOWN
    few = told_count(per_second) if per_second < 1000 else told_whole(per_second)
    return f"{few} {what}".rstrip()


def _scaled(value: float | None, units: dict[str, float], base: str, digits: int) -> str:
    """So many digits of a value of 0 or more, in the largest unit that it has at least one of."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = float(f"{value:.{digits}g}")  # so that 999.9 kB are 1 MB
    fits = [name for name, size in units.items() if size <= rounded] or ([] if value else [base])
    unit = max(fits, key=units.__getitem__) if fits else min(units, key=units.__getitem__)
    number = rounded / units[unit]
    return f"{value / units[unit]:,.0f} {unit}" if number >= 1000 else f"{number:.{digits}g} {unit}"


def read_share(text: str) -> float:
    """A share from its spelling, like '10%' or '0.1'. ValueError where it is wrong, or not above 0 and at most 1."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if rest or not 0 < share <= 1:
        raise ValueError(f"{brief(text)} is not a share above 0% and up to 100%; write it like 10% or 0.1")
    return share


def read_interval(value: Any) -> rounds.Interval:
    """An interval from its spelling, like '1 epoch'. ValueError where it is wrong."""
    if isinstance(value, rounds.Interval):
        return value
    number = r"([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)"
    match = re.fullmatch(rf"\s*{number}\s*([a-z]+?)s?\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in _INTERVAL:
        raise ValueError(f"{brief(value)} is not an interval; write it like '1 epoch', '200 steps' or '5 rounds'")
    amount, unit = float(match[1]), _INTERVAL[match[2]]
    if not _LEAST <= amount <= _LONGEST or (unit != "epochs" and amount != int(amount)):
        raise ValueError(
            f"{brief(value)}: a whole number of {unit} above 0 and up to 1e15, or a part of an epoch like '0.5 epochs'"
        )
    return rounds.Interval(amount, unit)  # type: ignore[arg-type]


def _written(every: rounds.Interval) -> str:
    """How an interval is written: with all digits of the amount, and without a point where it is whole."""
    amount = int(every.amount) if every.amount == int(every.amount) else every.amount
    return f"{amount!r} {every.unit}"


_EXAMPLES = ["1 epoch", "200 steps", "5 rounds"]
INTERVAL_SCHEMA = quantity_schema([*_INTERVAL, *_INTERVAL.values()], "1 epoch") | {"examples": _EXAMPLES}
Interval = Annotated[
    rounds.Interval,
    BeforeValidator(read_interval),
    PlainSerializer(_written),
    WithJsonSchema(INTERVAL_SCHEMA, mode="validation"),
]


def read_span(value: Any) -> float | rounds.Interval:
    """A number of 0 or more, or an interval from its spelling. ValueError where it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= _LONGEST:
            raise ValueError(f"{brief(value)}: write 0 or more, up to 1e15")
        return float(value)
    try:
        return read_interval(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a number in the budget's unit") from None


# So much of the budget, as a number in the budget's unit or as an interval with a unit of its own.
Span = Annotated[
    float | rounds.Interval,
    BeforeValidator(read_span),
    PlainSerializer(lambda span: _written(span) if isinstance(span, rounds.Interval) else span),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, INTERVAL_SCHEMA]}, mode="validation"),
]
