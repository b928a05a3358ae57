"""What is measured on a machine, and what is known of devices and links."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from .app import app
from .options import Emulate, EmulateNetwork, Ranks, Scenario, Settings, find_scenario, scenario_argument

ProfileOut = Annotated[Path, Option(help="The profile to write. What an existing one also holds is kept.")]
MACHINE = Path("profiles/machine.yaml")


@app.command()
def profile(
    scenario: Annotated[Path | None, scenario_argument("What to measure. Default: the quickstart.")] = None,
    out: ProfileOut = MACHINE,
    emulate: Emulate = None,
    emulate_network: EmulateNetwork = None,
    ranks: Ranks = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure this machine: what steps, their pieces, copies and exchanges take, and how much times vary."""
    from ..config.scenario import train_settings
    from ..profiling import profile as run

    flags = train_settings(emulate=emulate, emulate_network=emulate_network)
    run(scenario or find_scenario("quickstart"), out, ranks, [*setting, *flags])


@app.command("batch-sizes")
def batch_sizes(
    scenario: Scenario,
    out: ProfileOut = MACHINE,
    mode: Annotated[
        str | None, Option(help="Show only fixed_total, no_restriction or equal. Default: all three.")
    ] = None,
    memory: Annotated[str | None, Option(metavar="4 GiB", help="Memory per worker. Default: the cluster's.")] = None,
    ranks: Ranks = None,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Measure each worker's largest batch that fits its memory, and the batches that make all steps equally long."""
    from ..batch_sizes import BatchSizeOptions
    from ..batch_sizes import batch_sizes as run

    run(scenario, BatchSizeOptions(out, mode, memory, tuple(setting)), ranks)


@app.command()
def catalogue() -> None:
    """List the devices and links that a scenario may name, with their sources."""
    from ..printing import show_catalogue

    show_catalogue()
