"""What a collective sends, by the algorithms of the MPI interpreter: it counts these bytes, the simulator prices them.

The ordered all-reduce of m bytes among n ranks has two forms (runtime/reduction.py). While (n-1)m is at most
GATHER_LIMIT, every member gathers all values and folds them: each sends (n-1)m. Above that, members exchange parts,
each folds its own part in rank order, and all gather the parts: each sends 2(n-1)/n m, as in a ring all-reduce.

Bytes are those that travel: half of an fp32 value's if it travels as bf16 or fp16 (wire.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .effects import AllGather, AllReduce, Broadcast, Collective, Phantom, ReduceScatter
from .wire import wire_bytes

# Bytes that a member may receive in a gathered all-reduce. Below this, a second message step would take longer than the
# larger traffic; above it, folding the whole vector does (measured at 2 ranks, benchmarks/runtime_allreduce.py).
GATHER_LIMIT = 65_536


@dataclass(frozen=True)
class Traffic:
    """What one member sends in a collective."""

    messages: int  # message steps, each of which costs a latency
    sent: float  # payload bytes, the mean over the members
    added: float = 0.0  # bytes that it adds to its own


def gathers(nbytes: int, members: int) -> bool:
    """Whether an all-reduce of `nbytes` is gathered whole, and folded by every member."""
    return (members - 1) * nbytes <= GATHER_LIMIT


def traffic(kind: type[Collective], nbytes: int, members: int) -> Traffic:
    """Traffic of one member. nbytes: the whole vector's as it travels, see `carried`."""
    n = members
    if n == 1:
        return Traffic(0, 0.0)
    if kind is AllReduce:
        if gathers(nbytes, n):
            return Traffic(1, (n - 1) * float(nbytes), (n - 1) * float(nbytes))
        return Traffic(2, 2 * (n - 1) / n * nbytes, (n - 1) / n * nbytes)
    if kind is ReduceScatter or kind is AllGather:
        part = (n - 1) / n * nbytes
        return Traffic(1, part, part if kind is ReduceScatter else 0.0)
    if kind is Broadcast:  # a binomial tree; n - 1 members receive the vector once
        return Traffic(math.ceil(math.log2(n)), (n - 1) / n * nbytes)
    raise TypeError(f"{kind.__name__} is not a collective")


def received(kind: type[Collective], nbytes: int, members: int, narrow: bool = False) -> float:
    """Bytes of the buffers that a member keeps for a collective, next to its value and its answer.

    nbytes: the whole vector's as it travels. narrow: whether it travels rounded, and so from a buffer.
    """
    if members == 1:
        return 0.0
    if kind is AllReduce and gathers(nbytes, members):
        return float(members * nbytes)
    travelling = nbytes * narrow  # of an AllGather all of it arrives in a buffer, too
    if kind is AllGather:
        return travelling * (1 + 1 / members)
    if kind is ReduceScatter and members == 2 and not narrow:
        return 0.0  # the other's part arrives where it is folded
    return travelling + (members - 1) / members * nbytes


def whole_bytes(effect: Collective, members: int) -> int:
    """Bytes of the whole vector, an AllGather's of all members together."""
    value = effect.value
    if not isinstance(effect, AllGather):
        return value.nbytes
    item = 1 if isinstance(value, Phantom) else value.itemsize
    return item * sum(effect.counts(members))


def carried(effect: Collective, members: int) -> int:
    """Bytes of the whole vector as it travels: by these a collective is counted and priced."""
    return wire_bytes(whole_bytes(effect, members), effect.wire)
