"""How fast a scenario's cluster is: its profile, and the timing that follows from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .algorithms.costs import Works
from .config import bundled
from .config.cluster import build_timing
from .config.profile import Profile, load_profile, workload_key
from .config.scenario import Scenario
from .config.timing import Timing
from .folders import find, folders_of
from .learning_problem import LearningProblem
from .program.errors import ScenarioError


def profile_of(scenario: Scenario, folder: Path) -> Profile | None:
    """The scenario's profile, if it names one. ScenarioError where the profile is missing or wrong."""
    path, kept = scenario.cluster.profile, scenario.recorded
    if kept and kept.profile and kept.profile_path in (None, str(path)):
        return kept.profile  # a run's own scenario contains the profile that it was run with
    if path is None:
        return None
    found = find(path, folders_of(scenario, folder))
    if not found.exists() and str(path) in bundled.names("profiles"):
        found = bundled.find(path, "profiles")
    if not found.exists():
        raise ScenarioError(f"cluster.profile: {path}: no such file; `paceline profile SCENARIO --out {path}` makes it")
    return load_profile(found)


def timing_of(scenario: Scenario, profile: Profile | None, problem: LearningProblem) -> Timing:
    """The timing of the scenario's cluster. ScenarioError where nothing says how fast it is."""
    cost, workload = problem.cost, scenario.workload
    step = cache(lambda batch: Works(cost, batch, 0).step)
    return build_timing(scenario.cluster, profile, workload_key(workload), scenario.seed, workload.precision, step)
