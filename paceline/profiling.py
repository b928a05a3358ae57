"""`paceline profile`: what scenarios need to know about this machine, measured in short trainings.

Rule: times are measured as they occur in training, on all ranks at once and in the order of a step. A gradient that
follows an exchange finds its data no longer in the caches, and takes up to 1.5 times as long as one after a gradient.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .algorithms.aggregations import Parameters
from .algorithms.learning_rates import Constant
from .algorithms.loop import train
from .algorithms.placements import Replicated
from .algorithms.plan import Plan
from .algorithms.rounds import Interval, State
from .algorithms.schedules import Fixed
from .algorithms.splits import Shares
from .algorithms.strategy import Strategy
from .config.machines import Cluster
from .config.profile import Profile, add_to_profile, load_profile, workload_key
from .config.scenario import Scenario, StrategySpec, load
from .job import Job, resolve
from .program.effects import Work
from .program.errors import ScenarioError
from .program.outcome import Hooks
from .records.environment import environment


def profile(scenario: Path, out: Path, emulate: bool, ranks: int | None, settings: Iterable[str]) -> None:
    """Measure this machine and write a profile. Starts mpirun itself, or runs under one.

    The times of a rank are filed under the device that the scenario gives its worker.
    emulate: workers with a slowdown sleep between steps, as in `train --emulate`. A step after a sleep takes longer,
    since its data has left the caches.
    """
    from .runtime.launcher import abort_on_error, launch, under_mpirun

    described = load(scenario, settings)
    if under_mpirun():
        with abort_on_error():
            _measure(described, scenario.parent, out, emulate)
        return
    job_to_measure(described, scenario.parent, described.cluster.size)
    check_profile_path(out)
    arguments = ["profile", str(scenario), f"--out={out}", *(["--emulate"] if emulate else [])]
    arguments += [f"--set={setting}" for setting in settings]
    status = launch(arguments, ranks or described.cluster.size, described.workload.threads, rounds=False)
    if status:
        raise SystemExit(status)


def check_profile_path(out: Path) -> None:
    """ScenarioError where no profile can be written, or where the file is not a profile."""
    if out.is_dir():
        raise ScenarioError(f"--out {out}: is a folder; name a file, like {out / 'machine.yaml'}")
    if out.exists():
        load_profile(out)
    near = next(folder for folder in out.absolute().parents if folder.exists())
    if not near.is_dir() or not os.access(near, os.W_OK):
        raise ScenarioError(f"--out {out}: {near} cannot be written to; name a file elsewhere")


def job_to_measure(scenario: Scenario, folder: Path, ranks: int) -> Job:
    """The scenario with a made-up speed for each rank's device, since the real ones are still to be measured."""
    places = scenario.cluster.places
    known = [places[min(rank, len(places) - 1)] for rank in range(ranks)]
    workers = [{"speed": "1 samples/s", "torch_device": p.group.torch_device, "node": f"node {p.node}"} for p in known]
    cluster = Cluster.model_validate({"workers": workers})
    strategy = StrategySpec(preset="sync_sgd")
    plain = {"cluster": cluster, "strategy": strategy, "faults": (), "recorded": None}
    job = resolve(scenario.model_copy(update=plain), folder)
    job.problem.check_trainable()
    return job


def _measure(scenario: Scenario, folder: Path, out: Path, emulate: bool) -> None:
    from mpi4py import MPI

    from .runtime.messages import gather_texts

    comm = MPI.COMM_WORLD
    job = job_to_measure(scenario, folder, comm.Get_size())
    groups = [place.group for place in scenario.cluster.places]
    group = groups[min(comm.Get_rank(), len(groups) - 1)]
    slowness = group.slowdown if emulate else 1.0
    batch = scenario.workload.batch
    tables: dict[str, dict[int, float]] = {}
    residuals: list[float] = []
    for size in sorted({max(1, batch // 4), max(1, batch // 2), batch, 2 * batch}):
        for phase, samples, taken in phases(job, comm, [size] * job.workers, _STEPS, slowness):
            usual = tables.setdefault(phase, {})[samples] = typical(taken)
            if size == batch and phase in ("step", "gradient"):
                residuals += [seconds / usual for seconds in taken]
    found = {"device": group.device, "tables": tables, "residuals": residuals}
    gathered = [json.loads(text) for text in gather_texts(comm, json.dumps(found))]
    network = _network(comm) if comm.Get_size() > 1 else None
    if comm.Get_rank() > 0:
        return
    key = workload_key(scenario.workload)
    document = {
        "machine": environment(scenario.workload.threads) | {"ranks": comm.Get_size(), "emulated": emulate},
        "devices": {name: {key: table} for name, table in mean_tables(gathered).items()},
        "residuals": {name: {key: factors} for name, factors in _quantiles(gathered).items()},
        "network": network,
    }
    new = Profile.model_validate(document)
    add_to_profile(out, new)
    _show(new, key, out)


def _network(comm: Any) -> dict[str, Any]:
    """The profile's network section. ScenarioError on all ranks where no bandwidth fits the times."""
    from .runtime.measure import fit, measure_allreduce

    for _ in range(_TRIES):
        times = measure_allreduce(comm, [4 * 10**k for k in range(2, 8)])
        latency, bandwidth = fit(times, comm.Get_size())
        if math.isfinite(bandwidth):
            reduced = {nbytes: _text(seconds) for nbytes, seconds in times}
            return {"latency": _text(latency), "bandwidth": f"{bandwidth:.4g} B/s", "all_reduce": reduced}
    raise ScenarioError(
        f"profile: in {_TRIES} measurements large messages took no longer than small ones: this machine is too busy; "
        "measure again when other programs have ended"
    )


def mean_tables(ranks: list[dict[str, Any]]) -> dict[str, dict[str, dict[int, str]]]:
    """device -> phase -> {samples: seconds, the mean over the device's ranks}."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for found in ranks:
        for phase, table in found["tables"].items():
            for samples, seconds in table.items():
                phases = values.setdefault(found["device"], {}).setdefault(phase, {})
                phases.setdefault(int(samples), []).append(seconds)
    return {
        device: {phase: {k: _text(sum(v) / len(v)) for k, v in table.items()} for phase, table in phases.items()}
        for device, phases in values.items()
    }


def _quantiles(ranks: list[dict[str, Any]]) -> dict[str, list[float]]:
    """device -> evenly spaced quantiles of the residuals of its ranks."""
    values: dict[str, list[float]] = {}
    for found in ranks:
        values.setdefault(found["device"], []).extend(found["residuals"])
    middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return {device: [float(f"{q:.4g}") for q in np.quantile(factors, middles)] for device, factors in values.items()}


def _text(seconds: float) -> str:
    return f"{seconds * 1e6:.4g} us"


def _show(new: Profile, key: str, out: Path) -> None:
    print(f"profile of {key!r} written to {out}")
    for device, workloads in new.devices.items():
        for phase, table in workloads[key].items():
            print(f"  {device:10s}{phase:9s}" + "".join(f"  {k}: {s * 1e6:.1f} us" for k, s in table.items()))
    if new.network:
        print(f"  network   latency {new.network.latency * 1e6:.1f} us, {new.network.bandwidth / 1e9:.3f} GB/s")


def phases(
    job: Job, comm: Any, batches: Sequence[int], steps: int, slowness: float = 1.0
) -> Iterator[tuple[str, int, list[float]]]:
    """(phase, samples, the seconds of each time) for all work on this rank, from a synchronous and a local training.

    batches: the batch of each rank.
    steps: the steps of each training.
    """
    from .runtime.engine import run

    shares = Shares(tuple(batches), (1.0,) * job.workers)
    budget, report = Interval(steps, "steps"), Interval(steps // 10, "steps")
    # The whole model at once: the work of a unit is priced by its part of the whole.
    for strategy in (
        Strategy(placement=Replicated(overlap=False)),
        Strategy(schedule=Fixed(8), aggregation=Parameters()),
    ):
        plan = Plan(strategy, shares, Constant(1e-6), job.plan.examples, budget, report)
        (worker,) = job.problem.workers(plan, [comm.Get_rank()], shared_process=False)
        worker.snapshot = dict  # type: ignore[method-assign]  # there is nothing to save
        hooks = Hooks()
        outcome = run(train(worker, plan, State()), hooks, comm=comm, trace=True, slowness=slowness)
        works = {work.phase: work for work in vars(worker.works).values() if isinstance(work, Work)}
        del worker  # a GPU may not hold this worker and the next one
        spans: dict[str, list[float]] = {}
        for name, start, stop in outcome.lanes["compute"]:
            spans.setdefault(name, []).append((stop - start) / slowness)
        for phase, seconds in spans.items():
            yield phase, works[phase].samples, seconds


def typical(seconds: list[float]) -> float:
    """The mean without the slowest tenth, which other programs have delayed."""
    kept = sorted(seconds)[: max(1, len(seconds) * 9 // 10)]
    return sum(kept) / len(kept)


_STEPS = 160  # in each short training
_TRIES = 3  # measurements of the network
_QUANTILES = 100  # of the residuals that the profile holds
