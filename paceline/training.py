"""`paceline train`: scenarios trained for real. This starts mpirun, under which every rank runs training_rank.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config.scenario import Scenario, load, train_settings
from .disk_check import check_room
from .emulated_network import star_for
from .job import resolve
from .job_effort import check_training
from .program.errors import ScenarioError
from .records import checkpoints
from .records.directory import SCENARIO
from .records.lock import check_free
from .records.replacing import put_back, refuse
from .recovering import check_fewer, fewer
from .rehearsal import rehearse
from .resuming import resumption
from .run import Run
from .speeds import profile_of
from .terminal import say


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


@dataclass(frozen=True, eq=False)
class Training:
    """One scenario to train."""

    title: str
    scenario: Scenario
    path: Path  # the scenario's file
    directory: Path  # of the run


def trainings(scenarios: Sequence[Path], options: TrainOptions) -> list[Training]:
    """The trainings of some scenarios. ScenarioError where a file is wrong, or where there is no run to resume."""
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
        return [Training(options.resume.name, scenario, path, options.resume)]
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


def check(found: Sequence[Training], options: TrainOptions) -> None:
    """Raise errors in this one process that would otherwise end a started mpirun: wrong files, directories in use."""
    for training in found:
        job = resolve(training.scenario, training.path.parent)
        check_fewer(job)
        if training.scenario.faults:
            raise ScenarioError(f"{training.title}: faults: only `paceline simulate` knows them; write --set faults=[]")
        if not training.scenario.train.phantom:
            check_training(job)
            there = 0 if options.resume is None else len(checkpoints.finished(training.directory))
            check_room(training.directory, job, there)
        rehearse(job)
        check_free(training.directory)
        if options.resume is None:
            if not training.scenario.train.phantom:
                job.problem.check_initial()
            refuse(training.directory, options.force, [training.path])
        else:
            saved, _ = checkpoints.whole(training.directory, options.round)
            resumption(saved, job, options.change, options.without)


def train(
    scenario: str | Path,
    *,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    emulate: bool | None = None,
    phantom: bool | None = None,
    emulate_network: bool | None = None,
    force: bool = False,
    ranks: int | None = None,
) -> Run:
    """Train a scenario for real on this machine, under an mpirun that this starts. Returns the finished Run.

    settings: overrides such as "budget.epochs=5".
    out: the run's directory; a temporary one by default.
    emulate: let a worker that is k times slower sleep k-1 times its step; by default what the scenario's `train` says.
    phantom: send real messages, but sleep instead of computing; by default likewise.
    emulate_network: join the ranks by the described star, laid on this machine; by default likewise.
    force: replace a run that is already in `out`.
    ranks: the number of MPI ranks to start; one per worker by default.

    Raises ScenarioError, and RuntimeError where a rank fails. Its traceback is on standard error.
    """
    directory = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="paceline-")) / Path(scenario).stem
    stand_in = train_settings(emulate=emulate, phantom=phantom, emulate_network=emulate_network)
    options = TrainOptions((*settings, *stand_in), directory, force)
    status = launch([Path(scenario)], options, ranks, quiet=True)
    if status != 0:
        raise RuntimeError(f"training {scenario} ended with status {status}")
    return Run.load(directory)


def launch(scenarios: Sequence[Path], options: TrainOptions, ranks: int | None, quiet: bool = False) -> int:
    """Start one mpirun for all scenarios and wait for it. Returns its exit status."""
    from .runtime.launcher import launch as start

    found = trainings(scenarios, options)
    check(found, options)
    sizes = [training.scenario.cluster.size for training in found]
    if ranks is not None and ranks < max(sizes):
        training = found[sizes.index(max(sizes))]
        raise ScenarioError(
            f"{training.title}: {max(sizes)} workers but -n {ranks}; write -n {max(sizes)} or leave it out"
        )
    arguments = ["train", *map(str, scenarios), *_flags(options)]
    if quiet:
        arguments.append("--quiet")
    threads = max(training.scenario.workload.threads for training in found)
    star = star_for([(training.title, training.scenario) for training in found], ranks)
    status = start(arguments, ranks or max(sizes), threads, star=star)
    for training in found if status else ():
        if line := put_back(training.directory):
            say(line)
    return status


def _flags(options: TrainOptions) -> list[str]:
    """The options as the command line spells them, for the ranks. A field's name is its option's."""
    flags = [f"--set={setting}" for setting in options.settings] + [f"--without={n}" for n in options.without]
    for name, value in vars(options).items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        elif isinstance(value, Path | int):
            flags.append(f"--{name}={value}")
    return flags
