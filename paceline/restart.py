"""What ranks that are started again are told: which run goes on, what was lost, and what its clock showed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .records.progress import now
from .records.recoveries import How, Recovery


@dataclass(frozen=True)
class Restart:
    """A restart after a lost worker, or so that lost workers join again."""

    training: int  # the training that goes on, by its place among those of the command; those before it are done
    begun: bool  # whether the lost ranks had written into the run's directory
    saved: bool  # whether there is a checkpoint to go on from
    round: int  # rounds that were done
    at: float  # the run's clock when the loss was noticed, as far as the launcher knows
    noticed: float  # when that was, by the clock of the directory's file system
    lost: Sequence[int] = ()  # the workers that were lost, or join; by their numbers when the command began
    gone: Sequence[int] = ()  # those that are left out from now on, by their numbers in the scenario that goes on
    members: Sequence[int] = ()  # the workers that go on, by their numbers when the command began
    how: How = "restart"  # or "join"

    def text(self) -> str:
        """The restart as an option's value."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Restart:
        """The restart in an option's value, which no user writes."""
        return cls(**json.loads(text))

    def recovery(self, directory: Path, workers: int, from_round: int, earlier: float) -> Recovery:
        """The entry for the run's records. The first step follows now.

        earlier: what the run's clock shows at from_round. The launcher does not know it if a run that was resumed by
            hand has not come to its first step.
        """
        passed = max(0.0, now(directory) - self.noticed)
        return Recovery(
            how=self.how,
            lost=tuple(self.lost),
            workers=workers,
            at=max(self.at, earlier),
            from_round=from_round,
            redone=max(0, self.round - from_round),
            seconds=passed,
            start=passed,
        )
