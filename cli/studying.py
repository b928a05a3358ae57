"""What simulates or trains many runs to answer a question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from ..analysis.paper import Paper
from ..program.errors import ScenarioError
from .app import WithTarget, app
from .options import Engine, Scenario, Settings, draws, find_profile, find_scenario, scenario_argument

ValidationOut = Annotated[Path, Option(help="The folder for the record, the tables and the figure.")]
Measured = Annotated[
    str | None, Option(metavar="SPEED", help="What all workers do together as they train now, like '2000 samples/s'.")
]
Deadline = Annotated[str | None, Option(metavar="TIME", help="When training must end, or reach the target: '8 h'.")]
Again = Annotated[bool, Option("--force", help="Begin again, instead of going on from the folder's record.")]
Published = Annotated[bool, Option("--published", help="Predict published runs instead, from a few of their numbers.")]
KnownProfile = Annotated[
    Path | None,
    Option(
        parser=find_profile,
        metavar="FILE",
        help="Predict from this profile. Default: a fresh one in each round.",
    ),
]
Page = Annotated[Path | None, Option(metavar="FILE", help="Write the tables into this Markdown page.")]


@app.command()
def sweep(
    scenario: Scenario,
    grid: Annotated[
        list[str], Option("--grid", metavar="A.B=1,2,4", help="Values of a key. Several grids are combined.")
    ] = [],  # noqa: B006
    points: Annotated[
        Path | None,
        Option(
            "--list", parser=find_scenario, metavar="FILE", help="Points: a CSV file (keys as columns) or a YAML list."
        ),
    ] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[
        Path | None, Option(help="The table: .csv, .json or .parquet. Default: runs/NAME-sweep.csv.")
    ] = None,
    full: Annotated[bool, Option("--full", help="Train as well, instead of predicting the clock alone.")] = False,
    engine: Engine = "auto",
    jobs: Annotated[int | None, Option("-j", min=1, help="Processes. Default: one per core.")] = None,
    runs: Annotated[Path | None, Option(metavar="DIR", help="Keep a run directory for every point here.")] = None,
    callbacks: Annotated[bool, Option("--callbacks", help="Tell the scenario's callbacks of each point.")] = False,
    retry: Annotated[bool, Option("--retry", help="Repeat the points whose row holds an error.")] = False,
    force: Annotated[bool, Option("--force", help="Begin the table again.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no table.")] = False,
) -> None:
    """Simulate a scenario at many points, in parallel, into one table. Continues a table that exists already."""
    from ..studies.points import parse_grid
    from ..sweeping import command

    table = out or Path("runs") / f"{scenario.stem}-sweep.csv"
    options = {"settings": setting, "full": full, "engine": engine, "runs": runs, "retry": retry, "force": force}
    command(scenario, parse_grid(grid), table, jobs, quiet, points=points, callbacks=callbacks, **options)


@app.command(cls=WithTarget)
@draws
def plan(
    scenario: Annotated[Path | None, scenario_argument("Its model, data, machines and limits count.")] = None,
    model: Annotated[str | None, Option(metavar="NAME", help="Without a scenario: the model.")] = None,
    workers: Annotated[
        str | None, Option(metavar="LIST", help="Without a scenario: the machines, like '2 x a6000, epyc-7742'.")
    ] = None,
    link: Annotated[
        str | None, Option(metavar="LINK", help="Without a scenario: what joins them, like 10gbe or '1 Gbit/s'.")
    ] = None,
    batch: Annotated[int | None, Option(min=1, metavar="N", help="Samples of all workers in a step.")] = None,
    epochs: Annotated[float | None, Option(metavar="N", help="How long to train.")] = None,
    data: Annotated[str | None, Option(metavar="NAME", help="The data.")] = None,
    measured: Measured = None,
    objective: Annotated[
        str, Option("--for", metavar="OBJECTIVE", help="throughput: seconds per epoch. accuracy 0.96: seconds to it.")
    ] = "throughput",
    effort: Annotated[str, Option(metavar="TIME", help="With a target: how long this machine may train.")] = "10 min",
    sample: Annotated[
        str, Option(metavar="20%", help="With a target: the share of the training examples to train on.")
    ] = "100%",
    keep: Annotated[
        list[str], Option("--keep", metavar="WHAT", help="Leave method, H or workers as the scenario has it.")
    ] = [],  # noqa: B006
    most: Annotated[
        int | None, Option("--max-batch-total", min=1, metavar="N", help="The most samples of all workers in a step.")
    ] = None,
    deadline: Deadline = None,
    tolerance: Annotated[str, Option(metavar="5%", help="The time that simpler training may cost.")] = "5%",
    json: Annotated[Path | None, Option(metavar="FILE", help="Write the answer here as well, as JSON.")] = None,
    figures: Annotated[Path | None, Option(metavar="DIR", help="Draw figures into this folder.")] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[Path, Option(metavar="DIR", help="The folder for plan.yaml.")] = Path("runs/plan"),
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no table.")] = False,
    *,
    paper: Paper,
) -> None:
    """How to train on these machines: which workers, method, batches and placement, predicted in virtual time.

    Writes the recommended way to plan.yaml, a scenario that `train` and `simulate` take as it is.
    """
    from ..planning.command import PlanOptions, command

    asked = {"model": model, "workers": workers, "link": link, "batch": batch, "epochs": epochs, "data": data}
    options = PlanOptions(
        settings=tuple(setting),
        objective=objective,
        keep=tuple(keep),
        most=most,
        tolerance=tolerance,
        json=json,
        figures=figures,
        out=out,
        quiet=quiet,
        effort=effort,
        sample=sample,
        deadline=deadline,
        paper=paper,
        measured=measured,
    )
    command(scenario, asked, options)


@app.command("run-all")
def run_all(
    scenario: Scenario,
    real: Annotated[bool, Option("--real", help="Measure the largest batches and train, on this machine.")] = False,
    full: Annotated[bool, Option("--full", help="Simulate the numbers as well, not the clock alone.")] = False,
    epochs: Annotated[float, Option(metavar="N", help="How long each run trains.")] = 1.0,
    mode: Annotated[
        list[str], Option("--mode", metavar="MODE", help="DDP, DDP+FP, FSDP, FSDP+OFFLOAD, LSDP. Default: all.")
    ] = [],  # noqa: B006
    total: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Samples of all workers in a step. Default: by largest batches."),
    ] = None,
    memory: Annotated[str | None, Option(metavar="4 GiB", help="With --real: memory per worker.")] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[Path | None, Option(help="The folder for table and runs. Default: runs/NAME-all.")] = None,
    force: Annotated[bool, Option("--force", help="Begin again.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no table.")] = False,
) -> None:
    """LSHDP's comparison in one table: every data-parallel mode with every way to choose batches.

    The same command goes on where it stopped.
    """
    from ..running_all import MODES, RunAllOptions, command

    options = RunAllOptions(
        real, full, epochs, tuple(mode) or tuple(MODES), total, memory, tuple(setting), force, quiet
    )
    command(scenario, out or Path("runs") / f"{scenario.stem}-all", options)


@app.command()
@draws
def validate(
    scenarios: Annotated[list[Path], scenario_argument(metavar="SCENARIO...", show_default=False)] = [],  # noqa: B006
    published: Published = False,
    rounds: Annotated[int, Option(min=1, help="Rounds of each case.")] = 5,
    max_rounds: Annotated[
        int, Option(min=1, help="Rounds of a case whose real runs A and B differ by more than 10 %.")
    ] = 15,
    within: Annotated[
        str | None,
        Option(metavar="10%", help="End with status 1 if a judged case's excess is above it, or no case is judged."),
    ] = None,
    profile: KnownProfile = None,
    seeds: Annotated[int, Option(min=1, help="Simulations of each prediction, each with other noise.")] = 40,
    target: Annotated[
        str | None,
        Option(metavar="96%", help="To which seconds are compared: accuracy, or 'perplexity<=20'. Default: 96%."),
    ] = None,
    json: Annotated[Path | None, Option(metavar="FILE", help="Write the report here as well, as JSON.")] = None,
    page: Page = None,
    setting: Settings = [],  # noqa: B006
    out: ValidationOut = Path("runs/validation"),
    force: Again = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no tables.")] = False,
    *,
    paper: Paper,
) -> None:
    """Profile, predict and train scenarios in interleaved rounds, and show how wrong the predictions are.

    Error: predicted / measured - 1, of the medians over the rounds. Excess: the error less what two equal runs, A and
    B, differ by, of which at most 10 % counts. A case whose A and B differ by more is repeated, and in the end not
    judged. The exit status is 1 if a case failed, or if --within is given and does not hold. The same command goes on
    where it stopped.

    With --published, each SCENARIO is a file of published runs; by default, they are those that come with Paceline.
    """
    if published:
        from ..published_runs import validate_published

        return validate_published(scenarios, json, page)
    if not scenarios:
        raise ScenarioError("validate what? name scenarios, or write --published")
    from ..studies.validation import Rounds
    from ..validating import ValidateOptions, limits, validate_scenarios

    most, reached = limits(within, target)
    options = ValidateOptions(
        out,
        Rounds(rounds, max(rounds, max_rounds)),
        most,
        profile,
        tuple(setting),
        seeds,
        reached,
        json,
        page,
        force,
        quiet,
        paper,
    )
    raise Exit(validate_scenarios(scenarios, options))
