"""What traces show in addition to spans, in the format that Perfetto documents: arguments, counters and arrows."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import paceline
from kit.cli import MLP, scenario
from kit.told import Told
from paceline.config import yaml
from paceline.records.trace import read_trace, write_trace

STAR = {"shape": "star", "bandwidth": "1 Gbit/s", "latency": "50 us"}


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a trace, after a check of its arrows.

    Each arrow has one beginning and a later end, of one name and category, each within a span on its own thread.
    """
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    begins = {e["id"]: e for e in found if e["ph"] == "s"}
    ends = {e["id"]: e for e in found if e["ph"] == "f"}
    assert Counter(e["ph"] for e in found if e["ph"] in "sf") == {
        kind: len(each) for kind, each in (("s", begins), ("f", ends)) if each
    }, "ids are unique"
    assert begins.keys() == ends.keys()
    before: dict[str, Any] = {}
    for event in found:
        if event["ph"] in "sf":
            assert before["ts"] <= event["ts"] < before["ts"] + before["dur"], "it lies within the span before it"
            assert (before["pid"], before["tid"]) == (event["pid"], event["tid"])
            assert before["name"] != "wait"
        elif event["ph"] == "X":
            before = event
    for number, begin in begins.items():
        end = ends[number]
        assert (begin["name"], begin["cat"]) == (end["name"], end["cat"])
        assert begin["ts"] < end["ts"]
        assert end["bp"] == "e", "it binds to the span around it, not to the next one"
        assert begin["pid"] != end["pid"]
    return found


def arrows(found: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(from, to) of each arrow, by workers."""
    ends = {e["id"]: e["pid"] for e in found if e["ph"] == "f"}
    return sorted((e["pid"], ends[e["id"]]) for e in found if e["ph"] == "s")


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        ([[("wait", 0, 2), ("sync", 2, 3)], [("sync", 2, 3)], [("wait", 1, 2), ("sync", 2, 3)]], [(1, 0), (1, 2)]),
        ([[("sync", 0, 3)], [("sync", 0, 3)]], []),  # both came at the same time
        ([[("wait", 0, 2), ("sync", 2, 2)], [("sync", 2, 2)]], []),  # it took no time
        ([[("wait", 0, 2), ("sync", 2, 3)], [("sync", 2, 3), ("sync", 3, 4)]], []),  # unequal numbers
        ([[("wait", 0, 1), ("sync", 2, 3)], [("sync", 2, 3)]], []),  # the wait was for something else
        (
            [[("wait", 0, 2), ("a", 2, 3), ("b", 4, 5)], [("a", 2, 3), ("wait", 3, 4), ("b", 4, 5)]],
            [(0, 1), (1, 0)],
        ),
        ([[("sync", 2, 3)]], []),
    ],
)
def test_arrows_lead_from_who_came_last_to_who_waited(tmp_path, lanes, expected):
    write_trace(tmp_path / "t.json.gz", [{"network": spans} for spans in lanes])
    assert arrows(events(tmp_path / "t.json.gz")) == expected
    assert read_trace(tmp_path / "t.json.gz") == [{"network": spans} for spans in lanes]


def simulated(folder: Path, rounds: int, strategy: dict[str, Any], **more: Any) -> tuple[list[dict[str, Any]], Told]:
    document = scenario(3, MLP, strategy, rounds, **more)
    document["cluster"] = {"workers": [{"speed": f"{v} samples/s"} for v in (1000, 700, 300)], "network": STAR}
    document["strategy"]["split"] = {"given": {"paces": [1, 1, 1]}}
    (folder / "s.yaml").write_text(yaml.dump(document))
    told = Told()
    paceline.simulate(folder / "s.yaml", out=folder / "run", callbacks=[told])
    return events(folder / "run" / "trace.json.gz"), told


def test_rounds_tell_what_callbacks_are_told(tmp_path):
    found, told = simulated(tmp_path, 6, {"preset": "local_sgd", "H": 3})
    records = [value for method, value in told.said if method == "on_round"]
    for worker in range(3):
        spans = [e for e in found if e.get("cat") == "round" and e["pid"] == worker]
        assert [(e["name"], e["args"]["H"], e["args"]["step"]) for e in spans] == [
            (f"round {r['round']}", r["H"][worker], r["step"]) for r in records
        ]
        assert [e["args"]["loss"] for e in spans] == pytest.approx([r["loss"] for r in records], rel=1e-5)
        assert {e["args"]["lr"] for e in spans} == {0.05}
        points = [e for e in found if e["ph"] == "C" and e["name"] == "bytes sent" and e["pid"] == worker]
        assert len(points) > 1
        assert [e["args"]["bytes"] for e in points] == sorted({e["args"]["bytes"] for e in points})
    total = [e["args"]["bytes"] for e in found if e["ph"] == "C" and e["name"] == "bytes sent" and e["pid"] == 0][-1]
    assert total == sum(r["bytes"] for r in records), "the last point is at the end of the last round"
    assert set(arrows(found)) == {(2, 0), (2, 1)}, "the slowest worker is the last one"


def test_rounds_that_are_done_again_tell_their_own(tmp_path):
    lost = {"recovery": {"max_restarts": 1}, "faults": [{"name": "loss", "worker": 1, "at": "3 rounds"}]}
    more = lost | {"checkpoint": {"every": "2 rounds"}}
    found, _ = simulated(tmp_path, 5, {"preset": "local_sgd", "H": 3}, **more)
    for worker in (0, 2):
        spans = [e for e in found if e.get("cat") == "round" and e["pid"] == worker]
        assert [e["name"] for e in spans] == [f"round {n}" for n in (1, 2, 3, 3, 4, 5)]
        assert [e["args"]["step"] for e in spans] == [3, 6, 9, 9, 12, 15]


def test_a_trace_is_not_much_larger_for_it(tmp_path):
    """In the least favourable case: each step is a round, and in each of them others wait for one worker."""
    found, _ = simulated(tmp_path, 200, {"preset": "sync_sgd"}, report={"trace": True})

    def size(kept: list[dict[str, Any]]) -> int:
        text = ",\n".join(json.dumps(event, separators=(",", ":")) for event in kept)
        return len(gzip.compress(text.encode(), 4))

    plain = [{key: value for key, value in e.items() if key != "args"} for e in found if e["ph"] == "X"]
    assert len(arrows(found)) > 300
    assert size(found) < 1.6 * size(plain)
