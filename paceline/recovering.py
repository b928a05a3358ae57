"""How a run goes on after a worker is lost. One set of rules for real runs and simulations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from .config.scenario import RecoverySpec


class Decision(NamedTuple):
    """How a run goes on after a loss."""

    # "shrink": the remaining workers go on from the last sync. "restart": the ranks are started again, from the newest
    # whole checkpoint. "none": the run ends.
    how: Literal["shrink", "restart", "none"]
    why: str = ""  # why nothing better is done, in words; empty where nothing better was asked for


def how_to_go_on(
    spec: RecoverySpec,
    lost: Collection[int],
    workers: int,
    restarts: int,
    sharded: bool,
    gone: Collection[int] = (),
) -> Decision:
    """How a run goes on.

    lost: the lost workers, by their numbers before the loss; empty where they are not known.
    workers: how many there were.
    restarts: how often the run was restarted before.
    sharded: whether each worker has only a part of the parameters.
    gone: the lost workers that cannot be started again, since their host is gone.
    """
    no_shrink = _no_shrink(spec, lost, workers, sharded) if spec.shrink else ""
    if spec.shrink and not no_shrink:
        return Decision("shrink")
    no_restart = _no_restart(spec, workers, restarts, sharded, gone)
    if not no_restart:
        return Decision("restart", no_shrink)
    return Decision("none", "; ".join(filter(None, (no_shrink, no_restart))))


def _no_shrink(spec: RecoverySpec, lost: Collection[int], workers: int, sharded: bool) -> str:
    """Why the remaining workers cannot go on by themselves; empty where they can."""
    if sharded:
        return "a part of the sharded parameters is lost"
    if not lost:
        return "it is not known which worker was lost"
    if 0 in lost:
        return "worker 0 is lost, which keeps the run's records"
    return _too_few(spec, workers, len(lost))


def _no_restart(spec: RecoverySpec, workers: int, restarts: int, sharded: bool, gone: Collection[int]) -> str:
    """Why the ranks are not started again; empty where they are."""
    if restarts >= spec.max_restarts:
        return f"the run has restarted {restarts} times (max_restarts)" if restarts else "max_restarts is 0"
    if gone and sharded:
        return "sharded parameters resume on as many workers as wrote them"
    return _too_few(spec, workers, len(gone))


def _too_few(spec: RecoverySpec, workers: int, lost: int) -> str:
    least = spec.least(workers)
    return f"{workers - lost} workers remain, and min_workers is {least}" if workers - lost < least else ""
