"""Files of published runs: what their words mean, and what they do not say."""

from pathlib import Path

import pytest

from kit.paths import SCENARIOS
from paceline.config.published import NotSaid, PublishedGroup, PublishedRow, load_published, not_stated, run_of, unit_of
from paceline.program.errors import ScenarioError

INFINIBAND = "InfiniBand 100 Gbit/s between nodes; NVLink inside"


def group(rows=({},), **changes):
    """A group of rows that differ from a whole one by `changes`."""
    row = {
        "workers": 16,
        "devices": "16 x V100 (2 node(s) of 8)",
        "batch": 32,
        "measured": 4000.0,
        "unit": "img/s total",
    }
    whole = {"source": "a page", "evidence": "code", "model": "ResNet-50", "params": 25557032, "method": "sync_sgd",
             "network": INFINIBAND, "rows": [row | one for one in rows]}  # fmt: skip
    return PublishedGroup.model_validate(whole | changes)


def read(row=None, **changes):
    made = group([row or {}], **changes)
    return run_of(made, made.rows[0])


def test_a_row_in_numbers():
    run = read()
    assert (run.method, run.devices, run.nodes, run.batches) == ("sync_sgd", ("v100-16g",) * 16, 2, (32,) * 16)
    assert (run.across, run.inside, run.work) == (12.5e9, "nvlink2", 32.0)


@pytest.mark.parametrize(
    ("text", "across"),
    [
        ("4 x 100 Gbit/s InfiniBand a machine; NVLink inside", 50e9),
        ("NVLink inside; 400 Gbit/s RDMA a GPU outside", 400e9),
        ("not stated (DGX A100: NVLink 3 inside, 200 Gbit/s HDR ports outside)", 200e9),
        ("10 GbE", 1.25e9),
    ],
)
def test_links_between_nodes(text, across):
    assert read(network=text).across == across


@pytest.mark.parametrize(
    ("devices", "kinds"),
    [
        ("16 x A100-80G (2 node(s) of 8)", {"a100-80g"}),
        ("16 x H100-96G 500 W (2 nodes of 8)", {"h100-sxm"}),
        ("8 x A6000 + 8 x RTX 2080 Ti, 2 machines", {"rtx-a6000", "rtx2080ti"}),
        ("16 x Strange 9000 (16 machines)", {"Strange 9000"}),
    ],
)
def test_devices(devices, kinds):
    assert set(read({"devices": devices}).devices) == kinds


@pytest.mark.parametrize(
    ("unit", "measured", "pace"),
    [
        ("img/s total", 4000.0, 16 / 4000),
        ("tokens/s per GPU", 50.0, 0.02),
        ("s/step (p50)", 0.1, 0.1),
        ("ms/step", 100.0, 0.1),
        ("h for 7200 steps", 10.0, 5.0),
    ],
)
def test_units(unit, measured, pace):
    row = PublishedRow(workers=16, devices="16 x V100", measured=measured, unit=unit)
    known = unit_of(row)
    assert known.pace(measured) == pytest.approx(pace)
    assert known.published(pace) == pytest.approx(measured)


def test_tokens_and_micro_batches():
    run = read({"unit": "tokens/s total", "accumulate": 4}, note="sequence 512")
    assert (run.accumulate, run.work) == (4, 4 * 32 * 512)
    assert read(note="accumulated micro-batches for 1,2,4 nodes: 32,16,8").accumulate == 16
    assert read({"batch": [8] * 8 + [24] * 8}).work == 16


@pytest.mark.parametrize(
    ("row", "changes", "why"),
    [
        ({}, {"params": None}, "the number of parameters is not given"),
        ({"batch": None}, {}, "the batch is not given"),
        ({}, {"network": "NVLink inside"}, "the network between the nodes is not given"),
        ({"devices": "8 x Strange 9000", "workers": 8}, {"network": "fast"}, "the link within a node is not given"),
        ({}, {"method": "pipeline parallel"}, "the method 'pipeline parallel' is not a preset"),
        ({"unit": "% of linear"}, {}, "neither a rate nor a time"),
        ({"unit": "tokens/s total"}, {}, "the tokens of a sample are not given"),
        ({"unit": "games/s total"}, {}, "counts 'games'"),
        ({"H": "QSR, H_base 4"}, {}, "H is 'QSR, H_base 4'"),
        ({"H": 8}, {}, "H is 8"),
        ({"devices": "16 GPUs (2 machines)"}, {}, "not given as a number and a name"),
        ({"devices": "16 x V100 (3 machines)"}, {}, "do not fill 3 equal nodes"),
        ({"batch": [8, 8]}, {}, "16 workers have 16 devices and 2 batches"),
    ],
)
def test_what_is_not_said_is_told(row, changes, why):
    with pytest.raises(NotSaid, match=why):
        read(row, **changes)


def test_local_steps():
    assert read({"H": 8}, method="local_sgd").arguments == {"H": 8}


def test_a_network_that_the_source_does_not_state():
    assert not_stated(group(network="not stated (a datasheet: 200 Gbit/s)"))
    assert not not_stated(group())


def test_the_packaged_runs():
    found = load_published(sorted(SCENARIOS.glob("validation/published/*.yaml")))
    assert (len(found), sum(len(known.rows) for known in found.values())) == (51, 179)
    assert all(known.source and known.evidence != "2nd" for known in found.values())
    assert all(row.scenario.is_file() for known in found.values() for row in known.rows if row.scenario)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("groups: {a: {source: x}}", "groups.a.evidence: Field required"),
        ("groups: {a: {source: x, evidence: code, model: m, rows: []}}", "groups.a.rows"),
        ("- 1", "groups:"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text, what):
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=what) as error:
        load_published([tmp_path / "runs.yaml"])
    assert "\n" not in str(error.value)


def test_a_name_that_comes_twice(tmp_path: Path):
    for name in ("a", "b"):
        row = "{workers: 1, devices: d, measured: 1, unit: s/step}"
        text = f"groups: {{one: {{source: x, evidence: code, model: m, rows: [{row}]}}}}"
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=r"groups\.one: another file has a group of that name"):
        load_published([tmp_path / "a.yaml", tmp_path / "b.yaml"])
