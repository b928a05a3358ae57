"""What do unequal steps and biased sampling bring on real images? Fashion-MNIST, simulated, over seeds.

Four workers share one device's time unequally: the slow ones have an eighth of the fast ones' speed. Each method trains
a small CNN on 20,000 of the images for three epochs, with the learning rate that was best for it on a seed of its own.
A seed is a turn. The ratios are of test accuracies after the three epochs. The figures hold
what each method had reached after so many samples and simulated seconds.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import paceline
from paceline.config.scenario import validate

from .biased_sampling import deviation
from .form import compare, cores
from .harness import Found, Run, Skipped

SECONDS = 600  # it takes no turns; this is what it takes on two cores
PATH = "PACELINE_FASHION_MNIST"  # the environment variable with the folder of the four files
DEBIAN = "/usr/share/datasets/fashion-mnist"  # where Debian's package dataset-fashion-mnist puts them
FAST, SLOW, NETWORK = 8000, 1000, {"bandwidth": "1 Gbit/s", "latency": "50 us"}  # samples/s
WORKERS, H, EPOCHS, IMAGES = 4, 8, 3, 20_000
RATES = (0.0125, 0.025, 0.05, 0.1)
TUNED_ON = 1000  # the seed of the runs that choose a learning rate; it is not among those that are shown
SECONDS_SHOWN = (1.0, 2.0, 3.0)  # simulated
TARGET = 0.85


def biased(ratio: float, merge: str = "latest") -> dict[str, Any]:
    """Biased Local SGD."""
    return {"preset": "biased_local_sgd", "H": H, "ratio": ratio, "merge": merge}


METHODS: dict[str, dict[str, Any]] = {
    "sync_sgd": {"preset": "sync_sgd"},
    "sync_sgd, fast only": {"preset": "sync_sgd"},
    "local_sgd": {"preset": "local_sgd", "H": H},
    "biased, ratio 2": biased(2),
    "biased, ratio 4": biased(4),
    "biased, ratio 8": biased(8),
    "biased, ratio 4, merge min": biased(4, "min"),
}
# At every share of slow workers. A higher ratio of candidates does not fit where three of four workers are slow.
MAIN = ("sync_sgd", "sync_sgd, fast only", "local_sgd", "biased, ratio 2")
SHARES = {1: MAIN, 2: tuple(METHODS), 3: MAIN}  # slow workers of the four


class Job(NamedTuple):
    """One run."""

    method: str
    slow: int
    seed: int
    lr: float
    images: int
    epochs: int


class Curve(NamedTuple):
    """What a run reached, report by report."""

    samples: list[int]
    seconds: list[float]
    accuracy: list[float]

    def at(self, seconds: float) -> float:
        """The accuracy at the last report up to this moment; 0 before the first one."""
        reported = sum(s <= seconds for s in self.seconds)
        return self.accuracy[reported - 1] if reported else 0.0


def data(input_path: str, images: int) -> tuple[Any, ...]:
    """The first images of the training set and all test images, normalised: the scenario's `data`."""
    from paceline.learning import data as data_sets

    whole: Any = data_sets.load("fashion_mnist", {"path": input_path})
    return np.asarray(whole.train_x)[:images], whole.train_y[:images], np.asarray(whole.test_x), whole.test_y


def scenario(job: Job, path: str) -> dict[str, Any]:
    """The fast workers alone, or with the slow ones."""
    fast = {"count": WORKERS - job.slow, "speed": f"{FAST} samples/s"}
    slow = {"count": job.slow, "speed": f"{SLOW} samples/s"}
    return {
        "seed": job.seed,
        "workload": {
            "model": {"name": "cnn", "channels": [16, 32]},
            "data": {"name": "benchmarks.fashion_mnist:data", "input_path": path, "images": job.images},
            "batch": 32,
            "optimizer": {"name": "sgd", "lr": job.lr, "momentum": 0.9},
            "lr_schedule": "cosine",
        },
        "cluster": {"workers": [fast] if job.method.endswith("fast only") else [fast, slow], "network": NETWORK},
        "strategy": METHODS[job.method],
        "budget": {"epochs": job.epochs},
        "report": {"every": "0.25 epochs"},
    }


def curve(job: Job) -> Curve:
    """Simulate it."""
    run = paceline.simulate(validate(scenario(job, folder()), "benchmark"))
    return Curve(*([line[key] for line in run.lines] for key in Curve._fields))


def folder() -> str:
    """Where the files are. Skipped where they are not."""
    found = os.environ.get(PATH, DEBIAN)
    if not Path(found).is_dir():
        raise Skipped(f"no folder {found}: install dataset-fashion-mnist, or name the files' folder in {PATH}")
    return found


def measure(run: Run) -> Found:
    """Choose each method's learning rate, then run every pair of method and share for each seed."""
    folder()
    seeds, images, epochs = (1, 640, 1) if run.small else (5, IMAGES, EPOCHS)
    cases = [(slow, method) for slow, methods in SHARES.items() for method in methods]
    with ProcessPoolExecutor(cores()) as pool:
        tries = {(m, lr): Job(m, 2, TUNED_ON, lr, images, epochs) for m in METHODS for lr in RATES}
        tuned = {key: c.accuracy[-1] for key, c in zip(tries, pool.map(curve, tries.values()), strict=True)}
        best = {m: max(RATES, key=lambda lr: tuned[m, lr]) for m in METHODS}
        jobs = [Job(m, slow, seed, best[m], images, epochs) for slow, m in cases for seed in range(seeds)]
        found = dict(zip(jobs, pool.map(curve, jobs), strict=True))
    curves = {case: [found[job] for job in jobs if (job.slow, job.method) == case] for case in cases}
    figures = {
        "seeds": seeds,
        "images": images,
        "tuning": {m: {str(lr): round(tuned[m, lr], 4) for lr in RATES} for m in METHODS},
        "best lr": best,
        "rows": [{"slow workers": slow, "method": method, **told(curves[slow, method])} for slow, method in cases],
    }
    return Found(rows=list(_rows(curves)), figures=figures)


def _rows(curves: Mapping[tuple[int, str], list[Curve]]) -> Any:
    """Each method against local SGD at the same share of slow workers."""
    for (slow, method), own in curves.items():
        if method != "local_sgd":
            taken = {method: own, "local_sgd": curves[slow, "local_sgd"]}
            last = {name: [c.accuracy[-1] for c in found] for name, found in taken.items()}
            yield compare(f"{slow} of {WORKERS} workers slow", method, "local_sgd", last, "accuracy", unit="")


def told(curves: Sequence[Curve]) -> dict[str, Any]:
    """Means and spreads over the seeds: by epochs, by seconds, and seconds to TARGET.

    These are None where not every seed got there.
    """
    by_epoch = {f"epoch {n}": [c.accuracy[len(c.accuracy) * n // EPOCHS - 1] for c in curves] for n in (1, 2, 3)}
    by_time = {f"{s:g} s": [c.at(s) for c in curves] for s in SECONDS_SHOWN}
    reached = [next((s for s, a in zip(c.seconds, c.accuracy, strict=True) if a >= TARGET), None) for c in curves]
    seconds = [s for s in reached if s is not None]
    return {
        name: {"mean": round(statistics.mean(v), 4), "sd": round(deviation(v), 4)}
        for name, v in (by_epoch | by_time).items()
    } | {
        "seconds": round(statistics.mean(c.seconds[-1] for c in curves), 3),
        "seconds to target": round(statistics.mean(seconds), 3) if len(seconds) == len(curves) else None,
    }
