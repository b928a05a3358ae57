"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Settings = Annotated[list[str], Option("--set", metavar="A.B=C", help="Override a key of the scenario.")]
Engine = Annotated[str, Option(help="The simulator: auto, cohort (faster) or simpy (does everything).")]
Ranks = Annotated[int | None, Option("-n", min=1, help="MPI ranks to start. Default: one per worker.")]
Emulate = Annotated[
    bool | None, Option("--emulate/--no-emulate", help="A worker k times slower sleeps k-1 times its step.")
]
EmulateNetwork = Annotated[
    bool | None,
    Option("--emulate-network/--no-emulate-network", help="Lay the described star around the ranks: Linux, root."),
]
