"""Noise on computing times: drawn for each step or each worker, or as a profile measured it."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.profile import Profile, load_profile, merge_profiles, save_profile
from paceline.config.timing import Device, Noise, Timing
from paceline.program.effects import Compute, Program, Work, nothing
from paceline.program.errors import ScenarioError
from paceline.program.outcome import Hooks
from paceline.sim.engine import simulate
from paceline.sim.noise import ClassNoise, varies

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
