"""What is known of each worker's rounds beyond their times, on its way to the trace (records/trace_notes.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .algorithms.plan import Plan
from .algorithms.rounds import Round, State
from .records.spool import TakeSpans, Tracer
from .records.trace_notes import NUMBERS

KEPT = 1024  # rounds by which workers may be apart


class PlannedRounds:
    """The rounds of a part of a run by their numbers, from the state on with which it begins."""

    def __init__(self, plan: Plan, state: State) -> None:
        self._plan, self._state = plan, State(*state.mark(), epoch_offset=state.epoch_offset)
        self._kept: dict[int, tuple[Round, int]] = {}

    def of(self, done: int) -> tuple[Round, int]:
        """(the round after which `done` rounds are done, the nominal steps that are done then)."""
        while self._state.round < done:
            planned = self._plan.next_round(self._state)
            self._state.after(planned, 0.0)
            self._kept[self._state.round] = planned, self._state.step
            self._kept.pop(self._state.round - KEPT, None)
        return self._kept[done]


class TracedRounds:
    """Notes the rounds of all workers of this process.

    take: Hooks.spans of the run.
    lane: a worker's number in the trace, from its number in the part that runs.
    memory: bytes that a worker holds.
    flush: writes down what `take` got.
    """

    def __init__(
        self,
        take: TakeSpans,
        lane: Callable[[int], int],
        memory: Callable[[int], float],
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._take, self._lane, self._memory, self._flush = take, lane, memory, flush
        self._tracers: dict[int, Tracer] = {}
        self._texts: dict[tuple[int, int], str] = {}  # of the newest round, by the round and H

    def begin(self) -> None:
        """Another part begins, in which workers may have other numbers."""
        self.close()
        self._tracers = {}

    def passed(self, worker: int, done: int, round: Round, step: int, loss: float, sent: Mapping[str, float]) -> None:
        """A worker's round is over. Others: see Hooks.round."""
        H = round.steps[worker]
        text = self._texts.get((done, H))
        if text is None:
            self._texts = {key: said for key, said in self._texts.items() if key[0] == done}
            known = f',"loss":{loss:.6g}' if math.isfinite(loss) else ""
            text = f'round {done}\t{{"H":{H},"step":{step},"lr":{round.last_lr:.6g}{known}}}'
            self._texts[done, H] = text
        tracer = self._tracers.get(worker)
        if tracer is None:
            tracer = self._tracers[worker] = Tracer(self._lane(worker), self._take)
        nbytes = sum(each for phase, each in sent.items() if phase != "evaluate")
        tracer.span(NUMBERS, text, nbytes, self._memory(worker))

    def close(self) -> None:
        """Hand on all that was noted."""
        for tracer in self._tracers.values():
            tracer.close()
        self._flush()
