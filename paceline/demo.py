"""`paceline demo`: the main job from end to end on this machine, in under two minutes.

Profiles the machine, simulates the quickstart and its synchronous twin, trains both for real with an emulated slow
worker, compares, draws.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rich.console import Console

from .analysis.run import Run
from .profiling import profile
from .records.replacing import refuse
from .show import save_figures, show_comparison, show_run
from .simulating import simulate
from .training import TrainOptions, launch


def demo(out: Path) -> None:
    """Run the demo; everything goes below `out`, which is replaced."""
    refuse(out, force=True)
    console = Console(soft_wrap=True)
    scenarios = [packaged(name) for name in _NAMES]
    measured = out / "profile.yaml"
    settings = (f"cluster.profile={measured.absolute()}",)

    console.rule("1. profile: how fast is this machine?")
    profile(scenarios[0], measured, True, None, ())
    console.rule("2. simulate: the clock and the numbers, predicted")
    predicted = [
        simulate(path, settings=settings, out=out / f"{path.stem}-simulated", force=True, quiet=False)
        for path in scenarios
    ]
    console.rule("3. train: two processes under mpirun, the second one emulated four times slower")
    options = TrainOptions(settings, out / "trained", force=True, emulate=True)
    status = launch(scenarios, options, None)
    if status:
        raise SystemExit(status)
    real = [Run.load(out / "trained" / path.stem) for path in scenarios]
    for number, (left, right) in enumerate(zip(predicted, real, strict=True)):
        console.rule(f"{4 + number}. compare: {_NAMES[number]}, predicted against real")
        show_run(right)
        show_comparison(left, right)
        for path in save_figures([left, right], out / "figures" / _NAMES[number]):
            console.print(f"drawn: {path}")
    console.rule("local SGD with unequal steps against synchronous SGD, the same samples")
    for name, runs in (("predicted", predicted), ("real", real)):
        local, sync = (run.summary["seconds"] for run in runs)
        console.print(f"{name:9s} {sync:.3f} s / {local:.3f} s = {sync / local:.2f} times faster")


def packaged(name: str) -> Path:
    """A scenario that comes with the package."""
    return Path(str(resources.files("paceline") / "scenarios" / f"{name}.yaml"))


_NAMES = ("quickstart", "quickstart_sync")
