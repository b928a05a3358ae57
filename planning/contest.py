"""`paceline plan --for accuracy`: which way of a plan reaches a target first.

The ways on the front, and those that a user would have taken, are trained with real numbers in virtual time, by
successive halving (studies/halving.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config.metrics import Target
from ..config.scenario import validate
from ..effort import available_memory, duration
from ..job import Job, resolve
from ..job_effort import computing_seconds, training_bytes
from ..learning_problem import LearningProblem
from ..memory_check import gib
from ..program.errors import ScenarioError, nearest, one_line
from ..progress import working
from ..studies.halving import Halving
from ..terminal import warn
from .judge import Row
from .lab import Lab
from .learned import EFFORT, Learned, Learning
from .runs import EVALUATIONS, Waiting, evaluated

SECONDS = 600.0  # seconds of this machine
WAYS = 16  # of a front, that are trained: of a longer one, so many of it, as far apart as they can be
FINISHED = 5  # of the first ones, and all baselines, each are trained to the target
FINALISTS, SEEDS = 2, 3  # the first ones, which are trained with so many seeds

Show = Callable[[str, int, int], None]  # of progress.working


class _EffortSpent(Exception):
    """The time that may be used is over."""


@dataclass(frozen=True)
class Contest:
    """What is to be trained."""

    target: Target
    documents: Sequence[Mapping[str, Any]]  # scenarios of the ways, the fastest epoch first
    names: Sequence[str]  # of the ways, as sentences have them
    baselines: frozenset[int]  # the ways that a user would have taken, which are never cut
    epoch: float  # seconds of the fastest way's epoch
    epochs: float  # of the budget
    folder: Path  # where the scenario lies
    sample: float = 1.0  # the share of the training examples to use
    deadline: float = inf  # seconds within which the target is to be reached
    spreads: Sequence[float] = ()  # of each way, two standard deviations of its seconds as the clock varies, as a share

    def run(self, effort: float, show: Show) -> Learning:
        """Train the ways, for `effort` seconds at the most. A KeyboardInterrupt ends it as well.

        ScenarioError where all were trained to their ends and none has reached the target.
        """
        try:
            like = resolve(validate(self.documents[0], "plan"), self.folder)
            like.problem.check_trainable()
            if reason := self._too_large(like, effort):
                return Learning(str(self.target), {}, unknown=reason)
            if self.sample < 1:
                like.problem.sample(self.sample)
            _ = like.problem.data
            most = self._together(like)
        except ScenarioError as error:
            return Learning(str(self.target), {}, unknown=f"it cannot be trained here: {error}")
        chosen = _apart(len(self.documents), self.baselines, most)
        if line := self._long(like, len(chosen), effort):
            warn(line)
        runs = [Waiting(self.documents[number], self.target, like) for number in chosen]
        return Trainings(self, chosen, runs, like, Watch(effort, show)).learning()

    def _together(self, job: Job) -> int:
        """How many ways may be in memory at once, each as large as this one. ScenarioError where one is too much."""
        workers = job.problem.phantoms(job.plan)
        each, free = training_bytes(job, workers, [True] * len(workers)), available_memory()
        if each > free:
            raise ScenarioError(f"it needs {gib(each)} of memory, and {gib(free)} are free here")
        return int(min(free / each, len(self.documents)))

    def _too_large(self, job: Job, effort: float) -> str:
        """Why training cannot even begin in so many seconds; empty where it can."""
        usual, quickest = computing_seconds(job, job.problem.phantoms(job.plan))
        if self.sample * quickest / EVALUATIONS <= effort:
            return ""
        return (
            f"training one way takes about {duration(self.sample * usual)} on this machine, and --effort is "
            f"{duration(effort)}; write --sample, or a smaller model"
        )

    def _long(self, job: Job, ways: int, effort: float) -> str:
        """A line where halving takes longer than `effort`, as estimated; else an empty text.

        Each rung takes about half of what training one way takes, since half as many ways go on twice as long.
        """
        usual, _ = computing_seconds(job, job.problem.phantoms(job.plan))
        seconds = self.sample * usual * (1 + math.log2(ways) / 2)
        if seconds <= effort:
            return ""
        return (
            f"training {ways} ways takes about {duration(seconds)} on this machine, and --effort ends it after "
            f"{duration(effort)}; write a longer --effort, or --sample"
        )


def read_objective(text: str, problem: LearningProblem) -> Target | None:
    """The target that is asked for; None for throughput.

    ScenarioError where it is neither, and where the scenario does not report the target's metric.
    """
    if text == "throughput":
        return None
    try:
        target = Target.read(text)
    except ValueError:
        raise ScenarioError(
            f"--for {one_line(text, 40)}: write throughput, or a target like 'accuracy 0.96', 96% or 'test_loss<=0.3'"
        ) from None
    known = [*problem.reported, "train_loss"]
    if target.field not in known:
        hint = nearest(target.field, known)
        raise ScenarioError(
            f"--for {target}: the scenario does not report {target.field}{hint}; it reports {', '.join(known)}"
        )
    return target


def _apart(count: int, baselines: frozenset[int], most: int) -> list[int]:
    """The numbers of the ways that are trained, about `most`: all baselines, and of the others some far apart."""
    others = [number for number in range(count) if number not in baselines]
    places = max(2, min(WAYS, most - len(baselines)))
    if len(others) > places:
        others = [others[round(place * (len(others) - 1) / (places - 1))] for place in range(places)]
    return sorted([*baselines, *others])


@dataclass(eq=False)
class Watch:
    """Shows progress, and ends the training when the time that may be used is over."""

    effort: float  # seconds of this machine
    show: Show

    def __post_init__(self) -> None:
        self._begun = time.monotonic()

    def tell(self, what: str) -> None:
        """Show what is done now."""
        taken = time.monotonic() - self._begun
        if taken > self.effort:
            raise _EffortSpent
        self.show(what, int(taken), math.ceil(self.effort))

    def halving(self, halving: Halving) -> None:
        """As Halving.tell."""
        best = f", {halving.target} in {halving.best:.4g} s" if halving.best < inf else ""
        self.tell(f"s of --effort: {halving.rung}{best}")


@dataclass(eq=False)
class Trainings:
    """The trainings of a contest. chosen: the ways' numbers, in the order of `runs`."""

    contest: Contest
    chosen: Sequence[int]
    runs: Sequence[Waiting]
    like: Job
    watch: Watch

    def __post_init__(self) -> None:
        contest = self.contest
        kept = frozenset(place for place, number in enumerate(self.chosen) if number in contest.baselines)
        horizon = min(contest.epoch * contest.epochs * contest.sample, contest.deadline)
        self._halving = Halving(self.runs, contest.target, horizon, kept, self.watch.halving, contest.deadline)
        self._seeds: dict[int, list[float | None]] = {}

    def learning(self) -> Learning:
        """Train, and tell what is known then."""
        halving, whole, stopped = self._halving, False, ""
        try:
            halving.halve()
            halving.prove()
            whole = True
            if halving.reached:
                halving.finish([*halving.kept, *halving.ranking()[:FINISHED]])
                for place in halving.ranking()[:FINALISTS]:
                    self._other_seeds(place)
        except _EffortSpent:
            stopped = EFFORT
        except KeyboardInterrupt:
            stopped = "Ctrl-C"
        ways = {self.chosen[place]: self._learned(place) for place in halving.ranking()}
        unknown = "" if any(run.points for run in self.runs) else self._why(stopped)
        found = Learning(str(self.contest.target), ways, whole, stopped, unknown, self.contest.sample)
        if whole and not unknown and found.first is None:
            raise ScenarioError(found.refusal(self.contest.epochs, self.contest.deadline))
        return found

    def _other_seeds(self, place: int) -> None:
        """Train a way that has reached the target with other seeds, each to the target or to its end."""
        contest, document = self.contest, self.contest.documents[self.chosen[place]]
        if place not in self._halving.reached:
            return
        seeds = self._seeds.setdefault(place, [self._halving.reached[place]])
        for seed in range(1, SEEDS):
            changes = {"seed": document.get("seed", 0) + seed}
            run = Waiting(document, contest.target, self.like, changes)
            alone = Halving([run], contest.target, inf, tell=self._told(place, seed))
            alone.finish([0])
            seeds.append(alone.reached.get(0))

    def _told(self, place: int, seed: int) -> Callable[[Halving], None]:
        text = f"s of --effort: {self.contest.names[self.chosen[place]]} with seed {seed + 1} of {SEEDS}"
        return lambda halving: self.watch.tell(text)

    def _why(self, stopped: str) -> str:
        """Why nothing is known of any way."""
        if stopped:
            return f"{stopped} ended the training before its first evaluation; write a longer --effort, or --sample"
        return f"no training could be evaluated: {next((run.failure for run in self.runs if run.failure), '')}"

    def _learned(self, place: int) -> Learned:
        run, halving, contest, number = self.runs[place], self._halving, self.contest, self.chosen[place]
        best = halving.value(place)
        return Learned(
            contest.names[number],
            halving.reached.get(place),
            tuple(self._seeds.get(place, ())),
            halving.clock(place),
            run.epoch,
            None if best == -inf else best if halving.target.least else -best,
            run.over,
            run.failure,
            max(self._spread(), *contest.spreads[number : number + 1]),
        )

    def _spread(self) -> float:
        """Two standard deviations of the seconds to the target over seeds, as a share of them.

        Pooled over the ways that were trained with several seeds; others are taken to vary as they do.
        """
        squares = degrees = 0.0
        for seeds in self._seeds.values():
            known = [seconds for seconds in seeds if seconds is not None]
            squares += sum((seconds / fmean(known) - 1) ** 2 for seconds in known)
            degrees += max(0, len(known) - 1)
        return 2 * math.sqrt(squares / degrees) if degrees else 0.0


def by_target(
    target: Target,
    rows: Sequence[Row],
    documents: Sequence[dict[str, Any]],
    lab: Lab,
    sample: float,
    effort: float,
    quiet: bool,
    deadline: float = inf,
) -> tuple[list[Row], list[dict[str, Any]], Learning]:
    """A table in the order of how soon its ways reach a target, and how they learn. Errors as of Contest.run.

    The documents are evaluated often enough from here on.
    """
    order = sorted(range(len(rows)), key=lambda number: rows[number].epoch)
    for document in documents:
        document["report"] = evaluated(document.get("report"), lab.scenario.report.every, lab.epochs)
    contest = Contest(
        target,
        [documents[number] for number in order],
        [rows[number].name for number in order],
        frozenset(place for place, number in enumerate(order) if not {*rows[number].roles} <= {"recommended", "front"}),
        rows[order[0]].epoch,
        lab.epochs,
        lab.folder,
        sample,
        deadline,
        [rows[number].spread / rows[number].epoch for number in order],
    )
    with working(f"plan --for {target}", quiet) as show:
        found = contest.run(effort, show)
    return _in_order(rows, documents, replace(found, ways={order[place]: way for place, way in found.ways.items()}))


def _in_order(
    rows: Sequence[Row], documents: Sequence[dict[str, Any]], learning: Learning
) -> tuple[list[Row], list[dict[str, Any]], Learning]:
    """The table in the order of how soon its ways reach the target; the first one is recommended."""
    if learning.unknown:
        return list(rows), list(documents), learning
    order = [*learning.ways, *(number for number in range(len(rows)) if number not in learning.ways)]
    sorted_rows = []
    for place, number in enumerate(order):
        others = tuple(role for role in rows[number].roles if role != "recommended")
        sorted_rows.append(replace(rows[number], roles=("recommended", *others) if place == 0 else others))
    ways = {order.index(number): way for number, way in learning.ways.items()}
    return sorted_rows, [documents[number] for number in order], replace(learning, ways=ways)
