"""A plan's answer as a table, as scenarios and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.scenario import Scenario, validate
from .plan_answer import Reason, Row
from .records.directory import to_json

if TYPE_CHECKING:
    import pandas as pd

GUIDANCE = (
    "For throughput alone more local steps always win. What they cost in accuracy is not known here. Published: 16 "
    "after the first decay of the learning rate (post-local SGD, arXiv 1808.07217); 4 or more, growing as it falls "
    "(QSR, arXiv 2310.14423); 32 on the fastest of unequal workers (Biased Local SGD, arXiv 2508.08540)."
)


@dataclass(frozen=True)
class Answer:
    """How to train."""

    rows: tuple[Row, ...]  # the recommended way first, then the rest of the front, the fastest first, then baselines
    documents: tuple[dict[str, Any], ...]  # each row as a scenario's document
    reasons: tuple[Reason, ...]  # what each decision brings, the one that matters most first
    worth: Mapping[str, float]  # by class, by how much an epoch is longer without it, at best
    simulated: int  # ways
    whole: bool  # whether all were looked at; else the search was stopped
    folder: Path = field(repr=False, default=Path())

    @property
    def scenarios(self) -> list[Scenario]:
        """Each row as a scenario, which `train` and `simulate` take."""
        return [validate(document, "plan") for document in self.documents]

    @property
    def decision(self) -> str:
        """The decision that matters most, in words."""
        return self.reasons[0].text if self.reasons else "there is one way alone"

    @property
    def frame(self) -> pd.DataFrame:
        """The table."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """The table's rows."""
        return [_record(row) for row in self.rows]

    def json(self) -> str:
        """All of it as JSON."""
        found = {
            "decision": self.decision,
            "reasons": [vars(reason) for reason in self.reasons],
            "worth": dict(self.worth),
            "guidance": GUIDANCE,
            "simulated": self.simulated,
            "whole": self.whole,
            "rows": [record | {"scenario": d} for record, d in zip(self.records(), self.documents, strict=True)],
        }
        return f"{to_json(found, indent=1)}\n"


def _record(row: Row) -> dict[str, Any]:
    way = row.way
    return {
        "roles": ", ".join(row.roles),
        "method": way.preset,
        "workers": way.team.size,
        "left_out": row.left_out,
        "H": row.steps,
        "steps_between_syncs": way.steps,
        "batches": row.batches,
        "placement": way.placement,
        "wire": way.options.wire,
        "prefetch": way.options.prefetch,
        "unit_bytes": way.options.unit_bytes,
        "collective": way.collective,
        "seconds_per_epoch": row.epoch,
        "plus_minus": row.spread,
        "samples_between_syncs": int(way.gap),
        "idle": row.idle,
        "bytes_per_sync": row.measured.sent,
        "memory": row.memory,
        "bound_by": row.bound_by,
    }
