"""Each worker's weight in an exchange: by a rule, or a number for each of them."""

from __future__ import annotations

from typing import Literal, get_args

from ..program.errors import brief
from .per_worker import Factors
from .rounds import Round

Rule = Literal["equal", "samples", "steps", "batches"]
Weights = Rule | Factors
_RULES = ", ".join(get_args(Rule))
LARGEST = 1e30  # so that a product of two weights, and the inverse of one, are finite in single precision


def check_weights(weights: Weights) -> None:
    """ValueError unless the weights are a known rule or numbers that can be averaged with."""
    if isinstance(weights, str):
        if weights not in get_args(Rule):
            raise ValueError(f"weights is {brief(weights)}; write {_RULES} or one number per worker")
        return
    numbers = isinstance(weights, tuple) and not any(isinstance(w, bool) for w in weights)
    if not numbers or not all(isinstance(w, int | float) for w in weights):
        raise ValueError(f"weights is {brief(weights)}; write {_RULES} or a list of one number per worker")
    if not all(0 <= w <= LARGEST for w in weights) or not sum(weights) >= 1 / LARGEST:
        raise ValueError(
            f"weights {brief(list(weights))} must be 0 or more and sum to more than 0, each {LARGEST:g} at most"
        )


def check_count(weights: Weights, workers: int) -> None:
    """ValueError where weights are given for another number of workers."""
    if not isinstance(weights, str) and len(weights) != workers:
        raise ValueError(f"{len(weights)} weights for {workers} workers; list one per worker")


def weight_of(weights: Weights, worker: int, r: Round) -> float:
    """A worker's weight in the exchange that ends a round."""
    if weights == "equal":
        return 1.0
    if weights == "steps":
        return float(r.steps[worker])
    if weights == "samples":
        return float(r.steps[worker] * r.batches[worker])
    if weights == "batches":
        return float(r.batches[worker])
    return float(weights[worker])
