"""What the ranks of a restarted job are told: which run goes on, what was lost, and what its clock showed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .records.progress import now
from .records.recoveries import Recovery


@dataclass(frozen=True)
class Restart:
    """A restart after a lost worker."""

    training: int  # the training that goes on, by its place among those of the command; those before it are done
    begun: bool  # whether the lost ranks had written into the run's directory
    saved: bool  # whether there is a checkpoint to go on from
    round: int  # rounds that were done
    at: float  # the run's clock when the loss was noticed
    noticed: float  # when that was, by the clock of the directory's file system
    lost: Sequence[int] = ()  # the lost workers, by their numbers when the command began
    gone: Sequence[int] = ()  # those that are left out from now on, by their numbers in the scenario that goes on

    def text(self) -> str:
        """The restart as an option's value."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Restart:
        """The restart in an option's value, which no user writes."""
        return cls(**json.loads(text))

    def recovery(self, directory: Path, workers: int, from_round: int) -> Recovery:
        """The entry for the run's records. The first step follows now."""
        passed = max(0.0, now(directory) - self.noticed)
        return Recovery(
            how="restart",
            lost=tuple(self.lost),
            workers=workers,
            at=self.at,
            from_round=from_round,
            redone=max(0, self.round - from_round),
            seconds=passed,
            start=passed,
        )

    def later(self, noticed: float) -> Restart:
        """This restart when it is seen, at `noticed`, that its ranks were lost before their first step."""
        return replace(self, at=self.at + max(0.0, noticed - self.noticed), noticed=noticed)
