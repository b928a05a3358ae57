"""What a job takes of this machine, estimated before it begins: the time and memory for simulating or training it.

Rule: an estimate is a closed formula, so that it takes no time however long the run is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .algorithms.phantom import Phantoms
from .effort import EVENTS, WORKER, Effort
from .job import Job
from .memory_check import predicted
from .program.effects import AllReduce
from .records.lines import KEPT

# Seconds, each as measured (benchmarks/results/sim_effects.json, sim_scale.json). An effect takes 1 to 3 us in SimPy,
# and about as long in a cohort's program. With noise, each computation of a worker is drawn: DRAW in SimPy, CLOCK in a
# cohort. Without noise the steps of a round are added up once for each H, which is ADD for a step. SET_UP is for each
# worker, by event and in a cohort; SENDING for each message of background traffic.
EFFECT, DRAW, CLOCK, ADD, SENDING = 3e-6, 2e-7, 3e-8, 3e-8, 4e-5
SET_UP = {True: 1e-4, False: 1e-5}
LINE = 1500  # bytes of a report line
USUAL, QUICKEST = 1e11, 1e13  # flop/s of a CPU: the usual ones estimate the time of training, the quickest refuse it


def check_simulation(job: Job, workers: Phantoms, timing_only: bool, by_event: bool, in_memory: bool) -> str:
    """As `Effort.check`, for the simulation of a job.

    by_event: by SimPy, with every event of every worker.
    in_memory: whether the report lines stay in memory, since the run has no directory.
    """
    steps, rounds, _, lines = job.plan.outlook
    lines = lines if in_memory else min(lines, KEPT)
    seconds = least = SET_UP[by_event] * len(workers) + seconds_of(job, workers, steps, rounds, by_event)
    nbytes = float((WORKER + EVENTS * by_event) * len(workers) + LINE * lines)
    less = ["a smaller budget", "fewer workers"]
    if not timing_only:
        job.problem.check_trainable()
        nbytes += training_bytes(job, workers, [True] * len(workers))
        usual, quickest = computing_seconds(job, workers)
        seconds, least = seconds + usual, least + quickest
        less += ["a smaller model", "--timing-only"]
    if any(flow.every is not None for flow in job.timing.network.background):
        less += ["a longer cluster.background every"]
    what = f"simulating {len(workers)} workers for {steps:.3g} steps in {rounds:.3g} rounds"
    return Effort(what, nbytes, seconds, least).check(f"{', '.join(less[:-1])} or {less[-1]}")


def computing_seconds(job: Job, workers: Phantoms) -> tuple[float, float]:
    """Seconds for computing all steps of a job with real numbers: on a usual CPU, on the quickest."""
    flops = job.plan.outlook.steps * sum(works.step.flops for works in workers.works)
    return flops / USUAL, flops / QUICKEST


def check_training(job: Job) -> None:
    """ScenarioError where the ranks of a training need more memory than this machine has free."""
    job.problem.check_trainable()
    workers = job.problem.phantoms(job.plan)
    nbytes = training_bytes(job, workers, [device.torch_device == "cpu" for device in job.timing.devices])
    Effort(f"training {job.workers} workers", nbytes, 0.0, 0.0).check("fewer workers, or a smaller model")


def training_bytes(job: Job, workers: Phantoms, here: Sequence[bool]) -> float:
    """Bytes of this machine's memory for training. here: for each worker, whether its device uses the same memory."""
    needs = predicted(workers.works, job.problem, job.plan)
    return sum(need.host + need.device * own for need, own in zip(needs, here, strict=True))


def check_rehearsal(job: Job) -> str:
    """As `Effort.check`, for the longest of the rounds with which a training is rehearsed."""
    longest = job.plan.outlook.longest
    seconds = seconds_of(job, job.problem.phantoms(job.plan), longest, 1, by_event=True)
    what = f"rehearsing a round of {longest:.3g} steps of {job.workers} workers"
    return Effort(what, 0.0, seconds, seconds).check("a lower H, or fewer workers")


def seconds_of(job: Job, workers: Phantoms, steps: float, rounds: float, by_event: bool) -> float:
    """The seconds for simulating so many steps, timing-only."""
    from .sim.noise import varies

    plan, place, synchronous = job.plan, job.plan.strategy.placement, job.plan.strategy.aggregation.synchronous
    kinds = {kind: worker for worker, kind in enumerate(zip(workers.works, plan.shares.paces, strict=True))}
    effects = tested = 0.0  # of a step, of an evaluation
    for w in map(workers.__getitem__, kinds.values()):
        units, chunks = len(w.works.units), len(w.works.chunks)
        # A unit is fetched and used forward and backward, and its gradient is reduced. Most of these effects are
        # started and then awaited, which makes 9 per unit. The local steps of a round are one effect together.
        by_units = place.by_units(synchronous, units)
        effects = max(effects, 9.0 * units * chunks if by_units else 3.0 if synchronous else 0.0)
        tested = max(tested, 3.0 + 3 * units * w.evaluation_blocks * w.works.held.fetched)
    passed = steps * effects + 4 * rounds + tested * plan.outlook.lines
    traced, noisy = job.scenario.report.trace, varies(job.timing.noise, job.timing.devices)
    # What a computation takes that is not an effect of its own: a local step is drawn or added up, and has a span.
    computed = steps * max(1.0, effects)
    each = EFFECT * traced * steps * (effects == 0) + DRAW * noisy * computed
    if by_event:
        seconds = len(workers) * (EFFECT * (1 + traced) * passed + each)
    else:
        seconds = len(kinds) * EFFECT * passed + len(workers) * CLOCK * noisy * computed
    summed = 0.0 if noisy else ADD * plan.outlook.longest
    return seconds + summed + SENDING * _sendings(job, steps, rounds)


def _sendings(job: Job, steps: float, rounds: float) -> float:
    """The number of messages of background traffic during so many steps."""
    flows = [flow for flow in job.timing.network.background if flow.every is not None]
    if not flows:
        return 0.0
    from .sim.network import Fabric

    plan, timing = job.plan, job.timing
    kinds = dict.fromkeys(zip(timing.devices, plan.shares.batches, strict=True))
    computing = max(device.step_seconds(batch) for device, batch in kinds)
    fabric = Fabric(timing.network, timing.nodes)
    exchange, _ = fabric.price(AllReduce, 4 * job.problem.cost.parameters, plan.workers)
    exchanges = steps if plan.strategy.aggregation.synchronous else rounds
    sent = 0.0
    for flow in flows:  # a message that is late is sent as soon as the one before has arrived
        narrowest = min(fabric.topology.capacity[link] for link in fabric.topology.route(flow.sender, flow.receiver))
        least = max(flow.every or 0.0, (flow.nbytes or 0.0) / narrowest)
        sent += (steps * computing + exchanges * exchange) / least if least else math.inf
    return sent
