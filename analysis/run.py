"""A finished run, for use from Python: its summary, its metrics as a pandas table, its spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..config import yaml
from ..config.metrics import metrics_in
from ..config.recorded import Recorded
from ..config.strategy_names import strategy_name
from ..program.errors import ScenarioError
from ..program.outcome import Span
from ..records.directory import METRICS, SCENARIO, SUMMARY, TRACE
from ..records.replacing import set_aside
from ..records.schemas import Summary, checked, read_document, read_lines
from ..records.trace import read_trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Run:
    """A finished run."""

    summary: dict[str, Any]  # as in summary.json
    lines: Sequence[dict[str, Any]]  # the report lines, as in metrics.jsonl
    scenario: dict[str, Any]  # the resolved scenario, as in scenario.yaml
    directory: Path | None = None
    label: str = ""  # set it to name the run in figures

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """The run in a directory. ScenarioError where the `directory` holds no run, or one that did not finish."""
        directory = Path(directory)
        if not (directory / SUMMARY).exists():
            reason = "the run in it did not finish" if (directory / SCENARIO).exists() else "it holds no run"
            earlier = set_aside(directory)
            kept = f"; the run that it was to replace is in {earlier[-1]}" if earlier else ""
            raise ScenarioError(f"{directory}: has no {SUMMARY}; {reason}{kept}")
        lines, _ = read_lines(directory / METRICS)
        scenario = yaml.read_mapping(directory / SCENARIO)
        checked(Recorded, scenario.get("recorded") or {}, f"{directory / SCENARIO}: recorded")
        return cls(read_document(directory / SUMMARY, Summary), lines, scenario, directory)

    @cached_property
    def lanes(self) -> list[dict[str, list[Span]]]:
        """For each worker, lane -> spans; empty where the run was not traced. ScenarioError for a damaged trace."""
        if self.directory is None or not (self.directory / TRACE).exists():
            return []
        return read_trace(self.directory / TRACE)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per report line, with the columns round, step, samples, seconds, epoch, train_loss, lr and H.

        With evaluations there are also test_loss and the scenario's metrics, like accuracy. With report.norms there are
        also grad_norm, param_norm and the norms of the optimizer's vectors, m_norm and v_norm.
        """
        import pandas as pd  # 0.3 s and 40 MB, and a rank that trains and most simulations need no table

        return pd.DataFrame(list(self.lines))

    @property
    def name(self) -> str:
        """The name in figures: the label if it is set, else the directory's name, else the engine's."""
        if self.label:
            return self.label
        return self.directory.name if self.directory else str(self.summary["engine"])

    @property
    def strategy(self) -> str:
        """The strategy in a few words, like `local_sgd H=8`; empty where the run does not tell it."""
        section = self.scenario.get("strategy")
        return strategy_name(section) if isinstance(section, dict) else ""

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics in its report lines, in the scenario's order."""
        return [*dict.fromkeys(name for line in self.lines for name in metrics_in(line))]

    @property
    def test_metrics(self) -> dict[str, float]:
        """The value of each metric at the last evaluation, by name. Empty for a timing-only run."""
        found = {name: self.summary.get(name) for name in self.summary.get("metrics", ["accuracy"])}
        return {name: float(value) for name, value in found.items() if value is not None and isfinite(value)}

    @property
    def accuracy(self) -> float | None:
        """Test accuracy at the last evaluation. None where there is none, as in a timing-only run."""
        return self.test_metrics.get("accuracy")

    def __repr__(self) -> str:
        s = self.summary
        metrics = "".join(f", {name} {value:.4g}" for name, value in self.test_metrics.items())
        size = f"{s['workers']} workers, {s['rounds']} rounds"
        return f"Run({self.name}: {s['engine']}, {size}, {s['seconds']:.3f} s{metrics})"
