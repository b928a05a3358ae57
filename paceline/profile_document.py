"""What ranks have measured as the document of a profile; config/profile.py says what it holds."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, mean, median
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from .measuring import COMPUTED, RankTimes
from .program.effects import COLLECTIVES
from .program.errors import ScenarioError
from .program.traffic import Traffic, traffic
from .runtime.measure import fit
from .trials import OVERLAPPED, Piece


class Measured(NamedTuple):
    """What was measured of a piece of a trial."""

    seconds: float  # of each time
    per_step: float  # how many a step has
    met: float  # in which part of its time its rank computed
    apart: float  # by which part the means of the repeats differed from their median, as a root mean square


Times = Mapping[tuple[str, Piece], Measured]  # (trial, piece) -> what was measured
KINDS = {kind.__name__: kind for kind in COLLECTIVES}
MOST = 0.9  # by which an exchange gets on more slowly next to a computation, at most
LEAST_MET = 0.1  # an exchange or a copy that met computations in a smaller part of its time says nothing of them
QUANTILES = 100  # of the residuals that a profile holds
PLAIN = (*COMPUTED, "evaluate")  # phases of a step in one piece, and of what follows it
MOST_VARIATION = 0.5  # the most that a profile gives as the variation of its network
APART = ("evaluate", "begin")  # phases of collectives that say nothing of those of a step


def portable(device: str, times: RankTimes) -> dict[str, Any]:
    """One rank's measurements as JSON."""
    found = [
        [
            key[0],
            dataclasses.asdict(key[1]),
            median(means),
            times.counts[key],
            median(times.met.get(key, [0.0])),
            math.sqrt(fmean((each / median(means) - 1) ** 2 for each in means)),
        ]
        for key, means in times.means.items()
    ]
    return {
        "device": device,
        "times": found,
        "longer": times.longer(),
        "drift": times.drift(),
        "series": times.series,
        "memory": times.memory,
    }


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
        "taken": {
            device: taken_tables(times, [rank["longer"] for rank in devices[device]], len(ranks))
            for device, times in read.items()
        },
        "residuals": {device: {key: residuals(members)} for device, members in devices.items()},
        "variation": {device: {key: variation(members)} for device, members in devices.items()},
        "memory": {device: {key: round(mean(r["memory"] for r in members))} for device, members in devices.items()},
    }


def _mean_times(members: Iterable[Mapping[str, Any]]) -> Times:
    values: dict[tuple[str, Piece], list[tuple[float, ...]]] = defaultdict(list)
    for rank in members:
        for trial, piece, *measured in rank["times"]:
            values[trial, Piece(**piece)].append(tuple(measured))
    return {key: Measured(*map(mean, zip(*found, strict=True))) for key, found in values.items()}


def _parts(what: Traffic) -> tuple[float, float, float]:
    return what.messages, what.sent, what.added


def exchanged(piece: Piece) -> bool:
    """Whether it is an exchange of a step."""
    return piece.lane == "network" and piece.phase not in APART


def _rate(bandwidth: float) -> str | None:
    """How a profile writes a bandwidth; None where it is infinite."""
    return f"{bandwidth:.4g} B/s" if math.isfinite(bandwidth) else None


def text(seconds: float) -> str:
    """How a profile writes a time."""
    return f"{seconds * 1e6:.4g} us"


def tables(times: Times) -> dict[str, dict[int, str]]:
    """phase -> {samples: seconds} of a step in one piece."""
    found: dict[str, dict[int, float]] = {}
    for (trial, piece), (seconds, *_) in times.items():
        if trial in ("local", "flat") and piece.lane == "compute" and piece.name in PLAIN and not piece.first:
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
    for (trial, piece), (seconds, *_) in times.items():
        if piece.name in ("update", "host update") and trial in ("flat", "sharded", "fetched whole"):
            updates.setdefault(piece.name, {})[piece.part] = text(seconds)
    first = {piece.samples: seconds for (_, piece), (seconds, *_) in times.items() if piece.first}
    return {"units": units, "updates": updates, "first": rising(first)}


def _units(times: Times, held: str, batch: int) -> dict[str, Any]:
    """Passes of a model that is computed unit by unit. A model of a single unit is measured as a whole."""
    finest = held if any(trial == held for trial, _ in times) else "fetched whole"
    if finest != held and held == "kept":
        return {}
    made: dict[str, Any] = {}
    for phase in ("forward", "backward"):
        by_samples: dict[int, dict[int, float]] = defaultdict(dict)
        for (trial, piece), (seconds, *_) in times.items():
            if trial == finest and piece.name == phase:
                by_samples[piece.samples][piece.unit or 0] = seconds
        at, whole = by_samples[batch], times.get(("fetched whole", Piece("compute", phase, 0, batch)))
        total = math.fsum(at.values())
        cuts = len(at) - 1
        cut = max(0.0, (total - whole.seconds) / cuts) if cuts and whole is not None and held == "fetched" else 0.0
        made[phase] = {
            "times": rising({samples: math.fsum(own.values()) for samples, own in by_samples.items()}),
            "shares": [float(f"{at[unit] / total:.4g}") for unit in sorted(at)],
            "cut": text(cut),
        }
    return made


def moves(times: Times) -> dict[str, dict[int, str]]:
    """Copies between the device and its host."""
    found: dict[str, dict[int, list[float]]] = {"device": {}, "host": {}}
    for (trial, piece), (seconds, *_) in times.items():
        if piece.lane in ("to device", "to host") and trial in ("fetched", "fetched whole"):
            found[piece.lane.removeprefix("to ")].setdefault(piece.nbytes, []).append(seconds)
    return {to: rising({n: mean(v) for n, v in t.items()}) for to, t in found.items()}


@dataclass(frozen=True)
class Taken:
    """What started effects take from the computation next to them."""

    exchange: float  # seconds per collective
    sent: float  # seconds per byte sent
    move: float  # seconds per copy
    moved: float  # seconds per byte copied


def taken(times: Times, longer: Mapping[str, float], size: int) -> Taken:
    """What started effects take, by how much longer a step computes where they overlap.

    longer: that in seconds, by trial; see `RankTimes.longer`. A model of one unit has no such trial.
    Only effects count that some computation met. One that starts when all is computed takes nothing.
    """
    rows = {over: [0.0] * 4 for over in longer}
    for (trial, piece), (_, count, met, _) in times.items():
        if trial not in longer or piece.phase in APART or met < LEAST_MET:
            continue
        if piece.lane == "network":
            kinds, nbytes = (0, 1), traffic(KINDS[piece.name], piece.nbytes, size).sent
        else:
            kinds, nbytes = (2, 3), piece.nbytes
        for kind, amount in zip(kinds, (1.0, nbytes), strict=True):
            rows[trial][kind] += count * amount
    if not rows:
        return Taken(0.0, 0.0, 0.0, 0.0)
    return Taken(*nnls(np.array(list(rows.values())), np.array(list(longer.values())))[0].tolist())


def taken_tables(times: Times, longer: Sequence[Mapping[str, float]], size: int) -> dict[str, dict[int, str]]:
    """What started effects take, for one byte and for the most bytes that one of them carried or sent.

    longer: of each rank of the device; see `RankTimes.longer`.
    """
    cost = taken(times, {over: mean(rank[over] for rank in longer) for over in longer[0]}, size)
    largest = {"copies": 1, "exchanges": 1}
    for _, piece in times:
        if piece.lane in ("to device", "to host"):
            largest["copies"] = max(largest["copies"], piece.nbytes)
        elif exchanged(piece):
            sent = math.ceil(traffic(KINDS[piece.name], piece.nbytes, size).sent)
            largest["exchanges"] = max(largest["exchanges"], sent)
    costs = {"copies": (cost.move, cost.moved), "exchanges": (cost.exchange, cost.sent)}
    return {
        kind: {nbytes: text(each + nbytes * per_byte) for nbytes in sorted({1, largest[kind]})}
        for kind, (each, per_byte) in costs.items()
    }


def beside(times: Times, size: int) -> tuple[float, float]:
    """(seconds per message, bandwidth) by which an exchange takes longer while its rank computes.

    Of an exchange that took s seconds, and s' alone, its rank computed in a part p. In that part it got on more slowly
    by the factor 1 - q, where s = s' + q p s. Next to a computation from beginning to end it would take s' / (1 - q).
    """
    points = []
    for (trial, piece), (seconds, _, met, _) in times.items():
        alone = times.get((trial.removesuffix(OVERLAPPED), piece))
        if trial.endswith(OVERLAPPED) and exchanged(piece) and alone and met > LEAST_MET:
            slower = min(MOST, max(0.0, (seconds - alone.seconds) / (met * seconds)))
            what = traffic(KINDS[piece.name], piece.nbytes, size)
            points.append(((what.messages, what.sent, 0.0), alone.seconds * slower / (1 - slower)))
    if not any(sent for (_, sent, _), _ in points):
        return 0.0, math.inf
    latency, bandwidth, _ = fit(points, by_length=False)
    return latency, bandwidth


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
    times = _mean_times(next(iter(by_device(ranks).values())))  # an exchange's time is the same on all ranks
    alone = {
        (trial, piece): measured
        for (trial, piece), measured in times.items()
        if exchanged(piece) and not trial.endswith(OVERLAPPED)
    }
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for (_, piece), measured in alone.items():
        found[piece.name, piece.nbytes].append(measured.seconds)
    parts = {(name, nbytes): _parts(traffic(KINDS[name], nbytes, size)) for name, nbytes in found}
    points = [(parts[key], mean(taken)) for key, taken in found.items()]
    latency, bandwidth, adding = fit(points)
    if not math.isfinite(bandwidth):  # what bytes take can be told from what adding them up takes only by a difference
        latency, bandwidth, adding = fit([((messages, sent, 0.0), took) for (messages, sent, _), took in points])
    if not math.isfinite(bandwidth):
        raise ScenarioError(
            "profile: large messages took no longer than small ones: this machine is too busy; "
            "measure again when other programs have ended"
        )
    made: dict[str, Any] = {"latency": text(latency), "bandwidth": _rate(bandwidth), "reduce_bandwidth": _rate(adding)}
    longer, slower = beside(times, size)
    made |= {"beside_latency": text(longer), "beside_bandwidth": _rate(slower)}
    made = {key: value for key, value in made.items() if value is not None}
    fitted = {key: m * latency + sent / bandwidth + added / adding for key, (m, sent, added) in parts.items()}
    made["variation"] = float(f"{_around(alone, fitted):.3g}")
    reduced = {n: mean(taken) for (name, n), taken in sorted(found.items()) if name == "AllReduce"}
    return made | {"all_reduce": {n: text(seconds) for n, seconds in reduced.items()}}


def _around(alone: Times, fitted: Mapping[tuple[str, int], float]) -> float:
    """How far the exchanges of a trial's step were from what the fit says of them, as a part: the root mean square.

    That is of two kinds, which add up: equal steps differ from repeat to repeat, and the fit has few numbers.
    """
    squares = []
    for trial in dict.fromkeys(trial for trial, _ in alone):
        steps = [(piece, measured) for (its, piece), measured in alone.items() if its == trial]
        took = math.fsum(m.per_step * m.seconds for _, m in steps)
        apart = math.fsum(m.per_step * m.seconds * m.apart for _, m in steps) / took
        said = math.fsum(m.per_step * fitted[piece.name, piece.nbytes] for piece, m in steps)
        squares.append(apart**2 + (said / took - 1) ** 2)
    return min(MOST_VARIATION, math.sqrt(fmean(squares)))
