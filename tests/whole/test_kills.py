"""The benchmark of kills in a short version, its claims, and the page that is made of its results.

What each part must hold is asserted, except for times, which a busy machine makes longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from benchmarks.kills import form
from benchmarks.kills.__main__ import PARTS
from benchmarks.kills.form import Claim, Found, Result, Results, content, load, table
from kit.paths import ROOT
from paceline.marked_page import END

SHORT = {"ranks": 4, "pauses": 1, "pairs": 3, "everything": 3, "damage": 2, "cost": 1, "soak": 1}  # part -> its count
TIMED = ("within the deadline", "seconds from", "cost of", "growth of")  # how claims about times begin


def test_the_page_is_what_the_results_say():
    text = form.PAGE.read_text()
    assert text.partition(form.BEGIN)[2].partition(END)[0].strip("\n") == content(load())
    assert set(load().parts) <= set(PARTS)


def test_claims_say_whether_they_hold():
    found = Found()
    found.all_of("all went on", [True, False, True])
    found.most("at most", [1.0, 3.0], 2.0, " s")
    found.median("half of them", [1.0, 1.5, 9.0], 2.0)
    found.most("nothing to say", [], 2.0)
    assert [(claim.what, claim.holds) for claim in found.claims] == [
        ("all went on", False),
        ("at most", False),
        ("half of them", True),
    ]
    assert found.claims[0].found == "2 of 3"
    assert found.claims[1].found == "at most 3 s, median 2 s, n = 2"


def test_results_are_kept_part_by_part(tmp_path):
    claim = Claim(what="it goes on", found="1 of 2", holds=False)
    about = {"about": "A rank is lost.", "date": date(2026, 1, 2), "commit": "abc", "machine": {"processor": "x"}}
    one = Result(**about, seed=1, count=2, seconds=3.0, claims=(claim,), rows=({"rank": 1},))
    for name in ("pauses", "damage"):
        form.keep(name, one, tmp_path / "kills.json")
    kept = load(tmp_path / "kills.json")
    assert kept == Results(parts={"pauses": one, "damage": one})
    assert "| it goes on | 1 of 2 | missed |" in content(kept)
    assert list(table([{"rank": 1}, {"rank": 12, "s": 0.12345}])) == ["rank  s", "1     -", "12    0.123"]


def test_each_part_is_tried_in_the_long_tests():
    assert set(SHORT) == set(PARTS)
    modules = {
        path.stem for path in (ROOT / "benchmarks" / "kills").glob("*.py") if "\ndef measure(" in path.read_text()
    }
    assert modules == set(PARTS)


@pytest.mark.long
@pytest.mark.parametrize("part", SHORT)
def test_part(part: str, tmp_path: Path) -> None:
    out = tmp_path / "kills.json"
    line = [sys.executable, "-m", "benchmarks.kills", part, "--count", str(SHORT[part]), "--out", str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert out.exists(), done.stdout + done.stderr
    missed = [claim["what"] for claim in json.loads(out.read_text())["parts"][part]["claims"] if not claim["holds"]]
    assert [what for what in missed if not what.startswith(TIMED)] == [], done.stdout
