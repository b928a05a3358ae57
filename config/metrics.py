"""The scenario's `metrics`, and how they are told from the other fields of report lines and tables.

Rule: a metric is a field of a report line, of summary.json and of a sweep's table by its own name. So no name among
RESERVED may be a metric's, and every other name is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from ..program.errors import brief
from .units import read_share

_LINE = """round step samples seconds epoch loss train_loss test_loss lr H grad_norm param_norm m_norm v_norm
    step_losses"""
_SUMMARY = """engine workers rounds steps syncs bytes_per_worker moved_per_worker evaluation_seconds computing_seconds
    idle_share metrics timing_only finished params_sha256 replicas_agree memory_predicted memory_parts memory_measured
    resumed_at_round recoveries epochs samples_per_second seconds_per_epoch idle_by_class faults"""
_TABLE = """seconds_per_step idle_min idle_mean idle_max computing run warning error base"""
_KEYS = """seed workload cluster strategy budget report checkpoint reduction faults health train deadline recovery
    record validation recorded callbacks"""  # that a sweep may vary, where a key's path is one word
RISING, FALLING = ("accuracy", "top5", "iou"), ("test_loss", "train_loss", "perplexity", "mse", "mae")  # as one learns
RESERVED = frozenset(" ".join((_LINE, _SUMMARY, _TABLE, _KEYS, "name")).split())


def metrics_in(names: Iterable[str]) -> list[str]:
    """Those among the fields of a report line, or the columns of a table, that are metrics."""
    return [name for name in names if name.isidentifier() and name not in RESERVED]


def named_metrics(metrics: Iterable[str | Mapping[str, str]]) -> list[tuple[str, str]]:
    """(name in reports, built-in name or import path) of each. ValueError for a name that cannot be used."""
    found = list[tuple[str, str]]()
    for each in metrics:
        if isinstance(each, str):
            found.append((each.rpartition(":")[2].rpartition(".")[2], each))
        elif len(each) == 1:
            found += each.items()
        else:
            raise ValueError(f"{brief(dict(each))}: write one name, like {{bleu: package.module:function}}")
    names = [name for name, _ in found]
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"{brief(name)}: a metric's name is one word of letters, digits and _")
        if name in RESERVED:
            raise ValueError(
                f"{name} is another field of a run's reports, summary or table; "
                f"name the metric, like {{own_{name}: package.module:function}}"
            )
        if names.count(name) > 1:
            raise ValueError(f"two metrics are called {name}; name one, like {{own_{name}: package.module:function}}")
    return found


def _checked(metrics: list[str | dict[str, str]]) -> list[str | dict[str, str]]:
    named_metrics(metrics)
    return metrics


Metrics = Annotated[list[str | dict[str, str]], AfterValidator(_checked)]


@dataclass(frozen=True)
class Target:
    """What a run is to reach: a metric, or a loss, of at least or at most a value."""

    field: str
    least: bool  # whether the value is the least that counts, and not the most
    value: float

    @classmethod
    def read(cls, text: str) -> Target:
        """From its spelling, like 'perplexity<=20'. ValueError where it is wrong.

        A metric that is built in needs no sign: 'perplexity 20'. A share alone is of accuracy.
        """
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:([<>])=\s*|\s)([-+0-9.eE]+)\s*(%?)\s*", text)
        try:
            if match is None:
                return cls("accuracy", True, read_share(text))
            if match[2] is None and match[1] not in RISING + FALLING:
                raise ValueError
            least = match[1] in RISING if match[2] is None else match[2] == ">"
            return cls(match[1], least, float(match[3]) / (100 if match[4] else 1))
        except ValueError:
            raise ValueError(
                f"{brief(text)} is not a target; write a share of accuracy like 96%, or 'perplexity<=20', 'iou>=0.6'"
            ) from None

    def __str__(self) -> str:
        return f"{self.field}{'>=' if self.least else '<='}{self.value:g}"

    def reached(self, value: float | None) -> bool:
        """Whether a number reaches it; None does not."""
        return value is not None and (value >= self.value if self.least else value <= self.value)
