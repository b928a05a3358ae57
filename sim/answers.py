"""What the members of a collective get, once all are there. The clock is elsewhere: this holds for any engine.

Rule: results are made from all members' values before any member is answered, and none of them is a member's own
(`loans.deliver` copies them), so a member that goes on and writes to its value cannot change what another one receives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..program.checks import bad_weights
from ..program.effects import AllGather, AllReduce, Broadcast, Collective, Phantom, Reducing, Value
from ..program.fold import coefficients, fold, parts, phantom_parts
from ..program.texts import describe
from ..program.traffic import whole_bytes
from ..program.wire import narrowed, round_trip


def results(effects: Sequence[Collective], members: tuple[int, ...]) -> Sequence[Value]:
    """Each member's answer before it is delivered; effects: in the members' order, and in agreement.

    ProtocolError where the weights of a mean do not sum to a positive number.
    """
    first, n = effects[0], len(effects)
    value = first.value
    if isinstance(first, Broadcast):
        value = effects[members.index(first.root)].value
        return [value if isinstance(value, Phantom) else round_trip(value.copy(), first.wire)] * n
    if isinstance(first, AllGather):
        if isinstance(value, Phantom):
            return [Phantom(whole_bytes(first, n))] * n
        return [round_trip(np.concatenate([effect.value for effect in effects]), first.wire)] * n
    assert isinstance(first, Reducing)
    weights = [effect.weight for effect in effects if isinstance(effect, Reducing)]
    try:
        if isinstance(value, Phantom):
            coefficients(weights, first.op)  # the same complaint as with numbers
            if isinstance(first, AllReduce):
                return [value] * n
            return [Phantom(nbytes) for nbytes in phantom_parts(value.nbytes, n)]
        values = [narrowed(effect.value, first.wire) for effect in effects if not isinstance(effect.value, Phantom)]
        whole = fold(values, weights, first.op, np.empty_like(value))
    except ValueError as error:
        raise bad_weights(describe(first), members, error) from error
    if isinstance(first, AllReduce):
        return [round_trip(whole, first.wire)] * n
    return [whole[start:stop] for start, stop in parts(whole.size, n)]
