"""An exact search for the candidates that no other one beats in both of two costs: branch and bound.

The costs are seconds for a sample, and the samples that all workers process between two syncs. The second is known
from a candidate's description alone. The first takes a simulation, but has a bound that is cheap: no candidate of a
node takes less. So nodes are looked at in the order of their bounds, and one is left out as soon as a candidate is
known that is at least as good in both costs.

Rule: what is found is what trying all candidates would find. Both a bound and a simulated clock are sums whose last
digits depend on the order of adding, so both are rounded to DIGITS digits before they are compared. Of candidates with
equal costs the first in the order of the space is taken.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

DIGITS = 8  # of seconds that are compared
ADDING = 1e-12  # by how much, relatively, a bound may be above the clock because it adds up in another order


def rounded(seconds: float) -> float:
    """Seconds as they are compared."""
    return float(f"{seconds:.{DIGITS}g}")


class Candidate(Protocol):
    """A way to train. Equal candidates are one."""

    @property
    def place(self) -> tuple[int, ...]:
        """Its place in the order of the space."""

    @property
    def gap(self) -> float:
        """Samples that all workers process between two syncs."""


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Node(Generic[C]):
    """Candidates with one gap, of which none takes less than `bound` seconds for a sample."""

    bound: float
    gap: float
    place: tuple[int, ...]  # what the places of its candidates begin with
    candidate: C | None  # where it is a single one
    children: Callable[[], Iterable[Node[C]]] = tuple  # where there are several; their bounds are this one or more


@dataclass
class Front(Generic[C]):
    """The candidates so far that no other one beats in both costs, by rising gap and so by falling seconds."""

    gaps: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    candidates: list[C] = field(default_factory=list)

    def beats(self, node: Node[C], any_gap: bool = False) -> bool:
        """Whether no candidate of the node can become a part of this front.

        any_gap: the fastest one is all that counts.
        """
        place = len(self.gaps) if any_gap else bisect_right(self.gaps, node.gap)
        if not place:
            return False
        known, least = self.seconds[place - 1], rounded(node.bound * (1 - ADDING))
        first = any_gap or self.gaps[place - 1] < node.gap or self.candidates[place - 1].place < node.place
        return known < least or (known == least and first)

    def add(self, candidate: C, seconds: float) -> None:
        """Take a candidate in, unless one that is here beats it."""
        gap, seconds = candidate.gap, rounded(seconds)
        place = bisect_right(self.gaps, gap)
        if place and self.seconds[place - 1] <= seconds:
            known = self.candidates[place - 1]
            equal = self.gaps[place - 1] == gap and self.seconds[place - 1] == seconds
            if equal and candidate.place < known.place:
                self.candidates[place - 1] = candidate
            return
        start = stop = bisect_left(self.gaps, gap)
        while stop < len(self.gaps) and self.seconds[stop] >= seconds:
            stop += 1
        self.gaps[start:stop], self.seconds[start:stop], self.candidates[start:stop] = [gap], [seconds], [candidate]


@dataclass(frozen=True)
class Found(Generic[C]):
    """What a search has found."""

    front: Front[C]
    whole: bool  # whether the search is over, so that the front is that of the whole space


def search(
    roots: Sequence[Node[C]],
    value: Callable[[C], float | None],
    tell: Callable[[int, int], None] = lambda done, left: None,
    fastest: bool = False,
) -> Found[C]:
    """The front of all candidates under these nodes.

    value: a candidate's seconds for a sample; None where it cannot be had.
    tell: called with (nodes that are settled, nodes that wait) now and then.
    fastest: look for the fastest candidate alone, whatever its gap.

    A KeyboardInterrupt ends the search; what was found until then is returned.
    """
    front, settled = Front[C](), 0
    waiting = [(node.bound, number, node) for number, node in enumerate(roots)]
    heapq.heapify(waiting)
    number = len(roots)
    try:
        while waiting:
            _, _, node = heapq.heappop(waiting)
            settled += 1
            if front.beats(node, fastest):
                if fastest:  # all others have larger bounds
                    break
                continue
            if node.candidate is None:
                for child in node.children():
                    number += 1
                    heapq.heappush(waiting, (child.bound, number, child))
                continue
            seconds = value(node.candidate)
            if seconds is not None:
                front.add(node.candidate, seconds)
            tell(settled, len(waiting))
    except KeyboardInterrupt:
        return Found(front, whole=False)
    return Found(front, whole=True)


def exhaustive(roots: Iterable[Node[C]], value: Callable[[C], float | None]) -> Front[C]:
    """The front by trying every candidate: what `search` must agree with."""
    front = Front[C]()
    for node in roots:
        for candidate in leaves(node):
            if (seconds := value(candidate)) is not None:
                front.add(candidate, seconds)
    return front


def leaves(node: Node[C]) -> Iterable[C]:
    """All candidates of a node."""
    if node.candidate is not None:
        yield node.candidate
    else:
        for child in node.children():
            yield from leaves(child)
