"""Which way of a plan is recommended, what the usual ones take, and what each class of workers is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from ..config.units import told_seconds
from ..memory_check import gib
from ..program.errors import ScenarioError
from ..studies.front import Front, Node, search
from .bounds import Root
from .lab import Lab, Team
from .measures import Measured, Measures
from .space import Space, Way, listed
from .values import Values

TOLERANCE = (
    0.05  # the share of the fastest epoch that fewer local steps, a plainer placement and wire may cost together
)
BUSY = 0.1  # a worker whose idle share is at most so much more than the busiest one's is busy, too

Wanted = Callable[[Root], bool]


def longest(front: Front[Way], tolerance: float, most: float = inf) -> float:
    """The most seconds for a sample that the recommended way may take. most: those that a deadline leaves.

    Without a deadline it may take the tolerance longer than the fastest one, with one all that the deadline leaves.
    """
    return most if most < inf else front.seconds[-1] * (1 + tolerance)


def recommended(front: Front[Way], tolerance: float = TOLERANCE, most: float = inf) -> Way:
    """The way to take: of those on the front that are no longer than the longest, the one with the fewest local steps,
    and of these the fastest. One of them is.
    """
    most = longest(front, tolerance, most)
    near = [
        (way.steps, s, place)
        for place, (way, s) in enumerate(zip(front.candidates, front.seconds, strict=True))
        if s <= most
    ]
    return front.candidates[min(near)[-1]]


@dataclass(frozen=True)
class Row:
    """A way in the table."""

    way: Way
    roles: tuple[str, ...]  # why it is there: "recommended", "front", or a baseline's name
    measured: Measured
    epoch: float  # seconds of an epoch
    spread: float  # plus or minus so many seconds; 0 without noise
    epochs: float  # of the training
    late: bool  # whether it ends after the deadline
    steps: dict[str, int]  # by class, between two syncs
    batches: dict[str, int]  # by class; of workers that differ by a sample, the smaller batch
    left_out: dict[str, int]  # by class, the workers that are not used
    sizes: dict[str, int]  # by class, all workers
    idle: dict[str, float]  # by class, the least share of its workers
    memory: dict[str, float]  # by class, bytes of a device at the peak of a step, as predicted
    bound_by: str

    @property
    def steps_told(self) -> str:
        """The steps between two syncs; of a method that changes, those of its beginning and how it goes on."""
        return self.told_steps(by_class(self.steps))

    def told_steps(self, first: object) -> str:
        """The steps between two syncs, where those of the beginning, or once they are local, are these."""
        phases = self.way.method.phases(self.way.H)
        if len(phases) == 1:
            return str(first)
        return f"1, then {first}" if phases[0].synchronous else f"{first} and more"

    @property
    def training(self) -> float:
        """Seconds of the whole training."""
        return self.epoch * self.epochs

    @property
    def name(self) -> str:
        """The way in a sentence, told from all others."""
        way, told = self.way, [f"batches {by_class(self.batches)}"]
        if way.steps > 1:
            told.insert(0, f"steps {self.steps_told}")
        if way.division.micro is not None:
            told.append(f"{way.division.micro} at a time")
        told += [f"{name} {value}" for name, value in way.method.arguments.items()]
        told += [name for name in (way.placement, way.options.wire) if name not in ("replicated", "fp32")]
        if self.left_out:
            told.append(f"without {', '.join(f'{count} {name}' for name, count in self.left_out.items())}")
        return f"{way.preset} ({', '.join(told)})"


@dataclass(eq=False)
class Judge:
    """Looks at ways that a search has found, and at those that it has left out."""

    lab: Lab
    values: Values
    roots: Sequence[Root]
    teams: Sequence[Team]
    space: Space

    def __post_init__(self) -> None:
        self.measures = Measures(self.values)

    def fastest(
        self, wanted: Wanted, steps: float = inf, leaf: Callable[[Way], bool] = lambda way: True
    ) -> tuple[float, Way] | None:
        """(seconds for a sample, the way) of the fastest one with so many local steps at most; None if there is none.

        wanted, leaf: which roots, and which of their ways.
        """
        nodes = [_only(root.node, leaf) for root in self.roots if steps >= root.steps and wanted(root)]
        found = search(self.values.refined(nodes), self.values.seconds, fastest=True).front
        return (found.seconds[-1], found.candidates[-1]) if found.seconds else None

    def plain(self, way: Way, most: float) -> Way:
        """The same with the plainest placement and wire that takes `most` seconds for a sample or less.

        Plainer is what comes first in the space: replicated parameters, fp32, units as they usually are.
        """
        for root in sorted(self.roots, key=lambda root: root.node.place):
            divided = root.team is way.team and root.division.shares == way.division.shares
            if (
                divided
                and root.division.micro == way.division.micro
                and root.method.alike(way.method)
                and root.H == way.H
            ):
                for node in root.node.children() if root.node.bound <= most else ():
                    other = node.candidate
                    if other is not None and node.bound <= most and (self.values.seconds(other) or inf) <= most:
                        return other
        return way

    def epoch(self, seconds: float) -> float:
        """Seconds of an epoch, from those for a sample."""
        return seconds * self.lab.problem.shape.train

    @cached_property
    def most(self) -> float:
        """The most seconds for a sample with which the training ends by the deadline."""
        deadline = self.space.deadline
        return deadline if deadline == inf else deadline / self.lab.epochs / self.lab.problem.shape.train

    def baselines(self) -> dict[str, Way]:
        """What users would have taken: each is the fastest of its kind. Those that do not fit are left out."""
        everyone, fast = self.teams[0], [t for t in self.teams if t.classes == (0,)]
        alone = f"sync on the {self.lab.classes[0].name} alone"
        kinds: dict[str, Wanted] = {
            "sync on all": lambda root: root.team is everyone,
            **({alone: lambda root: root.team in fast[:1]} if len(self.lab.classes) > 1 else {}),
            "one machine": lambda root: root.team.size == 1,
        }
        found = dict[str, Way]()
        for name, wanted in kinds.items():

            def plain(root: Root, wanted: Wanted = wanted) -> bool:
                return wanted(root) and self._plain(root)

            # With parameters in every device; elsewhere only where these do not fit.
            best = self.fastest(plain, 1, _plain) or self.fastest(plain, 1, fp32)
            if best is not None and best[1] not in found.values():
                found[name] = best[1]
        return found

    def _plain(self, root: Root) -> bool:
        """Equal batches, as many samples as the scenario has, gradients exchanged in every step."""
        division = root.division
        whole = division.split == "even" and division.micro is None and division.batch <= self.lab.batch
        return root.method.synchronous and whole

    def row(self, way: Way, roles: Sequence[str]) -> Row:
        """The way's row. ScenarioError where it cannot be had."""
        measured = self.measures.of(way)
        names, found = [each.name for each in self.lab.classes], dict[str, tuple[int, float]]()
        idle = dict[str, float]()
        for c, batch, pace in way.division.kinds:
            before = found.get(names[c], (batch, pace))
            found[names[c]] = min(batch, before[0]), pace
        memory = dict[str, float]()
        for c, share, need in zip(way.team.by_class, measured.idle, measured.memory, strict=True):
            idle[names[c]] = min(share, idle.get(names[c], 1.0))
            memory[names[c]] = max(need, memory.get(names[c], 0.0))
        used = {c: way.team.by_class.count(c) for c in range(len(names))}
        return Row(
            way,
            tuple(roles),
            measured,
            self.epoch(measured.seconds),
            self.epoch(measured.spread),
            self.lab.epochs,
            measured.seconds > self.most,
            {name: way.division.steps(way.H, pace) for name, (_, pace) in found.items()},
            {name: batch for name, (batch, _) in found.items()},
            {
                name: len(self.lab.classes[c].workers) - used[c]
                for c, name in enumerate(names)
                if used[c] < len(self.lab.classes[c].workers)
            },
            {each.name: len(each.workers) for each in self.lab.classes},
            idle,
            memory,
            self._bound_by(way, measured, idle),
        )

    def _bound_by(self, way: Way, measured: Measured, idle: dict[str, float]) -> str:
        """What most of the time is for: the network's latency, its links, or computing, and whose.

        Computing is bound by memory where a larger batch would not fit the busiest workers.
        """
        shares = {
            "latency": measured.quiet - measured.no_latency,
            "link": measured.no_latency - measured.computing,
            "computing": measured.computing,
        }
        most = max(shares, key=lambda name: shares[name])
        if most != "computing":
            return most
        busiest = [name for name, share in idle.items() if share <= min(idle.values()) + BUSY]
        names = [each.name for each in self.lab.classes]
        full = [c for c, batch, _ in way.division.kinds if names[c] in busiest and self._full(way, c, batch)]
        if full and way.placement != "replicated":
            return "memory"
        return "computing" if len(busiest) == len(idle) else f"slow compute, {listed(busiest)}"

    def _full(self, way: Way, number: int, batch: int) -> bool:
        device = way.team.devices[number]
        known = device.memory is not None or device.max_batch is not None
        lab = self.lab.cut(way.division.micro)
        return known and batch >= lab.cap(way.team, number, way.method.placed(way.placement))

    def worth(self) -> dict[str, float]:
        """By class, by how much the fastest way without it takes longer than the fastest way with it, as a share.

        Infinite where there is no way without it, -1 where there is none with it. Empty where nothing is to be chosen.
        """
        if len(self.lab.classes) == 1 or "workers" in self.space.keep:
            return {}
        found = dict[str, float]()
        for c, each in enumerate(self.lab.classes):

            def used(root: Root, number: int = c) -> bool:
                return number in root.team.classes

            with_it, without = self.fastest(used), self.fastest(lambda root, used=used: not used(root))  # type: ignore[misc]
            if with_it is None or without is None:
                found[each.name] = -1.0 if with_it is None else inf
            else:
                found[each.name] = without[0] / with_it[0] - 1
        return found


def _only(node: Node[Way], leaf: Callable[[Way], bool]) -> Node[Way]:
    """The node with some of its ways alone."""
    return Node(
        node.bound,
        node.gap,
        node.place,
        None,
        lambda: (n for n in node.children() if n.candidate is not None and leaf(n.candidate)),
    )


def fp32(way: Way) -> bool:
    """Whether its values travel as they are."""
    return way.options.wire == "fp32"


def _plain(way: Way) -> bool:
    return fp32(way) and way.placement == "replicated"


def told_epochs(number: float) -> str:
    """A number of epochs in words."""
    return f"{number:.4g} epoch{'' if number == 1 else 's'}"


def by_class(values: Mapping[str, object]) -> str:
    """One value where all classes have the same, else each class's."""
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{value} {name}" for name, value in values.items())


def longer(factor: float) -> str:
    """How much longer something takes, in words."""
    if factor >= 2:
        return f"{factor:.3g} times as long"
    if abs(factor - 1) < 5e-4:
        return "as long"
    return f"{abs(factor - 1):.1%} {'longer' if factor > 1 else 'less'}"


def too_late(judge: Judge, fastest: Way) -> ScenarioError:
    """That no way ends by the deadline, with what is closest."""
    row, deadline = judge.row(fastest, ()), told_seconds(judge.space.deadline)
    return ScenarioError(
        f"--deadline {deadline}: no way trains {told_epochs(row.epochs)} in that time; the closest is {row.name} with "
        f"{told_seconds(row.training)}; write a longer --deadline, or a smaller budget.epochs"
    )


def refusal(lab: Lab, values: Values, space: Space, teams: Sequence[Team]) -> ScenarioError:
    """Why there is no way at all, with what is closest."""
    if values.refused:
        return ScenarioError(f"nothing can be trained here: {next(iter(values.refused))}")
    fewest = min(team.size for team in teams)
    if space.most is not None and space.most < fewest:
        return ScenarioError(
            f"--max-batch-total {space.most}: each of {fewest} workers takes a sample in a step at least; "
            f"write {fewest} or more"
        )
    sizes = {c.name: lab.timing.devices[c.workers[0]].memory or 0.0 for c in lab.classes}
    most = max(sizes, key=lambda name: sizes[name])
    if not sizes[most]:
        return ScenarioError(f"no way to train is possible within {space.limits}; ask for less")
    return ScenarioError(
        f"nothing fits into the workers' memory, {most} with {gib(sizes[most], 3)} has the most, "
        "not even with one sample and parameters in host memory; write a smaller model or another precision"
    )
