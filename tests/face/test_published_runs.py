"""`paceline validate --published`: a small file from end to end, and rows that come with Paceline."""

import json

import pytest

from kit.cli import call
from kit.paths import SCENARIOS
from paceline.config.published import load_published, run_of
from paceline.config.scenario import validate
from paceline.marked_page import END
from paceline.published_runs import BEGIN, judge
from paceline.publishing import BUCKET, ClockOf, buckets, cost_of, described, simulation_of
from paceline.simulating import simulate

SMALL = """
groups:
  small:
    source: a page
    evidence: code
    model: Nobody's net
    params: 50000000
    method: sync_sgd (DDP)
    network: 10 Gbit/s between nodes
    rows:
      - {workers: 1, devices: 1 x T4, batch: 64, measured: 100, unit: img/s total}
      - {workers: 2, devices: 2 x T4 (2 machines), batch: 64, measured: 190, unit: img/s total}
      - {workers: 4, devices: 4 x T4 (4 machines), batch: 64, measured: 370, unit: img/s total}
  silent:
    source: a thread
    evidence: issue
    model: Nobody's net
    method: sync_sgd
    rows:
      - {workers: 1, devices: 1 x T4, measured: 100, unit: img/s total}
      - {workers: 2, devices: 2 x T4, measured: 150, unit: img/s total}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_a_small_file_from_end_to_end(small, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nAfter\n")
    out = ("--json", tmp_path / "all.json", "--page", page)
    status, shown, _ = call(monkeypatch, capsys, "validate", "--published", small, *out)
    assert status in (0, None)
    assert "the number of parameters is not given" in shown
    told = json.loads((tmp_path / "all.json").read_text())
    rows = told["groups"]["small"]["rows"]
    assert "b" not in rows[0]
    assert rows[1]["b"]["perfect"]["predicted"] == pytest.approx(200)
    # 200 MB of gradients over 10 Gbit/s hide behind 0.43 s of a backward pass, except for those of the last bucket.
    assert 190 < rows[1]["b"]["ours"]["predicted"] < 200
    assert rows[2]["a"]["ours"]["error"] == pytest.approx(0, abs=0.05)
    assert set(rows[2]["a"]) == {"ours", "perfect", "fit"}
    silent = told["groups"]["silent"]
    assert (silent["counts"], silent["why_not"]) == (False, "the number of parameters is not given")
    assert set(silent["rows"][1]["b"]) == {"perfect"}
    assert told["summary"]["groups that count"]["b"]["groups"] == 1
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter\n")
    assert "old" not in text
    assert "| small | 2 | 190 img/s total |" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["validate"], "name scenarios"), (["validate", "--published", "none.yaml"], "none.yaml")],
)
def test_mistakes_are_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, told = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1


def test_a_page_without_marks_is_left_alone(small, tmp_path, monkeypatch, capsys):
    (tmp_path / "page.md").write_text("mine")
    status, _, told = call(monkeypatch, capsys, "validate", "--published", small, "--page", tmp_path / "page.md")
    assert (status, (tmp_path / "page.md").read_text()) == (2, "mine")
    assert "has no lines" in told


def test_a_steps_clock_is_that_of_simulate(small):
    """A row's scenario takes as long as `paceline simulate` says, to the last bit."""
    group = load_published([small])["small"]
    document = described(run_of(group, group.rows[2]))
    document["cluster"]["noise"] = {}
    scenario = validate(document, "made")
    first, second = simulate(scenario, timing_only=True).lines
    assert ClockOf(scenario, small.parent).step(1.0, 1.0, 1.0) == second["seconds"] - first["seconds"]


def test_a_slower_network_and_a_faster_device(small):
    """Ten times slower links expose an exchange that computing hid; twice the speed halves the computing."""
    group = load_published([small])["small"]
    clock = simulation_of(run_of(group, group.rows[2]))
    assert clock.pace(20.0, 0.1, 1.0) > 1.5 * clock.pace(20.0, 1.0, 1.0)
    assert clock.pace(2e-3, 1.0, 1.0) == pytest.approx(clock.pace(1e-3, 1.0, 1.0) / 2, rel=1e-3)


def test_buckets_are_filled_from_the_last_layer_on(small):
    run = run_of((group := load_published([small])["small"]), group.rows[2])
    first, *later = [4 * unit.parameters for unit in cost_of(run).units]
    assert first + sum(later) == pytest.approx(4 * 50_000_000, rel=1e-6)
    assert all(size >= BUCKET for size in later)
    assert first < BUCKET  # what was left over is in the first layers, whose gradients come last
    assert buckets([]) == []


def test_a_group_with_uneven_batches():
    """timm's: 500 more images for the two fast GPUs, in the same time, since the slow ones decide it."""
    found = load_published([SCENARIOS / "validation/published/others.yaml"])
    group = judge("timm", found["timm_580_uneven"])
    (error,) = group.errors("b", "ours")
    assert abs(error) < 0.03
    assert group.errors("b", "perfect") == [pytest.approx(0.25)]


@pytest.mark.long
def test_qsr_on_64_gpus_from_16():
    found = load_published([SCENARIOS / "validation/published/others.yaml"])
    group = judge("qsr", found["qsr_vit_b"])
    hours = [line.value(group.guess("b", line).ours) for line in group.lines[2:]]
    assert hours == [pytest.approx(8.6, rel=0.08), pytest.approx(5.5, rel=0.08)]


def test_published_groups_hold_their_bars():
    """The committed results: (a) is as good as the fit, (b) has a median of 8 % at most and beats perfect scaling."""
    told = json.loads((SCENARIOS.parent / "benchmarks/results/published.json").read_text())
    counted = told["summary"]["groups that count"]
    ours, fitted = (counted["a"]["summaries"][of] for of in ("ours", "fit"))
    assert all(ours[size] <= fitted[size] for size in ("median", "mean", "worst"))
    assert counted["b"]["summaries"]["ours"]["median"] <= 0.08
    assert counted["b"]["better"] >= 0.9 * counted["b"]["groups"]
