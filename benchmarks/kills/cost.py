"""What a kill costs, restarted or shrunk, against what the simulation says of it.

The cost is what a run with a kill takes more than one without, by the run's clock, less the start of the new ranks,
which is told apart. Real runs take turns. The simulation has the profile that is measured first, and the scenario's
defaults.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from paceline.config import yaml
from paceline.simulating import simulate

from ..form import ROOT
from .form import Claim, Found, Trial
from .job import SCENARIO, begin, summary
from .ranks import RESTART
from .scenarios import scenario

COUNT = 5
BAR = 0.2  # how far the predicted cost may be from the median of the real ones
ROUNDS, SAVED, KILLED = 60, 30, 55  # the kill comes so many rounds after the only checkpoint
WAYS: dict[str, dict[str, Any]] = {"restart": RESTART, "shrink": {"shrink": True, "min_workers": 2}}


def work(way: str | None) -> dict[str, Any]:
    """The scenario, whose worker 2 is killed where a way to go on is named."""
    document = scenario(rounds=ROUNDS)
    document["workload"] |= {"model": {"name": "mlp", "hidden": [256, 256]}, "batch": 64}
    document["strategy"]["H"] = 32
    document["checkpoint"] = {"every": f"{SAVED} rounds"}
    document["report"] = {"every": f"{SAVED} rounds"}
    document["cluster"] = {"workers": [{"count": 4}], "profile": "profile.yaml"}
    if way is not None:
        document |= {"recovery": WAYS[way], "faults": [{"name": "loss", "worker": 2, "at": f"{KILLED} rounds"}]}
    return document


def measure(trial: Trial) -> Found:
    profile = _profile(trial.folder)
    found = Found()
    real = [_turn(trial, number, profile) for number in range(trial.count)]
    plain = _simulated(trial.folder, None)["seconds"]
    for way in WAYS:
        told = _simulated(trial.folder, way)
        predicted = _cost(told, plain)
        costs = [_cost(turn[way], turn["plain"]["seconds"]) for turn in real]
        middle = statistics.median(costs)
        found.rows += [
            _row(way, number, turn[way], cost) for number, (turn, cost) in enumerate(zip(real, costs, strict=True))
        ]
        found.rows.append(_row(way, "simulated", told, predicted))
        said = f"{predicted:.3f} s predicted, {middle:.3f} s real, {predicted / middle - 1:+.0%}, n = {len(costs)}"
        held = abs(predicted / middle - 1) <= BAR
        found.claims.append(
            Claim(what=f"cost of a {way}, without the start of ranks, within 20 %", found=said, holds=held)
        )
    return found


def _row(way: str, turn: int | str, told: dict[str, Any], cost: float) -> dict[str, Any]:
    (recovery,) = told["recoveries"]
    kept = {name: recovery[name] for name in ("from_round", "redone", "seconds", "start")}
    return {"way": way, "turn": turn, "cost s": cost, **kept}


def _cost(told: dict[str, Any], plain: float) -> float:
    seconds: float = told["seconds"] - plain - sum(each["start"] for each in told["recoveries"])
    return seconds


def _turn(trial: Trial, number: int, profile: Path) -> dict[str, dict[str, Any]]:
    """The summaries of a run without a kill and of one for each way, in this order or in reverse."""
    told = dict[str, dict[str, Any]]()
    ways = [None, *WAYS]
    for way in reversed(ways) if number % 2 else ways:
        folder = trial.folder / f"{way or 'plain'} {number}"
        with begin(folder, work(way) | {"cluster": work(way)["cluster"] | {"profile": str(profile)}}) as job:
            if job.end():
                raise RuntimeError(f"{folder.name}: {job.text}")
        told[way or "plain"] = summary(folder)
    return told


def _profile(folder: Path) -> Path:
    document = work(None)
    document["cluster"].pop("profile")
    path, profile = folder / SCENARIO, folder / "profile.yaml"
    path.write_text(yaml.dump(document))
    line = [sys.executable, "-P", "-m", "paceline", "profile", str(path), "--out", str(profile)]
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return profile


def _simulated(folder: Path, way: str | None) -> dict[str, Any]:
    path = folder / f"{way or 'plain'}.yaml"
    path.write_text(yaml.dump(work(way)))
    told: dict[str, Any] = simulate(path, timing_only=True).summary
    return told
