"""The command line: what each command takes, and nothing of what it does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import App, print_version
from .program.errors import ScenarioError

app = App(
    help="Train neural networks on devices of unequal speed, and predict such training before it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What every command shares."""


Settings = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a key of the scenario.")]
Out = Annotated[Path | None, typer.Option(help="Run directory. Default: runs/NAME-simulated or NAME-trained.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a run that is already in the directory.")]
Debug = Annotated[bool, typer.Option("--debug", help="Check that no program writes to a value it has lent out.")]


@app.command()
def simulate(
    scenario: Path,
    timing_only: Annotated[bool, typer.Option("--timing-only", help="The clock alone; loads no torch.")] = False,
    engine: Annotated[str, typer.Option(help="auto, cohort or simpy.")] = "auto",
    setting: Settings = [],  # noqa: B006
    out: Out = None,
    force: Force = False,
    debug: Debug = False,
    limit: Annotated[str | None, typer.Option(metavar="TIME", help="Virtual time to finish in, like '1 h'.")] = None,
) -> None:
    """Simulate a scenario in virtual time."""
    from .config.units import read_seconds
    from .printing import show_run
    from .simulating import simulate as run

    directory = out or Path("runs") / f"{scenario.stem}-simulated"
    options = {"timing_only": timing_only, "engine": engine, "force": force, "debug": debug}
    try:
        options["limit"] = None if limit is None else read_seconds(limit, "1 h", positive=True)
    except ValueError as error:
        raise ScenarioError(f"--limit: {error}") from None
    show_run(run(scenario, settings=setting, out=directory, quiet=False, **options))  # type: ignore[arg-type]


@app.command()
def train(
    scenarios: Annotated[list[Path] | None, typer.Argument(metavar="SCENARIO...")] = None,
    ranks: Annotated[int | None, typer.Option("-n", min=1, help="Ranks to start. Default: one per worker.")] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="A worker k times slower sleeps k-1 times its step.")
    ] = False,
    phantom: Annotated[bool, typer.Option("--phantom", help="Real messages; computing replaced by sleeping.")] = False,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on from a run's newest checkpoint.")] = None,
    change: Annotated[bool, typer.Option("--change", help="Resume with another seed, model, data or batch.")] = False,
    setting: Settings = [],  # noqa: B006
    out: Out = None,
    force: Force = False,
    debug: Debug = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    bar: Annotated[bool, typer.Option("--bar", hidden=True)] = False,
) -> None:
    """Train scenarios for real: starts mpirun itself, or runs under one."""
    from .runtime.launcher import Stop, under_mpirun

    found = scenarios or []
    if emulate and phantom:
        raise ScenarioError("--emulate and --phantom exclude one another: one computes, the other only sleeps")
    if resume is not None and phantom:
        raise ScenarioError("--resume and --phantom exclude one another: phantoms have nothing to go on from")
    inside = under_mpirun()
    stop = Stop() if inside else None  # before the imports below, which take seconds
    from .training import TrainOptions, launch

    shown = bar if inside else sys.stdout.isatty()
    options = TrainOptions(tuple(setting), out, force, emulate, phantom, debug, resume, shown, change)
    if stop is None:
        raise typer.Exit(launch(found, options, ranks, quiet))
    from .training_rank import train_ranks

    train_ranks(found, options, quiet, stop)


@app.command()
def sweep(
    scenario: Path,
    grid: Annotated[
        list[str], typer.Option("--grid", metavar="A.B=1,2,4", help="A key's values; several: each with each.")
    ] = [],  # noqa: B006
    points: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Points: a CSV file (keys as columns) or a YAML list.")
    ] = None,
    setting: Settings = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="The table: .csv, .json or .parquet. Default: runs/NAME-sweep.csv.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Learn as well, instead of the clock alone.")] = False,
    engine: Annotated[str, typer.Option(help="auto, cohort or simpy.")] = "auto",
    jobs: Annotated[int | None, typer.Option("-j", min=1, help="Processes. Default: one per core.")] = None,
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep a run directory of every point there.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Simulate again what is in the table with an error.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin the table again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
) -> None:
    """Simulate a scenario at many points, in parallel: one table. Goes on with a table that is there already."""
    from .studies.points import parse_grid
    from .sweeping import command

    table = out or Path("runs") / f"{scenario.stem}-sweep.csv"
    options = {"settings": setting, "full": full, "engine": engine, "runs": runs, "retry": retry, "force": force}
    command(scenario, parse_grid(grid), table, jobs, quiet, points=points, **options)


@app.command()
def compare(
    left: Annotated[Path, typer.Argument(metavar="RUN", help="Usually the simulated run.")],
    right: Annotated[Path, typer.Argument(metavar="RUN", help="Usually the real one.")],
    figures: Annotated[Path | None, typer.Option(help="A folder for the figures.")] = None,
) -> None:
    """Same losses? Where do two runs part? How far are their clocks apart?"""
    from .analysis.run import load
    from .printing import save_figures, show_comparison

    runs = [load(left), load(right)]
    show_comparison(*runs)
    if figures is not None:
        save_figures(runs, figures)


@app.command()
def profile(
    scenario: Annotated[
        Path | None, typer.Argument(help="Whose model, data and worker count to measure. Default: the quickstart.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The profile; an existing one keeps its other workloads.")] = Path(
        "profiles/machine.yaml"
    ),
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Slow workers sleep between steps, as in training.")
    ] = False,
    ranks: Annotated[int | None, typer.Option("-n", min=1, help="Ranks. Default: one per worker.")] = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure this machine: seconds per step against batch size, latency and bandwidth of the all-reduce."""
    from .demo import packaged
    from .profiling import profile as run

    run(scenario or packaged("quickstart"), out, emulate, ranks, setting)


@app.command()
def catalogue() -> None:
    """List the devices and links that a scenario may name, with their sources."""
    from .printing import show_catalogue

    show_catalogue()


@app.command("batch-sizes")
def batch_sizes(
    scenario: Path,
    out: Annotated[Path, typer.Option(help="The profile; an existing one keeps what else it holds.")] = Path(
        "profiles/machine.yaml"
    ),
    mode: Annotated[
        str | None, typer.Option(help="fixed_total, no_restriction or equal alone. Default: show all three.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="4 GiB", help="Each worker's budget. Default: its memory in the cluster.")
    ] = None,
    ranks: Annotated[int | None, typer.Option("-n", min=1, help="Ranks. Default: one per worker.")] = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure the largest batch that each worker's memory holds, and divide steps so that all finish together."""
    from .batch_sizes import BatchSizeOptions
    from .batch_sizes import batch_sizes as run

    run(scenario, BatchSizeOptions(out, mode, memory, tuple(setting)), ranks)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
) -> None:
    """Profile this machine, simulate, train for real, compare, draw. An earlier demo in the folder is replaced."""
    from .demo import demo as run

    run(out)
