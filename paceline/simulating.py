"""`paceline simulate`: a scenario in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .algorithms.rounds import State
from .algorithms.worker import Worker
from .analysis.run import Run
from .config.scenario import Scenario, load
from .job import Job, resolve
from .job_effort import check_simulation
from .memory_check import record
from .program.errors import ScenarioError
from .program.outcome import Hooks, Outcome
from .progress import progress
from .records.recorder import Recorder
from .records.replacing import prepare, putting_back, refuse
from .records.trace import streamed_trace
from .replicas import check_replicas, fingerprints
from .resuming import going_on, subject
from .terminal import warn

ENGINES = ("auto", "cohort", "simpy")


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
) -> Run:
    """Simulate a scenario in virtual time.

    settings: overrides such as "budget.epochs=5". out: the run directory, by default none is written. timing_only: the
    clock without the numbers (no torch). engine: "simpy" follows every worker's every event; "cohort" runs one program
    for all workers that do the same, timing-only, or refuses; "auto" takes cohort where that can be, simpy elsewhere.
    The clocks are equal. debug: check that nobody writes to a borrowed value. limit: virtual seconds, evaluation
    included, by which it must be over. Raises ScenarioError, and ProtocolError or WorkerLost where it cannot finish.
    """
    if isinstance(settings, str):
        raise ScenarioError(f"settings is {settings!r}; write a list, like settings=[{settings!r}]")
    folder = Path() if isinstance(scenario, Scenario) else Path(scenario).parent
    title = "scenario" if isinstance(scenario, Scenario) else Path(scenario).stem
    job = resolve(scenario if isinstance(scenario, Scenario) else load(scenario, settings), folder)
    check_engine(engine, job, timing_only, debug, limit)
    job.warn()
    directory = Path(out) if out is not None else None
    if directory is not None:
        refuse(directory, force, [] if isinstance(scenario, Scenario) else [Path(scenario)])
    with progress(f"simulate {title}", job.plan.budget, quiet) as show:
        recorder = Recorder(directory, show, job.scenario.checkpoint.optimizer)
        run = run_simulation(job, recorder, timing_only, debug, engine, limit, warn)
    job.warn()  # what was found when workers were built
    run.label = title if directory is None else ""
    return run


def check_engine(engine: str, job: Job, timing_only: bool, debug: bool = False, limit: float | None = None) -> None:
    """ScenarioError unless this is an engine, and one that can be asked."""
    if engine not in ENGINES:
        raise ScenarioError(f"--engine {engine}: write {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
    if engine != "cohort":
        return
    if reason := _needs_simpy(job, timing_only, debug, limit):
        raise ScenarioError(f"--engine cohort {reason}, or write --engine simpy")
    from .sim.cohort_meetings import NeedsEvents

    if reason := needs_events(job):
        raise NeedsEvents(reason)


def needs_events(job: Job) -> str:
    """What of the cluster the cohort engine cannot do; empty where there is nothing."""
    from .sim.cohort import events_needed

    return events_needed(job.timing)


def run_simulation(
    job: Job,
    recorder: Recorder,
    timing_only: bool = False,
    debug: bool = False,
    engine: str = "auto",
    limit: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Run:
    """Simulate a resolved scenario and record it. tell: takes a line where it will take minutes. ProtocolError where it
    trains not a single round, ScenarioError where it is more than this machine can do.

    An earlier run in the recorder's directory is set aside once nothing can refuse this one.
    """
    if engine == "auto":
        engine = "simpy" if _needs_simpy(job, timing_only, debug, limit) else "cohort or simpy"
    phantoms = job.problem.phantoms(job.plan)
    if line := check_simulation(job, phantoms, timing_only, by_event=engine == "simpy" or bool(needs_events(job))):
        tell(line)
    workers: Sequence[Worker] = phantoms
    if not timing_only:
        workers = job.problem.workers(job.plan, range(job.workers), shared_process=True)
    from .sim.engine import check_cluster

    check_cluster(job.timing, 4 * job.problem.cost.parameters)
    directory, traced, sharded = recorder.directory, job.scenario.report.trace, job.plan.strategy.placement.sharded
    document = job.record(directory, [job.part()] if directory is not None else ())
    if directory is not None:
        recorder.subject = subject(job.scenario, job.plan.shares.batches)
        prepare(directory, force=True)

    def checkpoint(worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        if not timing_only:
            recorder.checkpoint(worker, job.workers, seconds, state, arrays)

    with putting_back(directory):
        recorder.scenario(document)
        with streamed_trace(directory if traced else None, job.workers) as spans, going_on(job.scenario, directory):
            ran, outcomes = _run(engine, job, workers, Hooks(recorder.log, checkpoint, spans=spans), debug, limit)
        extra: dict[str, Any] = {"memory_predicted": record([w.works for w in workers], job.problem)}
        digests = [w.digest() for w in workers]
        if not timing_only:
            extra |= fingerprints(digests, sharded)
        summary = recorder.finish(ran, outcomes, {"timing_only": timing_only, "finished": True} | extra)
        if not sharded:
            check_replicas(digests, directory)
    run = Run(summary, recorder.lines, document, directory)
    if directory is None and traced:
        run.lanes = [outcome.lanes for outcome in outcomes]
    return run


def _needs_simpy(job: Job, timing_only: bool, debug: bool, limit: float | None) -> str:
    """Why the cohort engine cannot be asked at all, as "does X; do Y instead"; empty where it can."""
    if not timing_only:
        return "computes no numbers; add --timing-only"
    if debug:
        return "follows no single worker's values; leave out --debug"
    if job.scenario.report.trace:
        return "writes no trace; add --set report.trace=false"
    if limit is not None:
        return "has no clock that all share, which could pass a limit; leave out --limit"
    return ""


def _run(
    engine: str, job: Job, workers: Sequence[Any], hooks: Hooks, debug: bool, limit: float | None
) -> tuple[str, list[Outcome]]:
    """(the engine that ran, outcomes). "cohort or simpy" falls back where cohort finds on its way that it cannot."""
    if engine != "simpy":
        from .sim.cohort import simulate as run_cohorts
        from .sim.cohort_meetings import NeedsEvents

        try:
            return "cohort", run_cohorts(job.cohorts(workers), job.timing, hooks)
        except NeedsEvents:
            if engine == "cohort":
                raise
    from .sim.engine import simulate as run

    programs = job.programs(workers, State())
    return "simpy", run(programs, job.timing, hooks, trace=job.scenario.report.trace, debug=debug, limit=limit)
