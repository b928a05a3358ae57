"""Parts from every member to every other, in both directions at once.

Why not MPI's Alltoallv and Allgatherv: they begin the receives first, and over TCP that makes the two directions of a
link take turns. A large message waits until its receiver agrees to take it, and that consent travels in the same
connection as the receiver's own messages. If the receiver has begun to send a large message of its own, the consent
is stuck behind it until all of it has left. If it has only announced its message, the consent goes ahead of it. So
here every send is begun, which announces it, before any receive is (benchmarks/exchange_order.py has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..program.effects import Array
from .headers import TAG
from .ulfm import settle


def exchange(comm: Any, outgoing: Sequence[Array], incoming: Sequence[Array], element: Any) -> None:
    """Send outgoing[r] to member r, and receive incoming[r] from it. This member's own two parts are not looked at.

    comm: a communicator, or one that polls (polling.py).
    element: the MPI type of the parts' elements.
    """
    size, rank = comm.size, comm.rank
    requests = []
    # Each member begins with another one, so that the links are used alike.
    for other in (*range(rank + 1, size), *range(rank)):
        part = outgoing[other]
        requests.append(comm.Isend([part, part.size, element], other, TAG + 1))
    for other in (*reversed(range(rank)), *reversed(range(rank + 1, size))):
        part = incoming[other]
        requests.append(comm.Irecv([part, part.size, element], other, TAG + 1))
    try:
        for request in reversed(requests):  # one by one: the error of a Waitall does not say of what kind it is
            request.Wait()
    except BaseException:
        settle(comm, requests)
        raise
