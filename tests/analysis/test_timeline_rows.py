"""A trace as rows of bars: all of it where it is small, and else cut so that nothing is lost but its order."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.analysis.run import Run
from paceline.analysis.timeline_rows import Timeline, covered, timeline

ROUNDS = 300


def lanes(rounds: int = ROUNDS, overlap: float = 0.0) -> dict:
    """A worker that computes three units for 0.6 s of each second, waits for 0.1 s and exchanges for 0.3 s."""
    found: dict = {"compute": [], "network": [], "rounds": []}
    for n in range(rounds):
        found["compute"] += [(f"forward {unit}", n + 0.2 * unit, n + 0.2 * (unit + 1)) for unit in range(3)]
        found["network"] += [("wait", n + 0.6 - overlap, n + 0.7), ("gradients", n + 0.7, n + 1.0)]
        found["rounds"].append((f"round {n + 1}", float(n), n + 1.0))
    return found


def run(*workers: dict) -> Run:
    found = Run({"engine": "simpy", "seconds": float(ROUNDS)}, [], {})
    found.lanes = list(workers)
    return found


def totals(found: Timeline, row: int) -> dict[str, float]:
    """Seconds by what a legend calls it."""
    bars, sums = found.rows[row], dict[str, float]()
    filled = np.ones(len(bars.starts)) if bars.shares is None else bars.shares
    for name, seconds in zip(bars.names, (bars.stops - bars.starts) * filled, strict=True):
        legend, _ = found.looks[name]
        sums[legend] = sums.get(legend, 0.0) + float(seconds)
    return sums


WANTED = {"forward": 0.6 * ROUNDS, "waiting": 0.1 * ROUNDS, "exchange of gradients": 0.3 * ROUNDS}


def test_a_small_trace_is_whole():
    found = timeline(run(lanes(), lanes()))
    assert [row.kind for row in found.rows] == ["", ""], "nothing overlaps, so a worker has one row"
    assert found.spans == sum(len(row.starts) for row in found.rows) == 2 * 5 * ROUNDS
    assert (found.slice, found.kept) == (0.0, [])
    assert totals(found, 0) == pytest.approx(WANTED)
    assert found.names[found.rows[0].names[1]] == "forward 1"


def test_what_overlaps_has_rows_of_its_own():
    found = timeline(run(lanes(overlap=0.05)))
    assert [row.kind for row in found.rows] == ["computing", "exchange"]
    assert totals(found, 0) == pytest.approx({"forward": 0.6 * ROUNDS})


@pytest.mark.parametrize("most", [200, 700, 2000])
def test_a_large_trace_is_cut_and_loses_no_second(most):
    found = timeline(run(lanes(), lanes()), most=most)
    assert sum(len(row.starts) for row in found.rows) <= most
    assert found.slice > 0
    for row in (0, 1):
        assert totals(found, row) == pytest.approx(WANTED)
    ((first, last),) = found.kept
    assert first == 1
    bars = found.rows[0]
    kept = bars.stops <= last + 1e-9
    assert kept.sum() == 5 * last, "the spans of the first rounds are as they were"
    assert (bars.shares[kept] == 1).all()
    assert (np.diff(bars.starts) >= 0).all()
    assert (np.diff(bars.stops) >= -1e-9).all(), "the page looks for bars by bisection"


def test_rounds_around_faults_are_kept():
    hit = lanes() | {"faults": [("pause", 200.2, 200.4)]}
    found = timeline(run(lanes(), hit), most=1000)
    assert any(first <= 201 <= last for first, last in found.kept)
    assert found.kept[0][0] == 1
    (mark,) = found.marks
    assert (mark.name, mark.worker, mark.start) == ("pause", 1, 200.2)


def test_of_many_workers_those_that_faults_hit_are_shown():
    few = lanes(2)
    found = timeline(run(few, few, few, few | {"faults": [("pause", 0.1, 0.2)]}), workers=2)
    assert found.workers == [0, 3]


@pytest.mark.parametrize("most", [10_000, 700])
def test_a_lost_worker_may_have_no_spans(most):
    found = timeline(run(lanes(), {}, lanes() | {"recovery": [("restart", -9.0, 0.0)]}), most=most)
    assert (found.workers, [row.worker for row in found.rows]) == ([0, 1, 2], [0, 2])
    assert totals(found, 1) == pytest.approx(WANTED)
    assert (found.start, found.stop) == (-9.0, ROUNDS), "the restart is before the trace of the new ranks"


def test_spans_that_overlap_count_once():
    starts, stops = np.array([5.0, 0.0, 1.0, 8.0]), np.array([6.0, 3.0, 4.0, 8.0])
    assert covered(starts, stops, np.array([0.0, 2.0, 5.0, 10.0])).tolist() == [2.0, 2.0, 1.0]
    assert covered(starts[3:], stops[3:], np.array([0.0, 10.0])).tolist() == [0.0]


def test_a_run_without_a_trace_says_so():
    with pytest.raises(ValueError, match="has no trace; run it with --set"):
        timeline(run())
