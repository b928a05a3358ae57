"""`paceline demo`: everything that Paceline does, from end to end on this machine, in under two minutes.

It profiles the machine, simulates the quickstart and its synchronous twin, trains both for real with an emulated slow
worker, compares and draws. Each is trained twice, since a prediction cannot be better than two equal runs agree, and on
a busy machine they differ.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .analysis.paper import Paper
from .config import bundled
from .config.scenario import train_settings
from .launching import launch
from .printing import save_figures, show_comparison, show_run
from .profiling import profile
from .records.replacing import refuse
from .run import Run
from .simulating import simulate
from .terminal import console as make_console
from .training import TrainOptions


def demo(out: Path, paper: Paper) -> None:
    """Run the demo. Everything is written below `out`, where an earlier demo is replaced.

    paper: how figures are drawn.
    """
    refuse(out, force=True)
    console = make_console()
    scenarios = [bundled.find(name) for name in _NAMES]
    measured = out / "profile.yaml"
    settings = (f"cluster.profile={measured.absolute()}",)

    shares = [core_share(_RANKS)]
    console.rule("1. profile: how fast is this machine?")
    profile(scenarios[0], measured, None, train_settings(emulate=True))
    shares.append(core_share(_RANKS))
    console.rule("2. simulate: the clock and the numbers, predicted")
    predicted = [
        simulate(path, settings=settings, out=out / f"{path.stem}-simulated", force=True, quiet=False)
        for path in scenarios
    ]
    console.rule("3. train, each twice: two processes under mpirun, the second one emulated four times slower")
    options = TrainOptions((*settings, *train_settings(emulate=True)), out / "trained", force=True)
    repeated = [Path(shutil.copy(path, out / f"{path.stem}_again.yaml")) for path in scenarios]
    status = launch([*scenarios, *repeated], options, None)
    if status:
        raise SystemExit(status)
    shares.append(core_share(_RANKS))
    real, again = ([Run.load(out / "trained" / path.stem) for path in paths] for paths in (scenarios, repeated))
    if not all(run.summary["finished"] for run in (*real, *again)):
        raise SystemExit(130)  # stopped by the user, as the training has said
    for number, (left, right) in enumerate(zip(predicted, real, strict=True)):
        console.rule(f"{4 + number}. compare: {_NAMES[number]}, predicted against real")
        show_run(right)
        show_comparison(left, right)
        for path in save_figures([left, right], out / "figures" / _NAMES[number], paper):
            console.print(f"drawn: {path}")
    console.rule("local SGD with unequal steps against synchronous SGD, the same samples")
    for name, runs in (("predicted", predicted), ("real", real), ("again", again)):
        local, sync = (run.summary["seconds"] for run in runs)
        console.print(f"{name:9s} {sync:.3f} s / {local:.3f} s: {times(sync / local)}")
    console.rule("how far to trust this")
    said, first, second = ([run.summary["seconds"] for run in runs] for runs in (predicted, real, again))
    for line in trust(_NAMES, said, first, second, min(shares)):
        console.print(line)


def times(ratio: float) -> str:
    """How much faster something is that takes 1/ratio of the other's time, in words."""
    if round(ratio, 2) == 1:
        return "as fast"
    return f"{ratio:.2f} times faster" if ratio > 1 else f"{1 / ratio:.2f} times slower"


def trust(
    names: Sequence[str], predicted: Sequence[float], real: Sequence[float], again: Sequence[float], share: float
) -> list[str]:
    """How far the prediction can be trusted: a line per scenario, and a warning where the machine was busy.

    predicted, real, again: seconds of each scenario.
    share: the least share of a core that a rank had.
    """
    lines, spread = [], 0.0
    for name, said, first, second in zip(names, predicted, real, again, strict=True):
        differ = abs(second / first - 1)
        spread = max(spread, differ)
        lines.append(f"{name}: the prediction is {said / first - 1:+.1%} off, two equal runs differ by {differ:.1%}")
    found = f"two equal runs differ by up to {spread:.0%}" if spread > _SPREAD else ""
    if share < _SHARE:
        busy = f"each of {_RANKS} processes had as little as {share:.0%} of a core"
        found = f"{busy}, and {found}" if found else busy
    if found:
        lines.append(f"warning: this machine was busy: {found}; the figures above are worth no more than that")
    return lines


def core_share(processes: int) -> float:
    """The share of a core that each of so many processes gets: processor time over wall time, the least of them."""
    command = [sys.executable, "-I", "-S", "-c", _SPIN]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return min(float(process.communicate()[0]) for process in started)


_NAMES = ("quickstart", "quickstart_sync")
_RANKS = 2
_SPREAD = 0.1  # the user is warned where two equal runs differ by more
_SHARE = 0.9  # the user is warned where a process gets less of a core; an idle machine gives more
_SPIN = """
from time import perf_counter, process_time
wall, own = perf_counter(), process_time()
while perf_counter() < wall + 0.5:
    pass
print((process_time() - own) / (perf_counter() - wall))
"""
