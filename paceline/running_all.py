"""`paceline run-all`: every data-parallel mode of LSHDP's paper, with every way to choose batches, in one table.

It does what the released code's generate_and_run_all does (Mirzaei et al., Parallel Computing 2025, 103164): for each
mode the largest batches, the best batches, and a run with each choice. In a simulation, the largest batches are those
that are predicted to fit into the devices' memory. For real, they are measured, each mode into a profile of its own.

Rule: a run that ended well is kept, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .batch_sizes import BatchSizeOptions, batch_sizes
from .config.recorded import Recorded, expanded
from .config.scenario import load, read
from .folders import find, folders_of
from .job import resolve
from .launching import train
from .memory_check import holds
from .program.errors import PacelineError, ScenarioError, one_line
from .progress import working
from .records.directory import SUMMARY, to_json, write_atomically
from .records.environment import installed
from .run import Run
from .simulating import simulate
from .studies.table import row_of

if TYPE_CHECKING:
    import pandas as pd

ASKED = "asked.json"  # what the runs in a folder are of
TABLE = "table.csv"
# Its "DDP" is one flat unit that is sent after the backward pass, and DDP+FP the same in full precision.
MODES: dict[str, dict[str, Any]] = {
    "DDP": {"replicated": {"overlap": False, "wire": "fp16"}},
    "DDP+FP": {"replicated": {"overlap": False, "wire": "fp32"}},
    "FSDP": {"sharded": {"wire": "fp16"}},
    "FSDP+OFFLOAD": {"sharded_offloaded": {"wire": "fp16"}},
    "LSDP": {"offloaded": {"wire": "fp16"}},
}
CHOICES = {  # how batches are chosen -> (mode of `by_batch`, weights of the gradients)
    "equal": ("equal", "equal"),
    "fixed_total": ("fixed_total", "equal"),
    "fixed_total weighted": ("fixed_total", "samples"),
    "no_restriction": ("no_restriction", "equal"),
}


@dataclass(frozen=True)
class RunAllOptions:
    """How to run all. The names are those of the command's options."""

    real: bool = False  # train for real, instead of predicting the clock
    full: bool = False  # where simulated: with numbers
    epochs: float = 1.0
    modes: tuple[str, ...] = tuple(MODES)
    total: int | None = None  # samples in a step; by default n times the smallest largest batch
    memory: str | None = None  # for real: of each worker
    settings: tuple[str, ...] = ()  # of the scenario
    force: bool = False  # begin again
    quiet: bool = False

    def check(self) -> None:
        """ScenarioError where a mode is unknown, or options do not fit together."""
        for mode in self.modes:
            if mode not in MODES:
                raise ScenarioError(f"--mode {one_line(mode, 60)}: write {', '.join(MODES)}")
        if self.memory is not None and not self.real:
            raise ScenarioError("--memory belongs to --real; a simulation takes cluster.workers.memory")
        if self.full and self.real:
            raise ScenarioError("--full belongs to simulations; real runs train in any case")
        _ = BatchSizeOptions(Path(), memory=self.memory).budget


def run_all(scenario: Path, out: Path, options: RunAllOptions) -> pd.DataFrame:
    """Run every mode with every choice of batches; returns a row per run, and writes them to `out`/table.csv.

    A run that fails has a row with its error. ScenarioError where the scenario is wrong, or where all runs fail;
    KeyboardInterrupt where a training was stopped.
    """
    import pandas as pd

    options.check()
    settings = _settings(scenario, options)
    _claim(out, scenario, options)
    rows, errors = list[dict[str, Any]](), list[Exception]()
    number = len(options.modes) * len(CHOICES)
    with working(f"run-all {scenario.stem}", options.quiet) as tell:
        for mode in options.modes:
            largest = _Largest(scenario, out, mode, settings, options)
            for choice in CHOICES:
                tell(f"{mode}, {choice}", len(rows), number)
                row: dict[str, Any] = {"mode": mode, "batches by": choice, "batches": ""}
                try:
                    rows.append(row | _numbers(_run(scenario, out, mode, choice, settings, largest, options)))
                except (PacelineError, RuntimeError) as error:
                    errors.append(error)
                    rows.append(row | {"seconds": None, "error": one_line(str(error))})
                write_atomically(out / TABLE, pd.DataFrame(rows).to_csv(index=False).encode())
        tell("", number, number)
    if len(errors) == number:
        raise ScenarioError(str(errors[0]))
    return pd.DataFrame(rows)


def command(scenario: Path, out: Path, options: RunAllOptions) -> None:
    """The command `paceline run-all`."""
    table = run_all(scenario, out, options)
    if not options.quiet:
        _show(table, out / TABLE)


def _settings(scenario: Path, options: RunAllOptions) -> list[str]:
    """Overrides for all runs. Without max_batch, since every mode has largest batches of its own."""
    fixed = f"budget={{epochs: {options.epochs!r}}}", "strategy={preset: hdp, sampling: sliced}"  # as the released code
    base = [*options.settings, *fixed]
    cluster = load(scenario, base).cluster
    groups = {"cluster.workers": cluster.workers or ()}
    groups |= {f"cluster.nodes.{k}.devices": node.devices or () for k, node in enumerate(cluster.nodes or ())}
    limited = [f"{key}.{k}" for key, found in groups.items() for k, each in enumerate(found) if each.max_batch]
    return base + [f"{key}.max_batch=null" for key in limited]


def _claim(out: Path, scenario: Path, options: RunAllOptions) -> None:
    """Note in the folder what its runs are of. ScenarioError where it holds runs of something else."""
    asked = [read(scenario, options.settings), options.real, options.full, options.epochs, options.total]
    text = to_json([*asked, options.memory, installed("paceline")])
    known = hashlib.sha256(text.encode()).hexdigest()
    path = out / ASKED
    try:
        if path.exists() and path.read_text() != known and not options.force:
            raise ScenarioError(
                f"{out}: holds runs of another scenario or with other options; write --force to begin again, or name "
                "another folder with --out"
            )
        if options.force:
            for summary in out.glob(f"*/{SUMMARY}"):
                summary.unlink()  # what is left of each run is replaced by the next one
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, known.encode())
    except OSError as error:
        raise ScenarioError(f"--out {out}: cannot be written: {error.strerror}") from None


def _run(
    scenario: Path,
    out: Path,
    mode: str,
    choice: str,
    settings: Sequence[str],
    largest: _Largest,
    options: RunAllOptions,
) -> Run:
    """The finished run of a mode with a choice of batches; an earlier one, where there is one."""
    directory = out / f"{_stem(mode)}-{choice.replace(' ', '-')}"
    if (directory / SUMMARY).exists() and (earlier := Run.load(directory)).summary["finished"]:
        return earlier
    chosen, weights = CHOICES[choice]
    own = [*settings, *largest.settings, f"strategy.mode={chosen}", f"strategy.aggregation={{gradients: {weights}}}"]
    if options.total is not None and chosen != "no_restriction":  # which follows from memory alone
        own.append(f"strategy.total={options.total}")
    if options.real:
        run = train(scenario, settings=own, out=directory, force=True)
        if not run.summary["finished"]:
            raise KeyboardInterrupt  # which the training has taken as a request to stop
        return run
    return simulate(scenario, settings=own, out=directory, force=True, timing_only=not options.full)


@dataclass(eq=False)
class _Largest:
    """The settings of a mode: its placement, and where each worker's largest batch comes from."""

    scenario: Path
    out: Path
    mode: str
    base: Sequence[str]
    options: RunAllOptions

    @cached_property
    def settings(self) -> list[str]:
        found = [f"strategy.placement={to_json(MODES[self.mode])}"]
        return [*found, *(self._measured(found) if self.options.real else self._predicted(found))]

    def _predicted(self, own: Sequence[str]) -> list[str]:
        """What memory is predicted to hold; nothing where a device's memory is not known."""
        workers = load(self.scenario, [*self.base, *own]).cluster.size
        least = [*self.base, *own, "strategy.mode=equal", f"strategy.total={workers}"]
        job = resolve(load(self.scenario, least), self.scenario.parent)
        capacity = holds(job.problem, job.plan.strategy, job.timing)
        largest = [capacity(device, job.plan.examples) for device in job.timing.devices]
        return [] if None in largest else [f"strategy.max={largest}"]

    def _measured(self, own: Sequence[str]) -> list[str]:
        """A profile of the mode's own. It begins with the scenario's, since a run reads one profile."""
        path = (self.out / f"{_stem(self.mode)}.yaml").absolute()
        if self.options.force or not path.exists():
            partial, settings = path.with_suffix(".partial.yaml"), [*self.base, *own]
            partial.unlink(missing_ok=True)
            described = load(self.scenario, settings)
            if described.cluster.profile is not None:
                known = find(described.cluster.profile, folders_of(described, self.scenario.parent))
                if known.exists():
                    partial.write_bytes(known.read_bytes())
            batch_sizes(self.scenario, BatchSizeOptions(partial, "equal", self.options.memory, tuple(settings)), None)
            partial.replace(path)
        return [f"cluster.profile={path}"]


def _stem(mode: str) -> str:
    """A mode's name in file names."""
    return mode.lower().replace("+", "-")


def _numbers(run: Run) -> dict[str, Any]:
    """The columns of a finished run: its batches, then those of a sweep's table."""
    batches = expanded(Recorded.model_validate(run.scenario["recorded"]).batches)
    parts = run.summary.get("memory_predicted") or {}
    known = {name: value for name, value in row_of(run.summary).items() if value is not None}
    held = max(parts.get("device", ()), default=None)  # bytes that last, on the device that holds most
    more = {"total": sum(batches), "memory": held, "error": ""}
    return {"batches": " ".join(map(str, batches))} | known | more


def _show(table: pd.DataFrame, path: Path) -> None:
    from .printing import show_sweep

    show_sweep(table, path)
    good = table[table["error"] == ""].sort_values("samples_per_second", ascending=False)
    first, best = good.loc[good.index.min()], good.iloc[0]
    times = best["samples_per_second"] / first["samples_per_second"]
    print(
        f"most samples/s: {best['mode']}, {best['batches by']}, {times:.3g} times {first['mode']}, "
        f"{first['batches by']}"
    )
