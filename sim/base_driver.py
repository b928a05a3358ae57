"""What the drivers of one worker (driver.py) and of a cohort (cohort_driver.py) have in common, off their hot paths.

Rule: what is written here holds for both engines: which effects can be started, what a Wait may wait for, how prices
are remembered, what errors say. How time passes differs, and is written in each driver.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from ..config.tables import Table, interpolate
from ..config.timing import LONGEST, Device, Network, lasting
from ..program.checks import never_waited, not_started, startable, waited_twice
from ..program.effects import (
    COLLECTIVES,
    Array,
    Checkpoint,
    Compute,
    Handle,
    Log,
    Move,
    Program,
    Start,
    Startable,
    Wait,
    Work,
)
from ..program.outcome import Hooks, Outcome
from ..program.texts import ENDED, describe, doing
from ..program.traffic import carried, traffic

D = TypeVar("D")
N = TypeVar("N", float, Array)

BLOCKED: Any = object()  # what a handler returns when the program must wait; an answer may be None
KNOWN = 4096  # Works whose price a driver remembers; programs reuse a few, this bounds those that do not
LANES = {"device": "compute", "host": "host"}  # the lane in which a Compute runs


class Ticket(Generic[D]):
    """One driver's part in an effect that may run while its program goes on, from the yield until the answer is taken.

    meetings.py adds what a worker's has, cohort_meetings.py what a cohort's has. Each sets all fields itself: a
    run makes a ticket for each collective and each Move, and a call of the base class took 6 % of a Move.
    """

    __slots__ = ("direct", "driver", "effect", "longer", "stop", "taken")
    driver: D
    effect: Any
    direct: bool  # whether the program waits in the effect itself, and did not start it
    longer: Any  # seconds more that it takes if its worker computes meanwhile; 0 at first
    stop: bool  # whether the collective brought the wish to stop; false at first
    taken: bool  # whether the program has the answer; false at first


class BaseDriver:
    """Drives one program, by a loop that the engine's own driver adds."""

    def __init__(self, outcome: Outcome, program: Program[Any], hooks: Hooks) -> None:
        self.outcome, self.index = outcome, outcome.index
        self.ended = False
        self._send, self._hooks = program.send, hooks
        self._prices: dict[Work, Any] = {}
        self._effect: Any = None  # where the program is
        self._started: dict[Ticket[Any], None] = {}  # those that no Wait has taken yet, in order
        self._stop = False  # whether a collective of all workers brought the wish to stop

    def state(self) -> str:
        """Where the program is, for errors."""
        return ENDED if self.ended else doing(self._effect)

    # --- what each engine does in its own way -------------------------------------------------------------------------

    def _time(self) -> float:
        """Virtual seconds since the run began, for errors."""
        raise NotImplementedError

    def _clock(self) -> float:
        """Virtual seconds without evaluation: what reports are stamped with."""
        raise NotImplementedError

    def _priced(self, work: Work) -> Any:
        """(seconds without noise and faults, whether it is evaluation, ...) of a kind of work."""
        raise NotImplementedError

    def _ticket(self, effect: Startable, direct: bool) -> Any:
        """Begin a started effect, or one that the program waits in."""
        raise NotImplementedError

    def _run_beside(self, effect: Startable, ticket: Any) -> None:
        """Let the started effect take its time from the worker's computation, and note how much longer it takes."""
        raise NotImplementedError

    def _block(self, ticket: Any) -> Any:
        """The ticket's answer where it is there, else BLOCKED."""
        raise NotImplementedError

    def _checkpoint(self, effect: Checkpoint) -> bool:
        """Write a checkpoint where one is due; whether to stop."""
        raise NotImplementedError

    # --- handlers -----------------------------------------------------------------------------------------------------

    def _direct(self, effect: Startable) -> Any:
        """Begin an effect and wait for its answer."""
        return self._block(self._ticket(effect, direct=True))

    _collective = _direct

    def _start(self, effect: Start[Any]) -> Handle[Any]:
        inner = startable(effect.effect, self.index)
        ticket = self._ticket(inner, direct=False)
        self._started[ticket] = None
        self._run_beside(inner, ticket)
        return Handle(inner, ticket)

    def _wait(self, effect: Wait[Any]) -> Any:
        ticket = effect.handle.inner
        if not isinstance(ticket, Ticket) or ticket.driver is not self:
            raise not_started(effect.handle.effect, self.index)
        if ticket.taken:
            raise waited_twice(ticket.effect, self.index)
        return self._block(ticket)

    def _log(self, effect: Log) -> None:
        self._hooks.log(self.index, self._clock(), effect.fields)

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _price(self, work: Work) -> Any:
        """What `_priced` says of a kind of work, remembered by its identity."""
        known = self._priced(work)
        if len(self._prices) >= KNOWN:
            self._prices.clear()
        self._prices[work] = known
        return known

    def _run(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Exception as error:
            self._note(error, describe(self._effect))
            raise

    def _note(self, error: Exception, where: str) -> None:
        error.add_note(f"in worker {self.index}'s {where}, at {self._time():g} s of virtual time")

    def _end(self, result: Any) -> None:
        """The program has ended. ProtocolError where it has not waited for all that it started."""
        if self._started:
            raise never_waited((ticket.effect for ticket in self._started), self.index)
        self.ended, self.outcome.result = True, result


def handlers(driver: type[BaseDriver]) -> dict[type, Callable[[Any, Any], Any]]:
    """Which method of a driver handles which effect; Compute is in the drivers' loops.

    One table for all: thousands of workers would each bring theirs into the processor's cache.
    """
    return {
        Move: driver._direct,
        Start: driver._start,
        Wait: driver._wait,
        Log: driver._log,
        Checkpoint: driver._checkpoint,
        **dict.fromkeys(COLLECTIVES, driver._collective),
    }


def phase_of(effect: Startable) -> str:
    """What an effect's time is counted as."""
    return effect.work.phase if isinstance(effect, Compute) else effect.phase


def work_seconds(device: Device, work: Work) -> float:
    """Seconds of `work` on the device; ScenarioError where a run with them would never end."""
    what = f"{work.phase} of {work.samples} samples"
    return lasting(float(device.seconds(work)), f"cluster: device {device.name}", what)


def added(first: N, price: N, times: int) -> N:
    """The running sum of the first computation of a Compute and the equal ones after it, as every engine adds it up.

    N: a number, or an array of them.
    """
    total = first
    for _ in range(times - 1):
        total = total + price
    return total


running: Callable[[float, float, int], float] = lru_cache(maxsize=KNOWN)(added)


class Beside(NamedTuple):
    """What a started effect and a computation next to it cost one another, in seconds."""

    taken: float  # from the computation, since the effect needs the processor, too
    longer: float  # for the effect, if the worker computes from its beginning to its end


NOTHING = Beside(0.0, 0.0)


def beside(device: Device, network: Network, effect: Startable, workers: int) -> Beside:
    """By what the profile measured: of a collective for its messages and its bytes. Nothing without a profile."""
    if isinstance(effect, Move):
        return Beside(_taken(device, device.pieces.taken, effect.value.nbytes), 0.0)
    if isinstance(effect, Compute) or not (network.beside or device.pieces.exchange_taken):
        return NOTHING
    members = workers if effect.group is None else len(effect.group)
    what = traffic(type(effect), carried(effect, members), members)
    if not what.messages:  # a group of one
        return NOTHING
    return Beside(
        _taken(device, device.pieces.exchange_taken, what.sent),
        what.messages * network.beside_latency + what.sent / network.beside_bandwidth,
    )


def _taken(device: Device, table: Table, nbytes: float) -> float:
    return device.slowdown * interpolate(table, nbytes) if table else 0.0


def over(begin: Any, computing: Any, end: Any, longer: Any) -> Any:
    """When a collective is over that gets on more slowly while its worker computes, and else at its own speed.

    begin, end: by the network, while nothing runs next to it.
    computing: for how many seconds after `begin` the worker computed.
    longer: what it would take more if the worker computed all the time.

    Each a number, or an array for several workers or clusters, and so the answer.
    """
    return end + longer * (computing / (end - begin + longer))


def move_seconds(device: Device, move: Move) -> float:
    """Seconds of a copy between host and device, by the profile, else by the host link; 0 where there is none.

    ScenarioError as above.
    """
    known = device.pieces.moves.get(move.to)
    if known is not None:
        return interpolate(known, move.value.nbytes)
    if device.host_link is None:
        return 0.0
    seconds = move.value.nbytes / device.host_link
    if seconds <= LONGEST:
        return seconds
    what = f"a copy of {move.value.nbytes} bytes"
    return lasting(seconds, f"cluster: the host_link of device {device.name}", what)
