"""What a profile says of ranks that are made up: each rule by hand, from known times back to known numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paceline.config.units import read_seconds
from paceline.measuring import RankTimes
from paceline.profile_document import (
    Measured,
    Taken,
    beside,
    computed,
    moves,
    network,
    pieces,
    portable,
    residuals,
    rising,
    tables,
    taken,
    taken_tables,
    variation,
)
from paceline.program.effects import AllGather, AllReduce, Collective, ReduceScatter
from paceline.program.errors import ScenarioError
from paceline.program.traffic import traffic
from paceline.trials import OVERLAPPED, Measurements, Piece

near = pytest.approx
Times = dict[tuple[str, Piece], Measured]


def once(seconds: float, per_step: float = 1.0, met: float = 0.0, apart: float = 0.0) -> Measured:
    return Measured(seconds, per_step, met, apart)


def seconds_of(text: str) -> float:
    return read_seconds(text, "1 us")


def numbers(table: dict[Any, str]) -> dict[Any, float]:
    return {key: seconds_of(text) for key, text in table.items()}


# --- tables -----------------------------------------------------------------------------------------------------------


def test_more_samples_take_no_less_time():
    found = rising({8: 3e-6, 2: 1e-6, 4: 5e-6, 16: 4e-6, 32: 6e-6})
    assert list(found.items()) == [(2, "1 us"), (4, "5 us"), (8, "5 us"), (16, "5 us"), (32, "6 us")]
    assert rising({}) == {}


def test_tables_are_of_whole_steps_as_they_run():
    """Local steps from the local trial, gradients and updates from the synchronous one; no other trial's."""
    times: Times = {
        ("local", Piece("compute", "step", samples=8)): once(5e-4),
        ("local", Piece("compute", "step", samples=8, first=True)): once(7e-4),
        ("local", Piece("compute", "step", samples=16)): once(9e-4),
        ("flat", Piece("compute", "gradient", samples=8)): once(4e-4),
        ("flat", Piece("compute", "update")): once(1e-4),
        ("flat", Piece("compute", "evaluate", samples=90)): once(2e-4),
        ("extra", Piece("compute", "gradient", samples=8)): once(1.0),
        ("fetched whole", Piece("compute", "update")): once(1.0),
        ("flat", Piece("network", "AllReduce", nbytes=8)): once(1.0),
    }
    found = tables(times)
    assert found["step"] == {8: "500 us", 16: "900 us"}
    assert (found["gradient"], found["update"]) == ({8: "400 us"}, {0: "100 us"})
    assert numbers(pieces(times, 8)["first"]) == {8: near(7e-4)}


# --- units ------------------------------------------------------------------------------------------------------------


def passes(trial: str, samples: int, seconds: Iterable[float], phase: str = "forward") -> Times:
    return {(trial, Piece("compute", phase, k, samples)): once(s) for k, s in enumerate(seconds)}


def both(trial: str, samples: int, *seconds: float) -> Times:
    """Backward passes take twice as long."""
    return passes(trial, samples, seconds) | passes(trial, samples, [2 * s for s in seconds], "backward")


def test_units_are_shares_of_the_whole_and_a_cut_is_what_a_whole_model_saves():
    times = both("fetched", 8, 4e-6, 1e-6, 5e-6) | both("fetched", 16, 8e-6, 2e-6, 12e-6)
    times |= both("fetched whole", 8, 7e-6) | both("kept", 8, 2e-6, 1e-6, 1e-6)
    units = pieces(times, 8)["units"]
    fetched, kept = units["fetched"], units["kept"]
    assert numbers(fetched["forward"]["times"]) == {8: near(10e-6), 16: near(22e-6)}
    assert fetched["forward"]["shares"] == [0.4, 0.1, 0.5]
    assert seconds_of(fetched["forward"]["cut"]) == near((10e-6 - 7e-6) / 2)
    assert seconds_of(fetched["backward"]["cut"]) == near((20e-6 - 14e-6) / 2)
    assert (kept["forward"]["shares"], kept["forward"]["cut"]) == ([0.5, 0.25, 0.25], "0 us")
    slower = times | both("fetched whole", 8, 11e-6)
    assert pieces(slower, 8)["units"]["fetched"]["forward"]["cut"] == "0 us", "a cut saves nothing"


def test_a_model_of_one_unit_is_measured_as_a_whole():
    units = pieces(both("fetched whole", 8, 7e-6), 8)["units"]
    assert set(units) == {"fetched"}
    assert units["fetched"]["forward"] == {"times": {8: "7 us"}, "shares": [1.0], "cut": "0 us"}


def test_updates_are_filed_by_the_part_that_is_updated():
    times: Times = {
        ("flat", Piece("compute", "update")): once(8e-6),
        ("sharded", Piece("compute", "update", part=0.25)): once(3e-6),
        ("fetched whole", Piece("host", "host update")): once(20e-6),
        ("kept", Piece("compute", "update")): once(1.0),
    }
    assert pieces(times, 8)["updates"] == {"update": {1.0: "8 us", 0.25: "3 us"}, "host update": {1.0: "20 us"}}


# --- what overlapping costs -------------------------------------------------------------------------------------------

COST = Taken(exchange=5e-6, sent=2e-10, move=1e-6, moved=4e-10)
LATENCY, BANDWIDTH = 4e-6, 5e8  # more for an exchange next to a computation


def exchange(kind: type[Collective], nbytes: int) -> Piece:
    return Piece("network", kind.__name__, nbytes=nbytes, phase="sync")


def overlapped(ranks: int) -> Times:
    """Trials with known costs: each effect runs next to a computation for a part of its time."""
    times: Times = {}
    trials: dict[str, list[tuple[Piece, float, float]]] = {  # (effect, how many a step has, the part of it that meets)
        "kept": [(exchange(AllReduce, 400_000), 3, 0.8), (exchange(AllReduce, 4000), 1, 0.5)],
        "fetched": [
            (exchange(AllReduce, 40_000), 2, 1.0),
            (Piece("to device", "move", nbytes=40_000), 5, 0.9),
            (Piece("to host", "move", nbytes=1000), 4, 0.5),
        ],
        "sharded": [(exchange(AllGather, 60_000), 6, 0.7), (exchange(ReduceScatter, 900_000), 3, 0.6)],
    }
    for trial, effects in trials.items():
        computing, lost = Piece("compute", "backward", 0, 8), 0.0
        for piece, count, met in effects:
            if piece.lane == "network":
                kind = {k.__name__: k for k in (AllReduce, AllGather, ReduceScatter)}[piece.name]
                what, alone = traffic(kind, piece.nbytes, ranks), 1e-4 + piece.nbytes / 1e8
                lost += count * (COST.exchange + what.sent * COST.sent)
                longer = what.messages * LATENCY + what.sent / BANDWIDTH
                speed = alone / (alone + longer)  # next to a computation
                times[trial, piece] = once(alone, count)
                # It computed in a part of its s seconds: what is done then, and afterwards, is an exchange alone.
                times[trial + OVERLAPPED, piece] = once(alone / (1 - met * (1 - speed)), count, met)
            else:
                lost += count * (COST.move + piece.nbytes * COST.moved)
                times[trial, piece] = times[trial + OVERLAPPED, piece] = once(1e-5, count, met)
        times[trial, computing] = once(1e-3, 2)
        times[trial + OVERLAPPED, computing] = once(1e-3 + lost / 2, 2)
        for ignored in (Piece("network", "AllReduce", nbytes=24, phase="evaluate"), Piece("host", "host update")):
            times[trial, ignored] = times[trial + OVERLAPPED, ignored] = once(1.0, 1, 0.9)
    return times


def longer(times: Times) -> dict[str, float]:
    """What a step of each overlapped trial computes longer."""
    found: dict[str, float] = {}
    for (trial, piece), (seconds, count, *_) in times.items():
        if trial.endswith(OVERLAPPED) and piece.lane == "compute":
            alone = times[trial.removesuffix(OVERLAPPED), piece].seconds
            found[trial] = found.get(trial, 0.0) + count * (seconds - alone)
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_overlapping_costs_is_found_again(ranks):
    times = overlapped(ranks)
    assert beside(times, ranks) == (near(LATENCY, rel=1e-6), near(BANDWIDTH, rel=1e-6))
    # Three trials cannot tell four costs apart; they tell what each of them took in all.
    found = taken(times, longer(times), ranks)
    assert min(found.exchange, found.sent, found.move, found.moved) >= 0
    no_moves = {key: value for key, value in times.items() if not key[0].startswith("fetched")}
    exchanges = taken(no_moves, longer(no_moves), ranks)
    assert (exchanges.exchange, exchanges.sent) == (near(COST.exchange, rel=1e-6), near(COST.sent, rel=1e-6))
    assert (exchanges.move, exchanges.moved) == (0.0, 0.0)


def test_what_exchanges_take_is_filed_by_the_bytes_sent():
    times = {key: value for key, value in overlapped(2).items() if not key[0].startswith("fetched")}
    found = taken_tables(times, [longer(times), longer(times)], 2)
    (least, most), lost = found["exchanges"], numbers(found["exchanges"])
    kinds = {kind.__name__: kind for kind in (AllReduce, AllGather, ReduceScatter)}
    sent = [traffic(kinds[p.name], p.nbytes, 2).sent for _, p in times if p.lane == "network" and p.phase == "sync"]
    assert (least, most) == (1, max(sent))
    assert lost[most] == near(COST.exchange + most * COST.sent, rel=1e-3)


def test_effects_that_met_no_computation_took_nothing():
    times = overlapped(2)
    more = times | {("kept" + OVERLAPPED, exchange(AllReduce, 4_000_000)): once(1.0, 1, 0.05)}
    assert taken(more, longer(times), 2) == taken(times, longer(times), 2)


def test_overlapping_is_compared_within_repeats_at_its_own_batches():
    """The machine's speed changes between repeats. Passes are also measured at other batches."""
    found, backward = RankTimes(), Piece("compute", "backward", 0, 8)
    for factor in (1.0, 1.5, 0.7):
        for trial, seconds in (("kept", 1e-3), ("kept" + OVERLAPPED, 1.2e-3)):
            found.add(trial, Measurements({backward: [factor * seconds]}, {backward: 2.0}, {}, 1.0, 1.0))
        other = replace(backward, samples=32)
        found.add("kept", Measurements({other: [1.0]}, {other: 2.0}, {}, 1.0, 1.0))
        found.repeats += 1
    assert found.longer() == {"kept" + OVERLAPPED: near(2 * 0.2e-3)}


def test_a_step_that_is_faster_with_overlap_has_lost_nothing():
    """Chance made it so; nothing becomes negative."""
    times = overlapped(2)
    piece = Piece("compute", "backward", 0, 8)
    for trial in ("kept", "fetched", "sharded"):
        times[trial + OVERLAPPED, piece] = once(0.9e-3, 2)
    assert taken(times, longer(times), 2) == Taken(0.0, 0.0, 0.0, 0.0)
    for key, value in list(times.items()):
        if key[1].lane == "network" and key[0].endswith(OVERLAPPED):
            times[key] = value._replace(seconds=value.seconds / 10)
    assert beside(times, 2) == (0.0, math.inf)


def test_a_model_of_one_unit_overlaps_nothing():
    times: Times = {("flat", Piece("compute", "gradient", samples=8)): once(1e-3)}
    assert taken(times, longer(times), 2) == Taken(0.0, 0.0, 0.0, 0.0)
    assert beside(times, 2) == (0.0, math.inf)


def test_copies_and_what_they_take():
    times: Times = {
        ("fetched", Piece("to device", "move", nbytes=4000, phase="forward")): once(3e-6),
        ("fetched", Piece("to device", "move", nbytes=4000, phase="backward")): once(5e-6),
        ("fetched whole", Piece("to device", "move", nbytes=8000)): once(9e-6),
        ("fetched", Piece("to host", "move", nbytes=4000)): once(2e-6),
        ("fetched" + OVERLAPPED, Piece("to host", "move", nbytes=4000)): once(1.0, 2, 0.5),
        ("fetched", Piece("compute", "forward", 0, 8)): once(1e-4),
        ("fetched" + OVERLAPPED, Piece("compute", "forward", 0, 8)): once(1.04e-4),
    }
    found = moves(times)
    assert numbers(found["device"]) == {4000: near(4e-6), 8000: near(9e-6)}
    assert numbers(found["host"]) == {4000: near(2e-6)}
    lost = numbers(taken_tables(times, [longer(times)], 1)["copies"])
    assert list(lost) == [1, 8000]
    at_4000 = lost[1] + (lost[8000] - lost[1]) * 3999 / 7999
    assert 2 * at_4000 == near(4e-6, rel=1e-3)


# --- how times vary ---------------------------------------------------------------------------------------------------


def test_residuals_are_quantiles_of_each_series_by_its_own_mean():
    slow, fast = [2.0, 4.0, 6.0] * 200, [0.1, 0.2, 0.3] * 200
    found = residuals([{"series": [slow]}, {"series": [fast]}])
    assert len(found) == 100
    assert set(found) == {0.5, 1.0, 1.5}
    assert np.mean(found) == near(1.0, abs=0.01)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_variation_finds_the_dependence_of_steps(correlation):
    random, series = np.random.Generator(np.random.PCG64(3)), []
    for _ in range(20):
        values = [0.0]
        for fresh in random.standard_normal(400):
            values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * fresh)
        series.append([2e-3 * (1 + 0.05 * v) for v in values])
    found = variation([{"series": series, "drift": 0.01}, {"series": [], "drift": 0.03}])
    assert seconds_of(found["lasting"]) == near(2e-3, rel=0.01)
    assert found["correlation"] == near(correlation, abs=0.04)
    assert found["drift"] == 0.02


def test_variation_of_nothing():
    assert variation([{"series": [[1.0]], "drift": 0.0}]) == {"lasting": "0 s", "correlation": 0.0, "drift": 0.0}
    opposite = variation([{"series": [[1.0, 3.0] * 50], "drift": 0.0}])
    assert opposite["correlation"] == 0.0, "never negative"


def measurements(seconds: float) -> Measurements:
    piece = Piece("compute", "gradient", samples=8)
    return Measurements({piece: [seconds, seconds]}, {piece: 1.0}, {}, seconds, seconds)


def repeated(*factors: float) -> RankTimes:
    found = RankTimes()
    for factor in factors:
        found.add("flat", measurements(factor * 1e-3))
        found.repeats += 1
    return found


def test_drift_is_of_whole_repeats():
    assert repeated(1.0, 1.0, 1.0).drift() == 0.0
    assert repeated(0.9, 1.1, 1.0, 0.9, 1.1).drift() == near(math.sqrt(4 * 0.1**2 / 4))
    assert repeated(1.0, 2.0).drift() == 0.0, "two repeats are too few"
    mixed = RankTimes()
    for factor in (0.9, 1.1, 1.0, 0.9, 1.1):  # one piece faster, and the other slower by as many seconds
        mixed.add("flat", measurements(factor * 1e-3))
        mixed.add("kept", measurements((2.0 - factor) * 1e-3))
        mixed.repeats += 1
    assert mixed.drift() == near(0.0, abs=1e-9)


def test_two_divisions_that_give_a_rank_the_same_batch_are_averaged():
    found = RankTimes()
    for _ in range(3):
        for seconds in (1e-3, 3e-3):
            found.add("flat", measurements(seconds))
        found.repeats += 1
    assert list(found.means.values()) == [[near(2e-3)] * 3]


# --- the network, and the whole document ------------------------------------------------------------------------------


def rank(device: str, times: Times) -> dict[str, Any]:
    found = [[trial, vars(piece), *measured] for (trial, piece), measured in times.items()]
    return {"device": device, "times": found, "longer": {}, "drift": 0.01, "series": [[1e-3, 1.1e-3, 0.9e-3]]}


def exchanged(seconds: Any, ranks: int) -> Times:
    times: Times = {}
    for kind in (AllReduce, AllGather, ReduceScatter):
        for nbytes in (4000, 64_000, 4_000_000):
            times["extra", exchange(kind, nbytes)] = once(seconds(traffic(kind, nbytes, ranks)))
    times["flat", Piece("network", "AllReduce", nbytes=24, phase="evaluate")] = once(1.0)
    return times


def test_the_networks_fit_is_of_a_steps_exchanges():
    times = exchanged(lambda what: what.messages * 30e-6 + what.sent / 2e8 + what.added / 1e9, 2)
    found = network([rank("a", times), rank("b", times)], 2)
    assert seconds_of(found["latency"]) == near(30e-6, rel=1e-3)
    assert float(found["bandwidth"].split()[0]) == near(2e8, rel=1e-3)
    assert float(found["reduce_bandwidth"].split()[0]) == near(1e9, rel=1e-3)
    assert found["beside_latency"] == "0 us"
    assert "beside_bandwidth" not in found, "an infinite one is left out"
    assert list(found["all_reduce"]) == [4000, 64_000, 4_000_000]


def test_the_networks_variation_is_that_of_repeats_and_of_the_fit():
    exact = exchanged(lambda what: what.messages * 30e-6 + what.sent / 2e8, 2)
    assert network([rank("a", exact)], 2)["variation"] < 0.001
    repeats = {key: each._replace(apart=0.1) for key, each in exact.items()}
    assert network([rank("a", repeats)], 2)["variation"] == near(0.1, rel=0.01)
    # In another trial everything takes half as long again, so that the fit lies between the two.
    off = exact | {("kept", piece): each._replace(seconds=1.5 * each.seconds) for (_, piece), each in exact.items()}
    assert 0.1 < network([rank("a", off)], 2)["variation"] < 0.3


def test_a_network_whose_times_follow_no_bandwidth_is_refused():
    times = exchanged(lambda what: what.messages * 1e-3, 2)
    with pytest.raises(ScenarioError, match="large messages took no longer than small ones"):
        network([rank("a", times)], 2)


def test_ranks_of_a_device_share_their_means():
    def of(device: str, seconds: float) -> dict[str, Any]:
        times = RankTimes()
        for factor in (1.0, 9.0, 1.0):
            times.add("flat", measurements(factor * seconds))
            times.repeats += 1
        times.series.append([1e-3, 1.1e-3, 0.9e-3])
        return portable(device, times)

    found = computed([of("a", 1e-3), of("b", 5e-3), of("a", 3e-3)], "mlp", 8)
    assert {device: made["mlp"]["gradient"] for device, made in found["devices"].items()} == {
        "a": {8: "2000 us"},
        "b": {8: "5000 us"},
    }
