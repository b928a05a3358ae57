"""Metrics: each built-in one against scikit-learn or plain torch, a user's own, and what is wrong with either."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from kit.learning import DIGITS, make, make_plan, train_in_lockstep
from paceline.algorithms.metrics import TEST_LOSS, Metric, numbers, values
from paceline.algorithms.placements import Offloaded, Sharded
from paceline.learning import judge
from paceline.learning.dataset import DataShape
from paceline.learning.metrics import NAMES, described
from paceline.learning.phantoms import build_phantoms
from paceline.learning.recipe import Recipe

pytestmark = pytest.mark.usefixtures("torch_as_it_was")
CLASSES = 7


def outputs_of(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape)).float()


def labels_of(*shape: int, ignored: bool = False) -> torch.Tensor:
    found = torch.from_numpy(np.random.default_rng(1).integers(0, CLASSES - 1, shape))  # the last class does not occur
    if ignored:
        found.view(-1)[::3] = judge.IGNORED
    return found


def value(name: str, outputs, y, loss: str = "own:loss", pieces: int = 3) -> float:
    """Of a built-in metric, whose sums are those of pieces of unequal size."""
    _, metric = described(Recipe(loss, metrics=((name, name),)), DataShape((1,), CLASSES, 1, 1))
    measure = judge._measure(name, metric, loss == "binary_cross_entropy")
    total = np.zeros(numbers([metric]))
    for at in np.array_split(np.arange(len(y)), [1, len(y) // pieces]):
        total += np.concatenate(judge.in_parts(measure(outputs[at], y[at]), len(at), metric.entries))
    return values([metric], total)[name]


def rows(outputs: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(labels, classes) and the labels, without those that are left out; classes are in dimension 1."""
    flat = outputs.movedim(1, -1).reshape(-1, outputs.shape[1]).numpy()
    kept = (y != judge.IGNORED).reshape(-1).numpy()
    return flat[kept], y.reshape(-1).numpy()[kept]


LABELLED = [((20, CLASSES), (20,)), ((6, CLASSES, 5), (6, 5)), ((6, CLASSES, 4, 5), (6, 4, 5))]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(("shape", "target"), LABELLED, ids=["labels", "sequences", "images"])
def test_metrics_of_labels_are_scikit_learns(shape, target, ignored):
    outputs, y = outputs_of(*shape), labels_of(*target, ignored=ignored)
    flat, true = rows(outputs, y)
    exact = torch.from_numpy(flat.astype(np.float64)).log_softmax(1).gather(1, torch.from_numpy(true)[:, None])
    expected = {
        "accuracy": sk.accuracy_score(true, flat.argmax(1)),
        "top5": sk.top_k_accuracy_score(true, flat, k=5, labels=range(CLASSES)),
        "perplexity": math.exp(-exact.mean()),
        "iou": sk.jaccard_score(true, flat.argmax(1), average="macro"),  # of the classes that occur in either
    }
    for name, number in expected.items():
        assert value(name, outputs, y) == pytest.approx(number, rel=1e-6), name
    if len(shape) == 3:  # a sequence's classes may come last, also where there are as many as places
        assert value("accuracy", outputs.movedim(1, 2), y) == pytest.approx(expected["accuracy"])
        square, y = outputs_of(6, 5, 5), labels_of(6, 5) % 5
        assert value("accuracy", square, y) == (square.argmax(2) == y).double().mean().item()


@pytest.mark.parametrize(("shape", "target"), [((9,), (9,)), ((9, 1), (9,)), ((9,), (9, 1)), ((9, 2, 3), (9, 2, 3))])
def test_metrics_of_numbers_are_scikit_learns(shape, target):
    outputs, y = outputs_of(*shape), outputs_of(*target) + 0.5
    flat = outputs.double().reshape(-1), y.double().reshape(-1)
    assert value("mse", outputs, y) == pytest.approx(sk.mean_squared_error(*flat), rel=1e-12)
    assert value("mae", outputs, y) == pytest.approx(sk.mean_absolute_error(*flat), rel=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.int64])
def test_metrics_of_yes_or_no(kind):
    outputs, y = outputs_of(8, 1, 5), outputs_of(8, 5, 1) > 0.3
    predicted, true = (outputs > 0).reshape(-1), y.reshape(-1)
    y = y.reshape(8, 5).to(kind)
    assert value("accuracy", outputs[:, 0], y, "binary_cross_entropy") == sk.accuracy_score(true, predicted)
    assert value("iou", outputs[:, 0], y, "binary_cross_entropy") == sk.jaccard_score(true, predicted)


def test_more_outputs_than_classes_and_nothing_to_count():
    outputs, y = outputs_of(30, CLASSES + 3), labels_of(30)
    predicted = outputs.argmax(1).numpy()
    expected = sk.jaccard_score(y, predicted, average=None, labels=range(CLASSES), zero_division=0.0)
    there = np.isin(np.arange(CLASSES), [*y.numpy(), *predicted])
    assert value("iou", outputs, y) == pytest.approx(expected[there].mean(), rel=1e-12)
    assert math.isnan(value("accuracy", outputs, torch.full((30,), judge.IGNORED)))
    far = Metric("perplexity", exponential=True)
    assert values([far], np.array([2000.0, 1.0])) == {"perplexity": math.inf}
    assert all(map(math.isnan, values([TEST_LOSS, far], np.zeros(4)).values()))


# --- a user's own -----------------------------------------------------------------------------------------------------


def right(outputs, y):
    return (outputs.argmax(1) == y).float().mean()


def right_for_each(outputs, y):
    return outputs.argmax(1) == y


def right_counted(outputs, y):
    return float((outputs.argmax(1) == y).sum()), len(y)


def squares(outputs, y):
    return ((outputs - y[:, None]) ** 2).numpy()


def short(outputs, y):
    return (outputs.argmax(1) == y)[1:]


def text(outputs, y):
    return "good"


def nothing(outputs, y):
    return None


def several(outputs, y):
    return outputs.sum(0), torch.ones(10)


def below(outputs, y):
    return outputs.sum(), -1


def ill(outputs, y):
    raise RuntimeError("it is ill")


def own(*names: str) -> Recipe:
    return Recipe(metrics=tuple((name, name if name in NAMES else f"{__name__}:{name}") for name in names))


@pytest.mark.parametrize("place", [None, Sharded(unit_bytes=1), Offloaded(unit_bytes=1)])
def test_a_metric_of_ones_own_may_answer_in_three_ways(place):
    recipe = own("accuracy", "right", "right_for_each", "right_counted", "squares", "top5")
    plan = make_plan(batches=(16, 16, 9))
    if place is not None:
        plan.strategy = plan.strategy.__class__(placement=place)
    workers = make(plan, recipe=recipe)
    _, lines = train_in_lockstep(plan, workers)
    line = lines[-1]
    assert line["right_for_each"] == line["right_counted"] == line["accuracy"] > 0.8
    assert line["right"] == pytest.approx(line["accuracy"], rel=1e-6)
    assert line["top5"] >= line["accuracy"]
    if place is None:
        with torch.no_grad():
            outputs = workers[0].model.eval()(torch.from_numpy(DIGITS.test_x))
        squared = ((outputs - torch.from_numpy(DIGITS.test_y)[:, None]) ** 2).double().mean()
        assert line["squares"] == pytest.approx(squared.item(), rel=1e-5)
    phantoms = build_phantoms(plan, DIGITS.shape, model="mlp", recipe=recipe)
    assert numbers(phantoms[0].metrics) == len(workers[0].evaluate(workers[0].buffers).run())
    _, bare = train_in_lockstep(plan, phantoms)
    assert [*bare[-1]] == [*line]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "short",
            r"the metric short: ValueError: it gave a tensor of shape \(15,\) for 16 examples; expected their mean",
        ),
        ("text", "the metric text: TypeError: it gave a str; expected a mean"),
        ("nothing", "the metric nothing: TypeError: it gave a NoneType"),
        ("several", r"it gave a pair of 10 and 10 numbers; expected \(sum, count\)"),
        ("below", r"it gave the count -1; expected \(sum, count\)"),
        ("ill", "the metric ill: RuntimeError: it is ill"),
        ("mse", r"outputs are \(16, 10\), and the targets \(16,\) of int64; they must have one shape"),
        ("absent", r"metric 'test_metrics:absent': test_metrics has no 'absent'"),
    ],
)
def test_what_is_wrong_with_a_metric_is_one_line_before_the_run(name, message):
    with pytest.raises(ValueError, match=message) as error:
        make(make_plan(), recipe=own(name))
    assert "\n" not in str(error.value)


def test_accuracy_is_of_classes_alone():
    for outputs, y, message in (
        (outputs_of(9, 1), labels_of(9), r"an output for each of several classes; the"),
        (outputs_of(9), labels_of(9), "there must be a value for each class"),
        (outputs_of(9, 3), outputs_of(9), "of float32; there must be a value for each class"),
    ):
        with pytest.raises(ValueError, match=message):
            value("accuracy", outputs, y)
    with pytest.raises(ValueError, match="it needs more than 5 classes; the model has 5 outputs"):
        value("top5", outputs_of(9, 5), labels_of(9) % 5)
    shape = DataShape((1,), CLASSES, 1, 1)
    assert described(Recipe("own:loss"), shape) == (TEST_LOSS,), "none for a loss of one's own unless asked"
    assert [m.name for m in described(Recipe(), shape)] == ["test_loss", "accuracy"]
    with pytest.raises(ValueError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        described(Recipe(metrics=(("acuracy", "acuracy"),)), shape)
