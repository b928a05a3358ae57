"""How wrong is the predicted clock? The quickstart and its synchronous twin: profiled, simulated, trained for real.

Each repeat profiles the machine anew, so the error holds what the machine changes between measuring and training. Two
ranks, the second emulated four times slower.

    python benchmarks/prediction_error.py [--small]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from paceline.analysis.compare import compare
from paceline.analysis.run import Run
from paceline.profiling import profile
from paceline.records.environment import environment
from paceline.simulating import simulate
from paceline.training import TrainOptions, launch

RESULTS = Path(__file__).parent / "results" / "prediction_error.json"
SCENARIOS = [Path(__file__).parent.parent / "scenarios" / f"{name}.yaml" for name in ("quickstart", "quickstart_sync")]


def repeat(folder: Path) -> dict[str, dict[str, float | bool]]:
    """By scenario: predicted and real seconds, the relative error, and whether the numbers agree to the last bit."""
    measured = folder / "profile.yaml"
    profile(SCENARIOS[0], measured, None, ("train.emulate=true",))
    settings = (f"cluster.profile={measured}",)
    status = launch(SCENARIOS, TrainOptions((*settings, "train.emulate=true"), folder / "real"), None, quiet=True)
    if status:
        raise SystemExit(status)
    rows: dict[str, dict[str, float | bool]] = {}
    for path in SCENARIOS:
        predicted = simulate(path, settings=settings, out=folder / "simulated" / path.stem)
        result = compare(predicted, Run.load(folder / "real" / path.stem))
        rows[path.stem] = {
            "predicted": result.seconds[0],
            "real": result.seconds[1],
            "error": result.error,
            "same_numbers": result.same,
        }
    return rows


def main() -> None:
    """Repeat, print and write."""
    small = "--small" in sys.argv
    rows = []
    for _ in range(1 if small else 7):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(repeat(Path(folder)))
            print(json.dumps(rows[-1]))
    summary = {
        path.stem: {
            "median_error": statistics.median(row[path.stem]["error"] for row in rows),
            "median_absolute_error": statistics.median(abs(row[path.stem]["error"]) for row in rows),
            "same_numbers": all(row[path.stem]["same_numbers"] for row in rows),
        }
        for path in SCENARIOS
    }
    print(json.dumps(summary, indent=1))
    if not small:
        RESULTS.write_text(
            json.dumps({"summary": summary, "repeats": rows, "environment": environment(1)}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
