"""A loop of one's own over simulations: how many local steps reach 95 % first, on a fast network and on a slow one?"""

from pathlib import Path

import paceline

SCENARIO = Path(__file__).with_suffix(".yaml")


def seconds_to(accuracy, **settings):
    """Virtual seconds at the first report that reaches the accuracy; infinity where none does."""
    found = paceline.simulate(SCENARIO, settings=[f"{key}={value}" for key, value in settings.items()]).metrics
    reached = found[found.accuracy >= accuracy]
    return reached.seconds.min() if len(reached) else float("inf")


for bandwidth in ("10 Gbit/s", "100 Mbit/s"):
    seconds = {H: seconds_to(0.95, **{"strategy.H": H, "cluster.network.bandwidth": bandwidth}) for H in (1, 4, 16)}
    each = ", ".join(f"{s:.3f} s with H = {H}" for H, s in seconds.items())
    print(f"{bandwidth}: H = {min(seconds, key=seconds.get)} is first ({each})")
