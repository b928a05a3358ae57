"""Published runs: two calibrations on made-up rows, solved by hand, and what is counted."""

import pytest

from paceline.studies.published import (
    LEAST_SHARE,
    Guess,
    Point,
    Unexplained,
    Way,
    calibrate,
    fit,
    from_smallest,
    from_two,
    largest,
    ring,
    smallest,
    summary,
)
from paceline.studies.published_table import Group, Line, cells, markdown, record, table, verdict


def points(*rows):
    """(workers, pace, and whether it has several nodes) -> Points of one method."""
    return [Point(workers, "sync_sgd", pace, several) for workers, pace, several in rows]


def world(found, computing=0.1, exchange=0.02):
    """A simulator of its own: computing, then a ring over links between nodes, or over ten times faster ones inside."""

    def predict(place, speed, across, inside):
        n, rate = found[place].workers, across if found[place].several else 10 * inside
        return computing / speed + exchange * ring(n) / rate

    return predict


def truth(rows, speed, across, inside=1.0):
    """Points as that simulator would publish them."""
    blank = points(*((n, 1.0, several) for n, several in rows))
    paces = [world(blank)(place, speed, across, inside) for place in range(len(blank))]
    return points(*((n, pace, several) for (n, several), pace in zip(rows, paces, strict=True)))


SIZES = [(1, False), (8, False), (16, True), (32, True)]


def test_the_smallest_size_gives_the_speed():
    rows = truth(SIZES, speed=1.7, across=1.0)
    way = from_smallest(rows, world(rows))
    assert way.calibration.seen == (0,)
    assert way.calibration.speed == pytest.approx(1.7, rel=1e-3)
    assert [guess.row for guess in way.guesses] == [1, 2, 3]
    for guess in way.guesses:
        assert guess.ours == pytest.approx(rows[guess.row].pace, rel=1e-3)
        assert guess.perfect == rows[0].pace


def test_two_sizes_give_speed_and_share():
    rows = truth(SIZES, speed=0.6, across=0.4)
    way = from_two(rows, world(rows))
    found = way.calibration
    assert (found.seen, found.inside) == ((1, 2), 1.0)
    assert (found.speed, found.across) == (pytest.approx(0.6, rel=0.01), pytest.approx(0.4, rel=0.01))
    (guess,) = way.guesses
    assert guess.row == 3
    assert guess.ours == pytest.approx(rows[3].pace, rel=1e-3)


def test_within_a_node_the_share_is_that_of_its_links():
    rows = truth([(2, False), (4, False), (8, True)], speed=1.2, across=1.0, inside=0.2)
    found = from_two(rows, world(rows)).calibration
    assert (found.across, found.inside) == (1.0, pytest.approx(0.2, rel=0.01))
    assert from_two(rows, world(rows)).guesses[0].ours == pytest.approx(rows[2].pace, rel=1e-3)


def test_what_no_share_explains_is_missed_by_both_rows_alike():
    rows = points((8, 0.20, False), (16, 0.19, True), (32, 0.2, True))  # faster with more workers
    found = calibrate(rows, (0, 1), world(rows))
    predicted = [world(rows)(place, found.speed, found.across, found.inside) / rows[place].pace - 1 for place in (0, 1)]
    assert found.across == 1.0
    assert predicted[0] == pytest.approx(-predicted[1], rel=0.1)
    assert found.miss == pytest.approx(max(map(abs, predicted)))
    slow = points((8, 0.1, False), (16, 10.0, True), (32, 10.0, True))  # more than the slowest network would add
    assert calibrate(slow, (0, 1), world(slow)).across == LEAST_SHARE


def test_a_time_shorter_than_its_exchange_is_unexplained():
    rows = points((16, 0.01, True), (32, 0.01, True))
    with pytest.raises(Unexplained, match="exchanges alone"):
        from_smallest(rows, world(rows))


def test_two_methods_at_the_smallest_size_are_both_seen():
    rows = [Point(*row) for row in ((16, "sync_sgd", 1.0, True), (16, "qsr", 0.8, True), (64, "qsr", 0.9, True))]
    assert smallest(rows) == [0, 1]
    way = from_smallest(rows, None)
    assert (way.calibration, [(guess.row, guess.ours, guess.perfect) for guess in way.guesses]) == (
        None,
        [(2, None, 0.8)],
    )


def test_three_sizes_that_ran_once_are_needed():
    assert largest(points((1, 1, False), (2, 1, False))) is None
    assert largest(points((1, 1, False), (4, 1, False), (4, 1, False))) is None
    assert largest(points((32, 1, True), (1, 1, False), (8, 1, False), (16, 1, True))) == [2, 3, 0]


def test_the_fit_goes_through_its_points():
    first, second = points((8, 0.1 + 0.03 * 1.75, False), (16, 0.1 + 0.03 * 1.875, True))
    assert fit(first, second, 32) == pytest.approx(0.1 + 0.03 * 1.9375)


def test_the_table_tells_every_row_and_its_miss():
    rows = points((1, 0.10, False), (2, 0.10, False), (4, 0.125, False))
    guesses = (Guess(1, 0.11, 0.1), Guess(2, 0.12, 0.1))
    lines = tuple(Line(n, f"{n} x V100", n / pace, "img/s total", value=lambda p, n=n: n / p, place=place)
                  for place, (n, pace) in enumerate([(1, 0.1), (2, 0.1), (4, 0.125)]))  # fmt: skip
    ways = {"a": Way(None, (Guess(2, 0.13, 0.1, 0.12),)), "b": Way(None, guesses)}
    group = Group("one", "a page", "", lines, tuple(rows), ways)
    assert cells(group, lines[2]) == [
        "30.77 (+4.0 %)",
        "40 (-20.0 %)",
        "33.33 (-4.0 %)",
        "33.33 (-4.0 %)",
        "40 (-20.0 %)",
    ]
    assert cells(group, lines[0]) == [""] * 5
    judged = verdict([group], "b")
    assert (judged.groups, judged.better) == (1, 1)
    assert judged.summaries["ours"].worst == pytest.approx(0.1)
    assert judged.summaries["perfect"].mean == pytest.approx(0.1)
    silent = Group("two", "a thread", "the batch is not given", (Line(1, "1 x V100", 5.0, "img/s total"),), (), {})
    text = markdown([group, silent])
    assert "| one | 4 | 32 img/s total | 30.77 (+4.0 %) |" in text
    assert "| two | the batch is not given | a thread |" in text
    told = record([group, silent])
    assert told["summary"]["groups that count"]["a"]["groups"] == 1
    assert told["groups"]["one"]["rows"][2]["a"]["ours"] == {"predicted": 4 / 0.13, "error": pytest.approx(0.04)}
    assert told["groups"]["two"]["why_not"] == "the batch is not given"


def test_nothing_sums_up_to_nothing():
    assert summary([]) is None
    assert table(("a",), []) == ""
