"""The command line with ranks that are killed on purpose: python -m kit.losses DEATHS ARGUMENTS...

DEATHS is a list like "2/1/step/30,1/2/exchange/3": rank 2 is killed in the first part that it trains, the 30th time
that it is in a step, and rank 1 in its second part. Places that end with "!" raise an error instead.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from paceline import training_rank
from paceline.job import Job
from paceline.program.effects import Checkpoint, Collective, Compute, Effect, Program, Start
from paceline.records.recorder import Recorder
from paceline.runtime import launcher, reduction
from paceline.runtime.headers import TAG

RANK = "OMPI_COMM_WORLD_RANK"


def _steps(effect: Any) -> bool:
    return isinstance(effect, Compute) and effect.work.phase != "evaluate"


EFFECTS: dict[str, Callable[[Any], bool]] = {
    "step": _steps,
    "sync": lambda effect: isinstance(effect, Collective) and effect.phase != "evaluate",
    "started": lambda effect: isinstance(effect, Start),
    "evaluation": lambda effect: isinstance(effect, Compute) and not _steps(effect),
    "evaluating": lambda effect: isinstance(effect, Collective) and effect.phase == "evaluate",
    "checkpoint": lambda effect: isinstance(effect, Checkpoint),
}
# A call of these, before it and after a part of it: (where it is, its name).
CALLS: dict[str, tuple[Any, str]] = {
    "exchange": (reduction, "exchange"),
    "writing": (Recorder, "part"),
    "gathering": (training_rank, "gather_texts"),
}


class Death:
    """One death of this rank."""

    def __init__(self, part: int, place: str, count: int) -> None:
        self.part, self.count, self.raises, self.place = part, count, place.endswith("!"), place.rstrip("!")

    def at(self, part: int, before: Callable[[], None]) -> None:
        """This rank is at the place now. before: what it does before it dies."""
        if part == self.part:
            self.count -= 1
            if self.count == 0:
                before()
            if self.count == 0 and self.raises:
                raise ZeroDivisionError("on purpose")
            if self.count == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Deaths:
    """The deaths of this rank, put where they happen."""

    def __init__(self, deaths: list[Death]) -> None:
        self._deaths, self._part, self._programs = deaths, 0, Job.programs
        patch.object(Job, "programs", lambda job, *arguments: self._watched(job, *arguments)).start()
        for place, (owner, name) in CALLS.items():
            patch.object(owner, name, self._called(place, getattr(owner, name))).start()

    def _at(self, place: str, before: Callable[[], None] = lambda: None) -> None:
        for death in self._deaths:
            if death.place == place:
                death.at(self._part, before)

    def _called(self, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            self._at(place, lambda: _half(*arguments) if place == "exchange" else None)
            return function(*arguments)

        return wrapped

    def _then(self, run: Callable[[], Any], place: str) -> Callable[[], Any]:
        def wrapped() -> Any:
            answer = run()
            self._at(place)
            return answer

        return wrapped

    def _watched(self, job: Job, *arguments: Any) -> list[Program[Any]]:
        self._part += 1
        return [self._passed_on(program) for program in self._programs(job, *arguments)]

    def _passed_on(self, program: Program[Any]) -> Program[Any]:
        answer = None
        while True:
            try:
                effect: Effect[Any] = program.send(answer)
            except StopIteration as end:
                return end.value
            for place, matches in EFFECTS.items():
                if matches(effect):
                    if isinstance(effect, Compute):
                        effect = replace(effect, run=self._then(effect.run, place))
                    else:
                        self._at(place)
            answer = yield effect


def _half(comm: Any, outgoing: Any, incoming: Any, element: Any) -> None:
    """Begin an exchange with the first of the others alone."""
    other = (comm.rank + 1) % comm.size
    comm.Isend([outgoing[other], outgoing[other].size, element], other, TAG + 1)
    time.sleep(0.05)


def main() -> None:
    told, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    if launcher.under_mpirun():
        deaths = [each.split("/") for each in filter(None, told.split(","))]
        Deaths([Death(int(part), place, int(n)) for rank, part, place, n in deaths if rank == os.environ[RANK]])
    else:
        patch.object(launcher, "run_job", partial(launcher.run_job, program=("-m", "kit.losses", told))).start()
    from paceline.__main__ import main as paceline

    paceline()


if __name__ == "__main__":
    main()
