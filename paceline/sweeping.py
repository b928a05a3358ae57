"""`paceline sweep`: a scenario simulated at many points, in parallel, into one table.

The points are simulated in processes of this machine. Under mpirun rank 0 hands them to the other ranks.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import signal
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import bundled
from .config.scenario import Scenario, assign, read, validate
from .config.sections import described
from .effort import check_sweep
from .folders import find
from .job import Job, resolve
from .printing import show_sweep
from .processes import on_ranks, process_pool
from .program.errors import ScenarioError
from .progress import counting
from .records.directory import to_json
from .records.environment import installed
from .records.recorder import Recorder
from .runtime.launcher import STOP_SIGNALS, under_mpirun
from .runtime.ranks import cores
from .runtime.tracebacks import TRACEBACK, where
from .simulating import SimulateOptions, run_simulation
from .simulating_together import Prepared, kind_of, most_together, prepared, simulate_together
from .studies.points import Point, cell, check_points, cross, keys_of, read_list
from .studies.sweep import in_a_line, run
from .studies.table import SweepTable
from .terminal import say, warn
from .tracking import callbacks_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Simulator:
    """Simulates a scenario at a point. It is pickled for the processes that simulate."""

    document: dict[str, Any]  # the scenario, to which the point's values are written
    where: str  # names the document in errors
    folder: Path  # where the document lies
    options: SimulateOptions = SimulateOptions(timing_only=True)
    runs: Path | None = None  # a folder for run directories, if they are wanted
    callbacks: bool = False  # whether the scenario's are told of each point
    traceback: bool = field(default_factory=TRACEBACK.get)  # of a point that fails, on standard error
    _latest: Job | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._pickled = pickle.dumps(self.document)

    def prepare(self, point: Point) -> Prepared:
        """The point's scenario. Raises ScenarioError, or what a user's own model raises."""
        with self._tracebacks():
            return prepared(self.resolve(point), point)

    def kind(self, one: Prepared) -> Hashable:
        return None if self.runs is not None or self.callbacks else kind_of(one, self.options)

    def most(self, one: Prepared) -> int:
        return most_together(one)

    def together(self, several: Sequence[Prepared]) -> list[Mapping[str, Any]]:
        summaries = simulate_together(several)
        return [summary | _remarks(one) for one, summary in zip(several, summaries, strict=True)]

    def alone(self, one: Prepared) -> dict[str, Any]:
        """The summary of a point. Raises ScenarioError, ProtocolError, or what a user's own model raises."""
        with self._tracebacks():
            directory = None if self.runs is None else self.runs / directory_of(one.point)
            told = callbacks_of(one.job.scenario, directory) if self.callbacks else None
            recorder = Recorder(directory, kept=one.job.scenario.checkpoint.optimizer, callbacks=told)
            summary = run_simulation(one.job, recorder, self.options).summary
            return summary | {"run": directory and str(directory)} | _remarks(one)

    @contextmanager
    def _tracebacks(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.traceback:
                print(where(error), file=sys.stderr)
            raise

    def resolve(self, point: Point) -> Job:
        """The job of a point. It is kept, since the next point can use parts of it."""
        document = pickle.loads(self._pickled)  # a copy that takes a fifth of deepcopy's time
        for key, value in point.items():
            assign(document, key, copy.deepcopy(value), key)
        scenario = validate(document, self.where)
        if self.runs is None and scenario.report.trace:  # recording spans takes time, and they would be lost
            report = scenario.report.model_copy(update={"trace": False})
            scenario = scenario.model_copy(update={"report": report})
        job = resolve(scenario, self.folder, self._latest)
        self.options.check(job)
        self._latest = job
        return job

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None}  # each process resolves its own

    def check(self, points: Iterable[Point], keys: Iterable[str]) -> None:
        """ScenarioError for a key that is not set in any point that can be resolved."""
        unproven, errors = set(keys), dict[str, Exception]()
        for point in points:
            if not unproven:
                return
            if unproven.isdisjoint(point):
                continue
            try:
                self.resolve(point)
                unproven.difference_update(point)
            except Exception as error:  # the sweep itself goes on after any error, too
                errors = dict.fromkeys(point, error) | errors
        for key in keys:
            if key in unproven:
                raise ScenarioError(in_a_line(errors[key])) from errors[key]

    @property
    def base(self) -> str:
        """A hash that distinguishes rows of this scenario, simulated in this way, from others."""
        profile = (self.document.get("cluster") or {}).get("profile")
        found = find(Path(profile), (self.folder, Path())) if isinstance(profile, str) else None
        measured = found.read_text() if found is not None and found.is_file() else ""
        text = to_json([self.document, measured, self.options.timing_only, self.options.engine, installed("paceline")])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _remarks(one: Prepared) -> dict[str, Any]:
    return {"warning": "; ".join(one.job.warnings) or None}


def directory_of(point: Mapping[str, Any]) -> str:
    """The name of a point's run directory: readable, and different for each point."""
    whole = ",".join(f"{key}={cell(value)}" for key, value in point.items())
    short = ",".join(f"{key.rpartition('.')[2]}={cell(value)}" for key, value in point.items())
    readable = re.sub(r"[^\w.,=+-]+", "_", short, flags=re.ASCII)[:80]
    return f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def sweep(
    scenario: str | Path | Scenario,
    grid: Mapping[str, Sequence[Any]] | None = None,
    points: str | Path | Sequence[Point] | None = None,
    *,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    full: bool = False,
    engine: str = "auto",
    jobs: int | None = None,
    runs: str | Path | None = None,
    callbacks: bool = False,
    retry: bool = False,
    force: bool = False,
    quiet: bool = True,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Simulate a scenario at every combination of the grid's values and the listed points; returns a row per point.

    scenario: a file, the name of one that comes with Paceline, or a Scenario.
    settings: overrides such as "budget.epochs=5", of a file.
    grid: {"cluster.network.latency": ["1 us", "10 us"], ...}.
    points: [{"workload.batch": 32, ...}, ...], or a CSV or YAML file of them.
    out: the table's file (.csv, .json or .parquet). Points that are already in it are not run again.
    full: train as well, instead of predicting the clock alone.
    engine: as in `simulate`.
    jobs: the number of processes; one per core by default.
    runs: a folder for the points' run directories.
    callbacks: tell the scenario's callbacks of each point; by default they are not told.
    retry: run points again whose row holds an error. force: begin the table again. quiet: show no progress.
    executor: simulates the points instead of processes of this machine, `jobs` at a time; for example an executor of
        mpi4py.futures.

    Raises ScenarioError where a key is wrong, before anything runs. A point that fails has a row with its error. In a
    script with more than one job, call this under `if __name__ == "__main__":`.
    """
    if isinstance(scenario, Scenario):
        document, where, folder = described(scenario), "scenario", Path()
    else:
        path = bundled.find(scenario)
        document, where, folder = read(path, settings), path.name, path.parent
    options, kept = SimulateOptions(not full, engine), None if runs is None else Path(runs)
    simulator = Simulator(document, where, folder, options, kept, callbacks)
    listed = _points(points)
    if line := check_sweep(grid or {}, listed, jobs or cores()):
        warn(line)
    found = cross(grid or {}, listed)
    keys = keys_of(found)
    simulator.check(found, keys)
    table = SweepTable(Path(out) if out is not None else None, found, keys, simulator.base, force)
    missing = table.missing(retry)
    bar = False if under_mpirun() else None  # Open MPI's ranks have terminals, wherever their output goes
    with counting(f"sweep {Path(where).stem}", len(found), quiet, bar) as show:
        show(table.done, table.failed)
        processes = min(jobs or cores(), len(missing))
        with process_pool(processes) if executor is None else nullcontext(executor) as pool:
            run(missing, simulator, pool, table, processes=processes, tell=lambda: show(table.done, table.failed))
    return table.frame()


def _points(points: str | Path | Sequence[Point] | None) -> list[Point]:
    if points is None:
        return []
    return read_list(bundled.find(points)) if isinstance(points, str | Path) else check_points(points, "points")


def command(
    scenario: Path, grid: Mapping[str, Sequence[Any]], out: Path, jobs: int | None, quiet: bool, **options: Any
) -> None:
    """The command `paceline sweep`. options: as for `sweep`."""

    def drive(pool: Executor | None, processes: int | None) -> None:
        for number in {signal.SIGTERM, *(STOP_SIGNALS if under_mpirun() else ())}:
            signal.signal(number, signal.default_int_handler)
        try:
            table = sweep(scenario, grid, out=out, jobs=processes, executor=pool, quiet=quiet, **options)
        except KeyboardInterrupt:
            say(f"stopped; the finished rows are in {out}, and the same command goes on" if out.exists() else "stopped")
            raise SystemExit(130) from None
        if not quiet:
            show_sweep(table, out)

    if under_mpirun():
        on_ranks(drive)
    else:
        drive(None, jobs)
