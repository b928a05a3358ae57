"""What each decision of a way brings, in words.

Rule: a decision is judged by the fastest way that there is without it, with no more local steps. Other decisions may
differ then, too. If the workers do, the words say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from .judge import Judge, Wanted, fp32, longer
from .space import Way, listed


@dataclass(frozen=True)
class Reason:
    """What a decision brings."""

    factor: float  # how many times as long an epoch takes without it; infinite where nothing can be trained
    text: str


def reasons(judge: Judge, way: Way) -> list[Reason]:
    """What each decision of a way brings, the one that matters most first."""
    found = _Decisions(judge, way)
    return sorted(
        [*found.workers(), *found.steps(), *found.shares(), *found.values()], key=lambda reason: -reason.factor
    )


@dataclass(eq=False)
class _Decisions:
    """The decisions of a way."""

    judge: Judge
    way: Way

    def __post_init__(self) -> None:
        seconds = self.judge.values.seconds(self.way)
        assert seconds is not None, "it was found"
        self._seconds = seconds
        self._names = [each.name for each in self.judge.lab.classes]

    def workers(self) -> Iterator[Reason]:
        """Some workers are left out, or all are used."""
        way, names, everyone = self.way, self._names, self.judge.teams[0]
        if way.team is not everyone:
            out = listed([n for c, n in enumerate(names) if c not in way.team.classes] or ["other workers"])
            best, more = self.judge.fastest(lambda root: root.team is everyone), ""
            if best is not None and best[1].steps > way.steps:
                more = f", with {best[1].steps:.3g} local steps {longer(best[0] / self._seconds)}"
            yield self._against(
                f"leave the {out} out", "an epoch on all workers", lambda root: root.team is everyone, more=more
            )
        elif len(names) > 1 and "workers" not in self.judge.space.keep:
            slow = len(names) - 1
            text, other = f"use the {names[slow]}, too", "an epoch without it"
            yield self._against(text, other, lambda root: slow not in root.team.classes, more="")

    def steps(self) -> Iterator[Reason]:
        """Local steps, or a sync after every step."""
        way = self.way
        if self.judge.space.keep & {"method", "H"}:
            return
        if way.steps > 1:
            text, other = f"take {way.steps:.3g} steps between two syncs", "a sync after every step"
            yield self._against(text, other, lambda root: root.method.synchronous, 1)
        elif way.team.size > 1 and (best := self.judge.fastest(lambda root: not root.method.synchronous)) is not None:
            factor, steps = best[0] / self._seconds, best[1].steps
            yield Reason(factor, f"sync after every step: with {steps:.3g} local steps an epoch takes {longer(factor)}")

    def shares(self) -> Iterator[Reason]:
        """Batches or steps by speed."""
        way = self.way
        if way.division.total:
            text, other = "give larger batches to faster workers", "an epoch with equal batches"
            yield self._against(text, other, lambda root: root.division.total is None)
        elif len(way.team.devices) > 1 and way.steps > 1:
            text, other = "give more steps to faster workers", "an epoch with as many steps for all"
            yield self._against(text, other, lambda root: root.division.split != "by_steps")

    def values(self) -> Iterator[Reason]:
        """Where parameters live, and how values travel."""
        way = self.way
        if way.placement != "replicated":
            text = f"keep parameters {way.placement.replace('_', ' and ')}"
            yield self._against(text, "an epoch with replicated ones", lambda root: root.placement == "replicated")
        if way.options.wire != "fp32":
            text = f"send values as {way.options.wire}"
            yield self._against(text, "an epoch with fp32", lambda root: True, leaf=fp32)

    def _against(
        self,
        text: str,
        other: str,
        wanted: Wanted,
        steps: float | None = None,
        leaf: Callable[[Way], bool] = lambda way: True,
        more: str | None = None,
    ) -> Reason:
        """A decision against the fastest way without it. other: this way in words.

        wanted, steps, leaf: see Judge.fastest. steps: as many as the way's own by default.
        more: what else is said of it; by default, which other workers it uses.
        """
        found = self.judge.fastest(wanted, self.way.steps if steps is None else steps, leaf)
        if found is None:
            return Reason(inf, f"{text}: {other} is not possible within {self.judge.space.limits}")
        factor, more = found[0] / self._seconds, self._others(found[1]) if more is None else more
        if found[0] > self.judge.most:
            more += ", which is too long for the deadline"
        return Reason(factor, f"{text}: {other} takes {longer(factor)}{more}")

    def _others(self, other: Way) -> str:
        """How another way's workers differ."""
        mine, its = self.way.team, other.team
        gone, new = ([self._names[c] for c in a.classes if c not in b.classes] for a, b in ((mine, its), (its, mine)))
        if mine is its:
            return ""
        told = [f"without the {listed(gone)}"] if gone else []
        told += [f"with the {listed(new)}"] if new else []
        return f", {' and '.join(told) or 'on one worker'}"
