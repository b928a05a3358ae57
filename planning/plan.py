"""`paceline plan`: how to train on these machines."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.scenario import Scenario, read, validate
from ..config.sections import described
from ..progress import working
from ..studies.front import Front, search
from .answer import Answer
from .bounds import Bounds
from .contest import SECONDS, by_target, read_objective
from .judge import TOLERANCE, Judge, Row, longest, recommended, refusal
from .lab import Lab
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
    effort: float = SECONDS,
    sample: float = 1.0,
    quiet: bool = True,
) -> Answer:
    """How to train a scenario's model on its machines: an Answer, with a frame, scenarios and the reasons.

    scenario: a file, a Scenario, or a document. How it trains may change: its strategy, batch and workers.
    settings: overrides such as "budget.epochs=5", of a file.
    objective: "throughput": the time of an epoch at equal samples. A target, like "accuracy 0.96" or "test_loss<=0.3":
        the time to it. For this the ways on the front are trained in virtual time; see docs/planning.md.
    keep: what stays as the scenario has it, of "method", "H" and "workers".
    max_batch_total: the most samples of all workers in a step. Without it they are about as many as now.
    tolerance: the share of the fastest epoch that fewer local steps, a plainer placement and wire may cost together.
    effort, sample: for a target, seconds of this machine that training may take, and the share of the training examples
        that it uses.

    Raises ScenarioError where nothing can be trained. A KeyboardInterrupt ends the search, and the best so far is
    returned.
    """
    document, folder, where = _read(scenario, settings)
    lab = Lab(validate(document, where), folder, max_batch_total)
    target = read_objective(objective, lab.problem)
    space = Space(check_keep(keep), max_batch_total)
    values, teams = Values(lab), lab.teams("workers" in space.keep)
    roots = Bounds(lab).roots(space, teams)
    with working(f"plan {Path(where).stem}", quiet) as show:
        nodes = values.refined([root.node for root in roots])
        found = search(nodes, values.seconds, lambda done, left: show("ways", done, done + left))
    if not found.front.candidates:
        raise refusal(lab, values, space, teams) if found.whole else KeyboardInterrupt
    judge, way = Judge(lab, values, roots, teams, space), recommended(found.front, tolerance)
    simulated, whole = len(values), found.whole
    baselines, why, worth = dict[str, Way](), list[Reason](), dict[str, float]()
    rows, documents, learning = list[Row](), list[dict[str, Any]](), None
    try:
        if whole:
            way = judge.plain(way, longest(found.front, tolerance))
            baselines, worth = judge.baselines(), judge.worth()
        rows = [judge.row(each, roles) for each, roles in _roles(way, found.front, baselines).items()]
        documents = [_document(document, row.way, lab) for row in rows]
        if whole and target is not None:
            rows, documents, learning = by_target(target, rows, documents, lab, sample, effort, quiet)
        if whole:
            why = reasons(judge, rows[0].way)
    except KeyboardInterrupt:
        whole = False
        rows = rows or [judge.row(way, ["recommended"])]
        documents = documents or [_document(document, row.way, lab) for row in rows]
    note = "" if learning is not None and not learning.unknown else _batch_note(lab, rows[0].way)
    return Answer(tuple(rows), tuple(documents), tuple(why), worth, simulated, whole, note, folder, learning)


def _batch_note(lab: Lab, way: Way) -> str:
    """That a way's steps have more or fewer samples than the scenario's; empty where they have as many."""
    given, taken = lab.scenario.workload.total_batch or lab.batch * lab.size, sum(way.division.shares.batches)
    if taken == given:
        return ""
    return f"a step has {taken} samples, and {given} in the scenario: the learning rate may have to follow"


def _roles(way: Way, front: Front[Way], baselines: Mapping[str, Way]) -> dict[Way, list[str]]:
    """The ways of the table, and why each is there."""
    roles: dict[Way, list[str]] = {way: ["recommended"]}
    for each in reversed(front.candidates):
        roles.setdefault(each, []).append("front")
    for name, each in baselines.items():
        same = next((known for known in roles if known.key == each.key), each)
        roles.setdefault(same, []).append(name)
    return roles


def _read(
    scenario: str | Path | Scenario | Mapping[str, Any], settings: Iterable[str]
) -> tuple[dict[str, Any], Path, str]:
    """(document, the folder where it lies, its name)."""
    if isinstance(scenario, Scenario):
        return described(scenario), Path(), "scenario"
    if isinstance(scenario, Mapping):
        return dict(scenario), Path(), "scenario"
    return read(scenario, settings), Path(scenario).parent, str(scenario)


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
