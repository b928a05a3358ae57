"""The named systems, each one expression over the five axes, with its formula and its source."""

from __future__ import annotations

from collections.abc import Callable

from .aggregations import Gradients, Parameters
from .placements import Replicated
from .sampling import Shuffled
from .schedules import Every, Fixed
from .splits import BySteps, Even
from .strategy import Strategy


def sync_sgd() -> Strategy:
    """Synchronous data-parallel SGD (PyTorch's DDP): x <- x - lr * sum_r (b_r / sum b) g_r in every step.

    Li et al., "PyTorch Distributed", VLDB 2020, arXiv 2006.15704.
    """
    return Strategy(Even(), Every(), Shuffled(), Gradients("samples"), Replicated())


def local_sgd() -> Strategy:
    """Local SGD: worker r takes H_r = max(1, floor(H * pace_r + 1/2)) steps, then x <- mean_r x_r.

    Stich, "Local SGD converges fast and communicates little", ICLR 2019, arXiv 1805.09767. Paces follow the
    workers' speeds, and H = auto gives the slowest one step.
    """
    return Strategy(BySteps(), Fixed("auto"), Shuffled(), Parameters("equal"), Replicated())


PRESETS: dict[str, Callable[[], Strategy]] = {"sync_sgd": sync_sgd, "ddp": sync_sgd, "local_sgd": local_sgd}
