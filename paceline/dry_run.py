"""`paceline train --dry-run`: what would be trained, where, by which command, and what it is predicted to take."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from .config import yaml
from .config.sections import described
from .config.units import told_bytes, told_seconds
from .job import Job
from .placement import Start
from .printing import plain_table, right
from .program.errors import PacelineError
from .records import checkpoints
from .records.recorder import Recorder
from .runtime.hosts import own_names
from .runtime.launcher import start_line
from .simulating import SimulateOptions, run_simulation
from .terminal import console
from .training import Training

MOST = 64  # ranks that are listed
ON_DEVICE = ("device", "activations", "fresh")  # of the predicted memory, where the device has its own


def show(found: Sequence[Training], jobs: Sequence[Job], start: Start) -> None:
    """Print it. Nothing is written, and no rank is started."""
    start.ground.check()
    for training, job in zip(found, jobs, strict=True):
        job.warn()
        print(f"# {training.title}: the resolved scenario")
        print(yaml.dump(described(training.scenario)).rstrip())
        print()
        _show_placement(training, job, start)
        _show_prediction(training, job)
    _, line, set_here = start_line(start.arguments, start.threads, start.ground, shrink=start.shrink)
    print("# the command that would start the ranks, with these environment variables")
    for name, value in set_here.items():
        print(f"{name}={shlex.quote(value)}")
    print(shlex.join(line))


def _show_placement(training: Training, job: Job, start: Start) -> None:
    """A line for each rank: its host, worker, device, threads, batch and memory."""
    memory = job.memory(job.problem.phantoms(job.plan).works)["memory_predicted"]
    nodes = list(start.ground.nodes)
    on_this = own_names()[1]
    where = [str(node) for node in nodes] if not start.ground.here else [on_this] * len(nodes)
    table = plain_table(
        *map(right, ("rank", "worker")),
        "host",
        "device",
        *map(right, ("threads", "batch", "device memory", "host memory")),
    )
    taken: Counter[str] = Counter()
    print(f"# {training.title}: the ranks")
    for worker, device in enumerate(job.timing.devices[:MOST]):
        host, kind = where[worker], device.torch_device
        on_device = 0.0
        if kind != "cpu":
            taken[host] += 1
            kind = f"{kind}:{taken[host] - 1}"
            on_device = sum(memory[name][worker] for name in ON_DEVICE)
        nbytes = sum(values[worker] for values in memory.values()) - on_device
        batch = job.plan.shares.batches[worker]
        needs = told_bytes(on_device) if on_device else "", told_bytes(nbytes)
        table.add_row(*map(str, (worker, worker, host, kind, start.threads, batch, *needs)))
    console(width=120).print(table)
    if job.workers > MOST:
        print(f"... {job.workers} in all")
    print()


def _show_prediction(training: Training, job: Job) -> None:
    """The run's predicted time, by a timing-only simulation."""
    print(f"# {training.title}: predicted")
    try:
        recorder = Recorder(None)
        summary = run_simulation(job, recorder, SimulateOptions(timing_only=True)).summary
        print(f"training: {told_seconds(summary['seconds'])}, {summary['rounds']} rounds, {summary['steps']} steps")
        print(f"evaluation: {told_seconds(summary['evaluation_seconds'])}")
        print(f"sent: {told_bytes(max(summary['bytes_per_worker']))} per worker")
    except PacelineError as error:
        print(f"not predicted: {error}")
    if training.resumes:
        saved, _ = checkpoints.whole(training.directory, training.round)
        print(f"of the whole run; it goes on from {saved.name}")
    print()
