"""Figures for a paper: their files, their size, their texts; and what the bars show."""

from __future__ import annotations

import re

import matplotlib
import pytest
from matplotlib.text import Text

from paceline.analysis import bars, colours, plan_figures, titles
from paceline.analysis.classes import classes
from paceline.analysis.figures import figures_of, learning_curves
from paceline.analysis.paper import Paper
from paceline.analysis.run import Run
from paceline.analysis.timeline import MOST, timeline
from paceline.program.errors import ScenarioError

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MEMORY = {"device": [6 * 2**30] * 3, "host": [0.0] * 3, "activations": [2**30] * 3}
PARTS = {
    "device": {"parameters": [2**31] * 3, "gradients": [2**31] * 3, "optimizer": [2**31] * 3, "buffers": [0.0] * 3},
    "host": {"buffers": [0.0] * 3},
}
CLUSTER = {"workers": [{"device": "rtx-a6000", "count": 2}, {"device": "own", "slowdown": 4.0}]}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def traced(preset: str = "local_sgd", engine: str = "simpy", steps: int = 3, **summary: object) -> Run:
    """Three workers; the last one computes all the time, and the others wait for it."""
    lines = [{"round": i, "seconds": float(i), "train_loss": 1 / i, "accuracy": 0.5} for i in (1, 2)]
    known = {"engine": engine, "workers": 3, "seconds": 1.0 * steps, "samples": 64 * steps} | summary
    known |= {"memory_predicted": MEMORY, "memory_parts": PARTS}
    run = Run(known, lines, {"strategy": {"preset": preset}, "cluster": CLUSTER})
    quick, slow = ([("step", i, i + part) for i in range(steps)] for part in (0.25, 0.9))
    exchange = [("parameters", i + 0.9, i + 1) for i in range(steps)]
    waits = [
        (name, start, stop) for i in range(steps) for name, start, stop in (("wait", i + 0.25, i + 0.9), exchange[i])
    ]
    rounds = [(f"round {i}", i, i + 1) for i in range(steps)]
    run.lanes = [{"compute": quick, "network": waits, "rounds": rounds}] * 2
    run.lanes += [{"compute": slow, "network": exchange, "rounds": rounds}]
    return run


def widths(ax) -> dict[str, list[float]]:
    """colour -> the widths of an axis's bars, from the top."""
    found: dict[str, list[float]] = {}
    for box in ax.patches:
        found.setdefault(matplotlib.colors.to_hex(box.get_facecolor()).upper(), []).append(round(box.get_width(), 6))
    return found


def test_files_can_be_printed_and_are_equal_each_time(tmp_path):
    paper = Paper.read("PDF, svg,png,svg", "column", "serif", 8)
    for folder in ("a", "b"):
        figure = bars.time_spent([traced(), traced("qsr")], paper=paper)
        files = paper.save({"time": figure}, tmp_path / folder)
    assert [path.name for path in files] == ["time.pdf", "time.svg", "time.png"]
    for path in files:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name
    pdf, svg = (tmp_path / "a" / "time.pdf").read_bytes(), (tmp_path / "a" / "time.svg").read_text()
    assert b"/FontFile2" in pdf, "the font is in the file"
    assert b"/Type3" not in pdf
    assert {"computing", "exchange", "waiting", "local_sgd"} <= set(re.findall(r">([^<>\n]+)</text>", svg))
    assert re.search(r'width="237\.6pt"', svg), "3.3 inches"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("gif", None, None, 9), "--format: 'gif' is not one of png, pdf, svg; write like png,pdf"),
        (("png", "3x", None, 9), "write like 3.3x2.5, 3.3, column or page"),
        (("png", "0x2", None, 9), "--size: '0x2'"),
        (("png", "3.3.3", None, 9), "--size: '3.3.3'"),
        (("png", None, "DejaVu Sens", 9), "did you mean 'DejaVu Sans'?"),
        (("png", None, None, 0.5), "--font-size: 0.5 is not between 1 and 100 points"),
    ],
)
def test_what_is_no_paper(options, said):
    with pytest.raises(ScenarioError) as error:
        Paper.read(*options)
    assert said in str(error.value)


@pytest.mark.parametrize("size", ["column", "3.3x2.5", "12"])
def test_texts_lie_within_the_figure(size):
    paper = Paper.read("png", size, None, 8)
    runs = [traced(), traced("post_local_sgd")]
    for name, figure in figures_of(runs, paper).items():
        figure.canvas.draw()
        shown = [*figure.legends[0].get_texts()]
        shown += [text for ax in figure.axes for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)]
        for text in filter(Text.get_text, shown):
            box = text.get_window_extent()
            assert box.x0 >= -1, (name, text.get_text())
            assert box.x1 <= figure.bbox.width + 1, (name, text.get_text())
        assert figure.get_size_inches()[0] == paper.width


@pytest.mark.parametrize("size", ["column", "page"])
def test_the_names_of_a_plans_ways_lie_within_the_figure(size):
    paper, name = Paper.read("png", size, None, 9), "recommended, sync on the rtx-a6000 alone, one machine"
    points = [plan_figures.Point(10**n, 3.0 - n, 0.0, "sync_sgd", name, n != 1) for n in range(3)]
    ways = [plan_figures.Network(f"sync_sgd ({name})", 0.3, 0.1), plan_figures.Network("hdp", 0.2, 0.1)]
    for figure in (plan_figures.front(points, paper=paper), plan_figures.communication(ways, paper=paper)):
        figure.canvas.draw()
        (ax,) = figure.axes
        for text in (*ax.texts, *ax.get_yticklabels(), ax.xaxis.label):
            box = text.get_window_extent()
            assert box.x0 >= -1, text.get_text()
            assert box.x1 <= figure.bbox.width + 1, text.get_text()


def test_timing_only_runs_have_no_curves():
    assert "curves" in figures_of([traced(), traced(timing_only=True)])
    assert {*figures_of([traced(timing_only=True)])} == {"timeline", "time", "memory"}


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    simulated, measured, other = traced(), traced(engine="mpi"), traced("qsr")
    assert titles.titles([simulated, measured]) == ["simulated", "measured"]
    assert titles.titles([simulated, other]) == ["local_sgd", "qsr"]
    assert titles.titles([simulated, traced("qsr", engine="mpi")]) == ["local_sgd, simulated", "qsr, measured"]
    simulated.directory, again = tmp_path / "a", traced()
    again.directory = tmp_path / "b"
    assert titles.titles([simulated, again]) == ["simulated (a)", "simulated (b)"]
    again.label = "mine"
    assert titles.titles([simulated, again]) == ["simulated", "mine"]
    assert [line.get_color() for line in learning_curves([traced(), measured]).axes[0].lines] == [
        colours.SIMULATED.colour,
        colours.MEASURED.colour,
    ]


def test_time_is_the_mean_of_a_class_and_adds_up():
    figure = bars.time_spent([traced(), traced("qsr")])
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2 x rtx-a6000", "own"] * 2
    found = widths(ax)
    assert found[colours.KINDS["computing"].colour] == [0.75, 2.7] * 2
    assert found[colours.KINDS["waiting"].colour] == [1.95] * 2
    assert found[colours.KINDS["exchange"].colour] == [0.3] * 4
    assert ax.get_xlabel() == "time of the run (s)"


def test_runs_of_unequal_work_are_compared_per_sample():
    (ax,) = bars.time_spent([traced(), traced("qsr", samples=2 * 192)]).axes
    assert widths(ax)[colours.KINDS["computing"].colour] == pytest.approx([3.90625, 14.0625, 1.953125, 7.03125])
    assert ax.get_xlabel() == "time per 1,000 samples of all workers (s)"


def test_memory_is_shown_by_part_with_the_devices_limit():
    (ax,) = bars.memory([traced()]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "2 x rtx-a6000: device",
        "2 x rtx-a6000: host",
        "own",
    ]
    found = widths(ax)
    for part in ("parameters", "gradients", "optimizer"):
        assert found[colours.MEMORY[part].colour] == [2.0, 2.0]
    assert found[colours.MEMORY["activations"].colour] == [1.0, 1.0]
    (limit,) = (line.get_xdata()[0] for line in ax.lines)
    assert limit == pytest.approx(48e9 / 2**30)


def test_a_long_timeline_shows_shares():
    """Of 500 rounds of a second each, the fast workers compute a quarter of each slice."""
    figure = timeline([traced(steps=MOST + 100)], rounds=None)
    assert "rounds 1 to 500 of 500; 10.0% of the run is exchange; slices show shares" in figure.axes[0].get_title(
        "left"
    )
    heights = [-box.get_height() for box in figure.axes[0].patches if round(box.get_y() - 0.4, 6) == 0]
    assert heights == pytest.approx([0.8 * 0.25] * len(heights), abs=0.06)
    assert sum(heights) == pytest.approx(200 * 0.8 * 0.25)


def test_a_thin_exchange_is_drawn_with_its_own_edge():
    figure = timeline([traced()], rounds=3, skip=0)
    thin = matplotlib.colors.to_rgba(colours.of_span("network", ("parameters", 0, 1))[1].colour)
    exchanges = [each for each in figure.axes[0].collections if tuple(each.get_facecolor()[0]) == thin]
    assert exchanges
    assert all(tuple(each.get_edgecolor()[0]) == thin and each.get_linewidth()[0] >= 0.5 for each in exchanges)


def test_white_edges_do_not_hide_the_steps_of_a_much_shorter_run():
    """The panels share an axis, so steps that would be wide in a figure of their own are thin next to a long run."""
    quick, slow = traced(), traced("qsr")
    slow.lanes = [
        {lane: [(name, 99 * start, 99 * stop) for name, start, stop in spans] for lane, spans in lanes.items()}
        for lanes in slow.lanes
    ]
    for runs, edges in (([quick], {"#ffffff"}), ([quick, slow], {colours.KINDS["computing"].colour.lower()})):
        steps = timeline(runs, rounds=3, skip=0).axes[0].collections[0]
        assert {matplotlib.colors.to_hex(edge) for edge in steps.get_edgecolor()} == edges


def test_a_run_whose_cluster_has_changed_is_one_class():
    run = traced()
    run.scenario["cluster"] = {"workers": [{"count": 2}]}
    assert [each.workers for each in classes(run)] == [(0, 1, 2)]
    run.scenario["cluster"] = 5
    assert [each.workers for each in classes(run)] == [(0, 1, 2)]


def test_the_bars_of_a_plan_show_its_numbers():
    seconds = {"computing": 0.2, "exchange": 0.05, "waiting": 0.0}
    devices = [
        plan_figures.Allocated("2 x a", 96, 128, seconds, 2**30, 2**31),
        plan_figures.Allocated("b", 0, None, {}, 0.0, None),
    ]
    batch, time, memory = plan_figures.allocation(devices).axes
    assert widths(batch) == {colours.NEUTRAL: [96]}
    assert widths(time)[colours.KINDS["exchange"].colour] == [50]
    assert (time.get_xlabel(), memory.get_xlabel()) == ("time between two syncs (ms)", "memory at the peak (GiB)")
    assert [line.get_xdata()[0] for line in (*batch.lines, *memory.lines)] == [128, 2]
    assert [text.get_text() for text in batch.texts] == ["left out"]
    (ax,) = plan_figures.communication(
        [plan_figures.Network("ddp", 0.3, 0.1), plan_figures.Network("qsr", 0.0, 0.02)]
    ).axes
    assert widths(ax)[colours.KINDS["exchange"].colour] == [30]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ddp", "qsr"]
