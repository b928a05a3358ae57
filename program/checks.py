"""When programs misuse the language: the checks and the errors of every interpreter.

`check_...`, `startable` and `group_members` raise a ProtocolError where something is wrong. The other functions make
one for an interpreter to raise.
`worker` is always the number of the worker whose program yielded the effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .effects import COLLECTIVES, AllGather, Broadcast, Collective, Compute, Effect, Move, Phantom, Reducing, Startable
from .errors import ProtocolError
from .texts import describe, everyone
from .wire import objection

STARTABLE = COLLECTIVES | {Compute, Move}


def group_members(effect: Collective, worker: int, workers: int) -> tuple[int, ...]:
    """The members of the effect's group, out of so many workers, in rank order."""
    if effect.group is None:
        return tuple(range(workers))
    members = tuple(sorted(effect.group))
    if len(set(members)) < len(members) or not all(0 <= member < workers for member in members):
        raise ProtocolError(
            f"worker {worker}: group {effect.group} of {describe(effect)} must name each member once, "
            f"out of workers 0 to {workers - 1}"
        )
    if worker not in members:
        raise not_a_member(effect, worker)
    return members


def not_a_member(effect: Collective, worker: int) -> ProtocolError:
    """A worker takes part in a collective of others."""
    return ProtocolError(f"worker {worker} is not in the group {effect.group} of its {describe(effect)}")


def check_part(effect: Collective, worker: int, members: Sequence[int]) -> None:
    """Whether a worker's own part of a collective can be right, whatever the other members do."""
    value = effect.value
    if not isinstance(value, Phantom):
        if not isinstance(value, np.ndarray):
            raise ProtocolError(f"worker {worker}: {describe(effect)} takes vectors, not a {type(value).__name__}")
        if value.ndim != 1:
            raise ProtocolError(f"worker {worker}: {describe(effect)} takes vectors, not shape {value.shape}; ravel it")
        if isinstance(effect, Reducing) and value.dtype.kind != "f":
            raise ProtocolError(f"worker {worker}: {describe(effect)} reduces floats, not {value.dtype}")
    if effect.wire != "fp32" and (why := objection(value, effect.wire)):
        raise ProtocolError(f"worker {worker}: {describe(effect)}: {why}")
    if type(effect) is Broadcast and effect.root not in members:
        raise ProtocolError(
            f"worker {worker}: root {effect.root} of {describe(effect)} is not among workers {tuple(members)}"
        )
    if type(effect) is AllGather and effect.sizes is not None:
        own = value.nbytes if isinstance(value, Phantom) else value.size
        if len(effect.sizes) != len(members) or effect.sizes[members.index(worker)] != own:
            raise ProtocolError(
                f"worker {worker}: {describe(effect)} holds {own} of sizes {effect.sizes} for workers "
                f"{tuple(members)}; sizes lists each member's elements (a phantom's bytes)"
            )


def check_out(effect: Collective, worker: int, size: int) -> None:
    """Whether a collective's answer of `size` elements (a phantom's bytes) fits into its `out`, if there is one."""
    value, out = effect.value, effect.out
    if out is None:
        return
    if isinstance(value, Phantom):
        fits = isinstance(out, Phantom) and out.nbytes == size
    else:
        fits = not isinstance(out, Phantom) and out.shape == (size,) and out.dtype == value.dtype
    if fits:
        return
    found = "a Phantom" if isinstance(out, Phantom) else f"{out.dtype} of shape {out.shape}"
    wanted = f"a Phantom of {size} bytes" if isinstance(value, Phantom) else f"{value.dtype} of shape ({size},)"
    raise ProtocolError(f"worker {worker}: out of {describe(effect)} is {found}, the answer {wanted}")


def not_the_same(which: str, states: dict[int, str]) -> ProtocolError:
    """Members of a group take part in different collectives. which: collective, and of which group."""
    return ProtocolError(f"{which} must be the same for all its members: {everyone(states)}")


def bad_weights(what: str, members: Sequence[int], why: object) -> ProtocolError:
    """The members' weights make no mean. what: the collective."""
    return ProtocolError(f"{what} of workers {tuple(members)}: {why}")


def deadlock(states: dict[int, str]) -> ProtocolError:
    """No program can go on. states: worker -> what it does (texts.doing)."""
    return ProtocolError(f"the programs do not fit together, nothing can go on: {everyone(states)}")


def startable(effect: Effect[Any], worker: int) -> Startable:
    """The effect, if it is one that Start takes."""
    if type(effect) in STARTABLE:
        return effect  # type: ignore[return-value]
    raise ProtocolError(f"worker {worker} starts {describe(effect)}; only Compute, Move and collectives can be started")


def not_started(effect: Effect[Any], worker: int) -> ProtocolError:
    """A program waits for a handle of another program, or for one that it made itself."""
    return ProtocolError(f"worker {worker} waits for {describe(effect)}, which it did not start")


def waited_twice(effect: Effect[Any], worker: int) -> ProtocolError:
    """A program waits for a started effect whose answer it has."""
    return ProtocolError(f"worker {worker} waits twice for the same {describe(effect)}")


def never_waited(effects: Iterable[Effect[Any]], worker: int) -> ProtocolError:
    """A program has ended before it took the answers of these started effects."""
    left = ", ".join(map(describe, effects))
    return ProtocolError(f"worker {worker}'s program has ended without a Wait for what it started: {left}")
