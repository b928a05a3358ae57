"""Starts mpirun for `paceline train`, under which every rank runs training_rank.py, and starts it again after a loss.

Rule: whatever ends a training, the last line says what is whole of it, and by which command it goes on.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import bundled
from .config.scenario import train_settings
from .crew import Crew
from .placement import NOWHERE, Start, Where, ground_for
from .program.errors import PacelineError, ScenarioError
from .records import checkpoints, live, progress
from .records.recoveries import Recovery, numbers, recoveries_in
from .records.replacing import put_back
from .recovering import how_to_go_on
from .restart import Restart
from .resuming import history_of
from .run import Run
from .terminal import say
from .tracking import callback_settings
from .training import Training, TrainOptions, again, check, trainings
from .written import Files, Written

if TYPE_CHECKING:
    from .runtime.launcher import End

KILLED = (130, 143)  # the exit statuses of a training that SIGINT or SIGTERM has ended at once
NEVER = "it was lost before its first step, and would not get there again"


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
    callbacks: Sequence[Any] = (),
    hosts: str | None = None,
) -> Run:
    """Train a scenario for real, under an mpirun that this starts. Returns the finished Run.

    scenario: a file, or the name of one that comes with Paceline.
    settings: overrides such as "budget.epochs=5".
    out: the run's directory; a temporary one by default.
    emulate: let a worker that is k times slower sleep k-1 times its step; by default what the scenario's `train` says.
    phantom: send real messages, but sleep instead of computing; by default likewise.
    emulate_network: join the ranks by the described star, laid on this machine; by default likewise.
    force: replace a run that is already in `out`. ranks: how many MPI ranks to start; by default one per worker.
    callbacks: in addition to the scenario's, as a scenario writes them, since rank 0 makes them.
    hosts: where the ranks run, like "a:4,b:4"; by default on this machine, or on the hosts of the Slurm job.

    Raises ScenarioError, RuntimeError where a rank fails, whose traceback is on standard error, and KeyboardInterrupt
    where a second signal has ended it at once. After a first one it ends with its round, and the Run is not finished.
    """
    scenario = bundled.find(scenario)
    directory = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="paceline-")) / scenario.stem
    every = [*settings, *train_settings(emulate=emulate, phantom=phantom, emulate_network=emulate_network)]
    options = TrainOptions((*every, *callback_settings(scenario, every, callbacks)), directory, force)
    status = launch([scenario], options, ranks, quiet=True, where=Where(hosts))
    if status in KILLED:
        raise KeyboardInterrupt
    if status:
        raise RuntimeError(f"training {scenario} ended with status {status}")
    return Run.load(directory)


def launch(
    scenarios: Sequence[Path],
    options: TrainOptions,
    ranks: int | None,
    quiet: bool = False,
    where: Where = NOWHERE,
    dry: bool = False,
) -> int:
    """Start one mpirun for all scenarios and wait for it. Returns its exit status.

    After a lost worker it is started again, as often as the scenario's `recovery` allows.

    dry: print what would be started, and start nothing.
    """
    found = trainings(scenarios, options)
    jobs = check(found, options)
    sizes = [training.scenario.cluster.size for training in found]
    if ranks is not None and ranks < max(sizes):
        training = found[sizes.index(max(sizes))]
        raise ScenarioError(
            f"{training.title}: {max(sizes)} workers but -n {ranks}; write -n {max(sizes)} or leave it out"
        )
    sharded = [job.plan.strategy.placement.sharded for job in jobs]
    launched = _Launch(scenarios, options, found, sharded, ranks, quiet, where)
    if not dry:
        return launched.run()
    from .dry_run import show

    show(found, jobs, launched.start())
    return 0


class _Launch:
    """The jobs that one command starts, one after the other."""

    def __init__(
        self,
        scenarios: Sequence[Path],
        options: TrainOptions,
        found: Sequence[Training],
        sharded: Sequence[bool],
        ranks: int | None,
        quiet: bool,
        where: Where,
    ) -> None:
        self.scenarios, self.options, self.found, self.sharded = scenarios, options, found, sharded
        self.ranks, self.quiet, self.where = ranks, quiet, where
        self.before = [Files(training) for training in found]
        self.restart: Restart | None = None
        self.restarts = 0
        self.crew = Crew(0)
        self.nodes: Sequence[Hashable] = ()  # the node of each rank that was started

    def run(self) -> int:
        """Start the ranks until they have done all; the exit status."""
        from .runtime.launcher import End

        while True:
            try:
                end = self._job()
            except PacelineError as error:  # no rank could be started, not even as before
                number = self._interrupted()
                if self._without_joining(str(error)):
                    continue
                if self.restart is None or not self._saved(number):
                    raise
                raise PacelineError(f"{error}; {self._whole(number)}") from error
            except KeyboardInterrupt:  # between two jobs
                if self.restart is None:
                    raise
                return self._ended(End(130, "stopped", stopped=True), "")
            if end.status == 0:
                if all(files.written().finished for files in self.before):
                    return 0
                came = progress.reached(self.found[self._interrupted()].directory)
                if came is not None and came.joins:
                    if end.stopped:
                        return self._ended(End(0, stopped=True), "")
                    self._join(came)
                    continue
                end = replace(end, status=1, lost=end.lost or "the ranks ended without a result")
            if not end.stopped and self._without_joining(end.lost):
                continue
            why = self._start_again(end)
            if why is not None:
                return self._ended(end, why)

    def _job(self) -> End:
        """Start the ranks once."""
        from .runtime.launcher import run_job

        start = self.start()
        self.nodes = start.ground.nodes
        for training in self.found[self.restart.training if self.restart is not None else 0 :]:
            progress.forget(training.directory)
        return run_job(start.arguments, len(start.ground.nodes), start.threads, on=start.ground, shrink=start.shrink)

    def start(self) -> Start:
        """How the ranks are started next."""
        left, options, ranks = self.found, self.options, self.ranks
        if (restart := self.restart) is not None:
            left, ranks = again(self.found, restart), None  # there may be fewer workers now
            options = replace(options, restart=restart, round=self._round(restart.training))
            if restart.begun:  # the run's scenario is without them
                options = replace(options, without=())
        arguments = ["train", *map(str, self.scenarios), *_flags(options), *(["--quiet"] if self.quiet else [])]
        threads = max(training.scenario.workload.threads for training in left)
        members = restart.members if restart is not None else None
        ground = ground_for(self.where, self.found[-len(left) :], left, ranks, members)
        shrink = any(training.scenario.recovery.shrink for training in left)
        return Start(arguments, ground, threads, shrink)

    def _start_again(self, end: End) -> str | None:
        """Make the next job ready, and say so in a line. Else why the run ends here, if a restart was asked for."""
        number = self._interrupted()
        training = self.found[number]
        spec = training.scenario.recovery
        if end.status == 2 or not end.lost or end.stopped:
            return ""
        self._know_crew(number)
        came = progress.reached(training.directory)
        gone = list[int]()
        if self.crew.failed(end, came is not None):
            if self.restart is not None and number == len(self.found) - 1:  # it has been there before
                gone = self.crew.on_host(end.ranks, self.nodes)
            if not gone:
                return NEVER if spec.max_restarts else ""
        rule = spec.model_copy(update={"shrink": False})  # the remaining ranks have not gone on by themselves
        # Ranks name workers that they miss by their numbers when the command began. All else is about ranks.
        told = end.lost.endswith((" lost", " no answer")) and not gone
        lost = [*end.ranks] if told else self.crew.numbers(gone or end.ranks)
        decision = how_to_go_on(rule, lost, len(self.crew.now), self.restarts, self.sharded[number], gone)
        if decision.how == "none":
            return decision.why if spec.max_restarts else ""
        self.restarts += 1
        self.crew.gone |= {*(lost if gone else ())}
        self.restart = self._next(number, lost, came, end.lost)
        how = self._how(lost if gone else ())
        say(f"restart {self.restarts} of {spec.max_restarts}: {end.lost}; {training.title} {how}")
        return None

    def _how(self, gone: Sequence[int]) -> str:
        """How the run goes on, in words. gone: the workers that are left out from now on."""
        assert self.restart is not None
        number = self.restart.training
        saved = checkpoints.newest(self.found[number].directory, self._round(number)) if self.restart.saved else None
        how = f"goes on from {saved.name}" if saved else "begins again, since no checkpoint was saved"
        return f"{how}, without {_named(gone)}" if gone else how

    def _next(self, number: int, lost: Sequence[int], came: progress.Reached | None, why: str = "") -> Restart:
        """What the next ranks are told. lost: the lost workers, by their numbers when the command began."""
        live.tell(self.found[number].directory, "restarting", why or _named(lost))
        noticed, gone = progress.now(self.found[number].directory), self.crew.go_on(self._lasting(number))
        round, at, then = 0, 0.0, noticed
        if came is not None:
            round, at, then, _ = came
        elif (before := self.restart) is not None and before.training == number:
            round, at, then = before.round, before.at, before.noticed
        return Restart(
            training=number,
            begun=self._now(number).begun,
            saved=self._saved(number),
            round=round,
            at=at + max(0.0, noticed - then),
            noticed=noticed,
            lost=lost,
            gone=gone,
            members=self.crew.now,
        )

    def _know_crew(self, number: int) -> None:
        if self.restart is None or self.restart.training != number:
            self.crew = Crew(self.found[number].scenario.cluster.size)

    def _join(self, came: progress.Reached) -> None:
        """Make the next job ready, in which new workers take the places of those that the last one has lost."""
        number = self._interrupted()
        self._know_crew(number)
        left = numbers(self.crew.workers, self._recoveries(number))
        lost = [worker for worker in self.crew.now if worker not in left]
        self.restart = replace(self._next(number, lost, came), at=came.seconds, noticed=came.when, how="join")
        who = f"{_named(lost)} {'join' if len(lost) > 1 else 'joins'} again"
        say(f"{who}, and all ranks with it are started again; {self.found[number].title} {self._how(())}")

    def _without_joining(self, why: str) -> bool:
        """Where the ranks could not be started with the workers that were to join: make a job of the others ready."""
        number, restart = self._interrupted(), self.restart
        if restart is None or (restart.how, restart.training) != ("join", number):
            return False
        if progress.reached(self.found[number].directory) is not None:
            return False
        self.crew.gone |= {*restart.lost}
        self.restart = self._next(number, restart.lost, None)
        say(f"{_named(restart.lost)} could not join: {why}; {self.found[number].title} {self._how(restart.lost)}")
        return True

    def _lasting(self, number: int) -> list[Recovery]:
        """Those after which the run's scenario has fewer workers: with respawn not a shrink, as the lost will join."""
        found = self._recoveries(number)
        respawn = self.found[number].scenario.recovery.respawn
        return [each for each in found if each.how == "restart"] if respawn else found

    def _recoveries(self, number: int) -> list[Recovery]:
        """What a training's record tells since the command began."""
        if not self._now(number).begun:
            return []
        return recoveries_in(history_of(self.found[number].directory)[self.before[number].parts :])

    def _now(self, number: int) -> Written:
        return self.before[number].written()

    def _saved(self, number: int) -> bool:
        """Whether a training has a checkpoint to go on from."""
        return self.found[number].resumes or self._now(number).saved

    def _round(self, number: int) -> int | None:
        """From which round's checkpoint it goes on; None: from the newest. What was saved since is newer."""
        return None if self._now(number).saved else self.options.round

    def _interrupted(self) -> int:
        """The number of the training at which the ranks have ended."""
        left = range(self.restart.training if self.restart is not None else 0, len(self.found))
        return next((number for number in left if not self._now(number).finished), left[-1])

    def _ended(self, end: End, why: str) -> int:
        """Say what is whole and how to go on; the exit status."""
        number = self._interrupted()
        whole = "" if end.goes_on or (end.status == 2 and not self._now(number).begun) else self._whole(number)
        live.tell(self.found[number].directory, "stopped" if end.stopped else "failed", end.lost or why)
        for training in self.found:
            if line := put_back(training.directory):
                say(line)
        if line := "; ".join(filter(None, ("" if end.said else end.lost, why, whole))):
            say(line)
        nowhere = end.no_host and self.restart is None and not self._now(number).begun  # perhaps a name that is wrong
        return 2 if nowhere and not end.stopped else end.status

    def _whole(self, number: int) -> str:
        """What is whole, and the commands that go on. number: of the training that was interrupted."""
        said = [f"{self.found[done].title} is finished" for done in range(number)]
        begun, left, directory = self._now(number).begun, number + 1, self.found[number].directory
        if self._saved(number):
            said.append(checkpoints.go_on(directory, *self.where.flags(), round=self._round(number)))
        else:
            said.append("no checkpoint was saved" if begun else "nothing was written")
            left = number
        if left < len(self.found):
            force = self.options.force or (begun and left == number)
            said.append(f"{'begin again' if left == number else 'then go on'} with: {self._command(left, force)}")
        return "; ".join(said)

    def _command(self, first: int, force: bool) -> str:
        """What a user types to train the scenarios from this one on."""
        options = replace(self.options, force=force, bar=False, restart=None)
        scenarios = self.scenarios[first:]
        if options.out is not None and len(scenarios) == 1:
            options = replace(options, out=self.found[first].directory)
        more = [] if self.ranks is None else ["-n", str(self.ranks)]
        return shlex.join(["paceline", "train", *map(str, scenarios), *more, *self.where.flags(), *_flags(options)])


def _named(workers: Sequence[int]) -> str:
    return ", ".join(f"worker {worker}" for worker in workers)


def _flags(options: TrainOptions) -> list[str]:
    """The options as the command line spells them, for the ranks. A field's name is its option's."""
    flags = [f"--set={setting}" for setting in options.settings] + [f"--without={n}" for n in options.without]
    for name, value in vars(options).items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        elif isinstance(value, Path | int):
            flags.append(f"--{name}={value}")
        elif isinstance(value, Restart):
            flags.append(f"--{name}={value.text()}")
    return flags
