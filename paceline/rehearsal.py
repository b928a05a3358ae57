"""The rehearsal of a training: some of its rounds are simulated first, to find programs that do not fit together."""

from __future__ import annotations

import copy
import dataclasses
import time

from .algorithms.plan import Plan
from .algorithms.rounds import State
from .job import Job
from .job_effort import check_rehearsal
from .program.outcome import Hooks
from .terminal import warn


def rehearse(job: Job, seconds: float = 2.0) -> None:
    """Simulate the plan's first two rounds, a round for each new H and the last round, timing-only.

    No round begins after `seconds` of real time. Raises ProtocolError where the workers' programs do not fit together,
    ScenarioError where a round takes too long.
    """
    from .sim.engine import simulate

    if line := check_rehearsal(job):
        warn(line)
    timing = dataclasses.replace(job.timing, faults=())  # faults are not mistakes of the programs
    # A run that is asked to stop at once performs exactly one round.
    hooks = Hooks(stop=lambda: True)
    deadline = time.monotonic() + seconds
    for state in _telling_states(job.plan, deadline):
        simulate(job.programs(job.problem.phantoms(job.plan), state), timing, hooks)
        if time.monotonic() > deadline:
            break


def _telling_states(plan: Plan, deadline: float) -> list[State]:
    """States before the first two rounds, before each H not seen before, and before the last round."""
    state, seen, states = State(), set[int](), list[State]()
    before = copy.copy(state)
    while not plan.finished(state) and time.monotonic() < deadline - 1.0:
        before = copy.copy(state)
        round = plan.next_round(state)
        if state.round < 2 or round.H not in seen:
            states.append(before)
        seen.add(round.H)
        state.after(round, 0.0)
    return states if before in states else [*states, before]
