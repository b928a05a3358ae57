"""Which collectives belong together, in both engines.

Rule: the k-th collective of a group that one member enters, direct or started, meets the k-th of every other member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ..program.checks import not_the_same
from ..program.texts import doing
from .base_driver import Ticket

K = TypeVar("K", bound=Ticket[Any])


class Meeting(Generic[K]):
    """One collective that is not complete yet."""

    __slots__ = ("missing", "terms", "tickets")

    def __init__(self, members: int, terms: tuple[Any, ...]) -> None:
        self.tickets: list[K | None] = [None] * members  # by place in the group, None where a member has not come
        self.missing = members  # how many have not come
        self.terms = terms  # what all must agree on


class Matcher(Generic[K]):
    """One group's open meetings. members: the numbers of its drivers: of its workers, or of its cohorts' first ones.

    name: the group's, for errors.
    """

    def __init__(self, members: Sequence[int], name: str) -> None:
        self.places = {member: place for place, member in enumerate(members)}
        self._name = name
        self._came = [0] * len(members)  # meetings that each member has entered
        self._first = 0  # number of the oldest open meeting
        self._open: deque[Meeting[K]] = deque()  # the oldest first

    def enter(self, ticket: K, terms: tuple[Any, ...]) -> list[K]:
        """Put the ticket into its member's next meeting. All its tickets, by place, where it was the last; else none.

        ProtocolError where its terms are not those of the members that came before.
        """
        place = self.places[ticket.driver.index]
        number = self._came[place] - self._first
        self._came[place] += 1
        if number == len(self._open):
            self._open.append(Meeting(len(self.places), terms))
        meeting = self._open[number]
        if meeting.terms != terms:
            came = [t for t in meeting.tickets if t is not None]
            states = {t.driver.index: doing(t.effect) for t in [*came, ticket]}
            raise not_the_same(f"collective {self._came[place]} of {self._name}", states)
        meeting.tickets[place] = ticket
        meeting.missing -= 1
        if meeting.missing:
            return []
        # Each member enters its meetings in order, so the oldest is always the first to be complete.
        self._open.popleft()
        self._first += 1
        return [t for t in meeting.tickets if t is not None]
