"""Inputs and targets of any shape and type: a table, text, masks, several inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kit import tasks
from kit.cli import call
from paceline import simulate
from paceline.config import yaml
from paceline.config.scenario import validate
from paceline.learning.data import load
from paceline.learning.dataset import Dataset, DataShape, batch_kind
from paceline.learning.sources import Inputs, Source

MSE = "torch.nn.functional:mse_loss"
TASKS = {
    "table": {"model": "kit.tasks:linear", "data": "kit.tasks:table", "loss": MSE},
    "text": {"model": "kit.tasks:language", "data": "kit.tasks:text"},
    "masks": {"model": "kit.tasks:unet", "data": "kit.tasks:masks"},
    "pairs": {"model": "kit.tasks:pair", "data": "kit.tasks:pairs", "loss": "kit.tasks:binary"},
    "named": {"model": "kit.tasks:pair", "data": "kit.tasks:named", "loss": "kit.tasks:binary"},
}


def document(task: str, preset: str = "sync_sgd", steps: int = 30, **workload):
    return {
        "seed": 7,
        "workload": {"batch": 8, "optimizer": {"name": "sgd", "lr": 0.2}} | TASKS[task] | workload,
        "cluster": {"workers": [{"step_time": "2 ms"}, {"step_time": "4 ms"}], "network": {"bandwidth": "1 Gbit/s"}},
        "strategy": {"preset": preset},
        "budget": {"steps": steps},
        "report": {"every": "10 steps"},
    }


def test_one_rule_says_in_which_type_values_reach_the_model():
    kinds = {"uint8": ("float32", "int64"), "bool": ("bool", "bool")}
    kinds |= dict.fromkeys(("int8", "uint16", "int32", "uint64"), ("int64", "int64"))
    kinds |= dict.fromkeys(("float16", "float32", "float64"), ("float32", "float32"))
    for stored, expected in kinds.items():
        assert tuple(batch_kind(np.dtype(stored), target).name for target in (False, True)) == expected


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("table", DataShape((5,), None, 60, 20, 20, (2,), 8)),
        ("text", DataShape((6,), tasks.VOCABULARY, 40, 12, 12, (6,), 48, "int64")),
        ("masks", DataShape((2, 8, 8), 3, 24, 8, 512, (8, 8), 64)),
        ("pairs", DataShape(((3,), (2,)), None, 60, 20, 28, (), 1, ("float32", "int64"))),
        (
            "named",
            DataShape(
                {"numbers": (3,), "tokens": (2,)}, None, 60, 20, 28, (), 1, {"numbers": "float32", "tokens": "int64"}
            ),
        ),
    ],
)
def test_the_shapes_of_a_users_data(name, shape):
    found = load(f"kit.tasks:{name}", {})
    assert found.shape == shape
    assert found.notes == (("made up",) if name == "named" else ())
    x = Inputs(found.train_x).take(np.array([3, 1]))
    given = getattr(tasks, name)()
    if name == "text":
        assert x.dtype == torch.int64
        assert x.tolist() == given[0][[3, 1]].tolist()
    if name == "masks":
        assert Source(found.train_y, target=True).take(np.array([3, 1])).tolist() == given[1][[3, 1]].tolist()
    if name == "pairs":
        assert [part.dtype for part in x] == [torch.float32, torch.int64]
        assert shape.batch_bytes == 12 + 16
    if name == "named":
        assert list(x) == ["numbers", "tokens"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", ["sync_sgd", "fsdp", "local_sgd"])
def test_any_task_trains_in_every_placement(task, preset):
    """The loss falls, and micro-batches are cut from every input."""
    start = simulate(validate(document(task, preset, steps=1), "test")).metrics.test_loss.iloc[-1]
    found = simulate(validate(document(task, preset), "test")).metrics.test_loss.iloc[-1]
    assert found < 0.85 * start
    precise = document(task, preset, steps=2, precision="fp64")
    assert simulate(validate(precise, "test")).metrics.test_loss.iloc[-1] < start


def test_a_placement_changes_no_bits_of_a_task():
    for task in ("pairs", "named", "masks"):
        ends = []
        for preset in ("sync_sgd", "fsdp", "lsdp"):
            work = document(task, preset, 3, micro_batch=3)
            ends.append(simulate(validate(work, "test")).summary["train_loss"])
        assert ends[1] == pytest.approx(ends[0], rel=1e-6)
        assert ends[2] == pytest.approx(ends[0], rel=1e-6)


def test_the_command_line_trains_tokens_that_lie_in_a_npz(tmp_path, monkeypatch, capsys):
    """Sequences and a target for each of their places."""
    np.savez(tmp_path / "text.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), tasks.text(), strict=True)))
    (tmp_path / "s.yaml").write_text(yaml.dump(document("text", data="text.npz", steps=10)))
    assert call(monkeypatch, capsys, "simulate", tmp_path / "s.yaml", "--out", tmp_path / "run")[0] == 0
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["test_loss"] < 2.4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mlp"}, "model mlp has an output for each class, and the data do not say how many"),
        ({"model": "mlp", "data": "kit.tasks:text"}, "model mlp takes one array of real numbers; .* are int64"),
        ({"model": "mlp", "data": "kit.tasks:pairs"}, "model mlp takes one array .* are float32 and int64"),
        ({"model": "cnn", "data": "kit.tasks:last"}, "the data's examples are 8x8x3, channels last: transpose them"),
        ({"data": "kit.tasks:masks", "augment": {"flip": True}, "model": "kit.tasks:unet"}, "their targets, .* 8x8"),
        (
            {"data": "kit.tasks:pairs", "augment": {"flip": True}, "model": "kit.tasks:pair"},
            "examples are 3 and 2",
        ),
        (
            {"data": "kit.tasks:negative", "loss": "cross_entropy"},
            "train_y holds the label -1; labels count from",
        ),
        (
            {"data": {"name": "kit.tasks:masks", "classes": 2}, "model": "kit.tasks:unet", "loss": "cross_entropy"},
            "train_y holds the label 2, and with 2 classes of the data labels go from 0 to 1; only -100 is left out",
        ),
        ({"loss": "cross_entropy"}, "with cross_entropy real numbers are a probability for each .* write loss: mse"),
        ({"data": "kit.tasks:uneven"}, r"train_x\[0\] has 6 examples and train_x\[1\] 5; they must match"),
        ({"data": "kit.tasks:unlike"}, r"train_x\['a'\] and test_x\['b'\]; training and testing need the same"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message):
    with pytest.raises(Exception, match=message) as caught:
        simulate(validate(document("table", **changes), "test"))
    assert "\n" not in str(caught.value)


def test_a_label_that_the_loss_leaves_out_is_not_one_of_the_classes():
    """As 255 marks the border of objects in masks of bytes."""
    data, loss = {"name": "kit.tasks:masks", "classes": 2}, {"name": "cross_entropy", "ignore_index": 2}
    run = simulate(validate(document("masks", data=data, loss=loss, steps=10), "test"))
    assert run.summary["accuracy"] > 0.5


def test_a_dataset_in_memory_may_be_of_any_kind():
    x = np.arange(6.0)
    assert Dataset(x, x > 2, x[:2], x[:2] > 1).shape == DataShape((), None, 6, 2, 8, (), 1)
