"""How a run went on after it had lost workers, or with one that joined it; the same in virtual and in real time.

Rule: the run's clock goes on. What is done again counts as training, and so does the recovery itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..program.outcome import Span

Natural = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LANE = "recovery"  # of the spans in a trace, next to worker 0's others
How = Literal["shrink", "restart", "join"]


class Recovery(BaseModel):
    """An entry of `recoveries` in summary.json. The run's history has the same one, under `recovery`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)

    # "shrink": the remaining workers went on. "restart": the ranks were started again. "join": they were started again
    # at a sync, so that new workers took the places of lost ones.
    how: How
    lost: tuple[Natural, ...] = Field(strict=False)  # these workers, by their numbers when the command began
    workers: Annotated[int, Field(ge=1)]  # that go on
    at: Seconds  # the run's clock when the loss was noticed, or at the sync at which new workers join
    from_round: Natural  # rounds done in the state with which the workers go on
    redone: Natural  # rounds that were done and are lost with the workers
    seconds: Seconds  # of the run's clock, from `at` until the first step after it
    start: Seconds = 0.0  # how many of these the start of the ranks took; 0 where none were started

    def noted(self) -> dict[str, Any]:
        """The entry as files hold it."""
        return self.model_dump(mode="json")

    def span(self, begins: float) -> Span:
        """Its span in a trace. begins: where the loss was noticed, in the seconds of that trace."""
        named = ", ".join(f"worker {worker}" for worker in self.lost)
        who = f" {'of' if self.how == 'join' else 'after the loss of'} {named}" if named else ""
        return f"{self.how}{who}", begins, begins + self.seconds


def recoveries_in(history: Iterable[Mapping[str, Any]]) -> list[Recovery]:
    """The recoveries that the parts of a run's history tell of."""
    return [Recovery.model_validate(part["recovery"]) for part in history if "recovery" in part]


def numbers(workers: int, recoveries: Iterable[Recovery]) -> list[int]:
    """The workers that are left of so many, after the recoveries of a real run.

    Where there are more again, those that a shrink had left out are back in their places.
    """
    now, away = {*range(workers)}, set[int]()
    for each in recoveries:
        if each.workers > len(now):
            now, away = now | away, set()
        if each.workers < len(now):
            gone = now & {*each.lost}
            now, away = now - gone, away | gone
        if each.how == "restart":  # whoever is still lost does not come back
            away = away - {*each.lost}
    return sorted(now)
