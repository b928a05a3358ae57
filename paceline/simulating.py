"""`paceline simulate`: a scenario in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .algorithms.phantom import Phantoms
from .algorithms.rounds import State
from .algorithms.worker import Worker
from .config import bundled
from .config.scenario import Scenario, load
from .job import Job, resolve
from .job_effort import check_simulation
from .looking import Looking, looking, simulated
from .program.errors import ScenarioError
from .program.outcome import Hooks, Outcome, Span
from .progress import progress
from .records import lock
from .records.live import Now
from .records.recorder import Recorder
from .records.replacing import prepare, putting_back, refuse
from .records.spool import TakeSpans
from .records.trace import streamed_trace
from .recovering import check_fewer
from .replicas import check_replicas, fingerprints
from .resuming import going_on
from .run import Run
from .runtime.ranks import cores
from .simulated_parts import SimulatedParts
from .terminal import warn
from .tracking import callbacks_of

ENGINES = ("auto", "cohort", "simpy")


@dataclass(frozen=True)
class SimulateOptions:
    """How to simulate."""

    timing_only: bool = False  # the clock without the numbers
    engine: str = "auto"  # one of ENGINES
    debug: bool = False  # check that no program writes to a borrowed value
    limit: float | None = None  # virtual seconds by which the run must be over
    threads: int = 1  # that may draw a long run's noise

    def check(self, job: Job) -> None:
        """ScenarioError where the engine is unknown or cannot simulate this job."""
        if self.engine not in ENGINES:
            raise ScenarioError(f"--engine {self.engine}: write {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
        if self.engine != "cohort":
            return
        if reason := self.needs_simpy(job):
            raise ScenarioError(f"--engine cohort {reason}, or write --engine simpy")
        from .sim.cohort_meetings import NeedsEvents

        if reason := _needs_events(job):
            raise NeedsEvents(reason)

    def needs_simpy(self, job: Job) -> str:
        """Why the cohort engine cannot do what is asked for, as "does X; do Y instead"; empty where it can."""
        if not self.timing_only:
            return "computes no numbers; add --timing-only"
        if self.debug:
            return "follows no single worker's values; leave out --debug"
        if job.scenario.report.trace:
            return "writes no trace; add --set report.trace=false"
        if self.limit is not None:
            return "has no clock that all workers share, which could pass a limit; leave out --limit"
        return ""


def simulate(
    scenario: str | Path | Scenario,
    *,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    timing_only: bool = False,
    engine: str = "auto",
    force: bool = False,
    debug: bool = False,
    quiet: bool = True,
    limit: float | None = None,
    callbacks: Sequence[Any] = (),
) -> Run:
    """Simulate a scenario in virtual time.

    scenario: a file, the name of one that comes with Paceline, or a Scenario.
    settings: overrides such as "budget.epochs=5", of a file.
    out: the run directory; without one, nothing is written.
    timing_only: the clock without the numbers. It loads torch only to count what a model without a table costs.
    engine: "simpy" simulates every event of every worker. "cohort" runs one program for all workers that do the same
        work, timing-only, and refuses what it cannot do. "auto" takes cohort where it can and simpy elsewhere. The
        clocks are equal.
    force: replace a run that is already in `out`.
    debug: check that no program writes to a borrowed value.
    quiet: show no progress.
    limit: virtual seconds, evaluation included, within which the run must end.
    callbacks: in addition to the scenario's: objects of `paceline.Callback`, or what a scenario writes for one.

    Raises ScenarioError, and ProtocolError or WorkerLost where the run cannot finish.
    """
    if isinstance(settings, str):
        raise ScenarioError(f"settings is {settings!r}; write a list, like settings=[{settings!r}]")
    path, described = None, scenario
    if not isinstance(described, Scenario):
        path = bundled.find(described)
        described = load(path, settings)
    title, folder = ("scenario", Path()) if path is None else (path.stem, path.parent)
    job = resolve(described, folder)
    options = SimulateOptions(timing_only, engine, debug, limit, cores())
    options.check(job)
    job.warn()
    directory = Path(out) if out is not None else None
    told = callbacks_of(job.scenario, directory, callbacks, title)
    if directory is not None:
        refuse(directory, force, [path] if path else [])
    with progress(f"simulate {title}", job.plan.budget, quiet) as shown:
        kept = job.scenario.checkpoint.optimizer
        recorder = Recorder(directory, shown.line, kept, tell=warn, callbacks=told)
        run = run_simulation(job, recorder, options, warn, None if quiet else shown.now)
    job.warn()  # new warnings, found when workers were built
    run.label = title if directory is None else ""
    return run


def run_simulation(
    job: Job,
    recorder: Recorder,
    options: SimulateOptions,
    tell: Callable[[str], None] = lambda line: None,
    see: Callable[[Now], None] | None = None,
) -> Run:
    """Simulate a resolved scenario and record it.

    tell: called with a line where the simulation will take long.
    see: called some times a second, from another thread, with where the run is.

    An earlier run in the recorder's directory is set aside once nothing can refuse this one. Raises ProtocolError where
    the run trains for less than a round, ScenarioError where it is more than this machine can do.
    """
    if job.scenario.recovery.shrink and job.scenario.faults:
        check_fewer(job)
    engine = options.engine
    if engine == "auto":
        engine = "simpy" if options.needs_simpy(job) else "cohort or simpy"
    phantoms = job.problem.phantoms(job.plan)
    by_event = engine == "simpy" or bool(_needs_events(job))
    check(job, phantoms, options.timing_only, by_event, recorder.directory is None, tell)
    workers: Sequence[Worker] | None = None
    if not options.timing_only:
        job.problem.load_libraries(job.plan)
        workers = job.problem.workers(job.plan, range(job.workers), shared_process=True)
    directory, sharded = recorder.directory, job.plan.strategy.placement.sharded
    if directory is not None and not options.timing_only:
        recorder.tell = tell
    with _written_to(directory, tell), looking(directory) as looks:
        looks.tell = see
        with _traced(job, directory) as (take, lanes), going_on(job.scenario, directory):
            parts = SimulatedParts(job, phantoms, workers, recorder, take, options.debug, options.limit, looks)
            recorder.scenario(parts.document())
            parts.tracking.begin(job.plan, State())
            with closing(parts.tracking):
                ran, outcomes = _run(engine, job, phantoms, parts, recorder, options.threads, looks)
        extra = parts.job.memory(parts.phantoms.works)
        if parts.resumed:
            extra["resumed_at_round"] = parts.resumed
        digests = [] if options.timing_only else [w.digest() for w in parts.workers]
        if digests:
            extra |= fingerprints(digests, sharded)
        extra |= {"timing_only": options.timing_only, "finished": True} | parts.job.by_class(outcomes)
        summary = recorder.finish(ran, outcomes, parts.job.plan.epochs(outcomes[0].result), extra)
        if not sharded:
            check_replicas(digests, directory)
    run = Run(summary, recorder.lines, parts.document(), directory)
    if lanes is not None:
        run.lanes = lanes
    return run


@contextmanager
def _traced(job: Job, directory: Path | None) -> Iterator[tuple[TakeSpans | None, list[dict[str, list[Span]]] | None]]:
    """(what takes the run's spans, where they are collected if there is no directory); None where they are not."""
    if not job.scenario.report.trace:
        yield None, None
    elif directory is not None:
        with streamed_trace(directory, job.workers) as take:
            yield take, None
    else:
        lanes: list[dict[str, list[Span]]] = [{} for _ in range(job.workers)]
        yield lambda worker, lane, spans: lanes[worker].setdefault(lane, []).extend(spans), lanes


@contextmanager
def _written_to(directory: Path | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Around a run that is written to a directory, which is then held and ready; nothing without one."""
    if directory is None:
        yield
        return
    with lock.held(directory, tell):
        prepare(directory, force=True)
        with putting_back(directory):
            yield


def check(
    job: Job,
    phantoms: Phantoms,
    timing_only: bool,
    by_event: bool,
    in_memory: bool,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """ScenarioError where the job cannot be simulated, or is more than this machine can do.

    by_event, in_memory: as of check_simulation.
    tell: called with a line where the simulation will take long.
    """
    from .sim.engine import check_cluster

    if line := check_simulation(job, phantoms, timing_only, by_event, in_memory):
        tell(line)
    check_cluster(job.timing, 4 * job.problem.cost.parameters)


def _needs_events(job: Job) -> str:
    """What in the cluster the cohort engine cannot simulate; empty where there is nothing."""
    from .sim.cohort import events_needed

    return events_needed(job.timing)


def _run(
    engine: str,
    job: Job,
    phantoms: Phantoms,
    parts: SimulatedParts,
    recorder: Recorder,
    threads: int,
    looks: Looking,
) -> tuple[str, list[Outcome]]:
    """(the engine that ran, outcomes). "cohort or simpy" takes simpy where cohort finds that it cannot go on."""
    if engine != "simpy":
        from .sim.cohort import simulate as run_cohorts
        from .sim.cohort_meetings import NeedsEvents

        hooks = Hooks(recorder.log, round=parts.tracking.hook)
        try:
            cohorts = job.cohorts(phantoms)
            looks.begin(simulated(job, (), recorder))
            return "cohort", run_cohorts(cohorts, job.timing, hooks, threads)
        except NeedsEvents:
            if engine == "cohort":
                raise
    return "simpy", parts.run()
