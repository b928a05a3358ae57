"""What runs a scenario, and what is done with its runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from ..analysis.paper import Paper
from ..program.errors import ScenarioError
from .app import app
from .options import Emulate, EmulateNetwork, Engine, Ranks, Scenario, Settings, draws, scenario_argument

Out = Annotated[Path | None, Option(help="Run directory. Default: runs/NAME-simulated or runs/NAME-trained.")]
Force = Annotated[bool, Option("--force", help="Replace the run that is in the directory.")]
Debug = Annotated[bool, Option("--debug", help="Check that no program writes to a value while it is borrowed.")]
MaxRestarts = Annotated[
    int | None, Option(min=0, metavar="N", help="After a lost worker, start the ranks again, N times at most.")
]
MinWorkers = Annotated[
    int | None, Option(min=1, metavar="K", help="Go on with fewer workers, as long as K of them remain.")
]
Shrink = Annotated[
    bool | None, Option("--shrink/--no-shrink", help="Go on without a lost worker, from the last sync (Open MPI).")
]

Hosts = Annotated[str | None, Option(metavar="a:4,b:4", help="The hosts to train on, and how many ranks each takes.")]
Hostfile = Annotated[
    Path | None, Option(metavar="FILE", help="The same in a file: a line for each host, like `a slots=4` or `a:4`.")
]
Passed = Annotated[
    list[str], Option("-x", metavar="NAME", help="An environment variable for ranks on other hosts. May be repeated.")
]
DryRun = Annotated[bool, Option("--dry-run", help="Show scenario, placement, command, time and memory; start nothing.")]


@app.command()
def simulate(
    scenario: Scenario,
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
    from ..config.scenario import recovery_settings
    from ..config.units import read_seconds
    from ..printing import show_run
    from ..simulating import simulate as run

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
    scenarios: Annotated[list[Path] | None, scenario_argument(metavar="SCENARIO...")] = None,
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
    hosts: Hosts = None,
    hostfile: Hostfile = None,
    passed: Passed = [],  # noqa: B006
    dry_run: DryRun = False,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress and no result.")] = False,
    bar: Annotated[bool, Option("--bar", hidden=True)] = False,
    restart: Annotated[str | None, Option("--restart", hidden=True)] = None,
) -> None:
    """Train scenarios for real. Starts mpirun itself, or runs under one."""
    from ..runtime.launcher import Stop, under_mpirun

    found = scenarios or []
    inside = under_mpirun()
    if inside and (dry_run or hosts or hostfile or passed):
        raise ScenarioError(
            "--dry-run, --hosts, --hostfile and -x are about ranks that Paceline starts; leave out mpirun or srun"
        )
    stop = Stop() if inside else None  # before the imports below, which take seconds
    from ..config.scenario import recovery_settings, train_settings
    from ..launching import launch
    from ..placement import Where
    from ..restart import Restart
    from ..training import TrainOptions

    shown = bar if inside else sys.stdout.isatty()
    flags = train_settings(emulate=emulate, phantom=phantom, emulate_network=emulate_network)
    flags += recovery_settings(max_restarts=max_restarts, min_workers=min_workers, shrink=shrink)
    options = TrainOptions((*setting, *flags), out, force, debug, resume, round, shown, change, tuple(without))
    if restart is not None and inside:
        options = replace(options, restart=Restart.read(restart))
    if stop is None:
        raise Exit(launch(found, options, ranks, quiet, Where(hosts, hostfile, tuple(passed)), dry_run))
    from ..training_rank import train_ranks

    train_ranks(found, options, quiet, stop)


@app.command()
def watch(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="A run's directory, or a folder of runs.")],
    once: Annotated[bool, Option("--once", help="Show what they do now, and end.")] = False,
) -> None:
    """Show what runs are doing, simulated or real, from their files; from any terminal, until all of them have ended.

    The exit status is 1 if a run has failed.
    """
    from ..watching import watch as run

    raise Exit(run(runs, once))


@app.command()
@draws
def compare(
    left: Annotated[Path, Argument(metavar="RUN", help="Usually the simulated run.")],
    right: Annotated[Path, Argument(metavar="RUN", help="Usually the real run.")],
    figures: Annotated[Path | None, Option(metavar="DIR", help="Draw figures into this folder.")] = None,
    *,
    paper: Paper,
) -> None:
    """Compare two runs: their losses to the last bit, and how far their clocks are apart."""
    from ..analysis.run import Run
    from ..printing import save_figures, show_comparison

    runs = [Run.load(left), Run.load(right)]
    show_comparison(*runs)
    if figures is not None:
        save_figures(runs, figures, paper)


@app.command()
@draws
def figures(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="The directories of runs.")],
    out: Annotated[Path, Option(metavar="DIR", help="The folder for the figures.")] = Path("figures"),
    rounds: Annotated[
        int | None, Option(min=1, metavar="N", help="Rounds of the timeline, after the first. Default: 3.")
    ] = None,
    whole: Annotated[bool, Option("--whole", help="The timeline shows all rounds.")] = False,
    *,
    paper: Paper,
) -> None:
    """Draw the figures of one or more runs: learning curves, timeline, where the time goes, memory by part."""
    from ..analysis.run import Run
    from ..printing import save_figures

    for path in save_figures([Run.load(run) for run in runs], out, paper, None if whole else rounds or 3):
        print(path)


@app.command()
def report(
    sources: Annotated[list[Path], Argument(metavar="RUN...", help="Runs, and also plans, tables and validations.")],
    out: Annotated[
        Path | None, Option(metavar="FILE", help="The page. Default: report.html in the run, or runs/report.html.")
    ] = None,
    title: Annotated[str, Option(help="The page's title.")] = "",
    spans: Annotated[
        int, Option(metavar="N", help="Bars in all timelines, at most; longer traces are aggregated.")
    ] = 150_000,
) -> None:
    """Write one HTML page about runs: curves, timelines, times, memory, predicted next to measured. Needs no network.

    A plan's --json file, a table of a sweep (.csv, .json, .parquet) and a validation's folder become sections, too.
    """
    from ..printing import show_report
    from ..reporting import report as write

    show_report(write(*sources, out=out, title=title, spans=spans).path)


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
    from ..exporting import export as write

    write(run, out, round, force)


@app.command()
@draws
def demo(out: Annotated[Path, Option(help="The folder for everything.")] = Path("runs/demo"), *, paper: Paper) -> None:
    """Profile this machine, simulate, train for real, compare and draw. Replaces an earlier demo in the folder."""
    from ..demo import demo as run

    run(out, paper)
