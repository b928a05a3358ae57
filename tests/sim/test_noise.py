"""Noise on computing times: drawn for each step or each worker, or as a profile measured it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from statistics import NormalDist

import numpy as np
import pytest

from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.profile import Profile, load_profile, merge_profiles, save_profile
from paceline.config.timing import Device, Link, Network, Noise, Timing
from paceline.program.effects import AllReduce, Compute, Phantom, Program, Work, nothing
from paceline.program.errors import ScenarioError
from paceline.program.outcome import Hooks
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.cohort_noise import draws_of
from paceline.sim.engine import simulate
from paceline.sim.noise import DEPENDENT, ClassNoise, ColumnDraws, RunNoise, ahead, varies

RESIDUALS = (0.9, 1.0, 1.0, 1.6)
STEP = Work("step", 8)
QUIET = Device("quiet", speed=8.0)


def computing(count: int) -> Program[None]:
    for _ in range(count):
        yield from Compute(STEP, nothing)


def seconds(timing: Timing, count: int) -> list[float]:
    hooks = Hooks()
    return [o.seconds for o in simulate([computing(count) for _ in timing.devices], timing, hooks)]


def test_a_workers_own_factor_is_drawn_once_and_has_mean_one():
    columns, sigma = 4000, 0.3
    blocks = ClassNoise(Noise(worker_sigma=sigma, seed=5), 0, columns, QUIET)
    first = blocks.block(0)
    assert (first == first[0]).all(), "without sigma, all of a worker's draws are its own factor"
    np.testing.assert_array_equal(blocks.block(7)[3], first[0])
    error = np.sqrt((np.exp(sigma**2) - 1) / columns)
    assert first[0].mean() == pytest.approx(1.0, abs=3 * error)
    assert np.log(first[0]).std() == pytest.approx(sigma, rel=3 / np.sqrt(2 * columns))
    both = ClassNoise(Noise(sigma=0.1, worker_sigma=sigma, seed=5), 0, columns, QUIET)
    alone = ClassNoise(Noise(sigma=0.1, seed=5), 0, columns, QUIET)
    np.testing.assert_array_equal(both.block(2), alone.block(2) * first[0])


def test_a_slow_worker_stays_slow():
    device = Device("d", speed=8.0)
    found = np.array(seconds(Timing((device,) * 6, noise=Noise(worker_sigma=0.2, seed=1)), 10))
    factors = ClassNoise(Noise(worker_sigma=0.2, seed=1), 0, 6, QUIET).block(0)[0]
    np.testing.assert_allclose(found, 10 * factors, rtol=1e-12)
    assert len(set(found)) == 6


def test_residuals_are_drawn_as_often_as_they_were_measured():
    loud = Device("loud", speed=8.0, residuals=RESIDUALS)
    blocks = ClassNoise(Noise(seed=3), 0, 1000, loud)
    drawn = np.concatenate([blocks.block(i) for i in range(4)])
    assert set(np.unique(drawn)) == set(RESIDUALS)
    deviation = np.sqrt(0.25 * 0.75 / drawn.size)
    assert (drawn == 1.6).mean() == pytest.approx(0.25, abs=3 * deviation)
    np.testing.assert_array_equal(blocks.block(1), ClassNoise(Noise(seed=3), 0, 1000, loud).block(1))
    assert varies(Noise(), (QUIET, loud))
    assert not varies(Noise(), (QUIET,))
    one, other = seconds(Timing((QUIET, loud)), 200)
    assert one == pytest.approx(200, rel=1e-12)
    assert other == pytest.approx(200 * np.mean(RESIDUALS), abs=3 * np.std(RESIDUALS) * np.sqrt(200))


PROFILE = Profile.model_validate(
    {"devices": {"cpu": {"mlp": {"step": {8: "1 ms"}}}}, "residuals": {"cpu": {"mlp": RESIDUALS}}}
)


def timing(profile: Profile | None, **cluster) -> Timing:
    return build_timing(Cluster.model_validate(cluster), profile, "mlp", 0)


def test_a_profile_gives_its_residuals_when_asked(tmp_path):
    save_profile(tmp_path / "p.yaml", PROFILE)
    profile = load_profile(tmp_path / "p.yaml")
    assert timing(profile, workers=[{}], noise={"source": "profile"}).devices[0].residuals == RESIDUALS
    assert timing(profile, workers=[{}]).devices[0].residuals == ()
    newer = profile.model_copy(update={"residuals": {"cpu": {"vit": (1.0, 1.1)}}})
    assert merge_profiles(profile, newer).residuals == {"cpu": {"mlp": RESIDUALS, "vit": (1.0, 1.1)}}


def test_residuals_that_nobody_measured_are_refused():
    noise = {"source": "profile"}
    with pytest.raises(ScenarioError, match=r"workers\[0\]: cluster.noise.source is profile, but this device's time"):
        timing(PROFILE, workers=[{"speed": "8 samples/s"}], noise=noise)
    bare = PROFILE.model_copy(update={"residuals": {}})
    with pytest.raises(ScenarioError, match="does not say how times of 'mlp' vary on cpu; measure them with"):
        timing(bare, workers=[{}], noise=noise)
    with pytest.raises(ValueError, match="takes no sigma"):
        Cluster.model_validate({"workers": [{}], "noise": noise | {"sigma": 0.1}})


def test_the_noise_has_a_seed_of_its_own_if_wanted():
    sigma = {"sigma": 0.1}
    workers = [{"speed": "1 samples/s"}]
    drawn = [
        build_timing(Cluster.model_validate({"workers": workers, "noise": sigma | seed}), None, "mlp", 7).noise.seed
        for seed in ({}, {"seed": 0}, {"seed": 3})
    ]
    assert drawn == [7, 0, 3]


# --- residuals that last, depend and drift ----------------------------------------------------------------------------


def test_a_factor_lasts_for_a_steps_worth_of_computing():
    """Whatever the pieces: a new factor comes when less than half of the next piece is left of the old one's time."""

    def drawn(seconds: float, *prices: float) -> list[int]:
        draws = ColumnDraws(iter([[1.0, 2.0, 3.0], [4.0] * 100]), seconds)
        return [round(draws.one(price) / price) for price in prices]

    assert drawn(0.0, 1.0, 2.0, 0.1) == [1, 2, 3]
    assert drawn(1.0, 1.0, 1.0, 1.0) == [1, 2, 3]
    assert drawn(1.0, 0.25, 0.25, 0.5, 0.25, 0.75, 1.0) == [1, 1, 1, 2, 2, 3]
    assert drawn(1.0, 2.0, 2.0) == [1, 2], "a longer piece has one factor, too"
    assert drawn(1.0, 0.7, 0.7, 0.7) == [1, 2, 3], "0.3 s are left, less than half of 0.7 s"
    assert drawn(1.0, 0.6, 0.6, 0.6) == [1, 1, 2], "0.4 s are left, more than half of 0.6 s"
    assert drawn(1.0, *[0.1] * 100).count(1) in (10, 11)


def test_a_step_in_pieces_varies_as_much_as_a_whole_one():
    """Without lasting, sixteen pieces would draw sixteen factors, whose mean hardly varies."""
    count, pieces = 4000, 16

    def in_pieces() -> Program[None]:
        part = Work("gradient", 1)
        for _ in range(count * pieces):
            yield from Compute(part, nothing)

    spread = {}
    for seconds_each in (0.0, 1.0):
        device = Device("d", {"gradient": ((1.0, 1 / pieces),)}, residuals=RESIDUALS, lasting=seconds_each)
        factors = ClassNoise(Noise(seed=4), 0, 1, device).column(0)
        steps = np.array([sum(factors.several(1 / pieces, 1 / pieces, pieces)) for _ in range(count)])
        spread[seconds_each] = steps.std()
        (found,) = simulate([in_pieces()], Timing((device,), noise=Noise(seed=4)), Hooks())
        assert found.seconds == pytest.approx(steps.sum(), rel=1e-9)
        assert steps.mean() == pytest.approx(np.mean(RESIDUALS), abs=4 * np.std(RESIDUALS) / np.sqrt(count))
    assert spread[1.0] == pytest.approx(np.std(RESIDUALS), rel=0.1)
    assert spread[0.0] == pytest.approx(np.std(RESIDUALS) / np.sqrt(pieces), rel=0.1)


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_residuals_depend_on_the_one_before(correlation):
    """Their values stay those measured, each as often; normal residuals have the correlation that was asked for."""
    residuals = tuple(1 + 0.05 * NormalDist().inv_cdf((k + 0.5) / 100) for k in range(100))
    device = Device("d", speed=1.0, residuals=residuals, correlation=correlation)
    columns = 3000
    block = ClassNoise(Noise(seed=2), 0, columns, device).block(0)
    assert set(np.unique(block)) <= set(residuals)
    assert block.shape == (DEPENDENT, columns)
    apart = block - block.mean()
    for lag in (1, 2):
        found = (apart[lag:] * apart[:-lag]).mean() / (apart**2).mean()
        assert found == pytest.approx(correlation**lag, abs=0.02)
    for row in (0, 1, DEPENDENT - 1):  # at each step the factors are drawn alike
        assert block[row].mean() == pytest.approx(1.0, abs=4 * 0.05 / np.sqrt(columns))
        assert block[row].std() == pytest.approx(0.05, rel=0.05)
    shuffled = ClassNoise(Noise(seed=2), 0, columns, Device("d", residuals=residuals)).block(0)
    assert abs(((shuffled - 1)[1:] * (shuffled - 1)[:-1]).mean()) < 0.02 * 0.05**2


def test_quantiles_are_drawn_equally_often():
    device = Device("d", speed=1.0, residuals=RESIDUALS, correlation=0.5)
    drawn = np.concatenate([ClassNoise(Noise(seed=8), 0, 2000, device).block(i).ravel() for i in range(2)])
    counts = [(drawn == value).mean() for value in (0.9, 1.0, 1.6)]
    assert counts == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_all_workers_of_a_run_share_a_factor():
    quiet, loud = Device("quiet", speed=8.0), Device("loud", speed=8.0, residuals=(1.0,))
    sigma, factors = 0.2, []
    for seed in range(300):
        found = seconds(Timing((quiet, loud, quiet), noise=Noise(seed=seed, run_sigma=sigma)), 2)
        assert found == [pytest.approx(found[0])] * 3
        factors.append(found[0] / 2)
    assert varies(Noise(run_sigma=sigma), (quiet,))
    assert np.mean(factors) == pytest.approx(1.0, abs=3 * sigma / np.sqrt(300))
    assert np.log(factors).std() == pytest.approx(sigma, rel=0.15)
    both = seconds(Timing((quiet, loud, quiet), noise=Noise(worker_sigma=0.3, seed=1, run_sigma=sigma)), 2)
    own = seconds(Timing((quiet, loud, quiet), noise=Noise(worker_sigma=0.3, seed=1)), 2)
    assert np.array(both) == pytest.approx(np.array(own) * factors[1])


def exchanging(count: int) -> Program[None]:
    for _ in range(count):
        yield from AllReduce(Phantom(400))


def test_all_exchanges_of_a_run_share_a_factor():
    sigma = 0.2
    for shape in ("star", "bus", "two_level", "matrix"):
        matrix = ((0.0, 50.0), (50.0, 0.0)) if shape == "matrix" else None
        ports = (60.0, 40.0) if shape == "star" else None
        inside = Link(100.0, 0.1) if shape == "two_level" else None
        network = Network(shape, 50.0, 0.25, inside, matrix, ports, reduce_bandwidth=500.0)

        def run(noise: Noise, network: Network = network) -> float:
            timing = Timing((QUIET, QUIET), network, noise)
            outcomes = simulate([exchanging(3), exchanging(3)], timing, Hooks())
            groups = [Cohort(exchanging(3), (0, 1))]
            assert simulate_cohorts(groups, timing, Hooks())[1].seconds == outcomes[1].seconds
            return outcomes[0].seconds

        usual = run(Noise())
        factors = [run(Noise(seed=seed, network_sigma=sigma)) / usual for seed in range(200)]
        assert np.log(factors).std() == pytest.approx(sigma, rel=0.2), "two runs differ, by all that exchanges take"
        assert np.mean(factors) == pytest.approx(1.0, abs=3 * sigma / np.sqrt(200))


def running(each):
    total = 0.0
    for seconds in each:
        total += seconds
    return total


def test_vectors_hold_what_columns_hold():
    """The cohort engine's rows against SimPy's columns, for classes whose prices and lasting differ."""
    kinds = [
        Device("a", speed=1.0, residuals=RESIDUALS, lasting=1.0, correlation=0.4),
        Device("b", speed=1.0, residuals=(0.8, 1.2), lasting=0.5),
        Device("c", speed=1.0),
    ]
    devices = [kinds[k] for k in (1, 0, 2, 0, 1, 0)]
    noise = RunNoise(Noise(0.1, 6, run_sigma=0.1), devices)
    order = [1, 3, 5, 0, 4, 2]  # by class
    own = {"a": 0.3, "b": 0.4, "c": 0.1}
    price = np.array([own[devices[w].name] for w in order])
    rows, columns = draws_of([noise], order), [noise.of(w) for w in order]
    kinds_of_asking = [(prices[None] * times, prices[None]) for prices in (np.full(6, 0.2), price) for times in (1, 2)]
    asked = [(k // row, row) for row in (1, 1, 7, 40) for k in range(100)]  # so often in a row
    for k, row in asked:
        times, (starts, prices) = 1 + k % 4, kinds_of_asking[2 * bool(k % 3) + k % 2]
        pairs = list(zip(starts[0].tolist(), prices[0].tolist(), strict=True))
        expected = [running(column.several(*pair, times)) for column, pair in zip(columns, pairs, strict=True)]
        found = np.concatenate([draws.total(starts, prices, times) for draws in rows], axis=1)
        assert found.tolist() == [expected], (k, row)


def test_threads_that_draw_ahead_change_nothing_and_end_with_the_run(monkeypatch):
    monkeypatch.setattr("paceline.sim.noise.BLOCK", 32)
    timing = Timing((QUIET, QUIET, QUIET), noise=Noise(0.1, 4, worker_sigma=0.1))

    def run(threads: int) -> list[float]:
        outcomes = simulate_cohorts([Cohort(computing(400), (0, 1, 2))], timing, Hooks(), threads)
        return [outcome.seconds for outcome in outcomes]

    before = threading.active_count()
    assert run(3) == run(1) == seconds(timing, 400)
    assert threading.active_count() == before
    with ThreadPoolExecutor(3) as pool:
        assert list(islice(ahead(lambda index: index, pool), 50)) == list(range(50))
