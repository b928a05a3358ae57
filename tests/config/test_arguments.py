"""Arguments of axis members and presets: every documented spelling is read, and every other one is refused."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from kit.paths import DOCS
from paceline.algorithms.aggregations import Gradients, Parameters, Until
from paceline.algorithms.outer import FedNova, OuterSGD, SlowMo
from paceline.algorithms.placements import Offloaded
from paceline.algorithms.presets import PRESETS
from paceline.algorithms.rounds import NEVER, Interval
from paceline.algorithms.sampling import TopLoss
from paceline.algorithms.schedules import Every, Fixed, warm_up
from paceline.algorithms.splits import ByBatch, ByClass, Given
from paceline.algorithms.strategy import AXES, Strategy
from paceline.config.arguments import axis_of, fits, hints_of, words
from paceline.config.scenario import StrategySpec
from paceline.config.strategy import build_strategy
from paceline.program.errors import ScenarioError

PAGE = DOCS / "scenarios.md"
MEMBERS = {name: member for members in AXES.values() for name, member in members.items()}
REQUIRED: dict[str, dict[str, Any]] = {
    "by_class": {"steps": {"cpu": 1, "gpu": 8}},
    "qsr": {"alpha": 0.02},
    "then": {"t": "3 epochs", "a": "every", "b": {"fixed": 4}},
    "warm_up": {"t": "10 steps", "H": 2, "then": {"qsr": 0.02}},
    "post_local_sgd": {"t": "3 epochs"},
}
STEP, BY_STEPS = Interval(1, "steps"), Parameters("steps")


def build(**strategy: Any) -> Strategy:
    return build_strategy(StrategySpec.model_validate(strategy))


def on(axis: str, member: Any) -> Strategy:
    """A strategy with this member, whose other axes fit it."""
    return build(**{"aggregation": "gradients" if axis == "placement" else "parameters", axis: member})


def documented(heading: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(name, argument) -> (what it takes, what it is otherwise), from the page's table of that heading."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    names: list[str] = []
    lines = PAGE.read_text().splitlines()
    for line in lines[lines.index(f"| {heading} | argument | takes | otherwise | what it is |") + 2 :]:
        if not line.startswith("|"):
            break
        member, argument, takes, otherwise, what = (cell.strip() for cell in line.strip("|").split("|"))
        names = [name.strip(" `") for name in member.split(",")] if member else names
        assert what
        found |= {(name, argument.strip("`")): (takes, otherwise) for name in names}
    return found


def described(members: dict[str, Callable[..., Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """The same, from the members' signatures."""
    return {
        (name, argument): (words(hint), otherwise(inspect.signature(member).parameters[argument].default))
        for name, member in members.items()
        for argument, hint in hints_of(member).items()
    }


def otherwise(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "must be given"
    if default is None or default == NEVER:
        return "never" if default else ""
    value = spelled(default)
    return f"{value:.15g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()


def spelled(default: Any) -> Any:
    """A default as a scenario writes it: a member by its name."""
    return next((name for name, member in MEMBERS.items() if member is type(default)), default)


def test_the_page_names_every_member_of_an_axis():
    text = PAGE.read_text()
    for axis, members in AXES.items():
        row = re.search(rf"^\| `{axis}` \| (.*) \|$", text, re.M)
        assert row, axis
        assert sorted(re.findall(r"`(\w+)`", row[1])) == sorted(members), (
            f"docs/scenarios.md, the table of axes, {axis}"
        )


@pytest.mark.parametrize(("heading", "members"), [("member", MEMBERS), ("preset", PRESETS)])
def test_the_page_tells_every_argument_with_its_type_and_default(heading, members):
    """Arguments that stand in docstrings only cannot be found: the page's tables are compared with the signatures."""
    told, wanted = documented(heading), described(members)
    lacks = [
        f"| `{name}` | `{argument}` | {takes} | {default} | ... |"
        for (name, argument), (takes, default) in wanted.items() - told.items()
    ]
    assert told == wanted, (
        f"docs/scenarios.md, the table of {heading}s, lacks these rows, or has them otherwise: {lacks}"
    )


@pytest.mark.parametrize(
    ("axis", "spelled", "member"),
    [
        ("split", {"by_class": {"cpu": 1, "gpu": 8}}, ByClass({"cpu": 1, "gpu": 8})),
        ("split", {"by_class": {"steps": {"cpu": 1, "gpu": 8}}}, ByClass({"cpu": 1, "gpu": 8})),
        ("split", {"by_class": {"steps": 1}}, ByClass({"steps": 1})),  # a device of that name
        ("split", {"given": [8, 4]}, Given((8, 4))),
        ("split", {"by_batch": {"max": [8, 4]}}, ByBatch(max=(8, 4))),
        ("schedule", {"fixed": "auto"}, Fixed()),
        ("schedule", {"warm_up": {"t": "3 steps", "H": 2, "then": "every"}}, warm_up(Interval(3, "steps"), 2, Every())),
        ("sampling", {"top_loss": {"workers": [0]}}, TopLoss(workers=(0,))),
        ("aggregation", {"until": "3 epochs"}, Until(Interval(3, "epochs"))),
        ("aggregation", {"until": {"a": "gradients", "b": {"parameters": "samples"}}}, Until(b=Parameters("samples"))),
        ("aggregation", {"until": {"t": "1 step", "b": {"slowmo": {"inner": "parameters"}}}}, Until(STEP, b=SlowMo())),
        ("aggregation", {"slowmo": {"inner": "parameters"}}, SlowMo()),
        ("aggregation", {"slowmo": {"inner": {"parameters": [1, 2]}}}, SlowMo(inner=Parameters((1, 2)))),
        ("aggregation", {"outer_sgd": {"inner": {"parameters": {"weights": "steps"}}}}, OuterSGD(inner=BY_STEPS)),
        ("aggregation", {"fednova": [1, 2]}, FedNova((1, 2))),
        ("placement", {"offloaded": {"unit_bytes": "4 MiB"}}, Offloaded(unit_bytes=4 << 20)),
    ],
)
def test_members_inside_of_members_are_read_like_those_of_an_axis(axis, spelled, member):
    """A documented spelling works at every depth, and a mapping as first argument is written as it is."""
    assert getattr(on(axis, spelled), axis) == member


@pytest.mark.parametrize("name", MEMBERS)
def test_a_default_can_be_written_out(name):
    """The value that an argument has otherwise is one that it takes."""
    axis = next(axis for axis, members in AXES.items() if name in members)
    required = REQUIRED.get(name, {})
    for argument, parameter in inspect.signature(MEMBERS[name]).parameters.items():
        if parameter.default not in (parameter.empty, NEVER):
            value = parameter.default if parameter.default is None else spelled(parameter.default)
            assert on(axis, {name: {**required, argument: value}}) == on(axis, {name: required})


WRONG = [
    True,
    "text",
    [],
    {},
    [None],
    [True, 1],
    ["a"],
    {"a": None},
    math.nan,
    math.inf,
    10**20,
    5e-324,
    -1,
    [math.nan],
]


@pytest.mark.parametrize("name", [*MEMBERS, *PRESETS])
def test_a_value_of_another_kind_is_refused_in_one_line(name):
    """Every argument is tried with values of every kind: what its type does not allow is an error that names it."""
    axis = next((axis for axis, members in AXES.items() if name in members), "")
    kind = MEMBERS.get(name) or PRESETS[name]
    for argument, hint in hints_of(kind).items():
        for value in WRONG:
            if axis_of(hint) or fits(hint, tuple(value) if isinstance(value, list) else value):
                continue
            if argument == "steps" and isinstance(value, dict):
                continue
            given = {**REQUIRED.get(name, {}), argument: value}
            with pytest.raises(ScenarioError, match=argument):
                on(axis, {name: given}) if axis else build(preset=name, **given)


@pytest.mark.parametrize(
    ("aggregation", "message"),
    [
        ({"slowmo": {"inner": "gradients"}}, "slowmo.inner: 'gradients': write parameters"),
        ({"outer_sgd": {"inner": {"slowmo": 0.5}}}, "outer_sgd.inner: {'slowmo': 0.5}: write parameters"),
        ({"slowmo": {"inner": {"parameters": {"weigths": 1}}}}, "inner.parameters.weigths: unknown argument"),
        ({"slowmo": {"inner": None}}, "slowmo.inner: None is not a member"),
        ({"until": {"a": 3}}, "until.a: 3 is not a member"),
        ({"fednova": {"momentum": 0.9}}, "fednova.momentum: unknown argument; it takes weights"),
    ],
)
def test_a_member_of_the_wrong_kind_inside_of_another_is_refused(aggregation, message):
    with pytest.raises(ScenarioError) as error:
        on("aggregation", aggregation)
    assert message in str(error.value)


BOTH, FEW = Parameters((1, 2)), Parameters((1,))


@pytest.mark.parametrize(
    "aggregation",
    [
        FEW,
        Gradients((1, 2, 3)),
        FedNova((1, 2, 3)),
        SlowMo(inner=FEW),
        OuterSGD(inner=FEW),
        Until(b=FEW),
        Until(a=Gradients((1, 2, 3)), b=BOTH),
        Until(STEP, BOTH, Until(STEP, b=SlowMo(inner=FEW))),
    ],
)
def test_what_is_given_for_each_worker_is_checked_at_every_depth(aggregation):
    """A member is asked whether it suits so many workers, and it asks the members that it wraps."""
    with pytest.raises(ValueError, match="weights for 2 workers; list one per worker"):
        aggregation.check(2)


def test_wrappers_pass_on_what_is_asked_of_a_member():
    averaged = Parameters((1, 2), "averaged")
    for wrapped in (
        Until(b=averaged),
        SlowMo(inner=averaged),
        OuterSGD(inner=averaged),
        Until(b=SlowMo(inner=averaged)),
    ):
        wrapped.check(2)
        assert wrapped.averages_state
    assert not Until(b=SlowMo()).averages_state
