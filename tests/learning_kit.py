"""What the tests of the worker share: digits, plans of a few workers, and workers on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.learning_rates import Constant
from paceline.algorithms.plan import Interval, Plan
from paceline.algorithms.presets import sync_sgd
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import Given
from paceline.config.timing import Device
from paceline.learning import data
from paceline.learning.build import build_workers
from paceline.learning.worker import TorchWorker

DIGITS = data.load("digits", {})
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def torch_as_it_was():
    """One thread, and torch's stream given back: a rank's worker owns it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


def make_plan(batches=(16, 16), H=1, aggregation=None, budget=None, lr=0.05, **options) -> Plan:
    strategy = replace(sync_sgd(), schedule=Fixed(H), aggregation=aggregation or Parameters())
    shares = Given(batches=tuple(batches)).shares(16, [Device("cpu")] * len(batches))
    return Plan(strategy, shares, Constant(lr), 1437, budget or Interval(1, "epochs"), **options)


def make(plan: Plan, model="mlp", args=None, shared=True, optimizer=SGD, **more) -> list[TorchWorker]:
    options = {"model": model, "model_args": args or {}, "optimizer": optimizer, "seed": 7} | more
    return build_workers(plan, DIGITS, shared_process=shared, **options)
