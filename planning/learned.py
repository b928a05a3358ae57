"""What `paceline plan --for accuracy` has found: how each way learns, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from ..config.units import told_seconds
from .judge import told_epochs

EFFORT = "--effort"  # what ended a training, where the time for it was over


@dataclass(frozen=True)
class Learned:
    """What is known of how a way learns."""

    name: str  # of the way, as sentences have it
    seconds: float | None  # to the target, by its clock; None where it has not reached it
    seeds: tuple[float | None, ...]  # the same with each seed that was tried, the scenario's own first
    trained: float  # seconds that it was trained, by its clock
    epochs: float  # that it was trained
    value: float | None  # the best one of the target's metric
    over: bool  # whether it was trained to the end of the budget, or failed
    failure: str  # why it ended early
    spread: float = 0.0  # two standard deviations of the seconds, as a share of them

    @property
    def interval(self) -> tuple[float, float] | None:
        """The least and the most seconds to the target over the seeds; None where fewer than two reached it."""
        known = [seconds for seconds in self.seeds if seconds is not None]
        return (min(known), max(known)) if len(known) > 1 else None

    @property
    def told(self) -> tuple[str, ...]:
        """The seconds to the target and how sure they are, in lines."""
        if self.seconds is None:
            if self.failure or self.value is None:
                return ("?",)
            return "never" if self.over else f"> {told_seconds(self.trained)}", f"({self.value:.4g})"
        found = told_seconds(self.seconds, 4)
        if self.interval:
            return found, f"({between(self.interval)})"
        return (f"{found} ± {self.spread:.0%}" if self.spread else found,)

    def against(self, best: float) -> str:
        """How much longer than the best one it takes, in words."""
        if self.failure:
            return f"an unknown time: {self.failure}"
        if self.seconds is not None:
            return f"{told_seconds(self.seconds)}, {self.seconds / best:.3g} times as long"
        if self.over:
            return f"longer than its {self.epochs:.3g} epochs"
        return f"more than {told_seconds(self.trained)}, {self.trained / best:.3g} times as long"

    def record(self) -> dict[str, Any]:
        """For a frame or JSON."""
        return {
            "seconds_to_target": self.seconds,
            "seconds_to_target_by_seed": list(self.seeds),
            "seconds_to_target_plus_minus": None if self.seconds is None else self.seconds * self.spread,
            "seconds_trained": self.trained,
            "epochs_trained": self.epochs,
            "best_value": self.value,
            "failure": self.failure,
        }


@dataclass(frozen=True)
class Learning:
    """How the ways of a plan learn."""

    target: str
    ways: Mapping[int, Learned]  # by number; the first one to the target first, then the closest to it
    whole: bool = False  # whether the first one is the one that training all of them to their ends would find
    stopped: str = ""  # what ended the training early
    unknown: str = ""  # why nothing is known
    sample: float = 1.0  # the share of the training examples that was used

    @property
    def first(self) -> int | None:
        """The way that is the first to reach the target; None where none has."""
        number = next(iter(self.ways), None)
        return number if number is not None and self.ways[number].seconds is not None else None

    def record(self) -> dict[str, Any]:
        """For JSON, without the ways, which are with their rows."""
        return {name: value for name, value in vars(self).items() if name != "ways"}

    def words(self, baselines: Mapping[int, str]) -> Iterator[str]:
        """The answer in words. baselines: the names of the ways that a user would have taken, by number."""
        if self.unknown:
            yield f"{self.target}: not known for any way, since {self.unknown}"
            return
        part = "" if self.sample == 1 else f" on {self.sample:.3g} of the training examples"
        number, best = next(iter(self.ways.items()))
        if best.seconds is None:
            value = "no report" if best.value is None else f"{best.value:.4g}"
            more = "; write a longer --effort, or --sample" if self.stopped == EFFORT else ""
            yield (
                f"{self.target}: {self.stopped} ended the training before a way had reached it{part}; the closest is "
                f"{best.name} with {value} after {told_seconds(best.trained)}{more}"
            )
            return
        proof = "no other way gets there sooner, and all were trained for as long"
        if not self.whole:
            proof = f"{self.stopped} ended the training before all others were trained for as long"
        yield f"{self.target}: {best.name} is the first to reach it{part}, in {told_seconds(best.seconds, 4)}; {proof}"
        yield from self._spread(best)
        for other, name in baselines.items():
            if other != number and other in self.ways:
                yield f"{name} takes {self.ways[other].against(best.seconds)}"

    def _spread(self, best: Learned) -> Iterator[str]:
        """Whether other seeds could change the answer."""
        others = [way for way in self.ways.values() if way is not best and way.interval]
        if best.interval and others and others[0].interval and others[0].interval[0] <= best.interval[1]:
            yield (
                f"over {len(best.seeds)} seeds it takes {between(best.interval)}, and "
                f"{others[0].name} takes {between(others[0].interval)}: either may win"
            )

    def refusal(self, epochs: float, deadline: float = inf) -> str:
        """That no way reaches the target in all of the budget, or by the deadline, with what is closest."""
        best = next(iter(self.ways.values()))
        value = best.failure or (f"{best.value:.4g}" if best.value is not None else "no report")
        budget, more = told_epochs(epochs), "a larger budget.epochs"
        if deadline < inf and not best.over:
            budget, more = f"--deadline {told_seconds(deadline)}", "a longer --deadline"
        return (
            f"--for {self.target}: no way reaches it in {budget}; the closest is {best.name} with {value} "
            f"after {told_seconds(best.trained)}; write what can be reached, or {more}"
        )


def between(interval: tuple[float, float]) -> str:
    """A range of seconds in words, with its unit once where both ends have the same."""
    low, high = map(told_seconds, interval)
    same = low.split()[1] == high.split()[1]
    return f"{low.split()[0] if same else low} to {high}"
