"""`paceline profile`: what scenarios need to know about this machine. trials.py says how it is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .busy import Watch
from .config.machines import Cluster
from .config.measured_cost import MeasuredCost
from .config.profile import MeasuredPairs, Profile, add_to_profile, load_profile, workload_key
from .config.scenario import Scenario, StrategySpec, load
from .emulated_network import check_star, star_for
from .job import Job, resolve
from .marked_page import check_folder
from .measuring import measure
from .profile_document import computed, network, portable
from .program.errors import ScenarioError
from .records.environment import environment
from .terminal import warn
from .trials import Bench

SYNC = StrategySpec(preset="sync_sgd")


def profile(scenario: Path, out: Path, ranks: int | None, settings: Iterable[str]) -> None:
    """Measure this machine and write a profile. Starts mpirun itself, or runs under one.

    The times of a rank are filed under the device that the scenario gives its worker. Where the scenario's `train`
    says emulate, workers with a slowdown sleep between steps. A step after a sleep takes longer, since its data has
    left the caches.
    """
    from .runtime.launcher import abort_on_error, launch, under_mpirun

    described = load(scenario, settings)
    if under_mpirun():
        with abort_on_error():
            check_star(described)
            _measure(described, scenario.parent, out)
        return
    job_to_measure(described, scenario.parent, described.cluster.size)
    check_profile_path(out)
    arguments = ["profile", str(scenario), f"--out={out}"]
    arguments += [f"--set={setting}" for setting in settings]
    star, threads = star_for([(scenario.stem, described)], ranks), described.workload.threads
    status = launch(arguments, ranks or described.cluster.size, threads, rounds=False, on=star)
    if status:
        raise SystemExit(status)


def check_profile_path(out: Path) -> None:
    """ScenarioError where no profile can be written, or where the file is not a profile."""
    if out.is_dir():
        raise ScenarioError(f"--out {out}: is a folder; name a file, like {out / 'machine.yaml'}")
    if out.exists():
        load_profile(out)
    check_folder(out.parent, f"--out {out}")


def job_to_measure(scenario: Scenario, folder: Path, ranks: int) -> Job:
    """The scenario with a made-up speed for each rank's device, since the real ones are still to be measured.

    A phantom sleeps as long as the scenario says, so it keeps its speed.
    """
    if scenario.train.phantom:
        cluster = scenario.cluster.model_copy(update={"profile": None})
        return resolve(scenario.model_copy(update={"cluster": cluster, "strategy": SYNC, "faults": ()}), folder)
    places = scenario.cluster.places
    known = [places[min(rank, len(places) - 1)] for rank in range(ranks)]
    workers = [{"speed": "1 samples/s", "torch_device": p.group.torch_device, "node": f"node {p.node}"} for p in known]
    cluster = Cluster.model_validate({"workers": workers})
    plain = {"cluster": cluster, "strategy": SYNC, "faults": (), "recorded": None}
    job = resolve(scenario.model_copy(update=plain), folder)
    job.problem.check_trainable()
    return job


def _measure(scenario: Scenario, folder: Path, out: Path) -> None:
    from mpi4py import MPI

    from .runtime.messages import gather_texts
    from .runtime.pairs import measure_pairs

    comm, mode = MPI.COMM_WORLD, scenario.train
    job = job_to_measure(scenario, folder, comm.Get_size())
    groups = [place.group for place in scenario.cluster.places]
    group = groups[min(comm.Get_rank(), len(groups) - 1)]
    watch = Watch()
    bench = Bench(job, comm, group.slowdown if mode.emulate else 1.0, mode.phantom)
    times = measure(bench, scenario.batch)
    gathered = gather_texts(comm, json.dumps(portable(group.device, times)))
    pairs = measure_pairs(comm) if comm.Get_size() > 1 else None
    if comm.Get_rank() > 0:
        return
    ranks = [json.loads(text) for text in gathered]
    key = workload_key(scenario.workload)
    made = {} if mode.phantom else computed(ranks, key, scenario.batch)
    if job.problem.cost_key:
        made["costs"] = {job.problem.cost_key: MeasuredCost.of(job.problem.cost).model_dump(mode="json")}
    if comm.Get_size() > 1:
        rate = scenario.cluster.network.rate
        described = {"described": f"{rate!r} B/s"} if rate else {}
        between = {"pairs": MeasuredPairs.of(**vars(pairs))} if pairs else {}
        made["network"] = network(ranks, comm.Get_size()) | described | between
    where = environment(scenario.workload.threads) | {"ranks": comm.Get_size(), **mode.model_dump(exclude_none=True)}
    new = Profile.model_validate({"version": 2, "machine": where | watch.said(), "devices": {}, **made})
    add_to_profile(out, new)
    _show(new, key, out)
    for line in watch.warnings(times.drift()):
        warn(line)


def _show(new: Profile, key: str, out: Path) -> None:
    print(f"profile of {key!r} written to {out}")
    for device, workloads in new.devices.items():
        for phase, table in workloads[key].items():
            print(f"  {device:10s}{phase:9s}" + "".join(f"  {k}: {s * 1e6:.1f} us" for k, s in table.items()))
    if new.network:
        print(f"  network   latency {new.network.latency * 1e6:.1f} us, {new.network.bandwidth / 1e9:.3f} GB/s")
