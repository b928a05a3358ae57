"""`paceline profile`: what scenarios need to know of this machine, measured the way that training will use it.

All ranks measure at the same time, so that what they share (memory bandwidth, power) is shared as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from .algorithms.effects import Compute
from .algorithms.plan import Round
from .algorithms.progress import Moment
from .algorithms.rates import Constant
from .algorithms.worker import Worker
from .config.profile import Profile, load_profile, merge_profiles, save_profile
from .config.scenario import Cluster, Scenario, load
from .wiring import Job, resolve, workload_of


def profile(scenario: Path, out: Path, device: str, ranks: int | None, settings: Iterable[str]) -> None:
    """Measure and write a profile; starts mpirun itself, or runs under one."""
    from .runtime.launcher import abort_on_error, launch, under_mpirun

    described = load(scenario, settings)
    if under_mpirun():
        with abort_on_error():
            _measure(described, scenario.parent, out, device)
        return
    _job(described, scenario.parent)
    arguments = ["profile", str(scenario), f"--out={out}", f"--device={device}"]
    arguments += [f"--set={setting}" for setting in settings]
    status = launch(arguments, ranks or described.cluster.size, described.workload.threads)
    if status:
        raise SystemExit(status)


def _job(scenario: Scenario, folder: Path) -> Job:
    """The scenario on devices of known speed: what is to be measured need not be known before."""
    groups = [{"count": group.count, "speed": "1 samples/s"} for group in scenario.cluster.workers]
    cluster = Cluster.model_validate({"workers": groups})
    return resolve(scenario.model_copy(update={"cluster": cluster, "recorded": None}), folder)


def _measure(scenario: Scenario, folder: Path, out: Path, device: str) -> None:
    import json

    import numpy as np
    from mpi4py import MPI

    from .records.environment import environment
    from .runtime.measure import fit, measure_allreduce
    from .runtime.messages import gather_texts

    comm = MPI.COMM_WORLD
    job = _job(scenario, folder)
    rank = min(comm.Get_rank(), job.workers - 1)
    batch = scenario.workload.batch
    batches = sorted({max(1, batch // 4), max(1, batch // 2), batch, 2 * batch})
    tables: dict[str, dict[int, float]] = {}
    for size in batches:
        job.plan.shares = dataclasses.replace(job.plan.shares, batches=(size,) * job.workers)
        (worker,) = job.problem.workers(job.plan, [rank], shared_process=False)
        comm.Barrier()
        for phase, samples, seconds in _phases(worker, size, rank, job.workers):
            tables.setdefault(phase, {})[samples] = seconds
    gathered = gather_texts(comm, json.dumps(tables))
    network = None
    if comm.Get_size() > 1:
        times = measure_allreduce(comm, [4 * 10**k for k in range(2, 8)])
        latency, bandwidth = fit(times, comm.Get_size())
        reduced = {nbytes: f"{seconds!r} s" for nbytes, seconds in times}
        network = {"latency": f"{latency!r} s", "bandwidth": f"{bandwidth!r} B/s", "all_reduce": reduced}
    if comm.Get_rank() > 0:
        return
    ranks = [json.loads(text) for text in gathered]
    mean = {
        phase: {int(k): f"{float(np.mean([t[phase][k] for t in ranks if k in t[phase]]))!r} s" for k in table}
        for phase, table in ranks[0].items()
    }
    new = Profile.model_validate(
        {
            "machine": environment(scenario.workload.threads) | {"ranks": comm.Get_size()},
            "devices": {device: {workload_of(scenario.workload): mean}},
            "network": network,
        }
    )
    save_profile(out, merge_profiles(load_profile(out) if out.exists() else None, new))
    print(f"profile of {workload_of(scenario.workload)!r} on {device} written to {out}")
    for phase, table in new.devices[device][workload_of(scenario.workload)].items():
        print(f"  {phase:9s}" + "".join(f"  {samples}: {float(s) * 1e6:.1f} us" for samples, s in table.items()))
    if new.network:
        print(f"  network    latency {new.network.latency * 1e6:.1f} us, {new.network.bandwidth / 1e9:.3f} GB/s")


def _phases(worker: Worker, batch: int, rank: int, workers: int) -> Sequence[tuple[str, int, float]]:
    """(phase, samples, seconds) of each kind of work that the worker knows."""
    round = Round(
        start=Moment(0, 0, 0.0, 1e-6),
        H=1 << 20,
        steps=(1 << 20,) * workers,
        batches=(batch,) * workers,
        offsets=tuple(batch * w for w in range(workers)),
        samples=batch * workers,
        position=0,
        progress=0.0,
        slope=0.0,
        rate=Constant(1e-6),
    )
    found = []
    for name in ("step", "gradient", "update"):
        make = getattr(worker, name)
        effect = make(round, 0)
        seconds = typical_seconds(partial(_run_step, make, round))
        found.append((name, effect.work.samples, seconds))
    effect = worker.evaluate(worker.buffers)
    found.append(("evaluate", effect.work.samples, typical_seconds(lambda i: effect.run())))
    return found


def _run_step(make: Callable[[Round, int], Compute[None]], round: Round, i: int) -> None:
    make(round, i).run()


def typical_seconds(action: Callable[[int], object], least: float = 0.5) -> float:
    """Mean seconds of a call, over `least` seconds of calls, the slowest tenth left out: those met other programs."""
    for i in range(3):
        action(i)
    times: list[float] = []
    begun = perf_counter()
    while perf_counter() - begun < least or len(times) < 5:
        start = perf_counter()
        action(len(times))
        times.append(perf_counter() - start)
    kept = sorted(times)[: max(1, len(times) * 9 // 10)]
    return sum(kept) / len(kept)
