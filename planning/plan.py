"""`paceline plan`: how to train on these machines."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from ..config import bundled
from ..config.metrics import Target
from ..config.scenario import Scenario, read, validate
from ..config.sections import described
from ..config.units import told_seconds
from ..program.errors import ScenarioError
from ..progress import working
from ..studies.front import Found, search
from .answer import Answer
from .bounds import Bounds
from .contest import SECONDS, by_target, read_objective
from .judge import TOLERANCE, Judge, Row, longest, recommended, refusal, too_late
from .lab import Lab
from .learned import Learning
from .measured import calibrated
from .reasons import Reason, reasons
from .space import Space, Way, check_keep
from .values import Values


def plan(
    scenario: str | Path | Scenario | Mapping[str, Any],
    *,
    settings: Iterable[str] = (),
    objective: str = "throughput",
    keep: Sequence[str] = (),
    max_batch_total: int | None = None,
    tolerance: float = TOLERANCE,
    deadline: float = inf,
    measured: float | None = None,
    effort: float = SECONDS,
    sample: float = 1.0,
    quiet: bool = True,
) -> Answer:
    """How to train a scenario's model on its machines: an Answer, with a frame, scenarios and the reasons.

    scenario: a file, the name of one that comes with Paceline, a Scenario, or a document. How it
        trains may change: its strategy, batch and workers.
    settings: overrides such as "budget.epochs=5", of a file.
    objective: "throughput": the time of an epoch at equal samples. A target, like "accuracy 0.96" or "test_loss<=0.3":
        the time to it. For this the ways on the front are trained in virtual time; see docs/planning.md.
    keep: what stays as the scenario has it, of "method", "H" and "workers".
    max_batch_total: the most samples of all workers in a step. Without it they are about as many as now.
    tolerance: the share of the fastest epoch that fewer local steps, a plainer placement and wire may cost together.
    deadline: seconds in which the training must end, or reach the target.
    measured: samples/s of all workers when they train as the scenario says. It tells which share of their datasheets
        they reach.
    effort, sample: for a target, seconds of this machine that training may take, and the share of the training examples
        that it uses.
    quiet: show no progress.

    Raises ScenarioError where nothing can be trained. A KeyboardInterrupt ends the search, and the best so far is
    returned.
    """
    document, folder, where = _read(scenario, settings)
    told, known = "", None
    if measured is not None:
        document, told, known = calibrated(document, folder, measured)
    lab = Lab(validate(document, where), folder, max_batch_total, known)
    target = read_objective(objective, lab.problem)
    if target is not None and sample < 1 and deadline < inf:
        raise ScenarioError("--deadline: with --sample it is not known how long all examples take; drop one of them")
    space = Space(check_keep(keep), max_batch_total, deadline)
    values, teams = Values(lab), lab.teams("workers" in space.keep)
    roots = Bounds(lab).roots(space, teams)
    with working(f"plan {Path(where).stem}", quiet) as show:
        nodes = values.refined([root.node for root in roots])
        found = search(nodes, values.seconds, lambda done, left: show("ways", done, done + left))
    if not found.front.candidates:
        raise refusal(lab, values, space, teams) if found.whole else KeyboardInterrupt
    judge = Judge(lab, values, roots, teams, space)
    return _Planner(document, folder, judge, found, tolerance, target, effort, sample, quiet, told).answer()


class _Table(NamedTuple):
    """Ways, the one to take first."""

    rows: list[Row]
    documents: list[dict[str, Any]]  # each row as a scenario's


@dataclass(eq=False)
class _Planner:
    """Makes the answer of what a search has found."""

    document: dict[str, Any]
    folder: Path
    judge: Judge
    found: Found[Way]
    tolerance: float
    target: Target | None
    effort: float
    sample: float
    quiet: bool
    measured: str  # what is to be known of how fast the machines are

    def answer(self) -> Answer:
        """The answer. ScenarioError where no way ends by the deadline, or reaches the target."""
        judge, whole, simulated = self.judge, self.found.whole, len(self.judge.values)
        most = judge.most if self.target is None else inf
        if self.found.front.seconds[-1] > most and not whole:
            most = inf  # the best so far
        baselines, why, worth = dict[str, Way](), list[Reason](), dict[str, float]()
        table, learning = _Table([], []), None
        try:
            if whole:
                baselines, worth = judge.baselines(), judge.worth()
            table = self._table(most, baselines, plain=whole)
            if whole and self.target is not None:
                table, learning = self._contest(self.target, table, baselines)
            if whole:
                why = reasons(judge, table.rows[0].way)
        except KeyboardInterrupt:
            whole = False
            if not table.rows:
                table = self._told({self._recommended(most): ["recommended"]})
        rows, documents = table
        notes = [self.measured] if self.measured else []
        notes += [] if learning is not None and not learning.unknown else _notes(judge, rows[0])
        return Answer(
            tuple(rows), tuple(documents), tuple(why), worth, simulated, whole, "; ".join(notes), self.folder, learning
        )

    def _recommended(self, most: float, plain: bool = False) -> Way:
        """The way to take. plain: with the plainest placement and wire that are nearly as fast.

        most: the most seconds for a sample. ScenarioError where all ways take longer.
        """
        front, judge = self.found.front, self.judge
        if front.seconds[-1] > most:
            raise too_late(judge, front.candidates[-1])
        way = recommended(front, self.tolerance, most)
        if not plain:
            return way
        own = (judge.values.seconds(way) or inf) * (1 + self.tolerance)
        return judge.plain(way, min(own, longest(front, self.tolerance, most)))

    def _table(self, most: float, baselines: Mapping[str, Way], plain: bool = True) -> _Table:
        """The way to take, the rest of the front as far as it takes no longer than `most`, the baselines."""
        front = self.found.front
        roles: dict[Way, list[str]] = {self._recommended(most, plain): ["recommended"]}
        pairs = reversed([*zip(front.candidates, front.seconds, strict=True)])
        for name, each in [*(("front", way) for way, seconds in pairs if seconds <= most), *baselines.items()]:
            same = next((known for known in roles if known.key == each.key), each)
            roles.setdefault(same, []).append(name)
        return self._told(roles)

    def _told(self, roles: Mapping[Way, list[str]]) -> _Table:
        rows = [self.judge.row(way, names) for way, names in roles.items()]
        return _Table(rows, [_document(self.document, row.way, self.judge.lab) for row in rows])

    def _contest(self, target: Target, table: _Table, baselines: Mapping[str, Way]) -> tuple[_Table, Learning]:
        """The table in the order in which its ways reach the target, and how they learn.

        Where that is not known, it is the table for throughput.
        """
        judge, (rows, documents) = self.judge, table
        rows, documents, learning = by_target(
            target, rows, documents, judge.lab, self.sample, self.effort, self.quiet, judge.space.deadline
        )
        if learning.unknown and judge.most < inf:
            return self._table(judge.most, baselines), learning
        return _Table(rows, documents), learning


def _notes(judge: Judge, row: Row) -> list[str]:
    """What is to be known of a way: that its steps have other samples than the scenario's; that it may be too late."""
    lab, deadline, notes = judge.lab, judge.space.deadline, list[str]()
    given, taken = lab.scenario.workload.total_batch or lab.batch * lab.size, sum(row.way.division.shares.batches)
    if taken != given:
        notes.append(f"a step has {taken} samples, and {given} in the scenario: the learning rate may have to follow")
    longest = (row.epoch + row.spread) * row.epochs
    if row.late:
        notes.append(f"training takes {told_seconds(row.training)}, which is longer than --deadline")
    elif longest > deadline:
        notes.append(f"times vary here, and training may take {told_seconds(longest)}, which is longer than --deadline")
    return notes


def _read(
    scenario: str | Path | Scenario | Mapping[str, Any], settings: Iterable[str]
) -> tuple[dict[str, Any], Path, str]:
    """(document, the folder where it lies, its name)."""
    if isinstance(scenario, Scenario):
        return described(scenario), Path(), "scenario"
    if isinstance(scenario, Mapping):
        return dict(scenario), Path(), "scenario"
    path = bundled.find(scenario)
    return read(path, settings), path.parent, str(path)


def _document(document: dict[str, Any], way: Way, lab: Lab) -> dict[str, Any]:
    """The scenario with a way's changes, for as many samples as before."""
    found = copy.deepcopy(document)
    if way.team.gone:
        kept = described(way.team.scenario.cluster)
        found["cluster"] = {key: kept[key] for key in kept if key in found["cluster"]}
        if lab.scenario.faults:
            found["faults"] = described(way.team.scenario)["faults"]
    way.write(found)
    given = lab.scenario.budget
    if given.epochs is None or given.epoch != "samples":
        amount = given.epochs or given.steps or given.rounds or 1
        found["budget"] = {"epochs": lab.epochs}
        rate = found["workload"].get("lr_schedule")
        if isinstance(rate, dict):
            found["workload"]["lr_schedule"] = _in_epochs(rate, lab.epochs / amount)
    return found


def _in_epochs(rate: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A learning rate's schedule whose numbers count in the budget's unit, where this becomes epochs."""

    def told(value: Any) -> Any:
        return float(f"{value * factor:.6g}") if isinstance(value, int | float) else value

    found = dict(rate)
    for key in ("warm_up", "total"):
        if found.get(key):
            found[key] = told(found[key])
    if found.get("milestones"):
        found["milestones"] = [*map(told, found["milestones"])]
    return found
