"""The methods that a plan compares, and what a run of each consists of.

A method whose H changes during the run is a mixture: it is looked at LOOKS places of the run, and its time for a sample
is the mean over them of what the rounds there take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple

from ..algorithms.aggregations import Parameters
from ..algorithms.placements import PLACEMENTS
from ..algorithms.plan import Plan
from ..algorithms.presets import PRESETS
from ..algorithms.rounds import Interval, Moment
from ..algorithms.schedules import Every, Fixed, Qsr, Then
from ..algorithms.strategy import Strategy
from ..config.arguments import parameters_of
from ..config.lr_schedule import warm_up_of
from ..config.scenario import StrategySpec
from ..config.sections import described
from ..config.strategy import build_strategy
from ..program.errors import ScenarioError
from .lab import EXCHANGING, LOCAL, Lab

LOOKS = 8  # places of a run
# Of the largest learning rate: alpha / lr times the root of h_base. With 1, H grows from the rate's peak on, as in the
# paper's recipes for transformers; with 1/2 it grows once the rate has fallen to a half (arXiv 2310.14423).
ALPHAS = (1.0, 0.5)
BASES = (2, 4, 8)  # of H, the paper's 4 among them
MOST = 1024  # steps of a round that is looked at: with more, what a sync takes is no longer seen
MOST_BY_UNITS = (
    64  # the same where parameters are offloaded: each step is simulated unit by unit then, which takes long
)
CHANGING = ("qsr", "post_local_sgd")  # presets whose H changes during the run
FALLS = 0.5  # a learning rate that ends above this share of its largest value does not fall
POST_LOCAL = (8, 16)  # steps once it is local, the paper's 16 among them (arXiv 1808.07217)
BY_STEPS = ("local_sgd", "biased_local_sgd", "fednova")  # presets that divide by steps
START = Moment(0, 0, 0.0, 1.0)


class Phase(NamedTuple):
    """A part of a run in which nothing changes."""

    share: float  # of the run's samples
    synchronous: bool  # whether gradients are exchanged in every step
    H: int  # steps of the fastest worker between two syncs


@dataclass(frozen=True, eq=False)
class Method:
    """How workers agree: by gradients in every step, by parameters after local steps, or first so and then so."""

    strategy: Strategy  # whose aggregation counts here
    steps: tuple[int, ...]  # of the fastest worker between two syncs
    placements: tuple[str, ...]
    preset: str = "local_sgd"  # of local steps
    number: str = "H"  # the preset's argument that says how many steps
    arguments: Mapping[str, Any] = field(default_factory=dict)  # its others, and overridden axes
    # Of a method that changes: a part of the run, whether it is synchronous, and how many times H its rounds have.
    looks: tuple[tuple[float, bool, float], ...] = ()

    @property
    def synchronous(self) -> bool:
        """Whether gradients are exchanged in every step, from the beginning to the end."""
        return not self.strategy.aggregation.local

    def placed(self, placement: str) -> Strategy:
        """The strategy with a placement: what the memory that it needs depends on."""
        return dataclasses.replace(self.strategy, placement=PLACEMENTS[placement]())

    def phases(self, H: int) -> list[Phase]:
        """What a run with so many steps consists of."""
        if not self.looks:
            return [Phase(1.0, self.synchronous, H)]
        return [
            Phase(share, synchronous, 1 if synchronous else max(1, int(H * times)))
            for share, synchronous, times in self.looks
        ]

    def average(self, H: int, of: Callable[[int], float]) -> float:
        """The mean over a run's syncs of a function of their rounds' steps."""
        first, *others = self.phases(H)
        if not others:
            return float(of(first.H))
        return 1 / sum(part.share / of(part.H) for part in (first, *others))

    def alike(self, other: Method) -> bool:
        """Whether they differ by the placements and by the rounds that are looked at, at most."""
        mine, theirs = ((each.synchronous, each.preset, each.number, each.arguments) for each in (self, other))
        return mine == theirs

    @property
    def usual(self) -> str:
        """The preset's own division, as far as ways are told from it."""
        return "by_steps" if self.preset in BY_STEPS else "even"

    @property
    def weighs(self) -> bool:
        """Whether it takes weights by samples, and does not by itself."""
        weights = parameters_of(PRESETS[self.preset]).get("weights")
        return weights is not None and weights.default == "equal" and "weights" not in self.arguments


def methods(lab: Lab, keep: frozenset[str], steps: tuple[int, ...], placements: tuple[str, ...]) -> list[Method]:
    """The methods that are tried. ScenarioError where one that is to stay cannot be planned.

    keep: "method" and "H", as far as they stay as the scenario has them.
    """
    strategy = build_strategy(lab.scenario.strategy)
    if "method" in keep:
        own = tuple(name for name in placements if type(strategy.placement) is PLACEMENTS[name])
        return _kept(lab, strategy, steps, own, "H" in keep)
    if "H" in keep:
        if strategy.aggregation.synchronous:
            return [Method(EXCHANGING, (1,), placements)]
        return [Method(LOCAL, (_given(lab, strategy),), placements)]
    return [
        Method(EXCHANGING, (1,), placements),
        Method(LOCAL, steps, placements),
        *_changing(lab, placements),
    ]


def _given(lab: Lab, strategy: Strategy) -> int:
    """The scenario's own number of local steps. ScenarioError where it changes during the run."""
    given = strategy.schedule.resolve(lab.timing.speeds(lab.batch))
    if not isinstance(given, Fixed | Every):
        raise ScenarioError(
            f"--keep H: H changes during the run, by {type(given).__name__}; leave it out, or --keep method as well"
        )
    return given.steps(START)


def _kept(
    lab: Lab, strategy: Strategy, steps: tuple[int, ...], placements: tuple[str, ...], keep_h: bool
) -> list[Method]:
    """The scenario's own method, with its own number of steps (keep_h) or with several."""
    spec = lab.scenario.strategy
    if strategy.aggregation.synchronous and not strategy.aggregation.local:
        return [Method(EXCHANGING, (1,), placements)]
    apart = ("preset", "H", "h_base", "t", "split", "placement")
    arguments = {key: value for key, value in spec if value is not None and key not in apart}
    changed = {"schedule", "aggregation"} & arguments.keys()
    schedule, plan = strategy.schedule, lab.plan
    if spec.preset in CHANGING and not changed:
        if plan is None:
            raise ScenarioError("--keep method: the scenario itself does not fit into memory; leave --keep method out")
        if isinstance(schedule, Qsr):
            bases = (schedule.h_base,) if keep_h else tuple(sorted({*BASES, schedule.h_base}))
            return [each for base in bases for each in _qsr(lab, plan, strategy, arguments, base, placements)]
        if isinstance(schedule, Then):
            H = schedule.b.steps(START)
            counts = (H,) if keep_h else tuple(sorted({*POST_LOCAL, H}))
            share = _share(lab, plan, schedule.t)
            return [dataclasses.replace(_post_local(lab, share, arguments), steps=counts, placements=placements)]
    changes = strategy.aggregation.synchronous or "schedule" in changed
    if spec.preset is None or changes or "H" not in parameters_of(PRESETS[spec.preset]):
        raise ScenarioError(
            "--keep method: it is for qsr, post_local_sgd, and presets with one number H of local steps, like slowmo"
        )
    steps = (_given(lab, strategy),) if keep_h else steps
    return [Method(strategy, steps, placements, spec.preset, arguments=arguments)]


def _changing(lab: Lab, placements: tuple[str, ...]) -> list[Method]:
    """QSR and post-local SGD, where the learning rate falls."""
    plan = lab.plan
    if plan is None:
        return []
    rates = _rates(plan)
    if not max(rates) > 0 or rates[-1] > FALLS * max(rates):
        return []
    found = list[Method]()
    for base in BASES:
        for factor in ALPHAS:  # an alpha with which H grows from a share of the largest learning rate on
            alpha = float(f"{factor * max(rates) * sqrt(base):.3g}")
            strategy = Strategy(schedule=Qsr(alpha, base), aggregation=Parameters())
            found += _qsr(lab, plan, strategy, {"alpha": alpha}, base, placements)
    decays = described(lab.scenario.workload.lr_schedule).get("milestones")
    share = min(0.9, decays[0] / plan.budget.amount) if decays else 0.5
    return [*found, dataclasses.replace(_post_local(lab, share, {}), placements=placements)]


def _rates(plan: Plan) -> list[float]:
    """The learning rate at each look."""
    return [plan.rate(plan.budget.amount * (look + 0.5) / LOOKS) for look in range(LOOKS)]


def _qsr(
    lab: Lab, plan: Plan, strategy: Strategy, arguments: Mapping[str, Any], base: int, placements: tuple[str, ...]
) -> list[Method]:
    """QSR with a base of H: for each placement, since how long the rounds are that are looked at depends on it."""
    assert isinstance(strategy.schedule, Qsr)
    steps, amount = plan.outlook.steps, plan.budget.amount
    warm_up = warm_up_of(lab.scenario.workload.lr_schedule, plan.budget)
    schedule = dataclasses.replace(strategy.schedule, h_base=base).resolve((1.0,), warm_up)
    found = list[Method]()
    for name in placements:
        looks = []
        most = MOST if name == "replicated" else MOST_BY_UNITS
        for look, rate in enumerate(_rates(plan)):
            done = (look + 0.5) / LOOKS
            epochs = done * amount if plan.budget.unit == "epochs" else done * steps
            now = Moment(0, int(done * steps), epochs, rate)
            H = max(1, min(schedule.steps(now), max(base, most), int((1 - done) * steps)))
            looks.append((1 / LOOKS, False, H / base))
        found.append(Method(strategy, (base,), (name,), "qsr", "h_base", arguments, tuple(looks)))
    return found


def _share(lab: Lab, plan: Plan, t: Interval) -> float:
    """How much of a run is over at t, while a round is a step."""
    return min(1.0, t.amount / (lab.epochs if t.unit == "epochs" else plan.outlook.steps))


def _post_local(lab: Lab, share: float, arguments: Mapping[str, Any]) -> Method:
    """Post-local SGD that changes after a share of the run."""
    t = f"{share * lab.epochs:.4g} epochs"
    strategy = build_strategy(StrategySpec.model_validate({"preset": "post_local_sgd", "t": t, **arguments}))
    looks = tuple(look for look in ((share, True, 1.0), (1 - share, False, 1.0)) if look[0] > 0)
    return Method(strategy, POST_LOCAL, (), "post_local_sgd", "H", {"t": t, **arguments}, looks)
