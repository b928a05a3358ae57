"""Paceline: train on devices of unequal speed, and predict such training before it happens.

`run = paceline.simulate("scenario.yaml")` and `paceline.train("scenario.yaml")` return a Run; `run.metrics` is a pandas
table, and so is what `paceline.sweep("scenario.yaml", grid={...})` returns. Importing this loads neither torch nor MPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "BorrowError",
    "Callback",
    "LocalSync",
    "ProtocolError",
    "ScenarioError",
    "WorkerLost",
    "compare",
    "load",
    "plan",
    "report",
    "simulate",
    "sweep",
    "train",
]

_HOMES = dict.fromkeys(("BorrowError", "ProtocolError", "ScenarioError", "WorkerLost"), "program.errors") | {
    "Callback": "program.callbacks",
    "LocalSync": "local_sync",
    "compare": "analysis.compare",
    "load": "run",
    "plan": "planning.plan",
    "report": "reporting",
    "simulate": "simulating",
    "sweep": "sweeping",
    "train": "launching",
}

if TYPE_CHECKING:
    from .analysis.compare import compare
    from .launching import train
    from .local_sync import LocalSync
    from .planning.plan import plan
    from .program.callbacks import Callback
    from .program.errors import BorrowError, ProtocolError, ScenarioError, WorkerLost
    from .reporting import report
    from .run import load
    from .simulating import simulate
    from .sweeping import sweep

    __version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml states it
        from importlib.metadata import version

        return version("paceline")
    if name not in _HOMES:
        raise AttributeError(f"module 'paceline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"paceline.{_HOMES[name]}"), name)
