"""`paceline train`: which scenarios are trained, into which directories, and what would keep them from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .config.scenario import Scenario, load
from .disk_check import check_room
from .job import Job, resolve
from .job_effort import check_training
from .program.errors import ScenarioError
from .real_faults import check_real
from .records import checkpoints
from .records.directory import SCENARIO
from .records.lock import check_free
from .records.replacing import refuse
from .recovering import check_fewer, fewer
from .rehearsal import rehearse
from .restart import Restart
from .resuming import resumption
from .speeds import profile_of
from .tracking import callbacks_of


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The names are those of the command's options."""

    settings: tuple[str, ...] = ()  # overrides of the scenario, like "budget.epochs=5"
    out: Path | None = None  # the run's directory; for several scenarios, a folder of such directories
    force: bool = False  # replace earlier runs
    debug: bool = False  # check that no program writes to a borrowed value
    resume: Path | None = None  # the directory of a run to resume
    round: int | None = None  # resume from the checkpoint of this round; None: from the newest whole one
    bar: bool = False  # draw a progress bar
    change: bool = False  # resume with another seed, model, data or batch
    without: tuple[int, ...] = ()  # resume without these workers
    restart: Restart | None = None  # for ranks that are started again after a lost worker


@dataclass(frozen=True, eq=False)
class Training:
    """One scenario to train."""

    title: str
    scenario: Scenario
    path: Path  # the scenario's file
    directory: Path  # of the run
    resumes: bool = False  # whether it goes on from a checkpoint
    round: int | None = None  # which is the one of this round; None: the newest whole one
    without: tuple[int, ...] = ()  # the workers that wrote it and are left out, by their numbers then
    restart: Restart | None = None  # after a lost worker


def trainings(scenarios: Sequence[Path], options: TrainOptions) -> list[Training]:
    """The trainings that are still to be done. ScenarioError where a file is wrong, or no run is there to resume."""
    found, restart = _asked_for(scenarios, options), options.restart
    return found if restart is None else again(found, restart)


def again(found: Sequence[Training], restart: Restart) -> list[Training]:
    """What is left of some trainings after a lost worker.

    The run's own scenario tells which workers are left, since others may have gone on without some of them.
    """
    first, *later = found[restart.training :]
    if restart.begun:
        path = first.directory / SCENARIO
        first = replace(first, scenario=load(path), path=path, resumes=restart.saved, without=())
    if restart.gone:
        profile = profile_of(first.scenario, first.path.parent)
        left = fewer(first.scenario, profile, restart.gone)
        first = replace(first, scenario=left, without=tuple(restart.gone) if first.resumes else ())
    return [replace(first, restart=restart), *later]


def _asked_for(scenarios: Sequence[Path], options: TrainOptions) -> list[Training]:
    if options.resume is not None:
        if scenarios:
            raise ScenarioError("--resume trains the scenario in its directory; do not name another")
        path = options.resume / SCENARIO
        if not path.exists() or checkpoints.newest(options.resume) is None:
            raise ScenarioError(f"--resume {options.resume}: there is no checkpoint of a run in it")
        scenario = load(path, options.settings)
        if options.without:
            scenario = fewer(scenario, profile_of(scenario, options.resume), options.without)
        if scenario.train.phantom:
            raise ScenarioError("--resume and --phantom exclude one another: phantoms have nothing to go on from")
        return [Training(options.resume.name, scenario, path, options.resume, True, options.round, options.without)]
    belonging = {"--change": options.change, "--round": options.round is not None, "--without": bool(options.without)}
    for name, given in belonging.items():
        if given:
            raise ScenarioError(f"{name} belongs to --resume; write --resume DIR as well")
    if not scenarios:
        raise ScenarioError("name a scenario file, or --resume DIR")
    names = [path.stem for path in scenarios]
    found = []
    for number, path in enumerate(scenarios):
        name = path.stem if names.count(path.stem) == 1 else f"{path.stem}-{number + 1}"
        if options.out is None:
            directory = Path("runs") / f"{name}-trained"
        else:
            directory = options.out if len(scenarios) == 1 else options.out / name
        found.append(Training(name, load(path, options.settings), path, directory))
    return found


def check(found: Sequence[Training], options: TrainOptions) -> list[Job]:
    """Raise errors in this one process that would otherwise end a started mpirun: wrong files, directories in use.

    Returns the job of each training.
    """
    jobs = list[Job]()
    for training in found:
        job = resolve(training.scenario, training.path.parent)
        callbacks_of(training.scenario, training.directory)  # whether they can be made
        check_fewer(job)
        check_real(training.title, training.scenario, job.timing)
        if training.scenario.recovery.respawn and training.scenario.train.phantom:
            raise ScenarioError(
                f"{training.title}: recovery.respawn goes on from a checkpoint, and --phantom writes none; "
                "write --set recovery.respawn=false"
            )
        if not training.scenario.train.phantom:
            check_training(job)
            there = len(checkpoints.finished(training.directory)) if training.resumes else 0
            check_room(training.directory, job, there)
        rehearse(job)
        check_free(training.directory)
        if not training.resumes:
            if not training.scenario.train.phantom:
                job.problem.check_initial()
            refuse(training.directory, options.force, [training.path])
        else:
            saved, _ = checkpoints.whole(training.directory, training.round)
            resumption(saved, job, options.change, training.without)
        jobs.append(job)
    return jobs
