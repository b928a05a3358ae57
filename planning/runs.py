"""Ways of a plan as trainings in virtual time that can stand still between two reports.

Rule: a training has the numbers and the clock that `paceline simulate` gives its scenario, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..algorithms.rounds import Interval, State
from ..config.metrics import Target
from ..config.scenario import validate
from ..job import Job, resolve
from ..program.errors import NotFinite, ProtocolError, ScenarioError
from ..program.outcome import Hooks
from ..simulating import check
from ..studies.halving import Point

if TYPE_CHECKING:
    from ..sim.engine import Simulation

EVALUATIONS = 100  # in a whole run, at the least
OFTEN = 0.1  # epochs between two of them are often enough


def evaluated(report: Mapping[str, Any] | None, given: Interval | None, epochs: float) -> dict[str, Any]:
    """A `report:` section with which a training of so many epochs is evaluated often enough to see when it is where.

    given: how often the section has it evaluated.
    """
    most = max(OFTEN, epochs / EVALUATIONS)
    often = given is not None and (given.unit != "epochs" or given.amount <= most)
    return dict(report or {}) | ({} if often else {"every": f"{most:.4g} epochs"})


class Waiting:
    """A scenario's training, which stands still between two evaluations. It is built when it first goes on.

    like: a job of the same data, which is loaded once.
    changes: to the document, such as another seed.
    """

    def __init__(self, document: Mapping[str, Any], target: Target, like: Job, changes: Mapping[str, Any] = {}) -> None:
        self.points: list[Point] = []
        self.over = False
        self.failure = ""  # why it ended early
        quiet: dict[str, Any] = {
            "checkpoint": {},
            "faults": [],
            "report": {**document.get("report", {}), "trace": False},
        }
        self._document = {**document, **quiet, **changes}
        self._target, self._like = target, like
        self._simulation: Simulation | None = None

    @property
    def epoch(self) -> float:
        """How many epochs it has come, by its samples."""
        return self.points[-1].samples / self._like.problem.shape.train if self.points else 0.0

    def go_on(self) -> None:
        """Train to the next evaluation or to the end. What one way alone cannot do ends it, and is its `failure`."""
        try:
            if self._simulation is None:
                self._simulation = self._begun()
            if self._simulation.run() is not None:
                self.close()
        except (NotFinite, ScenarioError, ProtocolError) as error:
            self.failure = str(error)
            self.close()

    def close(self) -> None:
        """End it, and free its memory."""
        self.over, self._simulation = True, None

    def _begun(self) -> Simulation:
        from ..sim.engine import Simulation

        job = resolve(validate(self._document, "plan"), self._like.problem.folder, self._like)
        check(job, job.problem.phantoms(job.plan), timing_only=False, by_event=True, in_memory=True)
        job.problem.load_libraries(job.plan)
        workers = job.problem.workers(job.plan, range(job.workers), shared_process=True)
        return Simulation(job.programs(workers, State()), job.timing, Hooks(self._log))

    def _log(self, worker: int, seconds: float, fields: Mapping[str, Any]) -> None:
        value = fields.get(self._target.field, math.nan)
        if not math.isnan(value):
            self.points.append(Point(seconds, fields["samples"], value))
            assert self._simulation
            self._simulation.pause()
