"""Notices a stall: a rank that waits for others longer than its deadline says which of them it waits for.

A thread of each rank writes a sign of life into the run's directory now and then: what the rank does, and since when. A
rank that is stopped, or whose host is gone, writes none. Nothing goes through MPI, which may be what hangs, and the
ages of signs are compared by the file system's clock alone, so the hosts' clocks may differ.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Protocol

from ..config.scenario import DeadlineSpec
from ..program.effects import Collective
from ..program.outcome import Outcome
from ..program.texts import describe
from ..records.directory import SIGNS, STACKS
from ..records.signs import LONGEST, MISSED, SHORTEST, Sign, path_of, read

RECENT = 16  # looks: what collectives have taken in between is what they have taken lately


class Watched(Protocol):
    """What the watch reads of a rank's driver, from another thread."""

    waiting: Collective | str | None  # in what it waits for the others; None while it computes
    since: float  # since when, by perf_counter
    outcome: Outcome  # what has been counted before the present program
    computing: float  # seconds for which that has computed, as of `since`
    slowest: float  # seconds of the slowest collective since the watch has looked last, which resets it

    def clock(self, now: float) -> float:
        """Seconds of training until `now`, by perf_counter."""


def idle(driver: Watched) -> float | None:
    """The share of the training time so far that a rank did not compute, as of its last wait for others.

    None before there was one after a computation.
    """
    seconds, computing = driver.clock(driver.since), driver.outcome.computing + driver.computing
    return min(1.0, max(0.0, 1.0 - computing / seconds)) if seconds > 0 and computing else None


def waiting(driver: Watched, now: float) -> tuple[str | None, float]:
    """In what a rank waits for the others, None while it computes; and since how many seconds it does either."""
    effect, seconds = driver.waiting, now - driver.since
    return (effect if effect is None or isinstance(effect, str) else describe(effect)), seconds


class Watch:
    """Watches this rank, the one with this number among those of `members`.

    members: the worker of each rank, by the number that the user knows.
    deadline: a rank that waits in a collective longer than its factor * the slowest of late, and longer than its floor,
        counts as stalled.
    folder: of the run.
    asked: whether a stop was asked for. In a stall it cannot wait for the end of the round.
    say: prints a line. end: prints one and ends the job.
    kills: whether the others go on without a rank that is lost. Then a stalled one of this host is killed instead.
    """

    def __init__(
        self,
        rank: int,
        members: Sequence[int],
        deadline: DeadlineSpec,
        folder: Path,
        asked: Callable[[], bool],
        say: Callable[[str], None],
        end: Callable[[str], None],
        kills: bool = False,
    ) -> None:
        self._rank, self._members, self._deadline, self._folder = rank, members, deadline, folder
        self._size = len(members)
        self._asked, self._say, self._end, self._kills = asked, say, end, kills
        self._period = min(LONGEST, max(SHORTEST, deadline.floor / 8))  # seconds between two signs of life
        self._host = socket.gethostname()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._over = threading.Event()
        self._told = ""  # what was said of the stall that lasts
        self._thread: threading.Thread | None = None

    def begin(self, driver: Watched) -> None:
        """Watch from now on."""
        with suppress(OSError):
            (self._folder / SIGNS).mkdir(exist_ok=True)
            for left in (self._folder / SIGNS).iterdir() if self._rank == 0 else ():
                if left.stem not in map(str, range(self._size)):  # of a rank that is lost, before the others went on
                    left.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run, args=(driver,), daemon=True, name="paceline watch")
        self._thread.start()

    def close(self) -> None:
        """The run has ended."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(OSError):
            path_of(self._folder, self._rank).unlink(missing_ok=True)  # it could not be written
            (self._folder / SIGNS).rmdir()  # the last rank's does it

    def _run(self, driver: Watched) -> None:
        over = False
        while not over:
            with suppress(OSError):  # a full disk, or a folder that was removed: the run itself goes on, too
                self._look(driver)  # also at once, so that the others know the host of a rank that is soon stopped
            over = self._over.wait(self._period)

    def _look(self, driver: Watched) -> None:
        what, seconds = waiting(driver, perf_counter())
        self._recent.append(driver.slowest)
        driver.slowest = 0.0
        Sign(self._host, os.getpid(), what, seconds, idle(driver)).write(self._folder, self._rank)
        late = what is not None and seconds > max(self._deadline.floor, self._deadline.factor * max(self._recent))
        stacks = self._folder / STACKS
        if (late or stacks.exists()) and not (stacks / str(self._rank)).exists():
            stacks.mkdir(exist_ok=True)
            with (stacks / str(self._rank)).open("w") as file:
                faulthandler.dump_traceback(file)
        if late:
            self._stalled(what, seconds)
        elif self._told:
            self._say(f"the run goes on, after a wait for {self._told}")
            self._told = ""

    def _stalled(self, what: str | None, seconds: float) -> None:
        signs = {rank: sign for rank in range(self._size) if (sign := self._sign(rank))}
        silent = MISSED * self._period
        fresh = [rank for rank, sign in signs.items() if sign.age <= silent]
        if self._rank != min((rank for rank in fresh if signs[rank].waiting is not None), default=self._rank):
            return  # another one speaks
        missing = [rank for rank in range(self._size) if rank not in fresh or signs[rank].waiting != what]
        told = [_told(f"rank {rank} (worker {self._members[rank]}", signs.get(rank), silent) for rank in missing]
        who = "; ".join(told) or "none of the ranks"
        line = f"{what} has taken {seconds:.1f} s. Missing: {who}"
        if self._asked():
            self._end(f"{line}. Stopped as asked, without the round's end")
        elif self._deadline.then == "end" and missing:
            self._end_stall(line, [signs.get(rank) for rank in missing], 0 in missing)
        elif not self._told:
            self._say(f"{line}. Waiting on; see {self._folder / STACKS}")
        self._told = ", ".join(f"rank {rank}" for rank in missing) or "all ranks"

    def _end_stall(self, line: str, missing: Sequence[Sign | None], first: bool) -> None:
        """Kill the missing ranks, or end the job. first: whether rank 0 is one of them, without which none goes on."""
        here = [sign.process for sign in missing if sign is not None and sign.host == self._host]
        if not self._kills or first or len(here) < len(missing):
            self._end(line)
            return
        self._say(f"{line}. Killed, so that the others go on")
        for process in here:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _sign(self, rank: int) -> Sign | None:
        """A rank's last sign of life; None where it has written none yet, or none that can be read."""
        path, own = path_of(self._folder, rank), path_of(self._folder, self._rank)
        found = read(path)
        with suppress(OSError):
            return found and found._replace(age=own.stat().st_mtime - path.stat().st_mtime)
        return None


def _told(who: str, sign: Sign | None, silent: float) -> str:
    """A missing rank, in words. who: how they begin."""
    if sign is None:
        return f"{who}), which gave no sign of life"
    last = "computing" if sign.waiting is None else f"in {sign.waiting}"
    how = f"silent for {sign.age:.1f} s, then {last}" if sign.age > silent else f"{last} for {sign.seconds:.1f} s"
    return f"{who}, host {sign.host}), {how}"
