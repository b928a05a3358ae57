"""Seconds that a collective takes, once all its members are there.

Rule: what is sent comes from algorithms.traffic, which the real transport performs; this file only says how fast the
network carries it. A new shape is one more entry of SHAPES. (Flows that share links will need more than a
duration; they begin where rendezvous.py asks for one.)
"""

from __future__ import annotations

from collections.abc import Callable

from ..algorithms.effects import Collective
from ..algorithms.errors import ScenarioError
from ..algorithms.traffic import Traffic, traffic
from ..config.timing import Network


def star(bandwidth: float, sent: float, members: int) -> float:
    """Seconds for the bytes when every member sends over a full-duplex port of its own, all at the same time."""
    return sent / bandwidth


def bus(bandwidth: float, sent: float, members: int) -> float:
    """Seconds for the bytes when all members' bytes pass one pipe, one after another."""
    return members * sent / bandwidth


SHAPES: dict[str, Callable[[float, float, int], float]] = {"star": star, "bus": bus}


class Fabric:
    """Prices collectives on a Network; remembers them, as a run repeats few kinds very often."""

    def __init__(self, network: Network) -> None:
        if network.shape not in SHAPES:
            raise ScenarioError(f"network shape is {network.shape!r}; write one of {', '.join(SHAPES)}")
        self._network = network
        self._known: dict[tuple[type[Collective], int, int], tuple[float, Traffic]] = {}

    def price(self, kind: type[Collective], nbytes: int, members: int) -> tuple[float, Traffic]:
        """(seconds, traffic of one member). nbytes: the whole vector, for AllGather of all members together.

        seconds = message steps * latency + time of the bytes in this shape.
        """
        key = (kind, nbytes, members)
        known = self._known.get(key)
        if known is None:
            what = traffic(kind, nbytes, members)
            carry = SHAPES[self._network.shape]
            seconds = what.messages * self._network.latency + carry(self._network.bandwidth, what.sent, members)
            known = self._known[key] = (seconds, what)
        return known
