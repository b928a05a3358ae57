"""Torch Datasets that are read when a batch needs them: the bits of the same examples in memory, and one line for what
goes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kit import datasets, users
from kit.cli import call, scenario
from kit.learning import SGD, make_plan, train_in_lockstep
from paceline.algorithms.rounds import Interval
from paceline.config import yaml
from paceline.learning.build import build_workers
from paceline.learning.data import load, shape_of
from paceline.learning.dataset import Dataset
from paceline.learning.recipe import Recipe
from paceline.learning.sources import Inputs, Source
from paceline.learning.torch_datasets import lazily
from paceline.program.errors import WorkloadError


def trained(data, model="mlp", args=None, loaders=0, **options):
    """(digest of the parameters, report lines) of two epochs of a worker that has a process to itself."""
    plan = replace(
        make_plan((8,), budget=Interval(2, "epochs"), report=Interval(1, "epochs")), examples=len(data.train_y)
    )
    given = {"model": model, "model_args": {"hidden": [8], "dropout": 0.2} if args is None else args}
    workers = build_workers(
        plan, data, shared_process=False, loaders=loaders, **given, optimizer=SGD, seed=3, **options
    )
    _, lines = train_in_lockstep(plan, workers)
    return workers[0].digest(), lines


def close(one, other) -> bool:
    """Whether two trainings report the same, but for rounding: which targets count is only known of arrays."""
    return all(a == pytest.approx(b, rel=1e-6) for a, b in zip(one[1], other[1], strict=True))


def test_lazily_read_examples_give_the_numbers_of_examples_in_memory_and_the_same_bits_with_any_loaders():
    whole = load("kit.users:points", {})
    for recipe in (Recipe(), Recipe(micro_batch=3)):
        expected = trained(load("kit.datasets:points", {}), recipe=recipe)
        assert close(expected, trained(whole, recipe=recipe))
        for loaders in (1, 3):
            assert trained(load("kit.datasets:points", {}), recipe=recipe, loaders=loaders) == expected
    found = shape_of("kit.datasets:points", {})
    assert found == replace(whole.shape, stored_bytes=0, target_bytes=0)
    assert found.nbytes == 0, "they stay where the Dataset has them"


@pytest.mark.parametrize("loaders", [0, 2])
def test_each_example_is_read_once_in_an_epoch_and_by_the_loaders_where_there_are_some(loaders):
    train, test = datasets.points()
    data = lazily(train, test, None, "data")
    train.reads.clear()
    trained(data, loaders=loaders)
    tried = 8 + 8 * loaders  # the step to warm up, and what loaders read beyond the end of the training
    tried += 8 * (loaders > 0)  # an example that two loaders read at the same time
    counts = np.bincount([index for index, _ in train.reads], minlength=40)
    assert 2 * 40 + 8 <= counts.sum() <= 2 * 40 + 8 + tried
    threads = {name.split("_")[0] for _, name in train.reads[8:]}
    assert ("paceline loader" in threads) == (loaders > 0)
    assert len(test.reads) <= 1 + 20 + 2 * 20, "and targets come with them in an evaluation"


@pytest.mark.parametrize(
    ("how", "shapes", "kind"), [("tuple", ((2,), (4,)), "int64"), ("dict", {"left": (2,), "right": (4,)}, "int64")]
)
def test_several_inputs_are_read_by_one_call(how, shapes, kind):
    train, test = datasets.points(how)
    data = lazily(train, test, None, "data")
    assert data.shape.input_shape == shapes
    train.reads.clear()
    chosen = np.array([3, 1, 39])
    x, y = Inputs(data.train_x).take(chosen), Source(data.train_y, target=True).take(chosen)
    assert len(train.reads) == 3
    assert str(y.dtype) == f"torch.{kind}"
    left, right = x.values() if how == "dict" else x
    assert np.array_equal(np.hstack([left, right]), users.points()[0][chosen])
    model = {"model": "kit.datasets:two_inputs", "args": {"named": how == "dict"}}
    memory = Dataset(
        *(load_all(column) for column in (data.train_x, data.train_y, data.test_x, data.test_y)), classes=3
    )
    assert close(trained(data, loaders=2, **model), trained(memory, **model))


def load_all(column):
    """All values of an input, or of inputs."""
    if isinstance(column, tuple):
        return tuple(map(load_all, column))
    if isinstance(column, dict):
        return {name: load_all(each) for name, each in column.items()}
    values = np.empty(column.shape, column.dtype)
    column.take(np.arange(len(column)), values)
    return values


def test_classes_come_from_the_dataset_or_the_scenario():
    assert shape_of("kit.datasets:points", {}).classes == 3
    assert shape_of("kit.datasets:points", {"classes": 7}).classes == 7
    assert shape_of("kit.datasets:classed", {"classes": 5}).classes == 5, "the function takes it itself"
    assert shape_of("kit.datasets:tensors", {}).classes is None
    found = shape_of("kit.datasets:tensors", {"classes": 3})
    assert (found.classes, found.train, found.test) == (3, 30, 20)
    assert shape_of("kit.datasets:points", {"how": "real"}).kinds == "float32"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("points", {"how": "empty"}, "training set has 0 examples; it needs one or more"),
        ("points", {"how": "negative"}, "training set has -1 examples; it needs one or more"),
        (
            "points",
            {"how": "random"},
            "reading example 0 drew from the global random numbers of torch, NumPy or Python",
        ),
        ("points", {"how": "numpy"}, "training set: reading example 0 drew from the global random numbers"),
        ("points", {"how": "raises", "at": 0}, "training set: reading example 0 failed: RuntimeError: it is"),
        ("points", {"how": "single", "at": 0}, "training set: example 0 is a Tensor; expected (x, y): x a tensor"),
        ("points", {"how": "text", "at": 0}, "training set: example 0 holds a str; expected (x, y)"),
        ("points", {"tested": "raises", "at": 0}, "test set: reading example 0 failed: RuntimeError: it is"),
        ("points", {"tested": "tuple"}, "x is ((6,), 'float32') in the training set and (((2,), 'float32'), ((4,)"),
        ("points", {"tested": "real"}, "y is ((), 'int64') in the training set and ((), 'float32') in the test set"),
        ("points", {"classes": 0}, "classes is 0; write a whole number, 1 or more"),
        ("stream", {}, "its training set is a Stream; expected a map-style torch.utils.data.Dataset, with __len__"),
        ("endless", {}, "training set has no length; write __len__"),
        ("pair", {}, "its training set is a ndarray; expected a map-style"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_one_line(name, args, message):
    for action in (load, shape_of):
        with pytest.raises(ValueError, match=r".") as caught:
            action(f"kit.datasets:{name}", args)
        assert str(caught.value).startswith(f"data 'kit.datasets:{name}'")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "reading example 5 failed: RuntimeError: it is"),
        ("shape", "example 5 is x (4,), y (), and example 0 x (6,), y ()"),
        ("type", "example 5 holds float64 where example 0 holds int64"),
        ("single", "example 5 is a Tensor; expected (x, y)"),
    ],
)
@pytest.mark.parametrize("loaders", [0, 2])
def test_an_example_that_fails_later_is_named(how, message, loaders):
    with pytest.raises((WorkloadError, ValueError), match=r".") as caught:
        trained(load("kit.datasets:points", {"how": how, "tested": ""}), loaders=loaders)
    assert "reading the data" in str(caught.value)
    assert f"data 'kit.datasets:points', training set: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scenario_names_the_function(tmp_path, monkeypatch, capsys):
    made = scenario(2, {"name": "mlp", "hidden": [8]}, {"preset": "local_sgd", "H": 2}, 4)
    made["workload"] |= {"data": "kit.datasets:points", "batch": 4}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(made))
    assert call(monkeypatch, capsys, "simulate", path, "--out", tmp_path / "run")[0] == 0
    path.write_text(yaml.dump(made | {"workload": made["workload"] | {"data": "kit.datasets:tensors"}}))
    status, _, err = call(monkeypatch, capsys, "simulate", path, "--out", tmp_path / "other")
    assert status == 2
    assert "the data do not say how many" in err
    assert "classes" in err
    assert err.count("\n") == 1
