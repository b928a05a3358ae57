"""What ranks have measured as the document of a profile; config/profile.py says what it holds."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np

from .measuring import COMPUTED, RankTimes
from .program.effects import COLLECTIVES, AllReduce
from .program.errors import ScenarioError
from .program.traffic import Traffic, traffic
from .trials import NEXT_TO, Piece

Times = Mapping[tuple[str, Piece], float]  # (trial, piece) -> seconds
KINDS = {kind.__name__: kind for kind in COLLECTIVES}
QUANTILES = 100  # of the residuals that a profile holds
APART = ("evaluate", "begin", "started")  # phases of collectives that say nothing of those of a step


def portable(device: str, times: RankTimes) -> dict[str, Any]:
    """One rank's measurements as JSON."""
    found = [[trial, dataclasses.asdict(piece), median(means)] for (trial, piece), means in times.means.items()]
    return {"device": device, "times": found, "drift": times.drift(), "series": times.series}


def by_device(ranks: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The ranks of each device."""
    devices: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for rank in ranks:
        devices[rank["device"]].append(rank)
    return devices


def computed(ranks: Sequence[Mapping[str, Any]], key: str, batch: int) -> dict[str, Any]:
    """What the profile says of devices.

    ranks: what `portable` made of each rank's. key: of the workload. batch: the scenario's.
    """
    devices = by_device(ranks)
    read = {device: _mean_times(members) for device, members in devices.items()}
    return {
        "devices": {device: {key: tables(times)} for device, times in read.items()},
        "pieces": {device: {key: pieces(times, batch)} for device, times in read.items()},
        "moves": {device: moves(times) for device, times in read.items()},
        "residuals": {device: {key: residuals(members)} for device, members in devices.items()},
        "variation": {device: {key: variation(members)} for device, members in devices.items()},
    }


def _mean_times(members: Iterable[Mapping[str, Any]]) -> Times:
    values: dict[tuple[str, Piece], list[float]] = defaultdict(list)
    for rank in members:
        for trial, piece, seconds in rank["times"]:
            values[trial, Piece(**piece)].append(seconds)
    return {key: mean(seconds) for key, seconds in values.items()}


def _sent(nbytes: int, size: int) -> Traffic:
    """An all-reduce's messages and bytes sent, without what is added up."""
    return dataclasses.replace(traffic(AllReduce, nbytes, size), added=0.0)


def _fitted(nbytes: int, size: int, fitted: tuple[float, float, float]) -> float:
    """The seconds of an all-reduce that nothing runs next to, by the fit."""
    what, (latency, bandwidth, adding) = traffic(AllReduce, nbytes, size), fitted
    return what.messages * latency + what.sent / bandwidth + what.added / adding


def _rate(bandwidth: float) -> str | None:
    """How a profile writes a bandwidth; None where it is infinite."""
    return f"{bandwidth:.4g} B/s" if math.isfinite(bandwidth) else None


def text(seconds: float) -> str:
    """How a profile writes a time."""
    return f"{seconds * 1e6:.4g} us"


def tables(times: Times) -> dict[str, dict[int, str]]:
    """phase -> {samples: seconds} of a step in one piece."""
    found: dict[str, dict[int, float]] = {}
    for (trial, piece), seconds in times.items():
        if trial in ("local", "flat") and piece.lane == "compute" and piece.name in (*COMPUTED, "evaluate"):
            found.setdefault(piece.name, {})[piece.samples] = seconds
    return {phase: rising(table) for phase, table in found.items()}


def rising(table: Mapping[int, float]) -> dict[int, str]:
    """The table by rising samples. More samples take no less time: where they did, that was chance."""
    keys = sorted(table)
    return dict(zip(keys, map(text, accumulate((table[key] for key in keys), max)), strict=True))


def mean_tables(ranks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, str]]]:
    """device -> phase -> {samples: seconds, the mean over the device's ranks}, from each rank's device and tables."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for rank in ranks:
        for phase, table in rank["tables"].items():
            for samples, seconds in table.items():
                phases = values.setdefault(rank["device"], {}).setdefault(phase, {})
                phases.setdefault(int(samples), []).append(seconds)
    return {
        device: {phase: rising({k: mean(v) for k, v in table.items()}) for phase, table in phases.items()}
        for device, phases in values.items()
    }


def pieces(times: Times, batch: int) -> dict[str, Any]:
    """What placements make of a step."""
    units = {held: made for held in ("kept", "fetched") if (made := _units(times, held, batch))}
    updates: dict[str, dict[float, str]] = {}
    for (trial, piece), seconds in times.items():
        if piece.name in ("update", "host update") and trial in ("flat", "sharded", "fetched whole") and batch:
            updates.setdefault(piece.name, {})[piece.part] = text(seconds)
    return {"units": units, "updates": updates}


def _units(times: Times, held: str, batch: int) -> dict[str, Any]:
    """Passes of a model that is computed unit by unit. A model of a single unit is measured as a whole."""
    finest = held if any(trial == held for trial, _ in times) else "fetched whole"
    if finest != held and held == "kept":
        return {}
    made: dict[str, Any] = {}
    for phase in ("forward", "backward"):
        by_samples: dict[int, dict[int, float]] = defaultdict(dict)
        for (trial, piece), seconds in times.items():
            if trial == finest and piece.name == phase:
                by_samples[piece.samples][piece.unit or 0] = seconds
        at, whole = by_samples[batch], times.get(("fetched whole", Piece("compute", phase, 0, batch)))
        total = math.fsum(at.values())
        cuts = len(at) - 1
        cut = max(0.0, (total - whole) / cuts) if cuts and whole is not None and held == "fetched" else 0.0
        made[phase] = {
            "times": rising({samples: math.fsum(own.values()) for samples, own in by_samples.items()}),
            "shares": [float(f"{at[unit] / total:.4g}") for unit in sorted(at)],
            "cut": text(cut),
        }
    return made


def moves(times: Times) -> dict[str, Any]:
    """Copies between the device and its host, and what they take from a computation."""
    found: dict[str, dict[int, list[float]]] = {"device": {}, "host": {}}
    for (trial, piece), seconds in times.items():
        if piece.lane in ("to device", "to host") and trial in ("fetched", "fetched whole"):
            found[piece.lane.removeprefix("to ")].setdefault(piece.nbytes, []).append(seconds)
    made: dict[str, Any] = {to: rising({n: mean(v) for n, v in t.items()}) for to, t in found.items()}
    return made | {"taken": rising({n: taken for n, taken, _ in _next_to(times, "next to a move", "to host")})}


class NextTo(NamedTuple):
    """What was measured of a computation and a started effect next to each other, in seconds."""

    nbytes: int
    taken: float  # from the computation by the effect
    seconds: float  # of the effect


def _next_to(times: Times, trial: str, lane: str) -> Iterator[NextTo]:
    """What was measured in trials whose names begin with `trial`. lane: the started effect's.

    Where the computation ends first, it has met a part of the effect only, and its loss is that part of the whole.
    """
    for name in dict.fromkeys(name for name, _ in times if name.startswith(trial)):
        own = {piece: seconds for (other, piece), seconds in times.items() if other == name}
        alone, beside = (
            next(seconds for piece, seconds in own.items() if piece.name == "gradient" and piece.unit == unit)
            for unit in (None, NEXT_TO)
        )
        for piece, seconds in own.items():
            if piece.lane == lane and piece.phase in ("started", "move"):
                met = min(1.0, beside / seconds if seconds else 1.0)
                yield NextTo(piece.nbytes, max(0.0, beside - alone) / met, seconds)


def residuals(members: Iterable[Mapping[str, Any]]) -> list[float]:
    """Evenly spaced quantiles of steps' times divided by the mean of their series."""
    factors = [t / mean(series) for rank in members for series in rank["series"] for t in series]
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return [float(f"{q:.4g}") for q in np.quantile(factors, middles)]


def variation(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the residuals hang together: see config.profile.MeasuredVariation."""
    longs = [np.array(series) for rank in members for series in rank["series"] if len(series) > 2]
    centred = [series / series.mean() - 1 for series in longs]
    spread = sum(float(c @ c) for c in centred)
    next_ones = sum(float(c[:-1] @ c[1:]) for c in centred)
    return {
        "lasting": text(mean(float(series.mean()) for series in longs)) if longs else "0 s",
        "correlation": round(min(0.99, max(0.0, next_ones / spread)), 3) if spread else 0.0,
        "drift": round(mean(rank["drift"] for rank in members), 4),
    }


def network(ranks: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """The profile's network: what fits the exchanges as they occurred between computations.

    ScenarioError where no bandwidth fits the times. size: the number of ranks.
    """
    from .runtime.measure import fit

    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    devices = [_mean_times(members) for members in by_device(ranks).values()]
    for (_, piece), seconds in devices[0].items():  # an exchange's time is the same on all ranks
        if piece.lane == "network" and piece.phase not in APART:
            found[piece.name, piece.nbytes].append(seconds)
    points = [(traffic(KINDS[name], nbytes, size), mean(taken)) for (name, nbytes), taken in found.items()]
    latency, bandwidth, adding = fitted = fit(points)
    if not math.isfinite(bandwidth):
        raise ScenarioError(
            "profile: large messages took no longer than small ones: this machine is too busy; "
            "measure again when other programs have ended"
        )
    made: dict[str, Any] = {"latency": text(latency), "bandwidth": _rate(bandwidth), "reduce_bandwidth": _rate(adding)}
    beside = [pair for device in devices for pair in _next_to(device, "next to an exchange", "network")]
    for name, differences in (
        ("taken", [(pair.nbytes, pair.taken) for pair in beside]),
        ("beside", [(pair.nbytes, max(0.0, pair.seconds - _fitted(pair.nbytes, size, fitted))) for pair in beside]),
    ):
        per_message, per_byte, _ = fit([(_sent(n, size), seconds) for n, seconds in differences], relative=False)
        made |= {f"{name}_latency": text(per_message), f"{name}_bandwidth": _rate(per_byte)}
    made = {key: value for key, value in made.items() if value is not None}
    reduced = {n: mean(taken) for (name, n), taken in sorted(found.items()) if name == "AllReduce"}
    return made | {"all_reduce": {n: text(seconds) for n, seconds in reduced.items()}}
