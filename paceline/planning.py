"""`paceline plan`: how to train on these machines."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import yaml
from .config.scenario import Scenario, apply, assign, read, validate
from .config.sections import described
from .config.units import read_seconds, read_share
from .folders import folders_of
from .marked_page import write_text
from .plan_accuracy import SECONDS, by_target, read_objective
from .plan_answer import TOLERANCE, Judge, Reason, Row, recommended, refusal
from .plan_bounds import Bounds
from .plan_lab import Lab
from .plan_request import document_of
from .plan_space import Space, Way, check_keep
from .plan_table import Answer
from .plan_values import Values
from .program.errors import ScenarioError, one_line
from .progress import working
from .studies.front import Front, search

MADE = "# Made by `paceline plan`"


@dataclass(frozen=True)
class PlanOptions:
    """The command's options."""

    settings: tuple[str, ...] = ()
    objective: str = "throughput"
    keep: tuple[str, ...] = ()
    most: int | None = None  # samples of all workers in a step
    tolerance: str = "5%"
    json: Path | None = None
    figures: Path | None = None  # a folder
    out: Path = Path("runs/plan")
    quiet: bool = False
    effort: str = "10 min"  # of this machine, for training
    sample: str = "100%"  # of the training examples


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
    tolerance: the share of an epoch's time that fewer local steps may cost.
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
        raise refusal(lab, values) if found.whole else KeyboardInterrupt
    judge, way = Judge(lab, values, roots, teams), recommended(found.front, tolerance)
    simulated, whole = len(values), found.whole
    baselines, reasons, worth = dict[str, Way](), list[Reason](), dict[str, float]()
    rows, documents, learning = list[Row](), list[dict[str, Any]](), None
    try:
        if whole:
            way = judge.plain(way)
            baselines, worth = judge.baselines(), judge.worth(space)
        rows = [judge.row(each, why) for each, why in _roles(way, found.front, baselines).items()]
        documents = [_document(document, row.way, lab) for row in rows]
        if whole and target is not None:
            rows, documents, learning = by_target(target, rows, documents, lab, sample, effort, quiet)
        if whole:
            reasons = judge.reasons(rows[0].way)
    except KeyboardInterrupt:
        whole = False
        rows = rows or [judge.row(way, ["recommended"])]
        documents = documents or [_document(document, row.way, lab) for row in rows]
    return Answer(tuple(rows), tuple(documents), tuple(reasons), worth, simulated, whole, folder, learning)


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
    found.get("workload", {}).pop("total_batch", None)
    for key, value in way.changes.items():
        assign(found, key, value, key)
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


def command(scenario: Path | None, asked: Mapping[str, Any], options: PlanOptions) -> None:
    """The command `paceline plan`. asked: the options that stand for a scenario, or change it; None where not given."""
    from .plan_printing import show_plan

    given: Path | dict[str, Any]
    given, settings = _asked(scenario, asked, options.settings)
    path = refuse(options.out)
    tolerance, sample = _share("--tolerance", options.tolerance), _share("--sample", options.sample)
    if not 0 < sample <= 1:
        raise ScenarioError(f"--sample {options.sample}: write a share above 0 and up to 100%")
    try:
        effort = read_seconds(options.effort, "10 min", positive=True)
    except ValueError as error:
        raise ScenarioError(f"--effort: {error}") from None
    answer = plan(
        given,
        settings=settings,
        objective=options.objective,
        keep=options.keep,
        max_batch_total=options.most,
        tolerance=tolerance,
        effort=effort,
        sample=sample,
        quiet=options.quiet,
    )
    write(answer, path)
    if options.json:
        write_text(options.json, answer.json())
    if options.figures:
        from .plan_figure import save_front

        save_front(answer, options.figures)
    if not options.quiet:
        show_plan(answer, path)


def _share(option: str, text: str) -> float:
    try:
        return read_share(text)
    except ValueError as error:
        raise ScenarioError(f"{option}: {error}") from None


def _asked(
    scenario: Path | None, asked: Mapping[str, Any], settings: Sequence[str]
) -> tuple[Path | dict[str, Any], list[str]]:
    """(the scenario, settings): a file with what else is asked for as settings, or a document of what is asked for."""
    wanted = {name: value for name, value in asked.items() if value is not None}
    if scenario is None:
        for name in ("model", "workers", "link"):
            if name not in wanted:
                raise ScenarioError("plan what? name a scenario, or write --model, --workers and --link")
        document = document_of(**wanted)
        for setting in settings:
            apply(document, setting)
        return document, []
    for name in ("model", "workers", "link"):
        if name in wanted:
            raise ScenarioError(f"--{name}: the scenario says it; change it with --set, or leave the scenario out")
    keys = {"batch": "workload={{total_batch: {}}}", "epochs": "budget={{epochs: {}}}", "data": "workload.data={}"}
    if "batch" in wanted:
        raise ScenarioError("--batch: the scenario says it; write --set workload.batch=N")
    return scenario, [*settings, *(keys[name].format(value) for name, value in wanted.items())]


def refuse(out: Path) -> Path:
    """The file plan.yaml in the folder. ScenarioError where another file of that name is there."""
    path = out / "plan.yaml"
    if path.exists() and not path.read_text(errors="replace").startswith(MADE):
        raise ScenarioError(f"--out {out}: its plan.yaml is not one that a plan has made; name another folder")
    return path


def write(answer: Answer, path: Path) -> None:
    """Write the recommended way as a scenario. ScenarioError where that fails."""
    document, folder = dict(answer.documents[0]), answer.folder
    if folder.resolve() != Path.cwd():  # its relative paths are to be found from the new place, too
        folders = [
            {"path": str(each), "from_run": str(each)} for each in folders_of(validate(document, "plan"), folder)
        ]
        document["recorded"] = dict(document.get("recorded") or {}) | {"folders": folders}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(f"--out {path.parent}: cannot be made: {error.strerror}; name another folder") from None
    told = f"{MADE}: an epoch is predicted to take {answer.rows[0].epoch:.6g} s.\n# {one_line(answer.decision, 300)}\n"
    write_text(path, told + yaml.dump(document))
