"""Golden trajectories: what three runs, the fold and the random streams gave when they were last declared right.

All other tests compare two of our own runs, so a change that both runs share passes them: another fold, another stream,
another initialisation. These compare with numbers in files, which only
`pytest tests/whole/test_golden.py --rewrite-goldens` changes.

Losses and norms may differ by TOLERANCE, since instruction sets and thread counts round differently: by 4e-7 at most
between SSE4.1, AVX2, AVX-512, 1 and 2 threads. Clocks, plans and bytes must be equal to the last bit. So must the fold
and the integer streams, which NumPy computes alike on every processor.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline import simulate
from paceline.config.timing import Device, Noise
from paceline.program.fold import fold
from paceline.program.streams import stream, torch_seed
from paceline.sim.noise import run_noise

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 5e-6  # relative
ACCURACY = 2.5 / 360  # absolute: two of the 360 test examples may fall on the other side
NUMBERS = ("train_loss", "test_loss", "grad_norm", "param_norm", "m_norm", "v_norm")
SUMMARY = ("rounds", "steps", "samples", "syncs", "bytes_per_worker", "moved_per_worker", "seconds", "idle_share")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_a_run_gives_what_it_gave(name, request):
    run = simulate(FOLDER / f"{name}.yaml")
    found = {"lines": list(run.lines), "summary": {key: run.summary[key] for key in SUMMARY}}
    golden = _golden(f"{name}.json", found, request)
    assert len(found["lines"]) == len(golden["lines"])
    for ours, theirs in zip(found["lines"], golden["lines"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if key == "accuracy":
                assert ours[key] == pytest.approx(value, abs=ACCURACY)
            elif key in NUMBERS:
                expected = pytest.approx(float("nan") if value is None else value, rel=TOLERANCE, nan_ok=True)
                assert ours[key] == expected, (ours["round"], key)
            else:
                assert ours[key] == value, (ours["round"], key)
    assert found["summary"] == golden["summary"]


def test_the_fold_gives_the_bits_that_it_gave(request):
    """Rank order, the place of the weights and of the division: every one of them changes bits."""
    random = stream(3, "golden")
    values = [random.standard_normal(70_001, np.float32) for _ in range(5)]
    found = {
        f"{op} {weights}": hashlib.sha256(fold(values, weights, op).tobytes()).hexdigest()
        for op in ("mean", "sum")
        for weights in ((1.0,) * 5, (16.0, 16.0, 7.0, 1.0, 3.0))
    }
    found["narrow"] = hashlib.sha256(
        fold([v.astype(np.float16) for v in values], (1, 2, 3, 4, 5), out=np.empty(70_001, np.float32)).tobytes()
    ).hexdigest()
    assert found == _golden("fold.json", found, request)


def test_the_streams_give_the_numbers_that_they_gave(request):
    """A stream is known by its seed, its name and its key; noise is a stream put through an exponential."""
    noise = run_noise(Noise(0.2, 9, 0.1), (Device("cpu", speed=1.0),) * 3)
    assert noise is not None
    drawn = [noise.of(worker) for worker in range(3)]
    found: dict[str, Any] = {
        "permutation": stream(7, "shuffle", 2).permutation(50).tolist(),
        "integers": stream(7, "bn", 1, 3).integers(0, 1000, 20).tolist(),
        "torch_seed": torch_seed(7, "torch", 3),
        "noise": [one.several(1.0, 1.0, 6) for one in drawn],
    }
    golden = _golden("streams.json", found, request)
    assert np.array(found.pop("noise")) == pytest.approx(np.array(golden.pop("noise")), rel=1e-12)
    assert found == golden


def _golden(name: str, found: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the file of that name holds; `found` is written to it first where the flag says so."""
    path = FOLDER / name
    if request.config.getoption("--rewrite-goldens"):
        path.write_text(json.dumps(_plain(found), indent=1) + "\n")
    golden: dict[str, Any] = json.loads(path.read_text())
    return golden


def _plain(value: Any) -> Any:
    """As JSON has it: not-a-number is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
