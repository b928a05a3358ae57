"""Is the way that `paceline plan --for accuracy` recommends really the first one to reach the target?

python -m benchmarks.plan_real [CLUSTER...] [--turns N] [--out FILE]

On each cluster of scenarios/planning this machine is profiled, `paceline plan` looks for the way that reaches the
target first, and its first five ways and the usual ones are trained for real up to there, in turns. All of it are
commands, as a user would start them. The clock is that of training, without start and evaluation.

A cluster's results replace its earlier ones in benchmarks/results/plan_real.json, so that clusters may be measured one
by one. docs/fidelity.md is filled in from the file.

That the real training is the simulated one is checked: it reaches the target after the same samples, with the same
value of the metric. So predicted and measured seconds differ by the clock alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict

from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.config.metrics import Target
from paceline.marked_page import begin_of, fill_page
from paceline.validating import command

from .form import RESULTS, ROOT, commit, machine, rounded

FILE, PAGE = RESULTS / "plan_real.json", ROOT / "docs" / "fidelity.md"
BEGIN = begin_of("python -m benchmarks.plan_real")
FOLDER, RUNS = ROOT / "scenarios" / "planning", ROOT / "runs" / "plan_real"
CLUSTERS = (
    "2-equal-memory",
    "2-unequal-memory",
    "2-unequal-star",
    "3-unequal-star",
    "4-unequal-memory",
    "4-unequal-star",
)
TARGET = Target.read("accuracy 0.9")
FIRST = 5  # of a plan, that are trained
TURNS = 3
SLOW = 3.0  # times the quickest way's seconds: a way that takes longer is trained in the first turn alone
NEAR = 0.05  # a winner that takes so much longer than the quickest way is as good
CLOSE = 0.15  # of the measured seconds: what a prediction may be off by


class Way(BaseModel):
    """One way on one cluster."""

    model_config = ConfigDict(frozen=True)
    name: str
    roles: str  # in the plan
    predicted: float  # seconds to the target
    measured: tuple[float, ...]  # the same in each turn
    epochs: float  # to the target

    @property
    def seconds(self) -> float:
        """The median of the turns."""
        return median(self.measured)

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.seconds - 1

    @property
    def apart(self) -> float | None:
        """What equal runs differ by, as a share; None where there is one."""
        return (max(self.measured) - min(self.measured)) / self.seconds if len(self.measured) > 1 else None


class Cluster(BaseModel):
    """What came out on one cluster. ways: in the plan's order, the recommended one first."""

    model_config = ConfigDict(frozen=True)
    target: str
    date: date
    commit: str
    machine: dict[str, Any]
    ways: tuple[Way, ...]
    never: int  # of the plan's first ways, how many do not reach the target in the budget

    @property
    def behind(self) -> float:
        """How much longer the recommended way takes than the quickest one, as a share."""
        return self.ways[0].seconds / min(way.seconds for way in self.ways) - 1

    @property
    def worst(self) -> float:
        """The largest error of a prediction, as a share."""
        return max((way.error for way in self.ways), key=abs)


def name_of(row: Mapping[str, Any]) -> str:
    """A way of a plan in words."""

    def each(values: Mapping[str, Any]) -> str:
        return "/".join(str(value) for value in dict.fromkeys(values.values()))

    told = [str(row["method"]), f"batches {each(row['batches'])}"]
    if row["steps_between_syncs"] > 1:
        told.insert(1, f"steps {each(row['H'])}")
    told += [row[key] for key, usual in (("placement", "replicated"), ("wire", "fp32")) if row[key] != usual]
    told += [f"without {count} {name}" for name, count in row["left_out"].items()]
    return ", ".join(told)


def planned(name: str, folder: Path) -> list[dict[str, Any]]:
    """Profile this machine and plan; the first rows of the plan and the usual ones."""
    scenario, profile, answer = FOLDER / f"{name}.yaml", folder / "profile.yaml", folder / "plan.json"
    folder.mkdir(parents=True, exist_ok=True)
    profile.unlink(missing_ok=True)
    command("profile", str(scenario), f"--out={profile}")
    given = f"--set=cluster.profile={json.dumps(str(profile))}"
    command("plan", str(scenario), given, f"--for={TARGET}", f"--out={folder}", f"--json={answer}", "--quiet")
    rows = json.loads(answer.read_text())["rows"]
    return [row for n, row in enumerate(rows) if n < FIRST or not {*row["roles"].split(", ")} <= {"", "front"}]


def train(row: Mapping[str, Any], folder: Path) -> float:
    """Train a way for real to the target; the seconds to it."""
    path = folder / "way.yaml"
    path.write_text(yaml.dump(row["scenario"]))
    budget = f"--set=budget.epochs={row['epochs_trained'] * (1 + 1e-9)!r}"
    command("train", str(path), budget, f"--out={folder / 'run'}", "--quiet", "--force")
    for line in Run.load(folder / "run").lines:
        if TARGET.reached(line.get(TARGET.field)):
            found, expected = (line["epoch"], line[TARGET.field]), (row["epochs_trained"], row["best_value"])
            if abs(found[0] - expected[0]) > 1e-6 or found[1] != expected[1]:
                raise RuntimeError(f"{name_of(row)}: (epochs, value) {found} in the real run, {expected} in the plan")
            return float(line["seconds"])
    raise RuntimeError(f"{name_of(row)}: the real run did not reach {TARGET}, which the plan says that it does")


def on_cluster(name: str, turns: int) -> Cluster:
    """Profile, plan and train on one cluster."""
    where, folder = machine(), RUNS / name
    rows = planned(name, folder)
    reached = [row for row in rows if row["seconds_to_target"] is not None]
    taken: list[list[float]] = [[] for _ in reached]
    for turn in range(turns):
        least = min((min(each) for each in taken if each), default=0.0)
        chosen = [n for n, each in enumerate(taken) if not each or each[0] <= SLOW * least]
        for n in reversed(chosen) if turn % 2 else chosen:
            taken[n].append(rounded(train(reached[n], folder)))
            print(f"  {name_of(reached[n])}: {reached[n]['seconds_to_target']:.4g} s, {taken[n][-1]:.4g} s", flush=True)
    ways = [
        Way(
            name=name_of(row),
            roles=", ".join(role for role in row["roles"].split(", ") if role not in ("", "front")),
            predicted=rounded(row["seconds_to_target"]),
            measured=tuple(seconds),
            epochs=rounded(row["epochs_trained"]),
        )
        for row, seconds in zip(reached, taken, strict=True)
    ]
    return Cluster(
        target=str(TARGET),
        date=date.today(),
        commit=commit(),
        machine=where,
        ways=tuple(ways),
        never=len(rows) - len(reached),
    )


def load(path: Path) -> dict[str, Cluster]:
    """The clusters of a results file, in the order of CLUSTERS."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    return {name: Cluster.model_validate(kept[name]) for name in CLUSTERS if name in kept}


def keep(name: str, found: Cluster, path: Path) -> None:
    """Put a cluster into a results file."""
    kept = load(path) | {name: found}
    document = {name: kept[name].model_dump(mode="json") for name in CLUSTERS if name in kept}
    path.write_text(json.dumps(document, indent=1) + "\n")


def judged(clusters: Mapping[str, Cluster]) -> Iterator[str]:
    """What holds, in words."""
    near = [name for name, each in clusters.items() if each.behind <= NEAR]
    yield (
        f"The recommended way is the quickest, or within {NEAR:.0%} of it, on {len(near)} of {len(clusters)} clusters."
    )
    ways = [way for each in clusters.values() for way in each.ways]
    close = [way for way in ways if abs(way.error) <= CLOSE]
    firsts = [each.ways[0] for each in clusters.values()]
    yield (
        f"Of {len(ways)} predictions {len(close)} are within {CLOSE:.0%} of what was measured, and "
        f"{sum(abs(way.error) <= CLOSE for way in firsts)} of {len(firsts)} for the recommended ways; "
        f"in the middle they are off by {median(abs(way.error) for way in ways):.1%}."
    )
    apart = [way.apart for way in ways if way.apart is not None]
    if apart:
        yield f"Equal runs differ by {median(apart):.1%} in the middle, by {max(apart):.1%} at most."


def table(found: Cluster) -> Iterator[str]:
    """A cluster's table."""
    yield "| way | predicted | measured | error | equal runs differ by | turns | epochs |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for n, way in enumerate(found.ways):
        roles = f" ({way.roles})" if way.roles else ""
        apart = "-" if way.apart is None else f"{way.apart:.1%}"
        yield (
            f"| {n + 1}. {way.name}{roles} | {way.predicted:.3f} | {way.seconds:.3f} | {way.error:+.1%} | {apart} "
            f"| {len(way.measured)} | {way.epochs:.3g} |"
        )


def content(clusters: Mapping[str, Cluster]) -> str:
    """The part of the page."""
    lines = [*judged(clusters)]
    for name, found in clusters.items():
        said = f"`{name}`, {found.target}: the recommended way takes {found.behind:.1%} longer than the quickest."
        if found.never:
            said += f" Of the plan's first ways, {found.never} do not reach it in the budget."
        lines += ["", said, "", *table(found)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_real", description="Does a plan hold for real?")
    parser.add_argument("clusters", nargs="*", metavar="CLUSTER", help=", ".join(CLUSTERS))
    parser.add_argument("--turns", type=int, default=TURNS, help="real runs of each way")
    parser.add_argument("--out", type=Path, default=FILE, help="the results file; with another one no page is written")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.clusters if name not in CLUSTERS]
    if unknown:
        parser.error(f"no cluster {unknown[0]!r}; write {', '.join(CLUSTERS)}")
    for name in options.clusters or CLUSTERS:
        print(name, flush=True)
        found = on_cluster(name, options.turns)
        keep(name, found, options.out)
        print("\n".join(table(found)), flush=True)
    clusters = load(options.out)
    print("\n".join(judged(clusters)))
    if options.out == FILE:
        fill_page(PAGE, BEGIN, content(clusters))
    return 0


if __name__ == "__main__":
    sys.exit(main())
