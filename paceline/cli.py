"""The command line: the options and the help text of each command. What a command does is in a module of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from .app import App, WithTarget, print_version
from .program.errors import ScenarioError

app = App(
    help="Train neural networks on devices of unequal speed, and predict such training before it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Version = Annotated[bool, Option("--version", callback=print_version, is_eager=True, help="Print the version.")]
Settings = Annotated[list[str], Option("--set", metavar="A.B=C", help="Override a key of the scenario.")]
Out = Annotated[Path | None, Option(help="Run directory. Default: runs/NAME-simulated or runs/NAME-trained.")]
ProfileOut = Annotated[Path, Option(help="The profile to write. What an existing one also holds is kept.")]
Force = Annotated[bool, Option("--force", help="Replace the run that is in the directory.")]
Debug = Annotated[bool, Option("--debug", help="Check that no program writes to a value while it is borrowed.")]
Engine = Annotated[str, Option(help="The simulator: auto, cohort (faster) or simpy (does everything).")]
Ranks = Annotated[int | None, Option("-n", min=1, help="MPI ranks to start. Default: one per worker.")]
Emulate = Annotated[
    bool | None, Option("--emulate/--no-emulate", help="A worker k times slower sleeps k-1 times its step.")
]
EmulateNetwork = Annotated[
    bool | None,
    Option("--emulate-network/--no-emulate-network", help="Lay the described star around the ranks: Linux, root."),
]
MaxRestarts = Annotated[
    int | None, Option(min=0, metavar="N", help="After a lost worker, start the ranks again, N times at most.")
]
MinWorkers = Annotated[
    int | None, Option(min=1, metavar="K", help="Go on with fewer workers, as long as K of them remain.")
]
Shrink = Annotated[
    bool | None, Option("--shrink/--no-shrink", help="Go on without a lost worker, from the last sync (Open MPI).")
]
ValidationOut = Annotated[Path, Option(help="The folder for the record, the tables and the figure.")]
Again = Annotated[bool, Option("--force", help="Begin again, instead of going on from the folder's record.")]
Published = Annotated[bool, Option("--published", help="Predict published runs instead, from a few of their numbers.")]
Page = Annotated[Path | None, Option(metavar="FILE", help="Write the tables into this Markdown page.")]
MACHINE = Path("profiles/machine.yaml")


@app.callback()
def main(version: Version = False) -> None:
    """The options of `paceline` itself."""


@app.command()
def simulate(
    scenario: Path,
    timing_only: Annotated[bool, Option("--timing-only", help="Predict the clock alone, without numbers.")] = False,
    engine: Engine = "auto",
    setting: Settings = [],  # noqa: B006
    out: Out = None,
    force: Force = False,
    debug: Debug = False,
    limit: Annotated[str | None, Option(metavar="TIME", help="Fail after so much virtual time, like '1 h'.")] = None,
    max_restarts: MaxRestarts = None,
    min_workers: MinWorkers = None,
    shrink: Shrink = None,
) -> None:
    """Simulate a scenario in virtual time."""
    from .config.scenario import recovery_settings
    from .config.units import read_seconds
    from .printing import show_run
    from .simulating import simulate as run

    directory = out or Path("runs") / f"{scenario.stem}-simulated"
    options = {"timing_only": timing_only, "engine": engine, "force": force, "debug": debug}
    try:
        options["limit"] = None if limit is None else read_seconds(limit, "1 h", positive=True)
    except ValueError as error:
        raise ScenarioError(f"--limit: {error}") from None
    flags = recovery_settings(max_restarts=max_restarts, min_workers=min_workers, shrink=shrink)
    show_run(run(scenario, settings=[*setting, *flags], out=directory, quiet=False, **options))  # type: ignore[arg-type]


@app.command()
def train(
    scenarios: Annotated[list[Path] | None, Argument(metavar="SCENARIO...")] = None,
    ranks: Ranks = None,
    emulate: Emulate = None,
    phantom: Annotated[
        bool | None, Option("--phantom/--no-phantom", help="Send real messages, but sleep instead of computing.")
    ] = None,
    emulate_network: EmulateNetwork = None,
    resume: Annotated[
        Path | None, Option(metavar="DIR", help="Continue this run from its newest whole checkpoint.")
    ] = None,
    round: Annotated[int | None, Option(metavar="N", help="Resume from the checkpoint after round N.")] = None,
    change: Annotated[bool, Option("--change", help="Resume with another seed, model, data or batch.")] = False,
    without: Annotated[
        list[int], Option("--without", metavar="N", min=0, help="Resume without worker N. May be repeated.")
    ] = [],  # noqa: B006
    max_restarts: MaxRestarts = None,
    min_workers: MinWorkers = None,
    shrink: Shrink = None,
    setting: Settings = [],  # noqa: B006
    out: Out = None,
    force: Force = False,
    debug: Debug = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no result.")] = False,
    bar: Annotated[bool, Option("--bar", hidden=True)] = False,
    restart: Annotated[str | None, Option("--restart", hidden=True)] = None,
) -> None:
    """Train scenarios for real. Starts mpirun itself, or runs under one."""
    from .runtime.launcher import Stop, under_mpirun

    found = scenarios or []
    inside = under_mpirun()
    stop = Stop() if inside else None  # before the imports below, which take seconds
    from .config.scenario import recovery_settings, train_settings
    from .launching import launch
    from .restart import Restart
    from .training import TrainOptions

    shown = bar if inside else sys.stdout.isatty()
    flags = train_settings(emulate=emulate, phantom=phantom, emulate_network=emulate_network)
    flags += recovery_settings(max_restarts=max_restarts, min_workers=min_workers, shrink=shrink)
    options = TrainOptions((*setting, *flags), out, force, debug, resume, round, shown, change, tuple(without))
    if restart is not None and inside:
        options = replace(options, restart=Restart.read(restart))
    if stop is None:
        raise Exit(launch(found, options, ranks, quiet))
    from .training_rank import train_ranks

    train_ranks(found, options, quiet, stop)


@app.command()
def sweep(
    scenario: Path,
    grid: Annotated[
        list[str], Option("--grid", metavar="A.B=1,2,4", help="Values of a key. Several grids are combined.")
    ] = [],  # noqa: B006
    points: Annotated[
        Path | None, Option("--list", metavar="FILE", help="Points: a CSV file (keys as columns) or a YAML list.")
    ] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[
        Path | None, Option(help="The table: .csv, .json or .parquet. Default: runs/NAME-sweep.csv.")
    ] = None,
    full: Annotated[bool, Option("--full", help="Train as well, instead of predicting the clock alone.")] = False,
    engine: Engine = "auto",
    jobs: Annotated[int | None, Option("-j", min=1, help="Processes. Default: one per core.")] = None,
    runs: Annotated[Path | None, Option(metavar="DIR", help="Keep a run directory for every point here.")] = None,
    retry: Annotated[bool, Option("--retry", help="Repeat the points whose row holds an error.")] = False,
    force: Annotated[bool, Option("--force", help="Begin the table again.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no table.")] = False,
) -> None:
    """Simulate a scenario at many points, in parallel, into one table. Continues a table that exists already."""
    from .studies.points import parse_grid
    from .sweeping import command

    table = out or Path("runs") / f"{scenario.stem}-sweep.csv"
    options = {"settings": setting, "full": full, "engine": engine, "runs": runs, "retry": retry, "force": force}
    command(scenario, parse_grid(grid), table, jobs, quiet, points=points, **options)


@app.command(cls=WithTarget)
def plan(
    scenario: Annotated[Path | None, Argument(help="Its model, data, machines and limits count.")] = None,
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
    tolerance: Annotated[str, Option(metavar="5%", help="The time that simpler training may cost.")] = "5%",
    json: Annotated[Path | None, Option(metavar="FILE", help="Write the answer here as well, as JSON.")] = None,
    figures: Annotated[Path | None, Option(metavar="DIR", help="Draw the front into this folder.")] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[Path, Option(metavar="DIR", help="The folder for plan.yaml.")] = Path("runs/plan"),
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no table.")] = False,
) -> None:
    """How to train on these machines: which workers, method, batches and placement, predicted in virtual time.

    Writes the recommended way to plan.yaml, a scenario that `train` and `simulate` take as it is.
    """
    from .planning.command import PlanOptions, command

    asked = {"model": model, "workers": workers, "link": link, "batch": batch, "epochs": epochs, "data": data}
    options = PlanOptions(
        tuple(setting), objective, tuple(keep), most, tolerance, json, figures, out, quiet, effort, sample
    )
    command(scenario, asked, options)


@app.command()
def validate(
    scenarios: Annotated[list[Path], Argument(metavar="SCENARIO...", show_default=False)] = [],  # noqa: B006
    published: Published = False,
    rounds: Annotated[int, Option(min=1, help="Rounds of each case.")] = 5,
    max_rounds: Annotated[
        int, Option(min=1, help="Rounds of a case whose real runs A and B differ by more than 10 %.")
    ] = 15,
    within: Annotated[
        str | None,
        Option(metavar="10%", help="End with status 1 if a judged case's excess is above it, or no case is judged."),
    ] = None,
    profile: Annotated[
        Path | None, Option(metavar="FILE", help="Predict from this profile. Default: a fresh one in each round.")
    ] = None,
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
) -> None:
    """Profile, predict and train scenarios in interleaved rounds, and show how wrong the predictions are.

    Error: predicted / measured - 1, of the medians over the rounds. Excess: the error less what two equal runs, A and
    B, differ by, of which at most 10 % counts. A case whose A and B differ by more is repeated, and in the end not
    judged. The exit status is 1 if a case failed, or if --within is given and does not hold. The same command goes on
    where it stopped.

    With --published, each SCENARIO is a file of published runs; by default, they are those that come with Paceline.
    """
    if published:
        from .published_runs import validate_published

        return validate_published(scenarios, json, page)
    if not scenarios:
        raise ScenarioError("validate what? name scenarios, or write --published")
    from .studies.validation import Rounds
    from .validating import ValidateOptions, limits, validate_scenarios

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
    )
    raise Exit(validate_scenarios(scenarios, options))


@app.command()
def compare(
    left: Annotated[Path, Argument(metavar="RUN", help="Usually the simulated run.")],
    right: Annotated[Path, Argument(metavar="RUN", help="Usually the real run.")],
    figures: Annotated[Path | None, Option(metavar="DIR", help="Draw figures into this folder.")] = None,
) -> None:
    """Compare two runs: their losses to the last bit, and how far their clocks are apart."""
    from .analysis.run import Run
    from .printing import save_figures, show_comparison

    runs = [Run.load(left), Run.load(right)]
    show_comparison(*runs)
    if figures is not None:
        save_figures(runs, figures)


@app.command()
def profile(
    scenario: Annotated[Path | None, Argument(help="What to measure. Default: the quickstart.")] = None,
    out: ProfileOut = MACHINE,
    emulate: Emulate = None,
    emulate_network: EmulateNetwork = None,
    ranks: Ranks = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure this machine: what steps, their pieces, copies and exchanges take, and how much times vary."""
    from .config.scenario import train_settings
    from .demo import packaged
    from .profiling import profile as run

    flags = train_settings(emulate=emulate, emulate_network=emulate_network)
    run(scenario or packaged("quickstart"), out, ranks, [*setting, *flags])


@app.command()
def export(
    run: Annotated[Path, Argument(metavar="RUN", help="The directory of a run that has trained.")],
    out: Annotated[Path, Option(metavar="FILE", help="The file to write; its name ends in .safetensors.")],
    round: Annotated[
        int | None, Option("--round", metavar="N", help="Of the checkpoint after N rounds. Default: the newest.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a run's trained model as a state_dict with the model's own names, in one safetensors file."""
    from .exporting import export as write

    write(run, out, round, force)


@app.command()
def catalogue() -> None:
    """List the devices and links that a scenario may name, with their sources."""
    from .printing import show_catalogue

    show_catalogue()


@app.command()
def explain(
    name: Annotated[str, Argument(metavar="PRESET|KEY", help="Also a member of an axis, or package.module:Name.")],
) -> None:
    """Say what a preset, a member of an axis or a key is: its formula, arguments, source, and a scenario's line."""
    from .explaining import show_explanations

    show_explanations(name)


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario, for editors."""
    from .explaining import show_schema

    show_schema()


@app.command("batch-sizes")
def batch_sizes(
    scenario: Path,
    out: ProfileOut = MACHINE,
    mode: Annotated[
        str | None, Option(help="Show only fixed_total, no_restriction or equal. Default: all three.")
    ] = None,
    memory: Annotated[str | None, Option(metavar="4 GiB", help="Memory per worker. Default: the cluster's.")] = None,
    ranks: Ranks = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure each worker's largest batch that fits its memory, and the batches that make all steps equally long."""
    from .batch_sizes import BatchSizeOptions
    from .batch_sizes import batch_sizes as run

    run(scenario, BatchSizeOptions(out, mode, memory, tuple(setting)), ranks)


@app.command()
def demo(out: Annotated[Path, Option(help="The folder for everything.")] = Path("runs/demo")) -> None:
    """Profile this machine, simulate, train for real, compare and draw. Replaces an earlier demo in the folder."""
    from .demo import demo as run

    run(out)
