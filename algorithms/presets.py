"""The named systems, each one expression over the five axes, with its formula and its source.

Scenarios give a preset's arguments next to its name, like `strategy: {preset: qsr, alpha: 0.0175, h_base: 4}`, and may
override whole axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from ..program.effects import Wire
from .aggregations import Gradients, Parameters, Until
from .outer import FedNova, OuterSGD, SlowMo
from .placements import Offloaded, Replicated, Sharded, ShardedOffloaded
from .rounds import Interval
from .sampling import Shuffled, TopLoss
from .schedules import Every, Fixed, Qsr, Then
from .scores import Merge
from .splits import ByBatch, BySteps, Even, Mode, Most
from .strategy import Strategy
from .weights import Weights

StepsOrAuto = int | Literal["auto"]


def sync_sgd(wire: Wire = "fp32") -> Strategy:
    """Synchronous data-parallel SGD (PyTorch's DDP): `x <- x - lr * sum_r (b_r / sum b) g_r` in every step.

    Li et al., "PyTorch Distributed", VLDB 2020, arXiv 2006.15704.
    """
    return Strategy(Even(), Every(), Shuffled(), Gradients("samples"), Replicated(wire=wire))


def fsdp(wire: Wire = "fp32") -> Strategy:
    """Fully sharded data parallel: synchronous SGD whose workers keep 1/n of parameters, gradients and optimizer state.

    Zhao et al., "PyTorch FSDP", VLDB 2023, arXiv 2304.11277. On the wire `3 (n-1)/n P` elements a step at most, where
    synchronous SGD sends `2 (n-1)/n P`.
    """
    return Strategy(Even(), Every(), Shuffled(), Gradients("samples"), Sharded(wire=wire))


def fsdp_offload(wire: Wire = "fp32") -> Strategy:
    """FSDP whose shards lie in host memory, where the optimizer steps (its CPU offloading).

    Zhao et al., "PyTorch FSDP", VLDB 2023, arXiv 2304.11277.
    """
    return Strategy(Even(), Every(), Shuffled(), Gradients("samples"), ShardedOffloaded(wire=wire))


def lsdp(wire: Wire = "fp32") -> Strategy:
    """Local sharded data parallel: each worker keeps everything in host memory and a few units on its device.

    Mirzaei et al., Parallel Computing 2025, 103164. Over the host link 3 P elements a step, on the wire `2 (n-1)/n P`.
    """
    return Strategy(Even(), Every(), Shuffled(), Gradients("samples"), Offloaded(wire=wire))


def hdp(mode: Mode = "fixed_total", total: int | None = None, max: Most = None) -> Strategy:
    """Synchronous SGD whose batches follow speed: `min max_r t_r(b_r)` with `sum b = total`, `1 <= b_r <= max_r`.

    Mirzaei et al., Parallel Computing 2025, 103164: HDP, its gradients weighted by samples. There a sampler gives each
    worker a slice of every epoch (sampling: sliced), and unweighted gradients are an option (aggregation: {gradients:
    equal}).
    """
    return Strategy(ByBatch(mode, total, max), Every(), Shuffled(), Gradients("samples"), Replicated())


def lshdp(mode: Mode = "fixed_total", total: int | None = None, max: Most = None, wire: Wire = "fp32") -> Strategy:
    """LSDP + HDP: everything in host memory, a few units on the device, batches by speed.

    Mirzaei et al., Parallel Computing 2025, 103164.
    """
    return dataclasses.replace(hdp(mode, total, max), placement=Offloaded(wire=wire))


def local_sgd(H: StepsOrAuto = "auto", weights: Weights = "equal") -> Strategy:
    """Local SGD: worker r takes `H_r = max(1, floor(H * pace_r + 1/2))` steps, then `x <- mean_r x_r`.

    Stich, "Local SGD converges fast and communicates little", ICLR 2019, arXiv 1805.09767. Paces follow the
    workers' speeds, and H = auto gives the slowest one step.
    """
    return Strategy(BySteps(), Fixed(H), Shuffled(), Parameters(weights), Replicated())


def biased_local_sgd(
    H: StepsOrAuto = "auto", ratio: float = 4.0, merge: Merge = "latest", weights: Weights = "equal"
) -> Strategy:
    """Biased Local SGD: local SGD with steps in proportion to speed, whose slow workers train on examples of high loss.

    Lim et al., arXiv 2508.08540. H is the fastest class's interval (32 there), the slowest class takes one step.
    """
    return Strategy(BySteps(), Fixed(H), TopLoss(ratio, merge=merge), Parameters(weights), Replicated())


def post_local_sgd(t: Interval, H: int = 16, weights: Weights = "samples") -> Strategy:
    """Post-local SGD: synchronous until t (there the first decay of the learning rate), then H local steps.

    Lin et al., "Don't use large mini-batches, use local SGD", ICLR 2020, arXiv 1808.07217.
    """
    return Strategy(Even(), Then(t, Every(), Fixed(H)), Shuffled(), Until(t, Gradients(), Parameters(weights)))


def qsr(
    alpha: float,
    h_base: int = 4,
    power: float = 2.0,
    init_t: Interval | None = None,
    init_h: int | None = None,
    weights: Weights = "equal",
) -> Strategy:
    """Local SGD or AdamW with `H = max(h_base, floor((alpha / lr)^power))`; in the lr's warm-up, init_h (h_base) steps.

    Gu et al., ICLR 2024, arXiv 2310.14423. init_t: where init_h ends, if not with the warm-up.
    """
    return Strategy(Even(), Qsr(alpha, h_base, power, init_t, init_h), Shuffled(), Parameters(weights), Replicated())


def slowmo(H: int = 48, beta: float = 0.5, alpha: float = 1.0, weights: Weights = "equal") -> Strategy:
    """Local SGD with slow momentum: `u <- beta u + (x_prev - x_avg) / lr`; `x <- x_prev - alpha lr u`.

    Wang et al., ICLR 2020, arXiv 1910.00643; defaults from there.
    """
    return Strategy(Even(), Fixed(H), Shuffled(), SlowMo(beta, alpha, Parameters(weights)), Replicated())


def diloco(H: int = 500, lr: float = 0.7, momentum: float = 0.9, weights: Weights = "equal") -> Strategy:
    """H local steps (AdamW there), then SGD with Nesterov momentum on the mean of `x_prev - x_local`.

    Douillard et al., arXiv 2311.08105. The inner optimizer's state is neither reset nor averaged.
    """
    return Strategy(Even(), Fixed(H), Shuffled(), OuterSGD(lr, momentum, inner=Parameters(weights)), Replicated())


def fednova(H: StepsOrAuto = "auto", weights: Weights = "samples") -> Strategy:
    """Unequal steps without their bias: `x <- x_0 - tau sum_i p_i (x_0 - x_i) / a_i`, `tau = sum_i p_i a_i`.

    Wang et al., NeurIPS 2020, arXiv 2007.07481.
    """
    return Strategy(BySteps(), Fixed(H), Shuffled(), FedNova(weights), Replicated())


_ALL = (
    *(sync_sgd, fsdp, fsdp_offload, lsdp, hdp, lshdp),
    *(local_sgd, biased_local_sgd, post_local_sgd, qsr, slowmo, diloco, fednova),
)
PRESETS: dict[str, Callable[..., Strategy]] = {preset.__name__: preset for preset in _ALL} | {"ddp": sync_sgd}
