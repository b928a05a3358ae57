"""The promise: `simulate` and `train` give the same losses and parameters to the last bit, through the real CLI.

One mpirun per rank count trains all of its scenarios (a start costs 4 to 6 s).
"""

from __future__ import annotations

import shutil

import pytest

from kit.cli import MLP, paceline, read, scenario
from kit.idx import FILES as IDX
from kit.idx import write_idx
from kit.paths import SCENARIOS, TESTS
from kit.told import Told, told
from paceline import simulate
from paceline.algorithms.presets import PRESETS
from paceline.config import yaml

LOCAL = {"preset": "local_sgd", "schedule": {"fixed": 8}}
SHARDED = {"preset": "fsdp", "placement": {"sharded": {"unit_bytes": 1}}}


def scenarios(n: int) -> dict[str, dict]:
    """By name, all that must agree at n workers."""
    paces = [1, 0.5, 0.25, 0.125][:n]
    weights = {"parameters": {"weights": [4, 3, 2, 1][:n]}}
    found = {
        "sync": scenario(n, MLP, {"preset": "sync_sgd"}, 7),
        "unequal-batches": scenario(
            n, MLP, {"preset": "sync_sgd", "split": {"given": {"batches": [9, 5, 3, 2][:n]}}}, 5
        ),
        "local-paces": scenario(n, MLP, LOCAL | {"split": {"given": {"paces": paces}}, "aggregation": weights}, 5),
        "sync-bf16": scenario(n, MLP, {"preset": "sync_sgd", "placement": {"replicated": {"wire": "bf16"}}}, 5),
        "fsdp-bf16": scenario(n, MLP, {"preset": "fsdp", "placement": {"sharded": {"wire": "bf16"}}}, 3),
        "local-fp16": scenario(n, MLP, {"preset": "local_sgd", "placement": {"replicated": "fp16"}}, 3),
        "local-auto": scenario(n, MLP, {"preset": "local_sgd", "sampling": "uniform"}, 4),
    }
    if n != 3:
        found["resnet"] = scenario(n, {"name": "resnet20"}, LOCAL | {"schedule": {"fixed": 2}}, 3)
        found["resnet"]["report"]["start"] = True
        found["resnet"]["workload"]["model_seed"] = 11
        found["resnet"]["report"]["batch_norm"] = {"re_estimated": 4}
        found["resnet-sync"] = scenario(n, {"name": "resnet20"}, {"preset": "sync_sgd"}, 3)
    chosen = {2: ["gpt-fsdp"], 3: ["gpt-lshdp", "gpt-diloco"]}.get(n, [])
    found |= {name: document for name, document in language(n).items() if name in chosen}
    return found | {2: at_two, 3: at_three, 4: dict}[n]()


def at_two() -> dict[str, dict]:
    """What agrees at more workers if it agrees at two: how a step is computed."""
    found = {}
    flat = {"preset": "sync_sgd", "placement": {"replicated": {"overlap": False}}}
    for name, strategy in (("sync", flat), ("local", LOCAL)):  # a first scale that overflows, and dropout
        found[f"{name}-in-fp16"] = scenario(2, MLP, strategy, 3)
        found[f"{name}-in-fp16"]["workload"] |= {"precision": "fp16", "loss_scale": 1e10}
    for name, strategy in (("nadam-local", LOCAL), ("nadam-sharded", SHARDED)):
        found[name] = scenario(2, MLP, strategy, 3)
        found[name]["workload"]["optimizer"] = {"name": "torch.optim:NAdam", "lr": 0.002, "clip": 1}
    return found | unequal_work()


def unequal_work() -> dict[str, dict]:
    """Methods that take equal work by themselves, with paces, batches and weights that follow the workers' speeds."""
    floor, both = {"split": {"by_steps": "floor"}}, {"split": {"by_batch": {"total": 30, "max": 17, "paces": True}}}
    strategies = {
        "qsr": {"alpha": 0.1, "h_base": 3, "weights": "samples"} | floor,
        "slowmo": {"H": 5, "weights": "batches"} | both,
        "diloco": {"H": 5, "weights": "samples"} | floor,
        "post_local_sgd": {"t": "3 steps", "H": 5} | both,
    }
    found = {}
    for preset, more in strategies.items():
        found[f"{preset}-unequal"] = scenario(2, MLP, {"preset": preset} | more, 3, budget={"steps": 12})
        found[f"{preset}-unequal"]["cluster"]["workers"] = [{"speed": f"{v} samples/s"} for v in (1000, 300)]
    return found


def at_three() -> dict[str, dict]:
    """What sums over workers might part: units of blocks, targets that do not count, averaged vectors; and files."""
    found = {"own-blocks": scenario(3, {"name": "blocks:make", "kind": "gpt", "tied": True}, SHARDED, 3)}
    for strategy in ({"preset": "sync_sgd"}, SHARDED, {"preset": "local_sgd"}):  # in micro-batches of unequal size
        found[f"tokens-{strategy['preset']}"] = made = scenario(3, {"name": "own_tasks:language"}, strategy, 3)
        made["workload"] |= {"data": "own_tasks:text", "batch": 8, "micro_batch": 3}
    averaging = LOCAL | {"aggregation": {"parameters": {"optimizer_state": ["exp_avg_sq"]}}}
    found["local-v"] = scenario(3, MLP, averaging, 3)
    found["local-v"]["workload"]["optimizer"] = {"name": "adamw", "lr": 0.001}
    small = {"name": "cnn", "channels": [4, 4]}
    found["fashion-mnist"] = scenario(3, small, LOCAL | {"schedule": {"fixed": 2}}, 4)
    found["fashion-mnist"]["workload"] |= {
        "data": {"name": "fashion_mnist", "path": "files", "verify": False, "size": 40, "classes": 20},
        "augment": {"crop": 2, "flip": True},
        "loaders": 1,
    }
    return found


def language(n: int) -> dict[str, dict]:
    """A small GPT, its weights tied or not, with dropout, on unequal batches in micro-batches of unequal size."""
    model = {"name": "gpt", "dim": 16, "depth": 2, "heads": 2, "vocabulary": 256, "positions": 16, "dropout": 0.1}
    given = {"split": {"given": {"batches": [7, 5, 4, 4][:n]}}}
    strategies = {
        "local_sgd": given | {"H": 2},
        "qsr": given | {"alpha": 0.005, "h_base": 2},
        "diloco": given | {"H": 2},
        "fsdp": given | {"placement": {"sharded": {"unit_bytes": 1}}},
        "lshdp": {"placement": {"offloaded": {"unit_bytes": 1}}},
    }
    found = {}
    for place, (preset, more) in enumerate(strategies.items()):
        tied = model | {"tied": (place + n) % 2 == 0}
        found[f"gpt-{preset}"] = made = scenario(n, tied, {"preset": preset} | more, 3, budget={"steps": 6})
        made["workload"] |= {
            "data": {"name": "text", "sequence": 16, "train": 300, "test": 20},
            "batch": 6,
            "micro_batch": 3,
            "optimizer": {"name": "adamw", "lr": 0.003},
        }
    return found


def presets(n: int) -> dict[str, dict]:
    """The scenario of every preset, with a smaller model, at n workers; a preset cannot be added without one."""
    found = {}
    for name in PRESETS.keys() - {"ddp"}:
        document = yaml.read_mapping(SCENARIOS / f"{name}.yaml")
        assert document["strategy"]["preset"] == name
        slow = len(document["cluster"]["workers"]) > 1
        document["cluster"]["workers"] = [{"speed": f"{1000 / (4**w if slow else 1)} samples/s"} for w in range(n)]
        if name == "biased_local_sgd":
            document["strategy"]["ratio"] = 2  # more slow workers than in the file, and the same data
        if document["workload"]["model"]["name"] == "vit":
            document["workload"]["model"] |= {"dim": 32, "depth": 3}  # its units are exchanged one by one
            document["strategy"]["placement"] = {next(iter(document["strategy"]["placement"])): {"unit_bytes": 40000}}
            found[name] = document | {"budget": {"steps": 12}, "report": {"every": "4 steps"}}
        else:
            document["workload"]["model"] = {"name": "mlp", "hidden": [24], "dropout": 0.1}
            found[name] = document | {"report": {"every": "5 epochs"}}
    return found


@pytest.mark.parametrize(
    ("n", "make"),
    [
        *((n, scenarios) for n in (2, 3, 4)),
        *((n, presets) for n in (2, 4)),
        *(pytest.param(n, language, marks=pytest.mark.long) for n in (2, 3)),
    ],
)
def test_simulation_and_training_agree_to_the_last_bit(n, make, tmp_path):
    found = make(n)
    shutil.copy(TESTS / "kit" / "blocks.py", tmp_path)
    shutil.copy(TESTS / "kit" / "tasks.py", tmp_path / "own_tasks.py")
    shutil.copy(TESTS / "kit" / "told.py", tmp_path / "own_told.py")
    write_idx(tmp_path / "files", train=200, packed=IDX[:1])
    for name, document in found.items():
        document["callbacks"] = [{"name": "own_told:Told", "write": True}]
        (tmp_path / f"{name}.yaml").write_text(yaml.dump(document))
    paceline("train", *(f"{name}.yaml" for name in found), "--out", "real", cwd=tmp_path)
    for name, document in found.items():
        by_event, by_cohort = Told(), Told()
        full = simulate(tmp_path / f"{name}.yaml", out=tmp_path / "simulated" / name, callbacks=[by_event])
        clock = simulate(tmp_path / f"{name}.yaml", timing_only=True, callbacks=[by_cohort])
        assert told(tmp_path / "simulated" / name) == told(tmp_path / "real" / name), f"{name}: callbacks"
        rounds = [
            [value | {"loss": 0} for method, value in each.said if method == "on_round"]
            for each in (by_event, by_cohort)
        ]
        assert rounds[0] == rounds[1] != [], f"{name}: rounds, and their times"
        assert clock.summary["seconds"] == full.summary["seconds"], name
        assert list(clock.metrics["seconds"]) == list(full.metrics["seconds"]), name
        (virtual, predicted), (real, measured) = read(tmp_path / "simulated" / name), read(tmp_path / "real" / name)
        assert virtual["params_sha256"] == real["params_sha256"] is not None, name
        assert real.get("replicas_agree", "shard" in str(document["strategy"]))  # of parts, none is another's replica
        assert len(predicted) == len(measured) > 1
        for a, b in zip(predicted, measured, strict=True):
            assert {**a, "seconds": 0} == {**b, "seconds": 0}, name
        for key in ("rounds", "steps", "samples", "syncs", "bytes_per_worker", "moved_per_worker"):
            assert virtual[key] == real[key], (name, key)
    paceline("simulate", f"{name}.yaml", "--out", "again", cwd=tmp_path)
    done = paceline("compare", "again", f"real/{name}", "--figures", "figures", cwd=tmp_path)
    assert "agree to the last bit" in done.stdout
    assert "curves.png" in {path.name for path in (tmp_path / "figures").iterdir()}
