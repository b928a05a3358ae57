"""The algorithms of collectives as the steps that they take: which member sends how many bytes to which, and what
they add up.

The costs of the steps sum to MPICH's formulas (Thakur, Rabenseifner and Gropp, "Optimization of Collective
Communication Operations in MPICH", 2005), with alpha seconds of latency, beta seconds per byte sent, gamma seconds per
byte added up, m bytes, n members:

  recursive doubling   lg n (alpha + m beta + m gamma); other n: floor(lg)+2 message steps, floor(lg)+1 additions
  ring                 2(n-1) alpha + 2(n-1)/n m beta + (n-1)/n m gamma
  rabenseifner         2 lg n alpha + the ring's beta and gamma; other n: with floor(lg), 2 alpha + 2m beta + m gamma
  tree                 a binomial reduce, then a binomial broadcast: 2 ceil(lg) (alpha + m beta) + ceil(lg) m gamma
  two_level            tree's reduce in each node, an all-reduce among the nodes' first members, tree's broadcast
  auto                 as MPICH: recursive doubling up to 2,048 bytes, else rabenseifner; two_level with several nodes
  ordered              what the MPI interpreter performs: program/traffic.py

These are the all-reduces. All algorithms except `ordered` gather around a ring, (n-1) alpha + (n-1)/n m beta, and
scatter pairwise, which costs the same and gamma. A broadcast is always a binomial tree, ceil(lg) (alpha + m beta).

Rule: a step is data. network.py says what it costs on which links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..config.timing import CollectiveAlgorithm
from ..program.effects import AllGather, AllReduce, Broadcast, Collective
from ..program.traffic import traffic

SHORT = 2048  # bytes up to which an all-reduce is short: MPICH's MPIR_CVAR_ALLREDUCE_SHORT_MSG_SIZE

Level = Literal["all", "inside", "across"]
Pairs = Iterator[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class CollectiveStep:
    """One step, in which members send at the same time."""

    pattern: str  # which member sends to which: a key of PATTERNS, or "everyone"
    messages: int  # message steps, each of which costs a latency
    nbytes: float  # bytes that each sender sends in total
    added: float = 0.0  # bytes that each receiver adds to its own
    distance: int = 1  # of partners, for the patterns that have one
    level: Level = "all"  # among all members, within each node, or among the first members of the nodes
    streams: int = 1  # connections that a sender uses at the same time


def low(n: int) -> int:
    """floor(log2 n)."""
    return n.bit_length() - 1


def high(n: int) -> int:
    """ceil(log2 n)."""
    return (n - 1).bit_length()


# --- which member sends to which, by place in a list of n members -----------------------------------------------------


def _around(n: int, distance: int, root: int) -> Pairs:
    """Each to the next in a ring."""
    return ((i, (i + 1) % n) for i in range(n))


def _exchange(n: int, distance: int, root: int) -> Pairs:
    """Partners at a distance exchange, among the 2^floor(lg) members that are left after `_in`."""
    surplus = n - 2 ** low(n)
    left = [2 * i + 1 for i in range(surplus)] + list(range(2 * surplus, n))
    return ((left[i], left[i ^ distance]) for i in range(len(left)))


def _in(n: int, distance: int, root: int) -> Pairs:
    """The surplus over a power of two: of the first 2 * surplus members, the even ones send to the odd ones."""
    return ((2 * i, 2 * i + 1) for i in range(n - 2 ** low(n)))


def _out(n: int, distance: int, root: int) -> Pairs:
    """The odd ones send back."""
    return ((odd, even) for even, odd in _in(n, distance, root))


def _down(n: int, distance: int, root: int) -> Pairs:
    """A step of a binomial broadcast from the root: it doubles the number of members that have the value."""
    have = range(0, n, 2 * distance)
    return (((i + root) % n, (i + distance + root) % n) for i in have if i + distance < n)


def _up(n: int, distance: int, root: int) -> Pairs:
    """The same step of a binomial reduce to the root."""
    return ((child, parent) for parent, child in _down(n, distance, root))


PATTERNS: dict[str, Callable[[int, int, int], Pairs]] = {
    "around": _around,
    "exchange": _exchange,
    "in": _in,
    "out": _out,
    "down": _down,
    "up": _up,
}


# --- all-reduce -------------------------------------------------------------------------------------------------------


def ordered(n: int, m: float) -> list[CollectiveStep]:
    """As program/traffic.py says: all send to all, whole vectors or parts, and add up what they receive."""
    return [_as_performed(AllReduce, n, int(m))]


def _as_performed(kind: type[Collective], n: int, nbytes: int) -> CollectiveStep:
    """What the MPI interpreter does."""
    what = traffic(kind, nbytes, n)
    return CollectiveStep("everyone", what.messages, what.sent, what.added, streams=n - 1)


def ring(n: int, m: float) -> list[CollectiveStep]:
    return [CollectiveStep("around", 2 * (n - 1), 2 * (n - 1) / n * m, (n - 1) / n * m)]


def recursive_doubling(n: int, m: float) -> list[CollectiveStep]:
    steps = [CollectiveStep("exchange", 1, m, m, 2**k) for k in range(low(n))]
    return _with_surplus(n, m, steps)


def rabenseifner(n: int, m: float) -> list[CollectiveStep]:
    """Reduce-scatter by halving, nearest partners first, then all-gather by doubling.

    The halves sum to (n-1)/n of m for any n, as in the formula. To be exact, n would be the power of two below.
    """
    whole = 2 ** low(n)
    part = (n - 1) / n * m / (whole - 1)
    halving = [
        CollectiveStep("exchange", 1, part * whole / 2 ** (k + 1), part * whole / 2 ** (k + 1), 2**k)
        for k in range(low(n))
    ]
    doubling = [CollectiveStep("exchange", 1, step.nbytes, 0.0, step.distance) for step in reversed(halving)]
    return _with_surplus(n, m, halving + doubling)


def _with_surplus(n: int, m: float, steps: list[CollectiveStep]) -> list[CollectiveStep]:
    """Members above a power of two first send their vector to a neighbour, and get the result at the end."""
    return steps if n == 2 ** low(n) else [CollectiveStep("in", 1, m, m), *steps, CollectiveStep("out", 1, m)]


def binomial(n: int, m: float, level: Level = "all") -> list[CollectiveStep]:
    """A broadcast, beginning with the largest distance."""
    return [CollectiveStep("down", 1, m, 0.0, 2**k, level) for k in reversed(range(high(n)))]


def binomial_reduce(n: int, m: float, level: Level = "all") -> list[CollectiveStep]:
    return [CollectiveStep("up", 1, m, m, 2**k, level) for k in range(high(n))]


def tree(n: int, m: float) -> list[CollectiveStep]:
    return binomial_reduce(n, m) + binomial(n, m)


def by_size(n: int, m: float) -> list[CollectiveStep]:
    """MPICH's choice."""
    return recursive_doubling(n, m) if m <= SHORT else rabenseifner(n, m)


def two_level(sizes: Sequence[int], m: float) -> list[CollectiveStep]:
    """sizes: members in each node."""
    inside, nodes = max(sizes), len(sizes)
    across = by_size(nodes, m) if nodes > 1 else []
    between = [CollectiveStep(s.pattern, s.messages, s.nbytes, s.added, s.distance, "across") for s in across]
    return [*binomial_reduce(inside, m, "inside"), *between, *binomial(inside, m, "inside")]


def auto(sizes: Sequence[int], m: float) -> list[CollectiveStep]:
    """sizes: as of two_level, which it is where several nodes have several members."""
    several = len(sizes) > 1 and max(sizes) > 1
    return two_level(sizes, m) if several else by_size(sum(sizes), m)


Algorithm = Callable[[Sequence[int], float], list[CollectiveStep]]  # (members in each node, bytes) -> steps


def _flat(steps: Callable[[int, float], list[CollectiveStep]]) -> Algorithm:
    """An algorithm that asks only for the number of members, whatever their nodes."""
    return lambda sizes, m: steps(sum(sizes), m)


ALGORITHMS: dict[CollectiveAlgorithm, Algorithm] = {
    "ordered": _flat(ordered),
    "ring": _flat(ring),
    "recursive_doubling": _flat(recursive_doubling),
    "rabenseifner": _flat(rabenseifner),
    "tree": _flat(tree),
    "two_level": two_level,
    "auto": auto,
}


def collective_steps(
    kind: type[Collective], algorithm: CollectiveAlgorithm, sizes: Sequence[int], nbytes: int
) -> list[CollectiveStep]:
    """The steps of any collective. nbytes: the whole vector (an AllGather's: of all members' values together)."""
    n, m = sum(sizes), float(nbytes)
    if n == 1:
        return []
    if kind is AllReduce:
        return ALGORITHMS[algorithm](sizes, m)
    if kind is Broadcast:
        return binomial(n, m)
    if algorithm == "ordered":
        return [_as_performed(kind, n, nbytes)]
    part = (n - 1) / n * nbytes
    if kind is AllGather:
        return [CollectiveStep("around", n - 1, part)]
    return [CollectiveStep("everyone", n - 1, part, part)]
