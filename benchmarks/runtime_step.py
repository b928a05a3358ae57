"""What does the runtime add to a training step? sync_sgd over MPI against a hand-written torch + mpi4py loop, 2 ranks.

Both train the same model on the same batches in one mpirun, alternating block by block; the hand-written loop
(peers/hand_written.py) packs its gradients into one flat vector and reduces it in place, as a careful user would. The
ratio is Paceline's seconds over the loop's. Bar: 1.03.
"""

from __future__ import annotations

from typing import Any

from .form import compare
from .harness import Found, Run
from .ranks import on_ranks
from .training import PACELINE, SGD, Batches, blocks, build, described, document, in_turns

SECONDS = 100
TURNS, STEPS, BAR = 30, 12, 1.03
HAND = "hand-written loop"
MODELS: dict[str, dict[str, Any]] = {
    "mlp, 4 M parameters": {"name": "mlp", "hidden": [1024, 896]},
    "resnet20": {"name": "resnet20"},
}


def on_rank(comm: Any, steps: int, run: Run) -> dict[str, dict[str, list[float]]]:
    """By model, milliseconds per step of both, turn by turn."""
    from .peers.hand_written import HandWritten

    found = {}
    for name, model in MODELS.items():
        job = described(document(model, steps, blocks(run, TURNS), {"preset": "sync_sgd"}))
        loop = HandWritten(build(job), Batches(job, comm.rank), comm, SGD)
        found[name] = in_turns(comm, job, {HAND: loop.steps}, steps, run.share(len(MODELS)).turns(TURNS, comm))
    return found


def measure(run: Run) -> Found:
    found = Found()
    for name, taken in on_ranks(on_rank, 2, 2 if run.small else STEPS, run).items():
        case = f"sync_sgd, {name}, 2 ranks, a step"
        found.rows.append(compare(case, PACELINE, HAND, taken, "time", bar=BAR, limit=HAND, unit="ms"))
    return found
