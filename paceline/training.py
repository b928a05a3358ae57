"""`paceline train`: a scenario for real, under mpirun.

Outside of mpirun `train` starts one; inside, every rank runs `train_ranks`. Only rank 0 speaks and writes, but each
rank writes its own part of a checkpoint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .analysis.run import Run
from .config.scenario import Scenario, load
from .job import resolve
from .job_effort import check_training
from .program.errors import ScenarioError
from .records import checkpoints
from .records.directory import SCENARIO
from .records.replacing import put_back, refuse
from .rehearsal import rehearse
from .resuming import resumption
from .terminal import say


@dataclass(frozen=True)
class TrainOptions:
    """How to train. emulate: slow workers sleep. phantom: real messages, computing replaced by sleeping.

    out: run directory (of one scenario) or folder of run directories (of several). resume: a run directory to go on in.
    change: go on with another seed, model, data or batch.
    """

    settings: tuple[str, ...] = ()
    out: Path | None = None
    force: bool = False
    emulate: bool = False
    phantom: bool = False
    debug: bool = False
    resume: Path | None = None
    bar: bool = False
    change: bool = False


@dataclass(frozen=True, eq=False)
class Training:
    """One scenario to train: where it came from, and where its run goes. path: the file."""

    title: str
    scenario: Scenario
    path: Path
    directory: Path


def trainings(scenarios: Sequence[Path], options: TrainOptions) -> list[Training]:
    """What to train. ScenarioError where a file is wrong, or `resume` holds no run."""
    if options.resume is not None:
        if scenarios:
            raise ScenarioError("--resume goes on with the scenario in its directory; name no other")
        path = options.resume / SCENARIO
        if not path.exists() or checkpoints.newest(options.resume) is None:
            raise ScenarioError(f"--resume {options.resume}: holds no checkpoint of a run")
        return [Training(options.resume.name, load(path, options.settings), path, options.resume)]
    if options.change:
        raise ScenarioError("--change says how to go on; write it with --resume DIR")
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
    """Raise now, in one process, what would otherwise end a started mpirun: wrong files, directories in use."""
    for training in found:
        job = resolve(training.scenario, training.path.parent)
        if training.scenario.faults:
            raise ScenarioError(f"{training.title}: faults: only `paceline simulate` has them so far; --set faults=[]")
        if not options.phantom:
            check_training(job)
        rehearse(job)
        if options.resume is None:
            refuse(training.directory, options.force, [training.path])
        else:
            point = resumption(training.directory, job, options.change)
            for worker in range(job.workers):
                checkpoints.read_worker(point.saved, worker, point.sha256)


def train(
    scenario: str | Path,
    *,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    emulate: bool = False,
    phantom: bool = False,
    force: bool = False,
    ranks: int | None = None,
) -> Run:
    """Train a scenario for real on this machine, under an mpirun that this starts; returns the finished Run.

    out: the run directory, a temporary one by default. ranks: processes to start, by default one per worker. Raises
    ScenarioError, and RuntimeError where a rank failed (its traceback is on standard error).
    """
    directory = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="paceline-")) / Path(scenario).stem
    options = TrainOptions(tuple(settings), directory, force, emulate, phantom)
    status = launch([Path(scenario)], options, ranks, quiet=True)
    if status != 0:
        raise RuntimeError(f"training {scenario} ended with status {status}")
    return Run.load(directory)


def launch(scenarios: Sequence[Path], options: TrainOptions, ranks: int | None, quiet: bool = False) -> int:
    """Start one mpirun for all the scenarios and wait for it; returns its exit status."""
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
    status = start(arguments, ranks or max(sizes), threads)
    for training in found if status else ():
        if line := put_back(training.directory):
            say(line)
    return status


def _flags(options: TrainOptions) -> list[str]:
    """The options as the command line spells them, for the ranks."""
    flags = [f"--set={setting}" for setting in options.settings]
    flags += [f"--{name}={path}" for name, path in vars(options).items() if isinstance(path, Path)]
    return flags + [f"--{name}" for name, wanted in vars(options).items() if wanted is True]
