"""`paceline batch-sizes`: the largest batch that each worker's memory holds, and how HDP divides the work.

Rule: a size fits if a real step of that size has left a tenth of its peak free. The ranks of a node take turns, since
they share its memory. Ranks that share a GPU share its memory in equal parts.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, get_args

from .algorithms.aggregations import Gradients
from .algorithms.balance import largest_fitting
from .algorithms.learning_rates import Constant
from .algorithms.plan import Plan
from .algorithms.rounds import Interval, State
from .algorithms.splits import ByBatch, Mode, Shares
from .algorithms.strategy import Strategy
from .config.catalogue import catalogue
from .config.machines import WorkerGroup
from .config.profile import Profile, add_to_profile, merge_profiles, workload_key
from .config.scenario import Scenario, load
from .config.units import read_bytes
from .folders import find, folders_of
from .job import Job
from .learning_problem import LearningProblem
from .profile_document import mean_tables
from .profiling import check_profile_path, job_to_measure
from .program.effects import Program
from .program.errors import ScenarioError, one_line
from .program.outcome import Hooks
from .records.environment import environment
from .scenario_plan import strategy_of
from .speeds import profile_of, timing_of
from .terminal import console
from .trials import Bench, run_trial, trials

if TYPE_CHECKING:
    from .algorithms.worker import Worker
    from .config.timing import Timing

STEPS = 20  # in each of the short trainings that measure step times
ROWS = 16  # in the table on the terminal


@dataclass(frozen=True)
class BatchSizeOptions:
    """The options of the command, as the user writes them."""

    out: Path  # the profile to write
    mode: str | None = None  # the division to show; None shows all
    memory: str | None = None  # of each worker
    settings: tuple[str, ...] = ()  # of the scenario

    @property
    def budget(self) -> float | None:
        """`memory` in bytes."""
        try:
            return None if self.memory is None else read_bytes(self.memory)
        except ValueError as error:
            raise ScenarioError(f"--memory {error}") from None

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The divisions to show."""
        if self.mode is not None and self.mode not in get_args(Mode):
            raise ScenarioError(f"--mode {one_line(self.mode, 60)}: write {', '.join(get_args(Mode))}")
        return tuple(mode for mode in get_args(Mode) if self.mode in (None, mode))


def batch_sizes(scenario: Path, options: BatchSizeOptions, ranks: int | None) -> None:
    """Measure, write the profile and show the table. Starts mpirun itself, or runs under one.

    Step times are measured at the sizes that are found, unless the scenario or its profile knows them.
    """
    from .runtime.launcher import abort_on_error, launch, under_mpirun

    described = load(scenario, options.settings)
    if under_mpirun():
        with abort_on_error():
            _check(described, scenario.parent, options)
            _measure(described, scenario.parent, options)
        return
    _check(described, scenario.parent, options)
    size = ranks or described.cluster.size
    job_to_measure(described, scenario.parent, size)
    for group in _groups(described, size):
        _budget(group, options)
    arguments = ["batch-sizes", str(scenario), f"--out={options.out}"]
    given = {"mode": options.mode, "memory": options.memory}
    arguments += [f"--{name}={value}" for name, value in given.items() if value is not None]
    arguments += [f"--set={setting}" for setting in options.settings]
    status = launch(arguments, size, described.workload.threads, rounds=False)
    if status:
        raise SystemExit(status)


def _check(scenario: Scenario, folder: Path, options: BatchSizeOptions) -> None:
    """ScenarioError for mistakes that would otherwise be found after the measurement."""
    _ = options.modes, _profile(scenario, folder)
    strategy_of(scenario, folder)
    check_profile_path(options.out)


def _groups(scenario: Scenario, ranks: int) -> list[WorkerGroup]:
    """For each rank, the group whose device it measures. ScenarioError where a device would be left out."""
    groups = [place.group for place in scenario.cluster.places]
    measured, needed = {group.device for group in groups[:ranks]}, 0
    for place, group in enumerate(groups):
        if group.device not in {g.device for g in groups[:place]}:
            needed = place + 1
    if needed > ranks:
        missing = next(group.device for group in groups if group.device not in measured)
        raise ScenarioError(f"{ranks} ranks do not measure {missing}; start {needed} or more, with -n or mpirun -np")
    return groups[:ranks] + [groups[-1]] * (ranks - len(groups))


def _budget(group: WorkerGroup, options: BatchSizeOptions) -> float:
    """Bytes that a step may hold on this device. Without a statement, a GPU's free memory is the limit."""
    known = catalogue().devices.get(group.device)
    said = options.budget or group.memory or (known.memory if known else None)
    if said is None and group.torch_device == "cpu":
        raise ScenarioError(
            f"how much memory may {group.device} use? write --memory, like --memory '4 GiB', or memory in "
            "cluster.workers"
        )
    return said or float("inf")


def _measure(scenario: Scenario, folder: Path, options: BatchSizeOptions) -> None:
    from mpi4py import MPI

    from .runtime.messages import every_text, gather_texts

    comm = MPI.COMM_WORLD
    rank, size = comm.Get_rank(), comm.Get_size()
    group = _groups(scenario, size)[rank]
    job = job_to_measure(scenario, folder, size)
    device, budget = job.problem.device(rank), _budget(group, options)
    largest, peak = _in_turns(comm, device, lambda sharing: _largest(scenario, job, group, budget, rank, sharing))
    own: dict[str, Any] = {"device": group.device, "largest": largest, "peak": peak}
    every = [json.loads(text) for text in every_text(comm, json.dumps(own))]
    bounds = {e["device"]: min(o["largest"] for o in every if o["device"] == e["device"]) for e in every}
    peaks = {e["device"]: max(o["peak"] for o in every if o["device"] == e["device"]) for e in every}
    key = workload_key(scenario.workload)
    before = _profile(scenario, folder)
    known = _known(scenario, before, job.problem)
    if not known:
        own["tables"] = _times(job, comm, [bounds[e["device"]] for e in every])
    gathered = [json.loads(text) for text in gather_texts(comm, json.dumps(own))]
    if rank > 0:
        return
    tables = {} if known else mean_tables(gathered)
    new = Profile.model_validate(
        {
            "machine": environment(scenario.workload.threads) | {"ranks": size},
            "devices": {device: {key: table} for device, table in tables.items()},
            "max_batch": {device: {key: most} for device, most in bounds.items()},
        }
    )
    add_to_profile(options.out, new)
    timing = timing_of(scenario, merge_profiles(before, new), job.problem)
    _show(scenario, timing, peaks, options)


def _in_turns(comm: Any, device: str, action: Any) -> Any:
    """The result of `action(number of ranks on this node with this device)`. The ranks of a node take turns."""
    from mpi4py import MPI

    from .learning import memory_meter
    from .runtime.messages import every_text

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    sharing = every_text(node, device).count(device)
    result = None
    for turn in range(node.Get_size()):
        if turn == node.Get_rank():
            result = action(sharing)
            memory_meter.release()  # for the next rank, which may have the same GPU
        node.Barrier()
    node.Free()
    return result


def _largest(
    scenario: Scenario, job: Job, group: WorkerGroup, budget: float, rank: int, sharing: int
) -> tuple[int, float]:
    """(the largest batch that fits on this rank's device, the most bytes that its step holds)."""
    from mpi4py import MPI

    from .learning import memory_meter
    from .runtime.engine import run

    device = job.problem.device(rank)
    budget = min(budget, memory_meter.free(device, sharing))
    strategy = Strategy(aggregation=Gradients(), placement=strategy_of(scenario, job.problem.folder).placement)
    gauge = memory_meter.of(device)
    with gauge:
        # At least two micro-batches, so that their gradients are added.
        first = _plan(job, strategy, 2 * (scenario.workload.micro_batch or 1))
        (worker,) = job.problem.workers(first, [0], shared_process=False, seat=rank)
    peaks: dict[int, float] = {}

    def step(size: int) -> None:
        silent, plan = Hooks(), _plan(job, strategy, size)
        worker.works = job.problem.phantoms(plan)[0].works  # the number of micro-batches follows from the size
        run(_two_steps(worker, plan), silent, comm=MPI.COMM_SELF)

    def fits(size: int) -> bool:
        try:
            found = memory_meter.fits(lambda: step(size), gauge, budget)
        except Exception as error:  # whatever a user's model does
            raise ScenarioError(f"workload: a training step of {size} examples fails: {error}") from error
        peaks[size] = gauge.peak
        worker.forget()
        gc.collect()  # errors of the step's threads and their frames hold one another, and with them the step's memory
        return found

    largest = largest_fitting(fits, job.plan.examples)
    if not largest:
        raise ScenarioError(
            f"a batch of 1 does not fit on {group.device}: its step needs {memory_meter.MARGIN:g} times "
            f"{peaks[1] / 1e6:.4g} MB or more, and may use {budget / 1e6:.4g} MB; give it more memory, or a "
            "smaller model"
        )
    return largest, peaks[largest]


def _plan(job: Job, strategy: Strategy, size: int) -> Plan:
    """A plan for one worker and two steps: the second step runs with the memory that the first one left behind."""
    return Plan(strategy, Shares((size,), (1.0,)), Constant(1e-6), job.plan.examples, Interval(2, "steps"))


def _two_steps(worker: Worker, plan: Plan) -> Program[None]:
    """The plan's steps, without evaluation."""
    state = State()
    while not plan.finished(state):
        round = plan.next_round(state)
        loss = yield from plan.strategy.aggregation.round(worker, plan.strategy.placement, round)
        state.after(round, loss)


def _profile(scenario: Scenario, folder: Path) -> Profile | None:
    """The scenario's profile, if the file exists yet."""
    path = None if scenario.recorded else scenario.cluster.profile
    return None if path and not find(path, folders_of(scenario, folder)).exists() else profile_of(scenario, folder)


def _known(scenario: Scenario, profile: Profile | None, problem: LearningProblem) -> bool:
    """Whether the scenario or its profile says how fast the cluster is."""
    try:
        timing_of(scenario, profile, problem)
    except ScenarioError:
        return False
    return True


def _times(job: Job, comm: Any, largest: list[int]) -> dict[str, dict[int, float]]:
    """phase -> {samples: seconds} on this rank, for an eighth, a quarter, a half and all of its largest batch."""
    tables, bench, measured = dict[str, dict[int, float]](), Bench(job, comm), trials(1, 1)
    for part in (8, 4, 2, 1):
        shares = Shares(tuple(max(1, most // part) for most in largest), (1.0,) * job.workers)
        for name in ("local", "flat"):
            for piece, taken in run_trial(bench, measured[name], shares, STEPS).times.items():
                if piece.lane == "compute" and not piece.first:
                    tables.setdefault(piece.name, {})[piece.samples] = mean(taken)
    return tables


def _show(scenario: Scenario, timing: Timing, peaks: dict[str, float], options: BatchSizeOptions) -> None:
    from .printing import plain_table, right

    divisions = list(_divisions(scenario, timing, options))
    modes = [mode for mode, _, _ in divisions]
    table = plain_table(right("worker"), "device", *map(right, ("largest", "peak", *modes)))
    for worker, device in enumerate(timing.devices[:ROWS]):
        peak = f"{peaks[device.name] / 1e6:.4g} MB"
        sizes = [str(batches[worker]) for _, batches, _ in divisions]
        table.add_row(str(worker), one_line(device.name, 60), str(device.max_batch), peak, *sizes)
    shown = console()
    shown.print(table)
    if len(timing.devices) > ROWS:
        shown.print(f"... and {len(timing.devices) - ROWS} more workers")
    for mode, batches, seconds in divisions:
        took = f"{sum(batches)} samples in {seconds * 1e3:.3f} ms, {sum(batches) / seconds:.0f} samples/s"
        shown.print(f"{mode}: {took}")
    shown.print(one_line(f"largest batches written to {options.out}; scenarios read them as cluster.profile"))


def _divisions(
    scenario: Scenario, timing: Timing, options: BatchSizeOptions
) -> Iterator[tuple[Mode, tuple[int, ...], float]]:
    """(mode, batches, seconds of the slowest worker's step)."""
    for mode in options.modes:
        batches = ByBatch(mode).shares(scenario.batch, timing.devices).batches
        seconds = (d.step_seconds(b) for d, b in zip(timing.devices, batches, strict=True))
        yield mode, batches, max(seconds)
