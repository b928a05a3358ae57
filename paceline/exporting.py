"""Trained models out of runs: `paceline export` and `Run.model`.

Rule: a model is put together from its checkpoint, without MPI and without other ranks. Only BatchNorm statistics that
are re-estimated need the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .algorithms.reports import evaluation_buffers
from .algorithms.rounds import State
from .algorithms.worker import Worker
from .config import yaml
from .config.scenario import load
from .job import Job, resolve
from .program.effects import Array, Program, Value
from .program.errors import ScenarioError, one_line
from .program.fold import fold
from .program.lockstep import lockstep
from .program.outcome import Hooks
from .records import checkpoints
from .records.directory import METRICS, SCENARIO, SUMMARY, to_json
from .records.recorder import evaluated
from .records.replacing import is_run
from .records.schemas import Summary, read_document, read_lines
from .resuming import state_of
from .terminal import console, warn
from .weights_file import SUFFIX, write

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model. round: after which it was saved."""

    model: nn.Module
    round: int


def export(directory: Path, out: Path, round: int | None, force: bool) -> None:
    """Write the run's trained model to the file `out`, and print what was written.

    Its metadata hold, as texts, the scenario (YAML, without what the run noted about its machine), the round, and the
    last report with an evaluation (JSON). ScenarioError where there is nothing to export, or no place for it.
    """
    if out.suffix != SUFFIX:
        raise ScenarioError(f"--out {out}: write a name that ends in {SUFFIX}")
    if out.is_dir():
        raise ScenarioError(f"--out {out}: is a folder; write a file in it, like {out / 'model'}{SUFFIX}")
    if out.exists() and not force:
        raise ScenarioError(f"--out {out}: exists already; write --force to replace it, or another name")
    made = trained(directory, round)
    tensors = made.model.state_dict()
    write(out, tensors, _metadata(directory, made.round))
    parameters = sum(p.numel() for p in made.model.parameters())
    text = f"{one_line(str(out))}: {len(tensors)} tensors, {parameters:,} parameters, after round {made.round}"
    console().print(text)


def _metadata(directory: Path, round: int) -> dict[str, str]:
    document = yaml.read_mapping(directory / SCENARIO)
    del document["recorded"]
    lines, _ = read_lines(directory / METRICS, resuming=True)  # a run that died may have left half a line
    before = [line for line in evaluated(lines) if line["round"] <= round]
    metrics = {"metrics": to_json(before[-1])} if before else {}
    return {"scenario": yaml.dump(document), "round": str(round), **metrics}


def trained(directory: Path, round: int | None) -> Trained:
    """The trained model of the run in a directory, in evaluation mode. round: of the checkpoint; None: the newest.

    ScenarioError where the directory holds no run, or the run has no such checkpoint, or a damaged one.
    """
    from .learning.trained import fill

    saved = _checkpoint(directory, round)
    job = resolve(load(directory / SCENARIO), directory)
    meta = checkpoints.read_meta(saved)
    state = state_of(meta["state"], saved)
    model = job.problem.fresh_model()
    works, place = job.problem.phantoms(job.plan)[0].works, job.plan.strategy.placement
    if meta["workers"] != job.workers and (place.sharded or job.plan.estimate):
        raise ScenarioError(
            f"{saved}: was written by {meta['workers']} workers, and the run went on with {job.workers}; export a "
            "checkpoint of these, without --round"
        )
    try:
        first, kept, averaged = _read(saved, meta["workers"], meta["sha256"], works.held.parts)
        if len(averaged) and job.plan.estimate:
            averaged = _estimated(saved, job, meta["sha256"], state)
        fill(model, works, place.unit_bytes, kept, first, averaged)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ScenarioError(f"{saved}: does not fit the scenario: {error}") from None
    return Trained(model, state.round)


def _checkpoint(directory: Path, round: int | None) -> Path:
    """The checkpoint of a round, or the newest whole one. ScenarioError where there is none."""
    if not is_run(directory):
        raise ScenarioError(f"{directory}: holds no run; name the directory of one, like runs/quickstart-trained")
    if (directory / SUMMARY).exists() and read_document(directory / SUMMARY, Summary).get("timing_only"):
        raise ScenarioError(f"{directory}: the run is timing-only, so it has no weights; name a run that has trained")
    saved, damaged = checkpoints.whole(directory, round)
    for line in damaged:
        warn(f"{line}; exported is {saved.name}")
    return saved


def _read(
    saved: Path, workers: int, sha256: Mapping[str, str], parts: int
) -> tuple[dict[str, Array], list[Array], Array]:
    """(worker 0's snapshot, the parameters that each of so many workers keeps, the mean of the averaged buffers).

    One worker's file is in memory at a time. Of replicas, others than worker 0 have nothing else than buffers.
    """
    first = checkpoints.read_worker(saved, 0, sha256)
    kept, buffers = [first["params"]], [first["buffers"]]
    for worker in range(1, workers if parts > 1 or len(first["buffers"]) else 1):
        arrays = checkpoints.read_worker(saved, worker, sha256)
        if parts > 1:
            kept.append(arrays["params"])
        buffers.append(arrays["buffers"])
    averaged = fold(buffers, [1.0] * len(buffers)) if len(first["buffers"]) else first["buffers"]
    return first, kept, averaged


def _estimated(saved: Path, job: Job, sha256: Mapping[str, str], state: State) -> Array:
    """The averaged buffers with BatchNorm's statistics re-estimated on the data, as in the evaluation of that round."""
    workers = job.problem.workers(job.plan, range(job.workers), shared_process=True, resumed=True)
    for w in workers:
        w.restore(checkpoints.resumed(saved, w.index, "none", w.snapshot(), sha256))
    found = lockstep([_evaluation_buffers(w, job, state) for w in workers], Hooks())[0]
    assert isinstance(found, np.ndarray)
    return found


def _evaluation_buffers(w: Worker, job: Job, state: State) -> Program[Value]:
    yield from job.plan.strategy.placement.begin(w)  # only worker 0's parameters are saved
    return (yield from evaluation_buffers(w, job.plan, state))
