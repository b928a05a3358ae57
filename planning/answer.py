"""A plan's answer as a table, as scenarios and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.scenario import Scenario, validate
from ..records.directory import to_json
from .judge import Row
from .learned import Learning
from .reasons import Reason

if TYPE_CHECKING:
    import pandas as pd

GUIDANCE = (
    "For throughput alone more local steps always win. What they cost in accuracy is not known here. Published: 16 "
    "after the first decay of the learning rate (post-local SGD, arXiv 1808.07217); 4 or more, growing as it falls "
    "(QSR, arXiv 2310.14423); 32 on the fastest of unequal workers (Biased Local SGD, arXiv 2508.08540)."
)

NO_STEPS = "Local steps do not make an epoch shorter here."


@dataclass(frozen=True)
class Answer:
    """How to train."""

    rows: tuple[Row, ...]  # the recommended way first, then the rest of the front, the fastest first, then baselines
    documents: tuple[dict[str, Any], ...]  # each row as a scenario's document
    reasons: tuple[Reason, ...]  # what each decision brings, the one that matters most first
    worth: Mapping[str, float]  # by class, by how much an epoch is longer without it, at best
    simulated: int  # ways
    whole: bool  # whether all were looked at; else the search was stopped
    note: str = ""  # what else is to be known of the recommended way
    folder: Path = field(repr=False, default=Path())
    learning: Learning | None = None  # how the rows learn, by their numbers, where that was asked for

    @property
    def scenarios(self) -> list[Scenario]:
        """Each row as a scenario, which `train` and `simulate` take."""
        return [validate(document, "plan") for document in self.documents]

    @property
    def decision(self) -> str:
        """The decision that matters most, in words."""
        if self.learning is not None and not self.learning.unknown:
            return self.learned_words[0]
        return self.reasons[0].text if self.reasons else "there is nothing to decide"

    @property
    def learned_words(self) -> list[str]:
        """How the rows learn, in words. Nothing where that was not asked for."""
        if self.learning is None:
            return []
        usual = ("recommended", "front")
        names = {n: name for n, row in enumerate(self.rows) for name in row.roles if name not in usual}
        return list(self.learning.words(names))

    @property
    def guidance(self) -> str:
        """What was published of what local steps cost in accuracy; empty where that is known."""
        if self.learning is not None and not self.learning.unknown:
            return ""
        return GUIDANCE if any(row.way.steps > 1 for row in self.rows) else NO_STEPS

    @property
    def frame(self) -> pd.DataFrame:
        """The table."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """The table's rows."""
        ways = {} if self.learning is None else self.learning.ways
        return [
            _record(row) | (ways[number].record() if number in ways else {}) for number, row in enumerate(self.rows)
        ]

    def json(self) -> str:
        """All of it as JSON."""
        found: dict[str, Any] = {
            "decision": self.decision,
            "reasons": [vars(reason) for reason in self.reasons],
            "worth": dict(self.worth),
            "note": self.note,
            "guidance": self.guidance,
            "simulated": self.simulated,
            "whole": self.whole,
            "rows": [record | {"scenario": d} for record, d in zip(self.records(), self.documents, strict=True)],
        }
        if self.learning is not None:
            found["learning"] = self.learning.record() | {"words": self.learned_words}
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
        "micro_batch": way.division.micro,
        "placement": way.placement,
        "wire": way.options.wire,
        "prefetch": way.options.prefetch,
        "unit_bytes": way.options.unit_bytes,
        "collective": way.collective,
        "seconds_per_epoch": row.epoch,
        "plus_minus": row.spread,
        "seconds": row.training,
        "late": row.late,
        "samples_between_syncs": int(way.gap),
        "idle": row.idle,
        "bytes_per_sync": row.measured.sent,
        "memory": row.memory,
        "bound_by": row.bound_by,
    }
