"""What a trace shows in addition to spans: numbers of each round, counters, and arrows between workers.

Rules: nothing here holds more of a run in memory than a bit per worker and exchange. A flow event lies within the span
that it belongs to and follows it in the file, since Perfetto binds it to the innermost span that is open there; an
arrow's end comes later than its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..program.effects import Array
from ..program.outcome import Span

NETWORK = "network"  # the lane of the exchanges of all workers
WAIT = "wait"  # what the wait for the last worker is called there
# The lane with what is known of a worker's rounds, in their order. Its spans are (text, bytes sent, bytes in memory);
# the text is the round's name, a tab and its arguments as JSON.
NUMBERS = "numbers"
APART = 16  # events of computing between two points of a counter, which are at the ends of rounds
SHORTEST = 1e-8  # seconds of an exchange that has arrows: their ends are told apart in nanoseconds
WHOLE = 4e-6  # seconds from which on there is a whole microsecond near the middle
Lanes = Mapping[str, Iterable[Span]]


class RoundNumbers:
    """What is known of one worker's rounds, asked for in the order of their spans."""

    def __init__(self, worker: int, numbers: Iterable[Span]) -> None:
        self._worker, self._coming = worker, iter(numbers)
        self._place = -APART
        self._shown: dict[str, float] = {}  # the last value of each counter
        self._left = ""  # the counters at the end of the last round, where they are not shown yet

    def of(self, span: Span, place: int) -> tuple[str, str]:
        """(arguments of a round's event, counters at its end); empty where they are not known, or shown soon.

        place: of the round among the worker's events of computing.
        """
        for text, sent, memory in self._coming:
            name, _, arguments = text.partition("\t")
            if name == span[0]:
                counters = {"bytes sent": sent, "bytes in memory": memory}
                self._left = "".join(
                    f',\n{{"ph":"C","name":"{name}","pid":{self._worker},"ts":{span[2] * 1e6!r},'
                    f'"args":{{"bytes":{value:.0f}}}}}'
                    for name, value in counters.items()
                    if value != self._shown.get(name, 0.0)
                )
                if place - self._place < APART:
                    return f',"args":{arguments}', ""
                self._place, self._shown = place, counters
                return f',"args":{arguments}', self.rest()
        return "", ""

    def rest(self) -> str:
        """The counters that are left at the end."""
        left, self._left = self._left, ""
        return left


class Phase(NamedTuple):
    """The exchanges of one phase, in their order."""

    first: int  # the number of the first arrow
    last: Array  # the worker that came last to each exchange; -1 where none waited: int32 (exchanges,)
    waited: Array  # whether each worker waited, bit by bit: uint8 (workers, exchanges / 8)


class Arrows:
    """Arrows from the worker that came last to an exchange to each of those that waited for it.

    The k-th exchanges of a phase belong together. A phase has no arrows where workers have unequal numbers of them.
    """

    def __init__(self, workers: Sequence[Lanes]) -> None:
        self._workers = len(workers)
        self._phases: dict[str, Phase] = {}
        found = [_waits(lanes.get(NETWORK, ())) for lanes in workers]
        first = 1
        for phase in {phase: None for own in found for phase in own}:
            flags = [own.get(phase, bytearray()) for own in found]
            if len(flags) > 1 and len({len(each) for each in flags}) == 1:
                self._phases[phase] = _phase(first, flags)
                first += len(flags[0]) * len(flags)
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        """Another worker's events come now."""
        self._counts = dict.fromkeys(self._phases, 0)

    def events(self, worker: int, label: str, span: Span) -> Iterator[str]:
        """The events that follow an exchange's span. label: its process and thread, as JSON."""
        name, start, stop = span
        if name not in self._phases:
            return
        k = self._counts[name]
        self._counts[name] += 1
        first, last, waited = self._phases[name]
        if last[k] < 0 or stop - start < SHORTEST:
            return
        column, bit = divmod(k, 8)
        # The number comes last: what is before it compresses well, as it repeats the span's event.
        head = f'"name":"came last","cat":"exchange",{label},"ts"'
        if last[k] == worker:
            for other in np.flatnonzero(waited[:, column] & (128 >> bit)).tolist():
                yield f',\n{{"ph":"s",{head}:{start * 1e6!r},"id":{first + k * self._workers + other}}}'
        elif waited[worker, column] & (128 >> bit):
            middle = (start + (stop - start) / 2) * 1e6
            if stop - start > WHOLE:
                middle = round(middle)
            yield f',\n{{"ph":"f","bp":"e",{head}:{middle!r},"id":{first + k * self._workers + worker}}}'


def _waits(spans: Iterable[Span]) -> dict[str, bytearray]:
    """phase -> for each exchange whether a wait came before it."""
    found: dict[str, bytearray] = {}
    until = -1.0  # when the wait before ended
    for name, start, stop in spans:
        if name == WAIT:
            until = stop
        else:
            found.setdefault(name, bytearray()).append(start == until)
    return found


def _phase(first: int, flags: Sequence[bytearray]) -> Phase:
    last = np.full(len(flags[0]), -1, np.int32)
    some = np.zeros(len(flags[0]), bool)
    waited = []
    for worker, each in enumerate(flags):
        own = np.frombuffer(each, bool)
        last[(last < 0) & ~own] = worker
        some |= own
        waited.append(np.packbits(own))
    last[~some] = -1
    return Phase(first, last, np.array(waited))
