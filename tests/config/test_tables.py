"""What a profile's pieces cost: tables, merged units, updates of a part, copies, and the network that was described."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from paceline.algorithms.costs import Holding, ModelCost, Works, together
from paceline.config import yaml
from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.profile import MeasuredNetwork, Profile, load_profile, merge_profiles, save_profile
from paceline.config.tables import PassTimes, PieceTimes, interpolate
from paceline.config.timing import MEMORY_BANDWIDTH, Device, Timing
from paceline.program.effects import AllReduce, Move, Phantom, Work
from paceline.program.errors import ScenarioError
from paceline.sim.base_driver import Beside, beside, move_seconds

near = pytest.approx


# --- tables -----------------------------------------------------------------------------------------------------------


def test_below_its_first_point_a_table_is_never_less_than_in_proportion():
    """The first line may fall to zero before the samples do: then it says nothing of them."""
    steep = ((8.0, 1.0), (16.0, 5.0))
    assert interpolate(steep, 12) == 3.0
    assert interpolate(steep, 20) == 7.0
    assert interpolate(steep, 4) == 0.5  # the line would say -1
    assert interpolate(steep, 7.9) == near(0.9875)  # 0.95 on the line
    flat = ((8.0, 4.0), (16.0, 5.0))
    assert interpolate(flat, 4) == 3.5  # on the line, which is more than the half of 4
    assert interpolate(flat, 0) == 3.0
    assert interpolate(steep, 0) == 0.0
    assert interpolate(((8.0, 4.0),), 2) == 1.0
    assert interpolate(((0.0, 4.0),), 2) == 4.0


# --- passes of units --------------------------------------------------------------------------------------------------

SHARES = (0.4, 0.1, 0.3, 0.2)
FORWARD = PassTimes(((8.0, 1.0), (16.0, 2.0)), SHARES, cut=0.01)


def unit(first: int, stop: int, samples: int = 8, phase: str = "forward", held: Any = "kept") -> Work:
    return Work(phase, samples, unit=first, finest=(first, stop), held=held)


def test_a_merged_unit_saves_the_cuts_within_it():
    assert [FORWARD.seconds(unit(k, k + 1)) for k in range(4)] == list(SHARES)
    assert FORWARD.seconds(unit(0, 2)) == near(0.5 - 0.01)
    assert FORWARD.seconds(unit(0, 4)) == near(1.0 - 3 * 0.01)
    assert FORWARD.seconds(unit(0, 4, 12)) == near(1.5 - 3 * 0.01)
    for cuts in ([0, 1, 4], [0, 2, 3, 4]):  # whatever the units are, they lose what they do not cut
        parts = [unit(a, b) for a, b in pairwise(cuts)]
        assert sum(map(FORWARD.seconds, parts)) == near(1.0 - 0.01 * (4 - len(parts)))
    assert PassTimes(((8.0, 1e-3),), SHARES, cut=1.0).seconds(unit(0, 4)) == 0.0, "never less than nothing"


def test_works_name_the_finest_units_of_each_unit():
    model = together([ModelCost(100, 0, 10, 1) for _ in range(5)])
    assert [Works(model, 8, 0).unit("forward", k, 8).finest for k in range(5)] == [(k, k + 1) for k in range(5)]
    merged = together([together(model.units[:2]), model.units[2], together(model.units[3:])])
    works = Works(merged, 8, 0)
    assert [works.unit("backward", k, 8).finest for k in range(3)] == [(0, 2), (2, 3), (3, 5)]
    assert works.unit("backward", 0, 8).held == "kept"
    for elsewhere in (Holding(host=True), Holding(parts=2)):
        assert Works(merged, 8, 0, held=elsewhere).unit("forward", 0, 8).held == "fetched"


PIECES = PieceTimes(
    passes={("kept", "forward"): FORWARD, ("fetched", "forward"): PassTimes(((8.0, 3.0),), SHARES)},
    updates={"update": ((0.25, 1.0), (1.0, 4.0)), "host update": ((0.5, 10.0), (1.0, 12.0))},
    moves={"host": ((0.0, 1e-5), (1000.0, 2e-5)), "device": ((1000.0, 4e-5),)},
    taken=((1000.0, 1e-5),),
)
STEP = Work("synchronous step", 8)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (unit(1, 2), 0.1),
        (unit(1, 2, held="fetched"), 0.3),
        (unit(1, 2, phase="backward"), None),
        (unit(1, 2, held=""), None),
        (Work("update", fraction=0.5, whole=STEP), 2.0),
        (Work("update", fraction=1.0, whole=STEP), 4.0),
        (Work("update", fraction=0.125, whole=STEP), 0.5),  # in proportion, and so on the line
        (Work("host update", fraction=0.25, whole=STEP), 9.0),
        (Work("gradient", 8, whole=STEP), None),
    ],
)
def test_a_piece_has_the_price_that_was_measured(work, seconds):
    assert PIECES.seconds(work) == (None if seconds is None else near(seconds))
    device = Device("d", {"gradient": ((8.0, 6.0),), "update": ((0.0, 5.0),)}, slowdown=3.0, pieces=PIECES)
    if seconds is not None:
        assert device.seconds(work) == near(3 * seconds)


def test_a_rounds_first_local_step_has_a_price_of_its_own():
    works, tables = Works(ModelCost(100, 0, 10, 1), 8, 0), {"step": ((8.0, 6.0),)}
    cold = Device("d", tables, slowdown=2.0, pieces=PieceTimes(first=((4.0, 5.0), (8.0, 7.0))))
    assert (cold.seconds(works.first_step), cold.seconds(works.step), cold.step_seconds(8)) == (14.0, 12.0, 12.0)
    assert Device("d", tables).seconds(works.first_step) == 6.0, "not measured: as any other"


def test_what_was_not_measured_in_pieces_is_a_part_of_the_whole():
    tables = {"gradient": ((8.0, 6.0),), "update": ((0.0, 5.0),)}
    works = Works(together([ModelCost(100, 0, 10, 1) for _ in range(4)]), 8, 0)
    plain, known = Device("d", tables), Device("d", tables, pieces=PIECES)
    assert known.seconds(works.gradient) == plain.seconds(works.gradient) == 6.0
    assert plain.seconds(works.update) == 5.0
    assert known.seconds(works.update) == 4.0
    assert [plain.seconds(works.unit(phase, 0, 8)) for phase in ("forward", "backward")] == [near(0.5), near(1.0)]
    assert [known.seconds(works.unit(phase, 0, 8)) for phase in ("forward", "backward")] == [0.4, near(1.0)]


def test_what_nothing_prices_takes_the_time_of_its_bytes():
    works = Works(ModelCost(1_000_000, 0, 1e6, 1e3), 8, 0)
    for known, rate in (({}, MEMORY_BANDWIDTH), ({"memory_bandwidth": 2e9}, 2e9)):
        device = Device("d", {"step": ((8.0, 1.0),)}, **known)  # type: ignore[arg-type]
        assert works.transform.bytes == 12e6
        assert device.seconds(works.transform) == near(12e6 / rate)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_take_what_was_measured_else_the_host_links_time():
    device = Device("d", speed=1.0, host_link=1e6, slowdown=2.0, pieces=PIECES)
    assert move_seconds(device, Move(Phantom(500), "host")) == near(1.5e-5)
    assert move_seconds(device, Move(Phantom(500), "device")) == near(2e-5)
    assert move_seconds(Device("d", speed=1.0, host_link=1e6), Move(Phantom(500), "device")) == near(5e-4)
    assert move_seconds(Device("d", speed=1.0), Move(Phantom(500), "device")) == 0.0
    network = timing(workers=[{}]).network
    assert beside(device, network, Move(Phantom(500), "host"), 2) == Beside(near(2 * 0.5e-5), 0.0)
    assert beside(Device("d", speed=1.0), network, Move(Phantom(500), "host"), 2) == (0.0, 0.0)


# --- the network ------------------------------------------------------------------------------------------------------

NETWORK = {
    "latency": "20 us",
    "bandwidth": "80 MB/s",
    "reduce_bandwidth": "2 GB/s",
    "described": "100 MB/s",
    "beside_latency": "5 us",
    "beside_bandwidth": "400 MB/s",
}
PROFILE = Profile.model_validate({"version": 2, "devices": {"cpu": {"mlp": {"step": {8: "1 ms"}}}}, "network": NETWORK})


def timing(profile: Profile | None = PROFILE, **cluster: Any) -> Timing:
    return build_timing(Cluster.model_validate({"workers": [{"count": 2}]} | cluster), profile, "mlp", 0)


@pytest.mark.parametrize(
    ("given", "bandwidth"),
    [
        ({}, 80e6),
        ({"efficiency": 0.5}, 40e6),  # of the measured one
        ({"bandwidth": "100 MB/s"}, 80e6),  # the network that was measured
        ({"bandwidth": "100 MB/s", "efficiency": 0.5}, 80e6),  # which was measured with its efficiency
        ({"bandwidth": "800 Mbit/s"}, 80e6),
        ({"bandwidth": "200 MB/s"}, 200e6),  # another one
        ({"bandwidth": "200 MB/s", "efficiency": 0.5}, 100e6),
        ({"link": "1gbe"}, 125e6),
    ],
)
def test_a_network_is_the_measured_one_if_it_is_described_alike(given, bandwidth):
    assert timing(network=given).network.bandwidth == near(bandwidth)


def test_a_profile_says_what_exchanges_and_computations_cost_one_another():
    network = timing(network={"bandwidth": "200 MB/s", "latency": "7 us"}).network
    assert (network.latency, network.reduce_bandwidth) == (7e-6, 2e9)
    assert network.beside
    slow = Device("slow", speed=1.0, slowdown=4.0, pieces=PieceTimes(exchange_taken=((1.0, 3e-6), (1e6, 1e-3))))
    found = beside(slow, network, AllReduce(Phantom(1_000_000)), 2)  # two messages, 1 MB sent
    assert found.taken == near(4 * 1e-3)
    assert found.longer == near(2 * 5e-6 + 1e6 / 400e6)
    alone = beside(slow, network, AllReduce(Phantom(1_000_000), group=(1,)), 2)
    assert alone == (0.0, 0.0)
    bare = timing(None, workers=[{"speed": "1 samples/s"}], network={"bandwidth": "200 MB/s"}).network
    assert not bare.beside
    assert beside(slow, bare, AllReduce(Phantom(1_000_000)), 2) == (near(4 * 1e-3), 0.0)
    assert beside(Device("bare", speed=1.0), bare, AllReduce(Phantom(1_000_000)), 2) == (0.0, 0.0)
    assert bare.beside_bandwidth == math.inf


def test_what_a_network_was_described_as_is_kept_and_replaced_whole(tmp_path):
    save_profile(tmp_path / "p.yaml", PROFILE)
    read = load_profile(tmp_path / "p.yaml")
    assert read == PROFILE
    assert read.network is not None
    assert read.network.described == 100e6
    newer = Profile(version=2, devices={}, network=MeasuredNetwork(latency="1 us", bandwidth="1 GB/s"))
    merged = merge_profiles(read, newer)
    assert merged.network == newer.network
    assert merge_profiles(newer, Profile(devices={})).network == newer.network


# --- the file ---------------------------------------------------------------------------------------------------------

FIRST_FORM = """
machine: {processor: x}
devices:
  cpu:
    mlp:
      step: {8: 1 ms, 16: 2 ms}
      gradient: {8: 0.9 ms, 16: 1.8 ms}
      update: {0: 0.2 ms}
residuals: {cpu: {mlp: [0.9, 1.0, 1.4]}}
max_batch: {cpu: {mlp: 512}}
network: {latency: 20 us, bandwidth: 1 GB/s, all_reduce: {4000: 30 us}}
"""


@pytest.mark.parametrize("version", ["", "version: 1"])
def test_a_profile_of_the_first_form_is_still_read(version, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(version + FIRST_FORM)
    old = load_profile(path)
    found = timing(old, noise={"source": "profile"})
    device = found.devices[0]
    assert (device.step_seconds(16), device.max_batch) == (2e-3, 512)
    assert (device.residuals, device.lasting, device.correlation) == ((0.9, 1.0, 1.4), 0.0, 0.0)
    assert found.noise.run_sigma == 0.0
    assert not found.network.beside
    assert PieceTimes().seconds(unit(0, 1)) is None
    works = Works(together([ModelCost(100, 0, 10, 1) for _ in range(4)]), 8, 0)
    assert sum(device.seconds(works.unit(p, k, 8)) for p in ("forward", "backward") for k in range(4)) == near(0.9e-3)
    save_profile(path, merge_profiles(old, PROFILE))
    both = yaml.read_mapping(path)
    assert (both["version"], set(both["max_batch"])) == (2, {"cpu"})


VARYING = PROFILE.model_copy(update={"residuals": {"cpu": {"mlp": (0.5, 1.5)}}})


def test_a_profiles_noise_lasts_depends_and_drifts():
    document = {"cpu": {"mlp": {"lasting": "2 ms", "correlation": 0.4, "drift": 0.03}}}
    varying = Profile.model_validate(VARYING.model_dump(mode="json", exclude_none=True) | {"variation": document})
    found = timing(varying, noise={"source": "profile"})
    assert (found.devices[0].lasting, found.devices[0].correlation, found.noise.run_sigma) == (2e-3, 0.4, 0.03)
    assert timing(varying, noise={"source": "profile", "run_sigma": 0.0}).noise.run_sigma == 0.0
    quiet = timing(varying)
    assert (quiet.devices[0].residuals, quiet.devices[0].lasting, quiet.noise.run_sigma) == ((), 0.0, 0.0)


def test_a_profiles_network_varies_where_its_noise_is_drawn():
    network = {"latency": "1 us", "bandwidth": "1 GB/s", "variation": 0.2}
    varying = Profile.model_validate(VARYING.model_dump(mode="json", exclude_none=True) | {"network": network})
    assert timing(varying, noise={"source": "profile"}).noise.network_sigma == 0.2
    assert timing(varying, noise={"source": "profile", "network_sigma": 0.1}).noise.network_sigma == 0.1
    assert timing(varying, noise={"sigma": 0.1}).noise.network_sigma == 0.0
    assert timing(varying, noise={"network_sigma": 0.1}).noise.network_sigma == 0.1


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("version", 3, "version"),
        ("pieces", {"cpu": {"mlp": {"units": {"bought": {}}}}}, "pieces"),
        ("pieces", {"cpu": {"mlp": {"updates": {"update": {"1.5": "1 ms"}}}}}, "pieces"),
        ("moves", {"cpu": {"device": {8: "fast"}}}, "moves"),
        ("variation", {"cpu": {"mlp": {"lasting": "1 ms", "correlation": 1.0}}}, "correlation"),
        ("network", NETWORK | {"beside_bandwidth": "0 B/s"}, "beside_bandwidth"),
    ],
)
def test_a_spoilt_profile_is_one_line(section, value, says, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.dump(PROFILE.model_dump(mode="json", exclude_none=True) | {section: value}))
    with pytest.raises(ScenarioError, match=says) as error:
        load_profile(path)
    assert len(str(error.value).splitlines()) == 1
