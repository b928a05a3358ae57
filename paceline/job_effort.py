"""What a simulation takes of this machine, estimated before it begins: time and memory, to an order of magnitude.

Rule: an estimate is a closed form, however long the run is. More memory than there is, or more than a day, is refused
with the number; minutes are said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .memory_check import predicted
from .program.effects import AllReduce
from .program.errors import ScenarioError

if TYPE_CHECKING:
    from .algorithms.phantom import PhantomWorker
    from .config.machines import Cluster
    from .job import Job

DAY, LONG = 86400.0, 15.0  # seconds beyond which it is refused, and said: an estimate may be three times too low
# Seconds. An effect takes 1 to 3 us in SimPy and about as long in a cohort's program, where each worker's clock takes
# 0.03 us more (benchmarks/results/sim_effects.json, sim_scale.json). The others are of a worker to set up, of what is
# sent once in the background, and of a sweep's point at least, as measured.
EFFECT, CLOCK, SET_UP, SENDING, POINT = 3e-6, 3e-8, 1e-4, 4e-5, 1e-3
WORKER, LINE, ROW = 4096, 1500, 1000  # bytes of a worker, of a report line, of a sweep's point
LITTLE = 1 << 24  # bytes that are there: the machine is not asked, as a sweep's points are many
USUAL, QUICKEST = 1e11, 1e13  # flop/s of a CPU: to say how long learning takes, and to refuse it
CONTROL_GROUPS = (  # folder, limit, usage, and the key of the part of it that is files; version 2 and version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current", "file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "cache"),
)


@dataclass(frozen=True)
class Effort:
    """what: begins the sentence. nbytes: of memory. seconds: of computing; least: what it cannot be below."""

    what: str
    nbytes: float
    seconds: float
    least: float

    def check(self, less: str) -> str:
        """A sentence where it takes minutes, else nothing. ScenarioError where it is too much; less: what to write."""
        free = available_memory() if self.nbytes > LITTLE else math.inf
        if self.nbytes > free:
            raise ScenarioError(
                f"{self.what} takes about {self.nbytes / 2**30:.3g} GiB of memory, and {free / 2**30:.3g} GiB are "
                f"free here; write {less}"
            )
        if self.least > DAY:
            raise ScenarioError(f"{self.what} takes about {duration(self.least)} on this machine; write {less}")
        return f"{self.what} takes about {duration(self.seconds)} here" if self.seconds > LONG else ""


def check_workers(cluster: Cluster) -> None:
    """ScenarioError where the workers alone are more than memory holds; called before anything is made of them."""
    count = float(cluster.size)
    Effort(f"cluster: simulating {count:g} workers", WORKER * count, 0.0, 0.0).check("a lower count")


def check_points(grid: Mapping[str, Any], points: Sequence[Any], processes: int) -> str:
    """As Effort.check, for a sweep over a grid and a list; called before its points are made."""
    count = math.prod(len(values) for values in grid.values() if isinstance(values, Sequence)) * max(1, len(points))
    seconds = POINT * count / processes
    effort = Effort(f"simulating {count:.7g} points", float(ROW * count), seconds, seconds)
    return effort.check("fewer values in --grid, or a shorter --list")


def check_simulation(job: Job, workers: Sequence[PhantomWorker], timing_only: bool, by_event: bool) -> str:
    """As Effort.check, for a job. by_event: in SimPy, which goes through every event of every worker."""
    steps, rounds, _, lines = job.plan.outlook
    seconds = least = SET_UP * len(workers) + seconds_of(job, workers, steps, rounds, by_event)
    nbytes = float(WORKER * len(workers) * (1 + by_event) + LINE * lines)
    less = ["a smaller budget", "fewer workers"]
    if not timing_only:
        nbytes += _learning(job, workers, [True] * len(workers))
        flops = steps * sum(w.works.step.flops for w in workers)
        seconds, least = seconds + flops / USUAL, least + flops / QUICKEST
        less += ["a smaller model", "--timing-only"]
    if any(flow.every is not None for flow in job.timing.network.background):
        less += ["a longer cluster.background every"]
    what = f"simulating {len(workers)} workers for {steps:.3g} steps in {rounds:.3g} rounds"
    return Effort(what, nbytes, seconds, least).check(f"{', '.join(less[:-1])} or {less[-1]}")


def check_training(job: Job) -> None:
    """ScenarioError where what the workers' ranks keep is more than this machine's memory holds."""
    workers = job.problem.phantoms(job.plan)
    nbytes = _learning(job, workers, [device.torch_device == "cpu" for device in job.timing.devices])
    Effort(f"training {job.workers} workers", nbytes, 0.0, 0.0).check("fewer workers, or a smaller model")


def _learning(job: Job, workers: Sequence[PhantomWorker], here: Sequence[bool]) -> float:
    """Bytes of this machine's memory for models and their training. here: whose device's memory it is, too."""
    needs = predicted([w.works for w in workers], job.problem)
    return sum(need.host + need.device * own for need, own in zip(needs, here, strict=True))


def check_rehearsal(job: Job) -> str:
    """As Effort.check, for the longest of the single rounds that a training is rehearsed with."""
    longest = job.plan.outlook.longest
    seconds = seconds_of(job, job.problem.phantoms(job.plan), longest, 1, by_event=True)
    what = f"rehearsing a round of {longest:.3g} steps of {job.workers} workers"
    return Effort(what, 0.0, seconds, seconds).check("a lower H, or fewer workers")


def seconds_of(job: Job, workers: Sequence[PhantomWorker], steps: float, rounds: float, by_event: bool) -> float:
    """Of simulating so many steps, as the clock alone."""
    plan, place, synchronous = job.plan, job.plan.strategy.placement, job.plan.strategy.aggregation.synchronous
    kinds = {(id(w.works), pace): w for w, pace in zip(workers, plan.shares.paces, strict=True)}
    programs = len(workers) if by_event else len(kinds)
    effects = tested = 0.0
    for w in kinds.values():
        units, chunks = len(w.works.units), len(w.works.chunks)
        # Of each unit: fetched and used forward and backward, its gradient taken away; most is started, then awaited.
        by_units = place.by_units(synchronous, units)
        effects = max(effects, 9.0 * units * chunks if by_units else 3.0 if synchronous else 1.0)
        tested = max(tested, 3.0 + 3 * units * w.evaluation_blocks * w.works.held.fetched)
    clocks = 0.0 if by_event else CLOCK * len(workers)
    passed = steps * effects + 3 * rounds + tested * plan.outlook.lines
    traced = job.scenario.report.trace  # a span takes as long as its effect
    return passed * (EFFECT * (1 + traced) * programs + clocks) + SENDING * _sendings(job, steps, rounds)


def _sendings(job: Job, steps: float, rounds: float) -> float:
    """How often something is sent in the background, while so many steps are taken."""
    flows = [flow for flow in job.timing.network.background if flow.every is not None]
    if not flows:
        return 0.0
    from .sim.network import Fabric

    plan, timing = job.plan, job.timing
    computing = max(device.step_seconds(b) for device, b in zip(timing.devices, plan.shares.batches, strict=True))
    fabric = Fabric(timing.network, timing.nodes)
    exchange, _ = fabric.price(AllReduce, 4 * job.problem.cost.parameters, plan.workers)
    exchanges = steps if plan.strategy.aggregation.synchronous else rounds
    sent = 0.0
    for flow in flows:  # one that is late is sent as soon as the one before is over
        narrowest = min(fabric.topology.capacity[link] for link in fabric.topology.route(flow.sender, flow.receiver))
        least = max(flow.every or 0.0, (flow.nbytes or 0.0) / narrowest)
        sent += (steps * computing + exchanges * exchange) / least if least else math.inf
    return sent


def available_memory() -> float:
    """Bytes that this process may still take: of the machine, its control group and its own limit, the least."""
    import resource

    free = [float(_field("/proc/meminfo", "MemAvailable:") * 1024) or math.inf]
    for group, limit, usage, cache in CONTROL_GROUPS:
        if most := _field(f"{group}/{limit}"):
            used = _field(f"{group}/{usage}") - _field(f"{group}/memory.stat", cache)  # files' pages can be given back
            free.append(max(0.0, float(most - used)))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        free.append(max(0.0, float(soft - _field("/proc/self/statm") * resource.getpagesize())))
    return min(free)


def _field(path: str, name: str = "") -> int:
    """The number behind a name in a file, by default its first; 0 where there is none."""
    try:
        words = Path(path).read_text().split()
        return int(words[words.index(name) + 1 if name else 0])
    except (OSError, ValueError, IndexError):
        return 0


def duration(seconds: float) -> str:
    """For people."""
    if seconds == math.inf:
        return "for ever"
    for size, unit in ((365.25 * DAY, "years"), (DAY, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 100 else f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} seconds"
