"""`paceline validate`: scenarios profiled, predicted and run for real in interleaved rounds, and what came out.

Profiles and real runs are commands of their own, started as a user would. The record in the output folder says what has
been run, and the same command goes on from it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .analysis.measurements import Measurement, measurement, prediction
from .analysis.paper import SCREEN, Paper
from .analysis.run import Run
from .analysis.where import seconds_by_kind
from .config.metrics import Target
from .config.profile import load_profile
from .config.scenario import Scenario, read, validate
from .config.sections import described
from .config.units import read_share
from .folders import find
from .job import Job, resolve
from .marked_page import check_page
from .profiling import job_to_measure
from .program.errors import PacelineError, ScenarioError, nearest
from .progress import working
from .records.directory import to_json
from .records.environment import environment, installed
from .records.recorder import Recorder
from .runtime.ending import GRACE
from .runtime.launcher import die_with_parent, under_mpirun
from .scenario_plan import strategy_of
from .simulating import SimulateOptions, run_simulation
from .studies.judgement import judge
from .studies.validation import Case, Rounds, run
from .studies.validation_record import Record
from .sweeping import Simulator
from .terminal import say, warn
from .validation_report import BEGIN, Report, show, write

RECORD = "validation.json"
TARGET = Target("accuracy", True, 0.96)
PATIENCE = 5.0  # seconds that the simulations of one prediction may take, once there are ENOUGH of them
ENOUGH = 16


@dataclass(frozen=True)
class ValidateOptions:
    """How to validate. The names are those of the command's options."""

    out: Path  # the folder for everything
    rounds: Rounds
    within: float | None = None  # the excess that is allowed
    profile: Path | None = None  # predict from this profile, instead of measuring one in each round
    settings: tuple[str, ...] = ()
    seeds: int = 40  # simulations of one prediction
    target: Target | None = None  # to which seconds are counted; None: TARGET
    json: Path | None = None  # where the report goes as well
    page: Path | None = None  # a Markdown page into which its tables go
    force: bool = False  # begin again
    quiet: bool = False
    paper: Paper = SCREEN  # how the figure is drawn


def limits(within: str | None, target: str | None) -> tuple[float | None, Target | None]:
    """The options `within` and `target` from their spelling. ScenarioError where one is wrong."""
    try:
        return (
            None if within is None else read_share(within),
            None if target is None else Target.read(target),
        )
    except ValueError as error:
        raise ScenarioError(f"--within, --target: {error}") from None


@dataclass(eq=False)
class Described:
    """A scenario file with the settings applied."""

    path: Path
    document: dict[str, Any]
    reported: tuple[str, ...] = ()  # the losses and metrics in its reports

    @classmethod
    def read(cls, path: Path, settings: Sequence[str]) -> Described:
        """ScenarioError where the scenario cannot be trained, as far as can be said without a profile."""
        document = read(path, settings)
        found = cls(path, document)
        if found.scenario.faults:
            raise ScenarioError(f"{path}: faults: validate predicts runs without them; write --set faults=[]")
        strategy_of(found.scenario, path.parent)
        problem = job_to_measure(found.scenario, path.parent, found.scenario.cluster.size).problem
        found.reported = ("train_loss", *problem.reported)
        return found

    @cached_property
    def scenario(self) -> Scenario:
        """As the file describes it."""
        return validate(self.document, str(self.path))

    @property
    def sleeps(self) -> bool:
        """Whether its real run sleeps instead of computing, and so takes no more and no less than the price of it."""
        return self.scenario.train.phantom

    @property
    def machines(self) -> dict[str, Any]:
        """What is trained on which machines, and how a real run stands for them: what a profile depends on."""
        whole = described(self.scenario)
        cluster = {k: v for k, v in whole["cluster"].items() if k not in ("noise", "profile", "background")}
        workload = {k: v for k, v in whole["workload"].items() if k != "lr_schedule"}
        return {"workload": workload, "cluster": cluster, "train": whole.get("train")}


@dataclass(eq=False)
class Prepared:
    """A case, and what it is made of."""

    case: Case
    described: Described
    profiled: Described  # the scenario that is profiled for it


def prepare(scenarios: Sequence[Path], options: ValidateOptions) -> list[Prepared]:
    """The cases of some scenarios. ScenarioError where one of them is wrong."""
    names = [path.stem for path in scenarios]
    found = []
    for number, path in enumerate(scenarios):
        name = path.stem if names.count(path.stem) == 1 else f"{path.stem}-{number + 1}"
        own = profiled = Described.read(path, options.settings)
        if (other := own.scenario.validation.profile_of) is not None:
            profiled = Described.read(find(other, (path.parent, Path())), options.settings)
        group = {name: own.machines["workload"][name] for name in ("model", "data")} | {"batch": own.scenario.batch}
        given = options.profile.read_text() if options.profile is not None else ""
        base = [own.document, profiled.document, given, options.seeds, installed("paceline")]
        case = Case(
            name,
            family=own.scenario.strategy.preset or "of its own",
            group=_hash({**own.machines, "workload": group}),
            need=_hash(profiled.machines) if options.profile is None else "",
            base=_hash(base),
        )
        found.append(Prepared(case, own, profiled))
    return found


def _hash(document: Any) -> str:
    return hashlib.sha256(to_json(document).encode()).hexdigest()[:12]


class Machine:
    """This machine, as the World of a validation."""

    def __init__(self, prepared: Sequence[Prepared], options: ValidateOptions) -> None:
        self._prepared = {each.case.name: each for each in prepared}
        self._options = options

    def profile(self, case: Case, round: int) -> None:
        """Measure the machine in a process of its own."""
        path = self._measured(case, round)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        scenario = self._prepared[case.name].profiled.path
        command("profile", str(scenario), f"--out={path}", *(f"--set={each}" for each in self._options.settings))

    def predict(self, case: Case, round: int) -> Measurement:
        """Simulate the case, each time with other noise."""
        simulator, kept = self._simulator(case, round)
        first, begin = (round - 1) * self._options.seeds, time.monotonic()
        runs, seeds, options = list[Measurement](), list[int](), SimulateOptions(timing_only=True)
        for seed in range(first, first + (self._options.seeds if kept["noise"] else 1)):
            job = simulator.resolve({"cluster.noise.seed": seed})
            runs.append(measurement(run_simulation(job, Recorder(None), options)))
            seeds.append(seed)
            if len(runs) >= ENOUGH and time.monotonic() > begin + PATIENCE:
                break
        return prediction(runs, seeds) | kept

    def _simulator(self, case: Case, round: int) -> tuple[Simulator, dict[str, Any]]:
        """What simulates the case, and what is to be kept about it: whether there is noise, and warnings.

        Where the scenario says nothing of noise, it is the profile's, if the profile has any. Phantoms compute for as
        long as they are told, so theirs is that of the network.
        """
        own = self._prepared[case.name].described
        document = copy.deepcopy(own.document)
        if (path := self._measured(case, round)) is not None:
            document["cluster"]["profile"] = str(path)

        def made() -> tuple[Simulator, dict[str, Any]]:
            simulator = Simulator(document, own.path.name, own.path.parent, SimulateOptions(timing_only=True))
            job = simulator.resolve({})
            return simulator, {"noise": _varies(job), "warnings": job.warnings}

        if "noise" not in document["cluster"] and own.sleeps:
            measured = load_profile(path).network if path is not None else None
            document["cluster"]["noise"] = {"network_sigma": measured.variation if measured else 0.0}
        elif "noise" not in document["cluster"]:
            document["cluster"]["noise"] = {"source": "profile"}
            try:
                return made()
            except ScenarioError:
                del document["cluster"]["noise"]
        return made()

    def train(self, case: Case, which: str, round: int) -> Measurement:
        """Run the case for real in a process of its own, without a trace."""
        return measurement(self._train(case, which, round, trace=False))

    def where(self, case: Case, prediction: Measurement, round: int) -> dict[str, Any]:
        """Where the seconds go, from a traced real run of its own and the typical simulation, traced."""
        real = self._train(case, "traced", round, trace=True)
        simulator, _ = self._simulator(case, round)
        job = simulator.resolve({"cluster.noise.seed": prediction["typical"]})
        report = job.scenario.report.model_copy(update={"trace": True})
        traced = resolve(job.scenario.model_copy(update={"report": report}), simulator.folder)
        simulated = run_simulation(traced, Recorder(None), SimulateOptions(timing_only=True))
        return {
            "predicted": seconds_by_kind(simulated),
            "measured": seconds_by_kind(real),
            "seconds": [simulated.summary["seconds"], real.summary["seconds"]],
        }

    def _train(self, case: Case, which: str, round: int, trace: bool) -> Run:
        directory, settings = self._options.out / "runs" / f"{case.name}-{which}", list(self._options.settings)
        if (path := self._measured(case, round)) is not None:
            settings.append(f"cluster.profile={json.dumps(str(path))}")
        settings.append(f"report.trace={str(trace).lower()}")
        scenario = self._prepared[case.name].described.path
        command("train", str(scenario), "--quiet", "--force", f"--out={directory}", *(f"--set={s}" for s in settings))
        found = Run.load(directory)
        if not found.summary["finished"]:
            raise PacelineError("train: it was stopped before it had finished")
        return found

    def _measured(self, case: Case, round: int) -> Path | None:
        """The profile for a round of the case; None where it needs none."""
        if self._options.profile is not None:
            return self._options.profile.absolute()
        return (self._options.out / "profiles" / f"{case.need}-{round}.yaml").absolute() if case.need else None


def _varies(job: Job) -> bool:
    """Whether two simulations with different seeds differ."""
    from .sim.noise import varies

    noise = job.timing.noise
    return noise.network_sigma > 0 or varies(noise, job.timing.devices)


def command(*arguments: str) -> None:
    """Run a command of Paceline in a process of its own. PacelineError with its own last line where it fails."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "paceline", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )
    try:
        _, said = process.communicate()
    except BaseException:
        # The first request lets a training finish its round, the second one ends it.
        for ask in (process.terminate, process.terminate, process.kill):
            ask()
            try:
                process.wait(GRACE)
                break
            except subprocess.TimeoutExpired:
                continue
        raise
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip() and not line.startswith("paceline: warning")]
        reason = lines[-1].removeprefix("paceline: ") if lines else f"ended with status {process.returncode}"
        raise PacelineError(f"{arguments[0]}: {reason}")


def _check_target(prepared: Sequence[Prepared], target: Target | None) -> None:
    """ScenarioError for a target that no scenario can reach, as none reports that number."""
    known = dict.fromkeys(name for each in prepared for name in each.described.reported)
    if target is not None and target.field not in known:
        raise ScenarioError(
            f"--target {target}: no scenario reports {target.field}{nearest(target.field, known)}; "
            f"they report {', '.join(known)}"
        )


def validate_scenarios(scenarios: Sequence[Path], options: ValidateOptions) -> int:
    """The command `paceline validate`; returns its exit status. See the command's help for what it tests."""
    if under_mpirun():
        raise ScenarioError("validate starts mpirun itself; start it without one")
    if options.profile is not None and not options.profile.is_file():
        raise ScenarioError(f"--profile {options.profile}: no such file")
    if options.page is not None:
        check_page(options.page, BEGIN)
    prepared = prepare(scenarios, options)
    _check_target(prepared, options.target)
    threads = max(each.described.scenario.workload.threads for each in prepared)
    record = Record(options.out / RECORD, environment(threads), options.force)
    for each in prepared:
        case = each.case
        if record.begin(case.name, case.base, case.family, case.group):
            warn(f"{case.name}: its scenario, profile, --set, --seeds or version has changed, so it starts over")
    cases = [each.case for each in prepared]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with working("validate", options.quiet) as tell:
            run(cases, Machine(prepared, options), record, options.rounds, tell)
    except KeyboardInterrupt:
        record.save()
        say(f"stopped; what has been run is in {record.path}, and the same command goes on")
        return 130
    kept = {case.name: record.case(case.name) for case in cases}
    report = Report(judge(kept), kept, options.target or TARGET, options.within, record.document["environment"])
    record.document["judgement"] = report.judgement.document()
    record.save()
    write(report, options.out, options.json, options.page, options.paper)
    if not options.quiet:
        show(report, options.out)
    return report.status
