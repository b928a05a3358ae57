"""Logs a run with Weights & Biases, or with another module of its shape: `init`, `log` and `finish`.

Rule: the module is asked for nothing else, except for `define_metric` where it has one. All is logged along the run's
seconds, which are virtual in a simulation.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..config.callbacks import WandbSpec
from ..program.callbacks import Callback, RoundRecord, RunStart
from ..program.errors import ScenarioError, nearest
from .tracked import imported, line_scalars, plain, round_scalars

SHAPE = ("init", "log", "finish")
_TOLD = ("project", "name", "config")  # what `init` is told of every run, where it takes that


class WandbTracker(Callback):
    """The callback `wandb`. ScenarioError where the module is missing, has another shape or takes other arguments.

    path: the scenario's key.
    """

    def __init__(self, spec: WandbSpec, path: str) -> None:
        self._spec = spec
        install = "'paceline[wandb]'" if spec.module == "wandb" else spec.module.partition(".")[0]
        self._module = imported(spec.module, path, install)
        for name in SHAPE:
            if not hasattr(self._module, name):
                raise ScenarioError(f"{path}: {spec.module} has no {name}; a tracker has {', '.join(SHAPE)}")
        parameters = inspect.signature(self._module.init).parameters
        self._taken = set(parameters)
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            self._taken |= {*_TOLD, *self._own}
        for key in self._own:
            if key not in self._taken:
                raise ScenarioError(f"{path}.{key}: {spec.module}.init has no such argument{nearest(key, parameters)}")
        self._begun = False

    @property
    def _own(self) -> Mapping[str, Any]:
        """Arguments of `init` that the scenario gives."""
        return self._spec.model_extra or {}

    def on_start(self, start: RunStart) -> None:
        if self._begun:  # the run goes on from an earlier round; its steps come again
            return
        told = {"project": self._spec.project, "name": start.name, "config": plain(start.scenario)}
        self._module.init(**{key: value for key, value in told.items() if key in self._taken} | dict(self._own))
        self._begun = True
        if hasattr(self._module, "define_metric"):
            self._module.define_metric("seconds")
            for names in ("report/*", "round/*"):
                self._module.define_metric(names, step_metric="seconds")

    def on_report(self, line: Mapping[str, Any]) -> None:
        self._log(line_scalars(line), line["round"], line["step"], line["seconds"])

    def on_round(self, record: RoundRecord) -> None:
        if record.round % self._spec.every == 0:
            self._log(round_scalars(record), record.round, record.step, record.seconds)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._module.finish()

    def _log(self, numbers: Mapping[str, float], round: int, step: int, seconds: float) -> None:
        self._module.log({"seconds": seconds, "step": step, "round": round, **numbers})
