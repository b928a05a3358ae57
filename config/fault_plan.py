"""The faults of one worker: when they strike, and how slow they make it. Both worlds go by the same rules.

Rules: a slowed worker computes at a rate that is 1 without faults and constant between the starts and ends of faults.
The work that it has done is the integral of this rate over time, and a computation of s seconds is over when the
integral since its start has reached s. What counts rounds or steps, and what says `during`, strikes as the worker
begins an effect, so it strikes at the same one in every world.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..program.effects import Checkpoint, Collective, Compute, Effect, Program, Start
from ..program.errors import FaultStruck
from ..program.outcome import Span, ignored
from ..program.streams import stream
from .faults import During, Fault, Numbered, Once, Pause, Slowdown, SlowLink, Straggler, Strike, mark
from .timing import lasting

T = TypeVar("T")
Holding = tuple[float, float, int, Fault]  # (start, end, number, fault), in seconds

DRAWS = 64  # a straggler's chances are drawn so many at a time
# A phase that begins a step. A forward pass may begin one, too, but not that of a step's second micro-batch.
BEGINNINGS = ("step", "gradient", "evaluate")


class PiecewiseRate:
    """A rate that is constant between the starts and ends of windows.

    windows: (start, end, factor) in seconds. At any time, the rate is 1 divided by the factors of all windows that
    hold then; it is 0 where a factor is infinite.
    """

    def __init__(self, windows: Iterable[tuple[float, float, float]]) -> None:
        kept = list(windows)
        self._times: list[float] = sorted({0.0, *(t for start, end, _ in kept for t in (start, end))} - {math.inf})
        self._rates = [1 / math.prod(f for start, end, f in kept if start <= t < end) for t in self._times]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """(seconds since the start, the rate from then on)."""
        return zip(self._times, self._rates, strict=True)

    def from_then_on(self, begin: float) -> Iterator[tuple[float, float]]:
        """(seconds since `begin`, the rate from then on); the first is the rate at `begin`."""
        first = bisect_right(self._times, begin) - 1
        yield 0.0, self._rates[first]
        for moment, rate in zip(self._times[first + 1 :], self._rates[first + 1 :], strict=True):
            yield moment - begin, rate

    def taken(self, start: float, seconds: float) -> float:
        """Seconds from `start` until something is over that takes `seconds` at rate 1; infinite where it never is."""
        i, left, taken = bisect_right(self._times, start) - 1, seconds, 0.0
        while True:
            rate = self._rates[i]
            last = i + 1 == len(self._times)
            room = math.inf if last else self._times[i + 1] - (start + taken)
            if rate and left / rate <= room:
                return lasting(taken + left / rate, "faults: a worker", "one computation")
            if last:
                return math.inf
            left -= rate * room
            taken += room
            i += 1


@dataclass
class Struck:
    """A fault that has struck, or that holds."""

    number: int  # see faults.numbered
    fault: Fault
    round: int  # rounds that the worker had done
    start: float  # seconds since the start of the run
    end: float

    def noted(self) -> dict[str, Any]:
        """The entry of it in a run's records, without the worker."""
        link = {"link": self.fault.link or "all"} if isinstance(self.fault, SlowLink) else {}
        return mark(self.number, self.fault) | link | {"round": self.round, "seconds": self.start}


class FaultPlan:
    """The faults of one worker.

    faults: those that have not struck yet, with their numbers.
    seed: of the stragglers' chances.
    """

    def __init__(self, faults: Sequence[Numbered], seed: int) -> None:
        self.struck: list[Struck] = []
        self.told: Callable[[dict[str, Any]], None] = ignored  # called with each fault, before it strikes
        self._done = {"rounds": 0, "steps": 0}  # as the worker has synced them
        self.began = 0.0  # when the program began, in seconds since the start of the run
        self._acted = False  # whether it has begun an effect since then
        self.by_clock: list[Holding] = []  # faults whose times are known, those that are still to come, in order
        self._by_effect: list[tuple[int, Once]] = []  # those that strike as an effect begins
        self._counted: dict[int, Slowdown] = {}  # those in rounds or steps
        self._open: dict[int, Struck] = {}  # of these, those that hold now
        self._stragglers: list[tuple[float, Iterator[bool]]] = []
        self._slow: list[tuple[float, float, float]] = []
        self._factor = 1.0  # of the slow-downs in rounds or steps that hold now
        self._unlucky = 1.0  # of the stragglers in the current step
        self._phase = ""  # of the last computation
        for number, fault in faults:
            self._enter(number, fault, fault.times(), seed)
        self.by_clock.sort(key=lambda each: each[0])
        self._rate = PiecewiseRate(self._slow)

    def _enter(self, number: int, fault: Fault, times: tuple[float, float] | None, seed: int) -> None:
        if isinstance(fault, Pause):
            lasting(fault.duration, f"faults[{number}]: worker {fault.worker}", "a pause")
        if isinstance(fault, Strike) and times is None:
            self._by_effect.append((number, fault))
        elif times is not None:
            self.by_clock.append((*times, number, fault))
        if isinstance(fault, Straggler) and fault.probability < 1:
            self._stragglers.append((fault.factor, chances(fault.probability, seed, number)))
        elif isinstance(fault, Straggler | Slowdown) and times is not None:
            self._slow.append((*times, fault.factor))
        elif isinstance(fault, Slowdown):
            self._counted[number] = fault

    def go_on(self, rounds: int, steps: int, now: float) -> None:
        """The worker begins at `now` from a state of so many rounds and nominal steps.

        What was to strike it before, while nothing could, does not strike any more.
        """
        self._done, self._acted, self.began = {"rounds": rounds, "steps": steps}, False, now
        self.by_clock = [each for each in self.by_clock if each[0] >= now or not isinstance(each[3], Strike)]
        done = {"seconds": now, **self._done}
        self._by_effect = [
            each for each in self._by_effect if each[1].during or done[each[1].at.unit] <= each[1].at.amount
        ]
        for each in self.struck:
            if isinstance(each.fault, Strike):
                each.end = min(each.end, now)

    # --- what strikes as an effect begins -----------------------------------------------------------------------------

    def around(self, program: Program[T], now: Callable[[], float]) -> Program[T]:
        """The program, with the faults that strike between its effects. now: seconds since the run began."""
        self._hold(now())
        answer: Any = None
        while True:
            try:
                effect = program.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            for number, fault in self._come(effect, now()) if self._by_effect else ():
                self._by_effect.remove((number, fault))
                effect = self.strike(number, fault, effect, now())
            self._acted = True
            answer = yield effect
            if type(effect) is Checkpoint:
                self.passed(effect.round or 0, effect.step, now())

    def _come(self, effect: Effect[Any], now: float) -> list[tuple[int, Once]]:
        """Those that strike as this effect begins."""
        kind, done = kind_of(effect), {"seconds": now, **self._done}
        synced = done | {"rounds": effect.round or 0, "steps": effect.step} if type(effect) is Checkpoint else done
        return [
            (number, fault)
            for number, fault in self._by_effect
            if (fault.during in (None, kind) or (fault.during == "start" and not self._acted))
            and fault.at.amount <= (synced if fault.during == "checkpoint" else done)[fault.at.unit]
        ]

    def strike(self, number: int, fault: Once, effect: Effect[Any], now: float) -> Effect[Any]:
        """Do what the fault says, as the worker begins an effect; the effect with which it goes on."""
        raise NotImplementedError

    # --- the records --------------------------------------------------------------------------------------------------

    def note(self, number: int, fault: Fault, start: float, end: float) -> Struck:
        """Note a fault, before it strikes."""
        struck = Struck(number, fault, self._done["rounds"], start, end)
        self.struck.append(struck)
        self.told(struck.noted())
        return struck

    def due(self, now: float) -> list[Holding]:
        """Note the faults whose time has come by `now`, and return them."""
        found = [each for each in self.by_clock if each[0] <= now]
        del self.by_clock[: len(found)]
        for start, end, number, fault in found:
            self.note(number, fault, start, end)
        return found

    def spans(self, end: float) -> list[Span]:
        """The faults since the program began, for the trace. end: when it ended."""
        return [
            (each.fault.name, max(each.start, self.began), min(each.end, end))
            for each in sorted(self.struck, key=lambda each: each.start)
            if each.start <= end and (each.start >= self.began or each.end > self.began)
        ]

    # --- how slow it is -----------------------------------------------------------------------------------------------

    def passed(self, rounds: int, steps: int, now: float) -> None:
        """The worker has synced at `now`, when it has done so many rounds and nominal steps."""
        self._done = {"rounds": rounds, "steps": steps}
        self._hold(now)

    def _hold(self, now: float) -> None:
        """Find which slow-downs in rounds or steps hold now."""
        self._factor = 1.0
        for number, fault in self._counted.items():
            if _holds(fault, self._done):
                self._factor *= fault.factor
                if number not in self._open:
                    self._open[number] = self.note(number, fault, now, math.inf)
            elif number in self._open:
                self._open.pop(number).end = now

    def computing(self, start: float, seconds: float, phase: str) -> float:
        """How long a computation takes from `start` on, in seconds. seconds: without faults."""
        if self._stragglers:
            if phase in BEGINNINGS or (phase == "forward" and self._phase not in ("forward", "backward")):
                self._unlucky = math.prod(factor for factor, chance in self._stragglers if next(chance))
            self._phase = phase
        return self._rate.taken(start, seconds * self._factor * self._unlucky)


def failure(number: int, fault: Once) -> FaultStruck:
    """The exception that a fault raises."""
    when = f", during: {fault.during}" if fault.during else ""
    return FaultStruck(f"worker {fault.worker} failed: the exception of faults[{number}], at: {fault.at}{when}")


def kind_of(effect: Effect[Any]) -> During | None:
    """What a worker does in an effect; None where it is none of what faults can name."""
    if type(effect) is Start:
        return kind_of(effect.effect)
    if type(effect) is Compute:
        return "evaluation" if effect.work.phase == "evaluate" else "computing"
    if isinstance(effect, Collective):
        return "evaluation" if effect.phase == "evaluate" else "exchange"
    return "checkpoint" if type(effect) is Checkpoint and effect.due else None


def chances(probability: float, seed: int, number: int) -> Iterator[bool]:
    """Whether the straggler of fault `number` is slow, for one step after the other."""
    block = 0
    while True:
        yield from (stream(seed, "straggler", number, block).random(DRAWS) < probability).tolist()
        block += 1


def _holds(window: Slowdown, done: Mapping[str, float]) -> bool:
    """Whether a window in rounds or steps holds. done: rounds and steps so far."""
    unit = window.end.unit if window.end is not None else window.start.unit
    return window.start.amount <= done[unit] and (window.end is None or done[unit] < window.end.amount)
