"""Numbers on the pages are those of the benchmarks' files: generated tables, and sentences that quote a figure."""

# ruff: noqa: E501 (a sentence and its numbers are one line of a table)
from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.form import RESULTS, load_all
from kit.paths import DOCS, ROOT
from paceline.marked_page import END

RESULT = load_all()
VALIDATION = json.loads((RESULTS / "validation.json").read_text())
PUBLISHED = json.loads((RESULTS / "published.json").read_text())


def row(benchmark: str, way: str, against: str, case: str = "") -> Any:
    """The one row of a benchmark with these ways whose case contains a text."""
    rows = [each for each in RESULT[benchmark].rows if (each.way, each.against) == (way, against) and case in each.case]
    assert len(rows) == 1, (benchmark, way, against, case, len(rows))
    return rows[0]


def ratio(benchmark: str, way: str, against: str, case: str = "") -> float:
    found: float = row(benchmark, way, against, case).ratio
    return found


def costs(benchmark: str, way: str, against: str, case: str = "") -> tuple[float, float]:
    found = row(benchmark, way, against, case).costs
    return found[way], found[against]


def star(case: str, predicted: bool = False) -> list[float]:
    """Times over LSHDP's of flat DDP, DDP, FSDP and HDP, each with what was predicted."""
    rows = [row("lshdp_star", "LSHDP", way, case) for way in ("DDP, flat", "DDP", "FSDP", "HDP")]
    return [value for each in rows for value in ([each.ratio, each.limit.ratio] if predicted else [each.ratio])]


def order(case: str) -> list[float]:
    """Shares of a port's rate that the orders of sending reach."""
    ways = ("blocking", "nonblocking", "receives first", "sends first")
    return [ratio("exchange_order", way, "the port's rate", case) for way in ways]


def excess(chosen: Callable[[str], bool]) -> list[float]:
    """Of the judged cases."""
    given = VALIDATION["judgement"]
    judged = [verdict for verdict in given["verdicts"] if verdict["case"] not in given["unjudged"]]
    return [verdict["clock"]["excess"] for verdict in judged if chosen(verdict["case"])]


def of_the_matrix(case: str) -> bool:
    return bool(re.fullmatch(r"[a-z_]+-[24]-(un)?equal-\w+-(memory|star)", case))


MATRIX = excess(of_the_matrix)
OTHERS = excess(lambda case: not of_the_matrix(case))
GLOO, TORCH = "DDP on gloo", "fully_shard on gloo"
DESIGN = RESULT["design"].figures["share of elements that differ, by workers"]
ANSWER = "answer to a generator"
SMALL = "16 exchanges of 1 MB"  # at 1 Gbit/s
PLAN = [
    row("planning", "paceline.plan", limit, kind).costs["paceline.plan"]
    for limit in ("2 s", "30 s")
    for kind in ("ordered", "all algorithms")
]
ALLREDUCE = {each.case: each.ratio for each in RESULT["runtime_allreduce"].rows if "fp32" in each.case}
LARGE = [
    value for case, value in ALLREDUCE.items() if int(re.search(r"([\d,]+) floats", case)[1].replace(",", "")) >= 10_000
]  # type: ignore[index]

# (page, what it says with a group for each number, the numbers). An interval of white space stands for any.
CLAIMS: list[tuple[str, str, list[float]]] = [
    ("README.md", r"mean error beyond what two equal runs differ by is ([\d.]+) %, the worst ([\d.]+) %", [100 * sum(MATRIX) / len(MATRIX), 100 * max(MATRIX)]),
    ("README.md", r"`sync_sgd` ([\d.]+) of DDP on gloo for a 4 M-parameter MLP and ([\d.]+) for ResNet20", [ratio("data_parallel", "Paceline", GLOO, "mlp"), ratio("data_parallel", "Paceline", GLOO, "resnet20")]),
    ("README.md", r"`fsdp` ([\d.]+) of `fully_shard` for the MLP and ([\d.]+) for a small ViT", [ratio("data_parallel", "Paceline", TORCH, "mlp"), ratio("data_parallel", "Paceline", TORCH, "vit")]),
    ("README.md", r"local SGD \(H = 8\) ([\d.]+) of `PostLocalSGD` and ([\d.]+) of Accelerate", [ratio("local_sgd", "Paceline", "torch PostLocalSGD on gloo", "H = 8"), ratio("local_sgd", "Paceline", "Accelerate LocalSGD", "H = 8")]),
    ("README.md", r"100 rounds with noise, are simulated in ([\d.]+) s", [row("sim_scale", "paceline simulate", "90 s").costs["paceline simulate"]]),
    ("README.md", r"`lshdp` trains ([\d.]+) times as fast as the paper's flat DDP and ([\d.]+) times as fast as FSDP", star("trained")[::2]),
    ("docs/fidelity.md", r"Their mean excess is ([\d.]+) %, the worst ([\d.]+) %", [100 * sum(MATRIX) / len(MATRIX), 100 * max(MATRIX)]),
    ("docs/fidelity.md", r"of all (\d+) cases were run.*?Of the (\d+) cases, (\d+) were judged", [len(VALIDATION["cases"]), 36, len(MATRIX)]),
    ("docs/fidelity.md", r"Among the other (\w+) cases the worst excess is ([\d.]+) %", [8, 100 * max(OTHERS)]),
    ("docs/exchange.md", r"\| 1 MB \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", order("reno, 4 ranks, 1 MB")),
    ("docs/exchange.md", r"\| 8 MB \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", order("reno, 4 ranks, 8 MB")),
    ("docs/exchange.md", r"all four orders reached ([\d.]+) to ([\d.]+) of the rate", [min(order("bbr, 4 ranks, 8 MB")), max(order("bbr, 4 ranks, 8 MB"))]),
    ("docs/exchange.md", r"\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|\n\nBy default", [*(ratio("overlap", way, "computing alone", SMALL) for way in ("no overlap", "sleeping thread", "polling", "blocking thread")), row("overlap", "polling", "computing alone", SMALL).limit.ratio]),
    ("docs/data_parallel.md", r"real training, 1 Gbit/s \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", star("trained")),
    ("docs/data_parallel.md", r"instead of computing, 1 Gbit/s \|" + r" ([\d.]+) \(([\d.]+)\) \|" * 4, star("described", predicted=True)),
    ("docs/data_parallel.md", r"batches five times as large \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", star("slowly")),
    ("docs/data_parallel.md", r"activations of a batch of 64 \| ([\d.]+) \| ([\d.]+) \|", [RESULT["memory"].figures[which]["activations"] for which in ("predicted", "counted")]),
    ("docs/planning.md", r"takes ([\d.]+) s of one core, and ([\d.]+) s with all algorithms of an all-reduce; for 512 workers it takes ([\d.]+) s and ([\d.]+) s", PLAN),
    ("docs/planning.md", r"halving alone trained ([\d.]+) and ([\d.]+) of the epochs", [ratio("planning_target", "halving", "all ways", f"{to}%") for to in (90, 93)]),
    ("docs/planning.md", r"it was ([\d.]+) and ([\d.]+) of the epochs", [ratio("planning_target", "halving and proof", "all ways", f"{to}%") for to in (90, 93)]),
    ("docs/results.md", r"local SGD took ([\d.]+) times as long as synchronous SGD", [ratio("time_to_accuracy", "local_sgd", "sync_sgd")]),
    ("docs/design.md", r"costs ([\d.]+) us with a generator, (\d+) us with an asyncio task and (\d+) us with a thread", [costs("design", "answer to a thread", ANSWER)[1], costs("design", "answer to an asyncio task", ANSWER)[0], costs("design", "answer to a thread", ANSWER)[0]]),
    ("docs/design.md", r"making one takes ([\d.]+) us, and ([\d.]+) us frozen", [*costs("design", "a frozen effect", "a slotted effect")][::-1]),
    ("docs/design.md", r"among 4 workers (\d+) % of a sum's elements change with the order, and among 16 it is (\d+) %", [100 * DESIGN["4"], 100 * DESIGN["16"]]),
    ("docs/design.md", r"between ([\d.]+) and ([\d.]+) times as long as MPI's own all-reduce for 10,000 elements or more, and ([\d.]+) times for 1,000", [min(LARGE), max(LARGE), ALLREDUCE["2 ranks, 1,000 floats, equal weights, fp32"]]),
    ("docs/design.md", r"reached ([\d.]+) of the rate; with sends first they reach ([\d.]+)", order("reno, 4 ranks, 8 MB")[::3]),
    ("docs/design.md", r"a step took ([\d.]+) times as long as its computation alone with such a thread, ([\d.]+) without any overlap, and ([\d.]+) with a thread that looks and sleeps in turn, where the line allows ([\d.]+)", [*(ratio("overlap", way, "computing alone", SMALL) for way in ("blocking thread", "no overlap", "sleeping thread")), row("overlap", "polling", "computing alone", SMALL).limit.ratio]),
    ("docs/design.md", r"without a thread: ([\d.]+) in the same run", [ratio("overlap", "polling", "computing alone", SMALL)]),
    ("docs/design.md", r"costs ([\d.]+) times as much as a bare SimPy timeout \(([\d.]+) us and ([\d.]+) us", [1 / ratio("sim_effects", "fresh effects", "bare SimPy timeouts"), *costs("sim_effects", "fresh effects", "bare SimPy timeouts")]),
]  # fmt: skip
WORDS = {"eight": 8.0}


@pytest.mark.parametrize(("page", "says", "numbers"), CLAIMS, ids=[f"{page}-{says[:30]}" for page, says, _ in CLAIMS])
def test_a_sentence_quotes_the_file(page, says, numbers):
    text = (ROOT / page).read_text()
    found = re.search(re.sub(r" (?!\\n)", r"\\s+", says), text, re.S)
    assert found, f"{page} no longer says: {says}"
    assert len(found.groups()) == len(numbers)
    for written, number in zip(found.groups(), numbers, strict=True):
        value = WORDS.get(written) or float(written)
        half = 0.5 * 10.0 ** -len(written.partition(".")[2])
        assert abs(value - number) <= half * 1.001, f"{page}: {found[0]}: {written} is {number:.5g}"


def test_the_matrix_is_whole():
    cases = [verdict["case"] for verdict in VALIDATION["judgement"]["verdicts"]]
    assert sum(map(of_the_matrix, cases)) == 36
    assert len(MATRIX) == 35


@pytest.mark.parametrize(("page", "benchmark"), [(page, name) for page, each in tables.PAGES.items() for name in each])
def test_a_table_is_what_its_file_says(page, benchmark):
    text = (DOCS / f"{page}.md").read_text().partition(tables.begin(benchmark))[2].partition(END)[0]
    assert text.strip("\n") == tables.PAGES[page][benchmark](RESULT[benchmark].figures), "python -m benchmarks.page"


def test_fidelity_shows_the_cases_of_its_file():
    lines = (DOCS / "fidelity.md").read_text().splitlines()
    for verdict in VALIDATION["judgement"]["verdicts"]:
        clock = verdict["clock"]
        begin = (
            f"| {verdict['case']} | {clock['predicted']:.3f} | {clock['low']:.3f} to {clock['high']:.3f} "
            f"| {clock['measured']:.3f} | {clock['error']:+.1%} | {clock['ab']:.1%} | "
        )
        assert sum(line.startswith(begin) for line in lines) == 1, begin


def test_published_shows_the_rows_of_its_file():
    page = (DOCS / "published.md").read_text()
    for name, group in PUBLISHED["groups"].items():
        for each in group["rows"]:
            lines = re.findall(rf"^\| {re.escape(name)} \| {each['workers']} \|.*$", page, re.M)
            errors = [f"{g['error']:+.1%}".replace("%", " %") for way in ("a", "b") for g in each.get(way, {}).values()]
            assert any(all(error in line for error in errors) for line in lines), (name, each["workers"], errors)
    number, groups = sum(len(group["rows"]) for group in PUBLISHED["groups"].values()), len(PUBLISHED["groups"])
    assert f"compares {number} such numbers, in {groups} groups" in page
