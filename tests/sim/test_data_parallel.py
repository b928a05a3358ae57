"""The data-parallel modes on the clock: bytes per step as they are counted, and overlap against closed forms.

Notation of the closed forms: U units, c seconds of a unit's forward and as many of its backward pass, x seconds of a
unit's all-reduce, g = x / 2 of its gathering or scattering, l of its copy to or from the host, h of the update of all
parameters on the host. All of a step's difference: what a run of two steps takes beyond a run of one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import paceline
from kit.paths import DOCS, ROOT, SCENARIOS
from paceline.algorithms.aggregations import Gradients
from paceline.algorithms.costs import ModelCost, Works, footprint, together
from paceline.algorithms.loop import train
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.placements import Offloaded, Placement, Replicated, Sharded, ShardedOffloaded
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.splits import Shares
from paceline.algorithms.strategy import Strategy
from paceline.config.scenario import load
from paceline.config.timing import MEMORY_BANDWIDTH, Device, Network, Timing
from paceline.job import resolve
from paceline.learning.works import held_by
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate
from paceline.studies.points import read_list

VIT = SCENARIOS / "papers/lshdp_vit_l_16_4nodes_1gbit.yaml"
NAMES = ("ddp", "ddp-fp", "fsdp", "fsdp-offload", "lsdp")
MODES = dict(zip(NAMES, read_list(SCENARIOS / "sweeps/lshdp_modes.yaml"), strict=True))
P, N = 304_326_632, 4
PLACES = ("replicated", "offloaded", "sharded")
# Free computing: what is left is the network's time.
FREE = "cluster.workers=[{device: free, count: 4, step_time: 1e-12 s}]"
EVEN = "strategy.split={given: {batches: [4, 4, 4, 4]}}"


# -- the paper's model: bytes and the network's seconds ----------------------------------------------------------------


@cache
def vit(placement: str, steps: int, *settings: str) -> dict[str, Any]:
    more = (f"strategy.placement={placement}", f"budget.steps={steps}", "report={}", FREE, EVEN, *settings)
    return paceline.simulate(VIT, timing_only=True, settings=("strategy={preset: lsdp}", *more)).summary


def per_step(placement: str, key: str, *settings: str) -> float:
    """What a step adds to a summary's number (worker 0's)."""

    def of(steps: int) -> float:
        found = vit(placement, steps, *settings)[key]
        if isinstance(found, list):
            found = found[0]
        return float(sum(found.values()) if isinstance(found, dict) else found)

    return of(3) - of(2)


def units() -> list[int]:
    """Parameters of the model's units."""
    return [unit.parameters for unit in resolve(load(VIT), SCENARIOS).problem.cost.units]


@pytest.mark.parametrize(("name", "b"), [("fp16", 2), ("fp32", 4)])
@pytest.mark.parametrize("place", ["{replicated: {overlap: false, wire: %s}}", "{replicated: %s}", "{offloaded: %s}"])
def test_ddp_and_lsdp_send_what_a_ring_all_reduce_sends(place, name, b):
    sent = per_step(place % name, "bytes_per_worker")
    assert sent == pytest.approx(2 * (N - 1) / N * b * (P + 2), rel=1e-12)  # the loss rides along


@pytest.mark.parametrize("kind", ["sharded", "sharded_offloaded"])
@pytest.mark.parametrize(("name", "b"), [("fp16", 2), ("fp32", 4)])
def test_fsdp_sends_half_as_much_again(kind, name, b):
    padded = [-(-unit // N) * N for unit in units()]
    loss = (N - 1) * 2 * 4
    in_turn = per_step(f"{{{kind}: {{wire: {name}, overlap: false}}}}", "bytes_per_worker")
    assert in_turn == pytest.approx(3 * (N - 1) / N * b * sum(padded) + loss, rel=1e-12)
    for prefetch in (1, 3):
        kept = padded[-prefetch - 1 :]  # the last units' parameters are still there when backward begins
        sent = per_step(f"{{{kind}: {{wire: {name}, prefetch: {prefetch}}}}}", "bytes_per_worker")
        assert sent == pytest.approx((N - 1) / N * b * (3 * sum(padded) - sum(kept)) + loss, rel=1e-12)


def test_the_modes_send_what_the_method_says():
    fp16 = {place: per_step(f"{{{place}: {{wire: fp16, overlap: false}}}}", "bytes_per_worker") for place in PLACES}
    assert fp16["replicated"] == pytest.approx(0.913e9, abs=5e5)
    assert fp16["offloaded"] == fp16["replicated"]
    assert fp16["sharded"] == pytest.approx(1.369e9, abs=1e6)


@pytest.mark.parametrize(("place", "seconds"), [("replicated", 7.30), ("offloaded", 7.30), ("sharded", 10.96)])
def test_the_networks_seconds_at_1_gbit(place, seconds):
    placement = f"{{{place}: {{wire: fp16, overlap: false}}}}"
    settings = ("cluster.network={link: 1gbe}",)
    found = per_step(placement, "seconds", *settings)
    assert found == pytest.approx(seconds, abs=0.005)
    assert found == pytest.approx(per_step(placement, "bytes_per_worker", *settings) * 8 / 1e9, rel=1e-6)


def test_the_host_link_carries_parameters_twice_and_gradients_once():
    for wire in ("fp32", "fp16"):  # on the wire; in memory they are fp32
        moved = per_step(f"{{offloaded: {{wire: {wire}, overlap: false}}}}", "moved_per_worker")
        assert moved == pytest.approx(12 * (P + 2), rel=1e-12)
    assert moved == pytest.approx(3.65e9, rel=1e-3)
    last = units()[-2:]  # with overlap, two units are still on the device when backward begins
    overlapped = per_step("{offloaded: fp16}", "moved_per_worker")
    assert overlapped == pytest.approx(12 * (P + 2) - 4 * (sum(last) + 2), rel=1e-12)
    assert per_step("{replicated: fp16}", "moved_per_worker") == 0
    directions = vit("{offloaded: fp16}", 2)["moved_per_worker"][0]  # nothing else is counted, no evaluation
    assert sum(directions.values()) == pytest.approx(2 * overlapped, rel=1e-12)
    assert directions["to host"] == 2 * 4 * (P + 2)


def held(placement: str) -> Any:
    job = resolve(load(VIT, ["strategy={preset: lsdp}", f"strategy.placement={placement}"]), SCENARIOS)
    return job, [footprint(worker.works, 2, 3 * 224 * 224) for worker in job.problem.phantoms(job.plan)]


def test_host_memory_holds_parameters_gradients_and_adams_two():
    _, prints = held("{offloaded: fp16}")
    assert prints[0].host == pytest.approx(16 * P, rel=1e-8)
    assert prints[0].device <= 4 * prints[0].largest_unit
    _, prints = held("{sharded: fp16}")
    assert prints[0].device - 4 * prints[0].largest_unit == pytest.approx(16 * P / N, rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_files_largest_batches_fill_the_memory(mode):
    job, prints = held(json.dumps(MODES[mode]["strategy.placement"]))
    for device, found, most in zip(job.timing.devices, prints, MODES[mode]["strategy.max"], strict=True):
        left = device.memory - found.device
        sample = job.problem.cost.activations
        assert most * sample <= left < (most + 1) * sample, (device.name, left / sample)


def test_every_mode_runs_with_every_choice_of_batches_without_torch_and_data():
    program = f"""
import sys
import paceline
modes = {list(MODES.values())!r}
choices = {{"strategy.mode": ["equal", "fixed_total", "no_restriction"],
           "strategy.aggregation": [{{"gradients": "samples"}}, {{"gradients": "equal"}}]}}
table = paceline.sweep({str(VIT)!r}, points=modes, grid=choices, settings=["budget.steps=2"], jobs=1)
assert len(table) == 30 and not table["error"].any(), table
assert set(table["engine"]) == {{"cohort"}}
found = {{"torch", "torchvision", "mpi4py"}} & set(sys.modules)
sys.exit(f"imported {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_lshdp_is_the_fastest_of_the_papers_modes_per_sample():
    """What the paper claims, on the file's GPUs: LSDP with batches by speed before DDP and FSDP with equal ones."""

    def seconds(mode: str, batches: str) -> float:
        settings = [f"{key}={json.dumps(value)}" for key, value in MODES[mode].items()]
        settings.append(f"strategy.mode={batches}")
        runs = [
            paceline.simulate(VIT, timing_only=True, settings=[*settings, f"budget.steps={steps}"]).summary
            for steps in (2, 3)  # both begin with a broadcast, which sharded workers do not need
        ]
        return (runs[1]["seconds"] - runs[0]["seconds"]) / (runs[1]["samples"] - runs[0]["samples"])

    lshdp = seconds("lsdp", "fixed_total")
    assert lshdp < seconds("lsdp", "equal")
    for mode in ("ddp", "ddp-fp", "fsdp", "fsdp-offload"):
        assert lshdp < seconds(mode, "equal"), mode


# -- overlap: closed forms on a hand-made model ------------------------------------------------------------------------

C, BANDWIDTH = 0.010, 1e9
QUIET = Hooks()


def simpy(programs: list[Any], timing: Timing) -> list[Outcome]:
    return simulate(programs, timing, QUIET)


def cohort(programs: list[Any], timing: Timing) -> list[Outcome]:
    return simulate_cohorts([Cohort(programs[0], (0, 1))], timing, QUIET)


engines = pytest.mark.parametrize("engine", [simpy, cohort])


def seconds_of_step(
    engine: Callable[..., list[Outcome]],
    placement: Placement,
    sizes: list[int],
    network: float = BANDWIDTH,
    link: float | None = None,
    backward: float = C,
) -> float:
    """Of 2 workers, whose units hold `sizes` bytes each and take C forward and `backward` backward."""

    def run(steps: int) -> float:
        plan = Plan(
            Strategy(aggregation=Gradients(), placement=replace(placement, unit_bytes=0)),
            Shares((8, 8), (1.0, 1.0)),
            lambda progress: 0.1,
            1000,
            Interval(steps, "steps"),
        )
        works = Works(together([ModelCost(size // 4, 0, 1e6, 1e4) for size in sizes]), 8, 0, 1, held_by(plan))
        whole = len(sizes)
        tables = {"forward": ((8.0, whole * C),), "backward": ((8.0, whole * backward),), "update": ((1.0, 0.0),)}
        tables |= {"gradient": ((8.0, whole * (C + backward)),), "evaluate": ((8.0, 0.0),)}
        device = Device("d", tables, host_link=link)
        programs = [train(PhantomWorker(i, works), plan, State()) for i in range(2)]
        return engine(programs, Timing((device, device), Network("star", network)))[0].seconds

    return run(2) - run(1)


def of(seconds: float) -> int:
    """Bytes whose all-reduce between two workers takes so long (each sends as many as there are)."""
    return 8 * round(seconds * BANDWIDTH / 8)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=5e-8)  # the loss's 4 bytes take up to 22 ns


def on_host(nbytes: float) -> float:
    """Seconds of updating parameters of so many bytes on the host: 5 values are read or written for each."""
    return 5 * nbytes / MEMORY_BANDWIDTH


U = 6


@engines
@pytest.mark.parametrize("x", [0.004, 0.010, 0.030])
def test_replicated_hides_all_but_the_last_exchange_or_all_but_the_first_units(engine, x):
    """Exchanges begin after the first unit's backward pass and follow one another, each after its gradient."""
    found = seconds_of_step(engine, Replicated(), [of(x)] * U)
    assert found == near(U * C + max(U * C + x, C + U * x))
    assert seconds_of_step(engine, Replicated(overlap=False), [of(x)] * U) == near(2 * U * C + U * x)


@engines
@pytest.mark.parametrize("g", [0.002, 0.005])
@pytest.mark.parametrize("prefetch", [1, 2])
def test_sharded_hides_all_but_the_first_gather_and_the_last_scatter(engine, g, prefetch):
    """Where a gather and a scatter together take no longer than a unit's pass."""
    found = seconds_of_step(engine, Sharded(prefetch=prefetch), [of(2 * g)] * U)
    assert found == near(g + 2 * U * C + g)
    assert seconds_of_step(engine, Sharded(overlap=False), [of(2 * g)] * U) == near(2 * U * C + 3 * U * g)


@engines
@pytest.mark.parametrize("g", [0.010, 0.025])
@pytest.mark.parametrize("prefetch", [1, 2, 3])
def test_sharded_on_a_slow_network_computes_meanwhile(engine, g, prefetch):
    """It is never idle, except for the last unit's forward and backward pass. The units kept are not gathered again."""
    found = seconds_of_step(engine, Sharded(prefetch=prefetch), [of(2 * g)] * U)
    assert found == near((3 * U - prefetch - 1) * g + 2 * C)


@engines
def test_offloaded_fills_and_drains_its_pipeline(engine):
    """A copy in before all, a copy out and an exchange after all; the network is the bottleneck from x = c on."""
    copy = 0.006
    for x in (0.004, 0.010, 0.030):
        size = of(x)
        found = seconds_of_step(engine, Offloaded(), [size] * U, link=size / copy)
        computing, exchanging = copy + 2 * U * C + copy + x, copy + U * C + 2 * C + U * x
        h = on_host(U * size)
        assert found == near((computing if x < C else exchanging) + h)
        in_turn = seconds_of_step(engine, Offloaded(overlap=False), [size] * U, link=size / copy)
        assert in_turn == near(2 * U * C + 3 * U * copy + U * x + h)


@engines
def test_sharded_and_offloaded_has_both(engine):
    g, copy = 0.004, 0.007
    size = of(2 * g)
    found = seconds_of_step(engine, ShardedOffloaded(), [size] * U, link=size / copy)
    h = on_host(U * size / 2)  # each of two workers updates half of the parameters
    assert found == near((g + copy) + 2 * U * C + (copy + g) + h)
    in_turn = seconds_of_step(engine, ShardedOffloaded(overlap=False), [size] * U, link=size / copy)
    assert in_turn == near(2 * U * C + 3 * U * (g + copy) + h)


@engines
def test_a_deeper_prefetch_evens_out_units_of_unequal_size(engine):
    """Every other unit takes 2 c to copy. One place ahead hides c of it, two places ahead all."""
    sizes = [0, of(2 * C)] * (U // 2)
    times = [
        seconds_of_step(engine, Offloaded(prefetch=d), sizes, float("inf"), of(2 * C) / (2 * C), backward=2 * C)
        for d in (1, 2, 3)
    ]
    backward, h = 2 * U * C, on_host(sum(sizes))
    assert times[0] == near(U // 2 * 3 * C + backward + h)
    assert times[1] == near(C + U * C + backward + h)
    assert times[2] == near(times[1])


@engines
def test_overlap_takes_the_longer_of_both_as_units_get_many(engine):
    """max(computing, exchanging), up to one unit's part: what LSHDP is after on a slow network."""
    for x in (0.5 * C, C, 3 * C):
        for many in (8, 64):
            found = seconds_of_step(engine, Sharded(), [of(x)] * many)
            longer = max(2 * many * C, 3 * many * x / 2)
            assert longer - 2 * x <= found <= longer + 2 * C + 2 * x


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_pages_example_prints_what_the_page_says(capsys, monkeypatch):
    page = (DOCS / "data_parallel.md").read_text()
    (program,), (printed,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "text"))
    monkeypatch.chdir(ROOT)
    exec(compile(program, "data_parallel.md", "exec"), {})
    assert capsys.readouterr().out == printed
