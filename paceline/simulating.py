"""`paceline simulate`: a scenario in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .algorithms.errors import ScenarioError
from .algorithms.plan import State
from .algorithms.worker import Worker
from .analysis.run import Run
from .config.scenario import Scenario, load
from .progress import progress
from .records.directory import prepare
from .records.outcome import Hooks
from .records.recorder import Recorder
from .wiring import Job, resolve


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
) -> Run:
    """Simulate a scenario in SimPy's virtual time.

    settings: overrides such as "budget.epochs=5". out: the run directory, by default none is written. timing_only: the
    clock without the numbers (no torch). debug: check that nobody writes to a borrowed value. Raises ScenarioError and
    ProtocolError.
    """
    if isinstance(settings, str):
        raise ScenarioError(f"settings is {settings!r}; write a list, like settings=[{settings!r}]")
    folder = Path() if isinstance(scenario, Scenario) else Path(scenario).parent
    title = "scenario" if isinstance(scenario, Scenario) else Path(scenario).stem
    job = resolve(scenario if isinstance(scenario, Scenario) else load(scenario, settings), folder)
    if engine not in ("auto", "simpy"):
        raise ScenarioError(f"--engine {engine}: write auto or simpy")
    job.warn()
    directory = prepare(Path(out), force) if out is not None else None
    with progress(f"simulate {title}", job.plan.budget, quiet) as show:
        recorder = Recorder(directory, show, job.scenario.checkpoint.optimizer)
        run = run_simulation(job, recorder, timing_only, debug)
    run.label = title if directory is None else ""
    return run


def run_simulation(job: Job, recorder: Recorder, timing_only: bool = False, debug: bool = False) -> Run:
    """Simulate a resolved scenario and record it."""
    from .sim.engine import simulate as run

    document = job.record()
    workers: Sequence[Worker]
    if timing_only:
        workers = job.problem.phantoms(job.plan)
    else:
        workers = job.problem.workers(job.plan, range(job.workers), shared_process=True)

    recorder.scenario(document)  # only now: building the workers may be refused

    def checkpoint(worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        if not timing_only:
            recorder.checkpoint(worker, job.workers, seconds, state, arrays)

    hooks = Hooks(recorder.log, checkpoint)
    outcomes = run(job.programs(workers, State()), job.timing, hooks, trace=job.scenario.report.trace, debug=debug)
    extra = {} if timing_only else job.problem.fingerprints(workers)
    summary = recorder.finish("simpy", outcomes, {"timing_only": timing_only, "finished": True} | extra)
    lanes = [outcome.lanes for outcome in outcomes] if job.scenario.report.trace else []
    return Run(summary, recorder.lines, document, recorder.directory, lanes=lanes)
