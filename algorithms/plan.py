"""The plan: a strategy with its numbers filled in, and the rounds that follow from it.

Rule: decisions look at the plan, never at the clock or at data, so a timing-only run, a full simulation and a real
run take the same decisions, and every worker takes them alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache, partial
from typing import Literal, NamedTuple

from ..program.errors import ScenarioError, brief
from ..program.import_paths import FAILURES, in_words
from .learning_rates import Rate
from .replay import Recordings
from .rounds import Division, Due, Interval, Moment, Round, State, Unit, due
from .splits import Shares, StepsByPace
from .strategy import Strategy

LOOKS = 8  # places of a run that are looked at for its outlook
FEW = 4096  # with up to so many workers, a round's steps are a tuple, which is faster to read than a table by pace
KEPT = 128  # rounds that a plan remembers, since all workers ask for about the same one, each at its own time


class Outlook(NamedTuple):
    """About how large a run is."""

    steps: int  # nominal ones
    rounds: int
    longest: int  # the most nominal steps of a round
    lines: float  # that the run logs


@dataclass(eq=False)
class Plan:
    """A strategy on given workers, data and budget. ValueError where these do not fit together."""

    strategy: Strategy
    shares: Shares
    rate: Rate
    examples: int  # in the training set
    budget: Interval  # how long the run is
    report: Interval | None = None  # between evaluations
    report_start: bool = False  # evaluate before the first round, too
    log: Interval | None = None  # between lines without an evaluation
    norms: bool = False  # log the norms of gradient, parameters and optimizer state
    step_losses: bool = False  # log worker 0's training loss in each step of the round before
    checkpoint: Interval | None = None  # between checkpoints
    checkpoint_at: tuple[Interval, ...] = ()  # places of further checkpoints
    # What an epoch is. "samples": as many samples processed as there are examples (and padding, where the sampling
    # pads). "reference": the N // (B n H) rounds after which the released code of Biased Local SGD ends one, although
    # unequal workers have processed fewer samples by then. A number: so many nominal steps; the QSR paper counts 312
    # where ImageNet has 312.8.
    accounting: Literal["samples", "reference"] | int = "samples"
    # Batches, of all workers together, from which BatchNorm's statistics are estimated before an evaluation; 0: never.
    estimate: int = 0
    workers: int = field(init=False)

    def __post_init__(self) -> None:
        self.workers = len(self.shares.batches)
        aggregation, equal = self.strategy.aggregation, set(self.shares.paces) == {1.0}
        if aggregation.synchronous and not aggregation.local and not equal:
            raise ValueError(
                "aggregation gradients exchanges in every step, so all paces must be 1; "
                "write aggregation: parameters for unequal paces"
            )
        if self._total_steps is None and not self._by_samples and self.strategy.schedule.grows:
            raise ValueError(
                "the schedule's H has no bound in a budget of rounds; write budget: {steps: ...} or {epochs: ...}"
            )
        aggregation.check(self.workers)
        self._mixed = aggregation.synchronous and not equal  # whether paces count in some of the rounds only
        self._epoch = self.strategy.sampling.length(self.examples)  # in samples
        self._stride = sum(self.shares.batches) if self.strategy.sampling.by_step else None
        self._kinds = Counter(zip(self.shares.batches, self.shares.paces, strict=True))
        self._by_pace = lru_cache(maxsize=4096)(self._divide)
        self._together = lru_cache(maxsize=4096)(partial(self._divide, together=True))
        if self.accounting == "reference":
            _ = self.rounds_per_epoch  # whether there are any
        # By round modulo KEPT, with where the round begins: a dictionary that forgets its oldest entry takes longer.
        self._rounds: list[tuple[tuple[int, int, int, float], Round] | None] = [None] * KEPT
        self.recordings: Recordings = {}  # of phantoms' programs, where the same plan runs on many clusters

    def agrees(self, other: Plan) -> bool:
        """Whether the other plans the same rounds."""
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))

    def progress(self, state: State, unit: Unit | None = None) -> float:
        """How far the run is, in `unit` (the budget's by default)."""
        unit = unit or self.budget.unit
        return self.epochs(state) if unit == "epochs" else float(state.step if unit == "steps" else state.round)

    @cached_property
    def rounds_per_epoch(self) -> int:
        """Rounds in a reference epoch: N // (B n H), H of the first round."""
        rounds = self.examples // (sum(self.shares.batches) * self._steps(Moment(0, 0, 0.0, self.rate(0))))
        if rounds < 1:
            raise ValueError("a reference epoch has no round: B n H is more than the training examples; lower H")
        return rounds

    def epochs(self, state: State) -> float:
        """Epochs that lie behind `state`, by the plan's accounting."""
        if self.accounting == "samples":
            return state.samples / self._epoch
        if self.accounting == "reference":
            return state.round / self.rounds_per_epoch + state.epoch_offset
        return state.step / self.accounting

    def passed(self, every: Interval, state: State) -> int:
        """How many whole intervals lie behind `state`."""
        # A relative 1e-9: 3 * 0.1 epochs must count as 0.3.
        return math.floor(self.progress(state, every.unit) / every.amount * (1 + 1e-9))

    def finished(self, state: State) -> bool:
        """Whether the budget is used up."""
        if self._total_steps is not None:
            return state.step >= self._total_steps
        if self._by_samples:
            return state.samples >= self._total_samples
        return self.progress(state) >= self.budget.amount

    def next_round(self, state: State) -> Round:
        """The round that begins at `state`; made once for all workers that share this plan."""
        mark, place = (state.round, state.step, state.samples, state.epoch_offset), state.round % KEPT
        kept = self._rounds[place]
        if kept is None or kept[0] != mark:
            kept = self._rounds[place] = mark, self._make_round(state)
        return kept[1]

    def known_round(self, state: State) -> Round | None:
        """The round that begins at `state`, if it has been made: for code that looks on, maybe from another thread."""
        kept = self._rounds[state.round % KEPT]
        return kept[1] if kept is not None and kept[0][:3] == state.mark() else None

    def first_round(self) -> Round:
        """The round that a run begins with."""
        return self.next_round(State())

    def rounds(self) -> Iterator[Round]:
        """All rounds of a run, from the beginning."""
        state = State()
        while not self.finished(state):
            yield (round := self.next_round(state))
            state.after(round, 0.0)

    def ahead(self, state: State, rounds: int) -> State:
        """The state after so many more rounds, or at the end."""
        later = State(*state.mark(), epoch_offset=state.epoch_offset)
        for _ in range(rounds):
            if self.finished(later):
                break
            later.after(self.next_round(later), 0.0)
        return later

    @cached_property
    def outlook(self) -> Outlook:
        """How large the run is, estimated from a few of its rounds: it may have 1e12 of them."""
        state, longest = State(), 0
        while not self.finished(state):
            r = self.next_round(state)
            if self._total_steps is not None:
                passed, left, total = r.H, self._total_steps - state.step, self._total_steps
            elif self._by_samples:
                passed, left, total = r.samples, self._total_samples - state.samples, self._total_samples
            else:
                each = self.rounds_per_epoch if self.budget.unit == "epochs" else 1
                total = math.ceil(self.budget.amount * each)
                passed, left = 1, total - state.round
            alike = max(1, min(total // (LOOKS * passed), left // passed))
            state = State(state.round + alike, state.step + alike * r.H, state.samples + alike * r.samples)
            longest = max(longest, r.H)
        intervals = [every for every in (self.report, self.log) if every is not None]
        lines = 2 + sum(min(float(state.round), self.progress(state, e.unit) / e.amount) for e in intervals)
        return Outlook(state.step, state.round, longest, lines)

    def used(self, mark: tuple[int, int, int], until: State) -> list[int]:
        """Samples that each worker uses from a mark to a later state."""
        now, counts = State(*mark, epoch_offset=until.epoch_offset), [0] * self.workers
        while now.round < until.round:
            r = self.next_round(now)
            counts = [n + s * b for n, s, b in zip(counts, r.steps, r.batches, strict=True)]
            now.after(r, 0.0)
        return counts

    @cached_property
    def _by_samples(self) -> bool:
        return self.budget.unit == "epochs" and self.accounting == "samples"

    @cached_property
    def _total_steps(self) -> int | None:
        """Nominal steps in all; None where the budget counts something else."""
        if self.budget.unit == "steps":
            return int(self.budget.amount)
        if self.budget.unit == "epochs" and isinstance(self.accounting, int):
            return math.ceil(self.budget.amount * self.accounting * (1 - 1e-12))
        return None

    @cached_property
    def _total_samples(self) -> int:
        return math.ceil(self.budget.amount * self._epoch * (1 - 1e-12))

    def cut(self, state: State, round: Round, H: int) -> None:
        """Let the round that has begun at `state` take H nominal steps, and the run end with it.

        For a real run that is stopped by its one worker's own loop: whoever else reads the round must cut it alike.
        """
        cut = self._round_of(state, round.start, H, self._divider(round.start)(H), ends=True)
        round.H, round.division, round.slope, round.due = cut.H, cut.division, cut.slope, cut.due

    def _make_round(self, state: State) -> Round:
        progress = self.progress(state)
        now = Moment(state.round, state.step, self.epochs(state), self.rate(progress))
        divide = self._divider(now)
        H = self._cap(self._steps(now), state, divide)
        return self._round_of(state, now, H, divide(H))

    def _divider(self, now: Moment) -> Callable[[int], Division]:
        """How a round of H steps that begins now is divided: all take H where each step exchanges gradients."""
        return self._together if self._mixed and self.strategy.aggregation.at(now).synchronous else self._by_pace

    def _round_of(self, state: State, now: Moment, H: int, division: Division, ends: bool = False) -> Round:
        progress = self.progress(state)
        after = State(state.round + 1, state.step + H, state.samples + division.samples)
        after.epoch_offset = state.epoch_offset
        slope, follows = (self.progress(after) - progress) / H, self._due(state, after, ends)
        return Round(now, H, division, state.samples, progress, slope, self.rate, follows, self._stride)

    def _steps(self, now: Moment) -> int:
        """What the schedule says, which may be a user's own. ScenarioError where that is not a number of steps."""
        try:
            H = self.strategy.schedule.steps(now)
        except FAILURES as error:
            raise ScenarioError(f"{self._schedule} failed at round {now.rounds}: {in_words(error)}") from error
        if not isinstance(H, int) or H < 1:
            raise ScenarioError(
                f"{self._schedule} gave {brief(H)} for round {now.rounds}; return a whole number of steps, 1 or more"
            )
        return H

    @property
    def _schedule(self) -> str:
        return f"strategy.schedule: {type(self.strategy.schedule).__name__}.steps"

    def _due(self, before: State, after: State, ends: bool) -> Due:
        """What follows the round between two states. ends: whether the run ends with it, whatever its budget."""
        ends, scheduled = ends or self.finished(after), self._crossed(self.report, before, after)
        save = ends or self._crossed(self.checkpoint, before, after)
        for place in self.checkpoint_at:
            save = save or self.passed(place, before) == 0 < self.passed(place, after)
        return due(ends or scheduled, scheduled, self._crossed(self.log, before, after), save)

    def _crossed(self, every: Interval | None, before: State, after: State) -> bool:
        """Whether a whole interval ends between two states."""
        return every is not None and self.passed(every, after) > self.passed(every, before)

    def _cap(self, H: int, state: State, divide: Callable[[int], Division]) -> int:
        """H, or what is left of the budget if that is less: the last sync falls on the last step."""
        if self._total_steps is not None:
            return min(H, self._total_steps - state.step)
        if not self._by_samples:
            return H
        left = self._total_samples - state.samples
        if divide(H).samples < left:
            return H
        low = 1  # the least number of steps that covers what is left
        while low < H:
            middle = (low + H) // 2
            low, H = (low, middle) if divide(middle).samples >= left else (middle + 1, H)
        return low

    def _divide(self, H: int, together: bool = False) -> Division:
        """How a round of H nominal steps is divided. together: all take H, whatever their paces."""
        batches, paces = self.shares.batches, self.shares.paces
        taken = {pace: H if together else self.shares.steps(H, pace) for _, pace in self._kinds}
        total = sum(count * taken[pace] * batch for (batch, pace), count in self._kinds.items())
        steps = tuple(map(taken.__getitem__, paces)) if self.workers <= FEW else StepsByPace(paces, taken)
        return Division(steps, batches, total, by_step=self._stride is not None)
