"""Values that travel in reduced precision: rounded as torch rounds them; their bytes are counted and priced."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paceline.config.timing import Device, Network, Timing
from paceline.learning import process
from paceline.program import cast
from paceline.program.effects import AllGather, AllReduce, Broadcast, Phantom, ReduceScatter
from paceline.program.fold import PIECE, fold
from paceline.program.outcome import Hooks
from paceline.program.traffic import traffic
from paceline.program.wire import DTYPES, narrowed, objection, round_trip, wire_bytes
from paceline.sim.engine import simulate

TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16}
wires = st.sampled_from(["bf16", "fp16"])
vectors = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


@given(vectors, wires)
@example(np.array([65_519.996, 65_520, 2**-24, 2**-25, 3.3961775e38, -0.0, np.nan], np.float32), "fp16")
@example(np.array([65_519.996, 1 + 2**-8, 1e-40, 2**-133, 3.3961775e38, -0.0, np.nan], np.float32), "bf16")
def test_rounding_is_torchs(value, wire):
    kept = value.copy()
    expected = torch.from_numpy(value).to(TORCH[wire])
    found = narrowed(value, wire)
    assert found.dtype == DTYPES[wire]
    number = ~np.isnan(value)
    np.testing.assert_array_equal(found.view(np.int16)[number], expected.view(torch.int16).numpy()[number])
    np.testing.assert_array_equal(np.isnan(found), ~number)
    arrived = round_trip(kept, wire)
    assert arrived is kept
    np.testing.assert_array_equal(arrived.view(np.int32)[number], expected.float().view(torch.int32).numpy()[number])


@given(
    st.lists(st.floats(0.125, 8), min_size=1, max_size=4), st.integers(0, 50), wires, st.sampled_from(["mean", "sum"])
)
def test_fold_of_what_arrives_is_in_fp32(weights, size, wire, op):
    rng = np.random.default_rng(size)
    sent = [narrowed(rng.standard_normal(size).astype(np.float32), wire) for _ in weights]
    out = np.empty(size, np.float32)
    assert fold(sent, weights, op, out) is out
    np.testing.assert_array_equal(out, fold([value.astype(np.float32) for value in sent], weights, op))


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_long_vectors_are_rounded_in_pieces(wire):
    value = np.random.default_rng(0).standard_normal(2 * PIECE + 3).astype(np.float32)
    np.testing.assert_array_equal(round_trip(value.copy(), wire), narrowed(value, wire).astype(np.float32))


@pytest.fixture(params=["numpy", "torch"])
def converted(request, monkeypatch):
    """Converts vectors by one of the two, whatever their length."""
    monkeypatch.setattr(cast, "SHORT", 0)
    monkeypatch.setattr(cast, "_long", [process.convert] if request.param == "torch" else [])
    return cast.convert


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_every_narrow_number_is_widened_alike(wire, converted):
    narrow = np.arange(2**16, dtype=np.uint16).view(DTYPES[wire])
    found = converted(narrow, np.empty(2**16, np.float32))
    np.testing.assert_array_equal(found, narrow.astype(np.float32))


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_every_narrow_number_and_what_lies_next_to_the_middles_is_rounded_alike(wire, converted):
    """Between two neighbours the middle goes to the even one, and what is next to it to the nearer one."""
    with np.errstate(invalid="ignore"):  # NaNs
        narrow = np.arange(2**15, dtype=np.uint16).view(DTYPES[wire]).astype(np.float32)
    narrow = narrow[np.isfinite(narrow)].astype(np.float64)
    middles = ((narrow[:-1] + narrow[1:]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(edge)) for edge in (0, np.inf)]
    values = np.concatenate([narrow.astype(np.float32), middles, *near, np.array([70_000, 3.4e38, np.inf], np.float32)])
    values = np.concatenate([values, -values])
    expected = torch.from_numpy(values).to(TORCH[wire]).view(torch.int16).numpy()
    np.testing.assert_array_equal(converted(values, np.empty(len(values), DTYPES[wire])).view(np.int16), expected)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(values.astype(DTYPES[wire]).view(np.int16), expected)


def test_what_cannot_travel():
    assert objection(np.zeros(3), "fp32") is None
    assert objection(np.zeros(3, np.float32), "bf16") is None
    assert objection(Phantom(12), "fp16") is None
    assert "float64" in str(objection(np.zeros(3), "bf16"))
    assert "int64" in str(objection(np.zeros(3, np.int64), "fp16"))
    assert "bf16" in str(objection(np.zeros(3, np.float32), "fp8"))


def simulated(kind, value, wire):
    """(seconds, bytes sent) of one such collective among three workers."""

    def program():
        yield from kind(value, wire=wire)

    hooks = Hooks()
    timing = Timing((Device("device"),) * 3, Network("star", 1e6, 1e-3))
    return [(o.seconds, o.sent) for o in simulate([program() for _ in range(3)], timing, hooks)]


@pytest.mark.parametrize("kind", [AllReduce, ReduceScatter, AllGather, Broadcast])
@pytest.mark.parametrize("value", [Phantom(400_000), np.zeros(100_000, np.float32)], ids=["phantom", "array"])
@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_simulator_prices_what_travels(kind, value, wire):
    found = simulated(kind, value, wire)
    assert found == simulated(kind, Phantom(200_000), "fp32")
    whole = 600_000 if kind is AllGather else 200_000
    assert found[0][1] == {"sync": traffic(kind, whole, 3).sent}
    assert wire_bytes(2 * whole, wire) == whole
