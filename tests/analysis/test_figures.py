"""The timeline: the rows that it has, the rounds that it shows, and where it marks the faults."""

from __future__ import annotations

import matplotlib
import pytest

from paceline.analysis.run import Run
from paceline.analysis.timeline import timeline

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LANES = {
    "compute": [("forward 0", 0.0, 0.1), ("backward 0", 0.1, 0.3), ("step", 0.5, 0.9), ("step", 1.0, 1.4)],
    "to host": [("move", 0.3, 0.4)],
    "network": [("wait", 0.3, 0.4), ("gradients", 0.4, 0.5), ("gradients", 0.9, 1.0)],
    "rounds": [("round 1", 0.0, 0.5), ("round 2", 0.5, 1.0), ("round 3", 1.0, 1.5)],
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def run(lanes: list, **scenario) -> Run:
    found = Run({"engine": "simpy", "seconds": 1.5}, [], scenario)
    found.lanes = lanes
    return found


def bars(figure, panel: int = 0) -> list[tuple[float, float, float]]:
    """(middle of the row, left, right) in milliseconds of all bars."""
    boxes = [p.get_extents() for c in figure.axes[panel].collections for p in c.get_paths()]
    return [(round(float(b.y0 + b.y1) / 2), round(float(b.x0), 6), round(float(b.x1), 6)) for b in boxes]


def rows(figure, panel: int = 0) -> list[str]:
    return [label.get_text() for label in figure.axes[panel].get_yticklabels()]


def test_each_worker_has_a_row_for_each_lane_that_is_used():
    figure = timeline([run([LANES, LANES | {"to host": []}]), run([{"compute": LANES["compute"]}])], rounds=1, skip=0)
    wanted = ["computing", "host link", "network"]
    assert rows(figure) == [f"worker {worker} {row}" for worker in (0, 1) for row in wanted]
    assert rows(figure, 1) == ["worker 0"]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    wanted = {"computing", "forward", "backward", "host link", "exchange of gradients", "waiting"}
    assert legend == wanted, "units are told apart by their row's bars"
    assert (0, 0.0, 100.0) in bars(figure)
    assert (1, 300.0, 400.0) in bars(figure)
    assert not any(row == 4 for row, _, _ in bars(figure)), "worker 1 moved nothing"


def test_it_shows_the_rounds_that_were_asked_for():
    figure = timeline([run([LANES])], rounds=1, skip=1)
    assert [bar for bar in bars(figure) if bar[0] == 0] == [(0, 0.0, 400.0)]
    assert [bar for bar in bars(figure) if bar[0] == 2] == [(2, 400.0, 500.0)]


@pytest.mark.parametrize(
    ("fault", "rows", "left", "right"),
    [
        ((1, 0.7, 0.9), (3, 4, 5), 200, 400),
        ((0, 0.5, 1.0), (0, 1, 2), 0, 500),
        ((0, 0.0, 1.5), (0, 1, 2), 0, 1000),
        ((1, 0.0, 0.75), (3, 4, 5), 0, 250),
        ((1, 1.6, 1.6), (), 0, 0),
    ],
)
def test_faults_are_shaded_where_they_hit(fault, rows, left, right):
    worker, *times = fault
    lanes = [LANES, LANES]
    plain = bars(timeline([run(lanes)], rounds=2, skip=1))
    lanes[worker] = LANES | {"faults": [("pause", *times)]}
    found = bars(timeline([run(lanes)], rounds=2, skip=1))
    for bar in plain:
        found.remove(bar)
    assert sorted(found) == [(row, left, right) for row in rows]


def test_a_run_without_a_trace_says_so():
    with pytest.raises(ValueError, match="has no trace; run it with --set"):
        timeline([run([])])


def test_a_runs_name_is_no_formula():
    """What matplotlib takes for mathematics in a name is shown as it is."""
    found = run([LANES])
    found.label = "r$\\x$"
    figure = timeline([found])
    figure.canvas.draw()
    assert figure.axes[0].get_title(loc="left").startswith("r$\\x$")
