"""Small language models that learn: their units, tied or not, and the perplexity that they reach on a real text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.learning import SGD, make_plan, train_in_lockstep
from kit.placements import PLACEMENTS, parameters, train_all
from paceline.algorithms.aggregations import Gradients
from paceline.algorithms.rounds import Interval
from paceline.learning import models
from paceline.learning.build import build_workers
from paceline.learning.data import load
from paceline.learning.recipe import Recipe
from paceline.learning.sources import Source

TEXT = load("text", {"sequence": 32, "train": 20_000, "test": 100})
ADAMW = {"name": "adamw", "lr": 5e-3, "weight_decay": 0.1, "decay": "matrices", "betas": [0.9, 0.95]}
GPT = {"dim": 32, "depth": 2, "heads": 4, "vocabulary": 256, "positions": 32}
LLAMA = {"dim": 32, "depth": 1, "heads": 4, "kv_heads": 2, "mlp_dim": 64, "vocabulary": 256}


def unigram() -> float:
    """The test text's perplexity where each byte is as likely as it was in the training text."""
    train, test = (
        np.bincount(Source(x).take(np.arange(len(x))).numpy().ravel(), minlength=256)
        for x in (TEXT.train_x, TEXT.test_x)
    )
    likely = (train + 1) / (train + 1).sum()
    return float(np.exp(-(test * np.log(likely)).sum() / test.sum()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("name", "args"), [("gpt", GPT), ("llama2-7b", LLAMA)])
def test_units_are_the_embedding_the_blocks_and_the_head(name, args, tied):
    made = models.build(name, args | {"tied": tied}, (32,), 256, seed=0)
    own = models.own_parameters(models.units(made))
    assert len(own) == 1 + args["depth"] + 1
    assert sum(p.numel() for unit in own for p in unit) == sum(p.numel() for p in made.parameters())
    head = sum(p.numel() for p in own[-1])
    assert (head < 256) == tied, "the weights are the embedding's"


def test_a_small_one_learns_the_bytes_of_a_text():
    plan = make_plan((16,), H=10, budget=Interval(100, "steps"), lr=5e-3, report=Interval(50, "steps"))
    plan = replace(plan, examples=len(TEXT.train_y))
    workers = build_workers(plan, TEXT, shared_process=True, model="gpt", model_args=GPT, optimizer=ADAMW, seed=7)
    _, lines = train_in_lockstep(plan, workers)
    first, last = (float(np.exp(line["test_loss"])) for line in lines)
    assert last < first < 256
    assert last < 0.8 * unigram() < 24


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("place", ["ddp", "fsdp", "lsdp"])
def test_placements_have_the_numbers_of_the_model_in_one_piece(place, tied):
    """With dropout, and micro-batches of unequal size."""
    results, args = [], GPT | {"tied": tied, "dropout": 0.2, "dim": 16, "positions": 32}
    for placement in (PLACEMENTS["flat"], PLACEMENTS[place]):
        plan = make_plan((7, 8), aggregation=Gradients("samples"), budget=Interval(2, "steps"))
        plan = replace(plan, strategy=replace(plan.strategy, placement=placement), examples=len(TEXT.train_y))
        options = {"model": "gpt", "model_args": args, "optimizer": SGD, "recipe": Recipe(micro_batch=3), "seed": 7}
        workers = build_workers(plan, TEXT, shared_process=True, **options)
        lines, _ = train_all(plan, workers)
        results.append((parameters(workers), lines[-1]["test_loss"]))
    assert len(workers[0].units) == 4
    if place == "fsdp":  # a part's update may round otherwise where vectors end
        assert np.abs(results[0][0] - results[1][0]).max() < 1e-6
    else:
        assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-6)  # evaluated in other pieces


def test_tokens_beyond_the_models_vocabulary_are_refused():
    with pytest.raises(ValueError, match="vocabulary is 200, and the data's tokens need 256"):
        models.build("gpt", GPT | {"vocabulary": 200}, (32,), 256, seed=0)
    with pytest.raises(ValueError, match="model bert-base is for timing-only runs, since no data has masked words"):
        models.build("bert-base", {}, (32,), 256, seed=0)
    assert torch.is_tensor(models.build("gpt", GPT, (32,), 256, seed=0)(torch.zeros(1, 32, dtype=torch.int64)))
