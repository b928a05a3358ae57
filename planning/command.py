"""The command `paceline plan`: its options, and the files that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from ..analysis.paper import Paper
from ..config import yaml
from ..config.scenario import apply, validate
from ..config.units import read_seconds, read_share, read_speed
from ..folders import folders_of
from ..job import resolve
from ..marked_page import check_folder, write_text
from ..program.errors import ScenarioError, one_line
from .answer import Answer
from .plan import plan
from .request import document_of

MADE = "# Made by `paceline plan`"


@dataclass(frozen=True)
class PlanOptions:
    """The command's options."""

    settings: tuple[str, ...]
    objective: str
    keep: tuple[str, ...]
    most: int | None  # samples of all workers in a step
    tolerance: str
    json: Path | None
    figures: Path | None  # a folder
    out: Path  # a folder
    quiet: bool
    effort: str  # of this machine, for training
    sample: str  # of the training examples
    deadline: str | None  # for the training
    paper: Paper  # how figures are drawn
    measured: str | None  # samples/s of all workers as they train now


def command(scenario: Path | None, asked: Mapping[str, Any], options: PlanOptions) -> None:
    """The command `paceline plan`. asked: the options that stand for a scenario, or change it; None where not given."""
    from .printing import show_plan

    given: Path | dict[str, Any]
    given, settings = _asked(scenario, asked, options.settings)
    path = refuse(options)
    answer = plan(
        given,
        settings=settings,
        objective=options.objective,
        keep=options.keep,
        max_batch_total=options.most,
        tolerance=_read(
            "--tolerance", options.tolerance, lambda text: 0.0 if text in ("0", "0%") else read_share(text)
        ),
        measured=None if options.measured is None else _read("--measured", options.measured, read_speed),
        deadline=inf if options.deadline is None else _seconds("--deadline", options.deadline, "8 h"),
        effort=_seconds("--effort", options.effort, "10 min"),
        sample=_read("--sample", options.sample, read_share),
        quiet=options.quiet,
    )
    write(answer, path)
    if options.json:
        write_text(options.json, answer.json())
    if options.figures:
        from .figure import save_figures

        save_figures(answer, options.figures, options.paper)
    if not options.quiet:
        resolve(answer.scenarios[0], answer.folder).warn()  # what `simulate` and `train` would warn of
        show_plan(answer, path)


def _seconds(option: str, text: str, example: str) -> float:
    return _read(option, text, lambda text: read_seconds(text, example, positive=True))


def _read(option: str, text: str, reader: Callable[[str], float]) -> float:
    try:
        return reader(text)
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


def refuse(options: PlanOptions) -> Path:
    """The file plan.yaml. ScenarioError where another file of that name is there, or what is asked for has no place."""
    path = options.out / "plan.yaml"
    for option, named, folder in (
        ("--out", options.out, options.out),
        ("--json", options.json, options.json and options.json.parent),
        ("--figures", options.figures, options.figures),
    ):
        if folder is not None:
            check_folder(folder, f"{option} {named}")
    if path.exists() and not path.read_text(errors="replace").startswith(MADE):
        raise ScenarioError(f"--out {options.out}: its plan.yaml is not one that a plan has made; name another folder")
    return path


def write(answer: Answer, path: Path) -> None:
    """Write the recommended way as a scenario. ScenarioError where that fails."""
    document, folder = dict(answer.documents[0]), answer.folder
    if folder.resolve() != Path.cwd():  # its relative paths are to be found from the new place, too
        folders = [
            {"path": str(each), "from_run": str(each)} for each in folders_of(validate(document, "plan"), folder)
        ]
        document["recorded"] = dict(document.get("recorded") or {}) | {"folders": folders}
    told = f"{MADE}: an epoch is predicted to take {answer.rows[0].epoch:.6g} s.\n# {one_line(answer.decision, 300)}\n"
    write_text(path, told + yaml.dump(document))
