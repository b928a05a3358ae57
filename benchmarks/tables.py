"""Tables on other pages than docs/performance.md, from the same results files: docs/results.md, docs/data_parallel.md.

Each stands between marks of its own. benchmarks/page.py fills them in as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paceline.marked_page import begin_of, fill_page

from .form import ROOT, Result

Figures = Mapping[str, Any]


def biased_sampling(figures: Figures) -> str:
    """Test accuracy in percent with the slow workers' examples uniform and biased."""
    rows = [
        [
            str(row["slow_workers"]),
            f"{row['noise']:g}",
            str(row["epoch"]),
            _spread(row["uniform"]),
            _spread(row["biased"]),
            f"{100 * row['gain']['mean']:+.2f} ± {100 * row['gain']['sd']:.2f}",
            f"{row['gain']['pairs_won']} of {figures['seeds']}",
        ]
        for row in figures["rows"]
    ]
    return _table(("slow workers", "noise", "epoch", "uniform", "biased", "gain", "pairs won"), rows)


def fashion_mnist(figures: Figures) -> str:
    """Test accuracy in percent after epochs and seconds, and how long runs take."""
    moments = ("epoch 1", "epoch 2", "epoch 3", "1 s", "2 s", "3 s")
    rows = [
        [
            str(row["slow workers"]),
            row["method"],
            f"{figures['best lr'][row['method']]:g}",
            *(_spread(row[moment]) if row[moment]["mean"] else "-" for moment in moments),
            f"{row['seconds']:.2f}",
            f"{row['seconds to target']:.2f}",
        ]
        for row in figures["rows"]
    ]
    return _table(("slow", "method", "lr", *moments, "run, s", "to 85 %, s"), rows)


def time_to_accuracy(figures: Figures) -> str:
    """Seconds to the target of each method at its best learning rate."""
    rows = []
    for method, lr in figures["best lr"].items():
        seconds = figures["seconds"][method][str(lr)]
        rows.append(
            [method, f"{lr:g}", f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f} to {max(seconds):.3f}"]
        )
    return _table(("method", "best lr", "seconds to 96 %", f"of {len(seconds)} seeds"), rows)


def memory(figures: Figures) -> str:
    """MiB of a rank's process after each stage."""
    rows = [[stage, f"{now:.0f}", f"{max(now, most):.0f}"] for stage, now, most in figures["stages"]]
    return _table(("after", "in memory", "at most so far"), rows)


# page -> benchmark -> its table there
PAGES: dict[str, dict[str, Callable[[Figures], str]]] = {
    "results": {
        "biased_sampling": biased_sampling,
        "fashion_mnist": fashion_mnist,
        "time_to_accuracy": time_to_accuracy,
    },
    "data_parallel": {"memory": memory},
}


def begin(benchmark: str) -> str:
    """The mark before a benchmark's table."""
    return begin_of(f"python -m benchmarks {benchmark}")


def write(results: Mapping[str, Result]) -> None:
    """Fill the tables in."""
    for page, tables in PAGES.items():
        for benchmark, table in tables.items():
            if benchmark in results:
                content = f"\n{table(results[benchmark].figures)}\n"
                fill_page(ROOT / "docs" / f"{page}.md", begin(benchmark), content)


def _spread(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.1f} ± {100 * found['sd']:.1f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows))
