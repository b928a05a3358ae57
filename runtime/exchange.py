"""Parts from every member to every other, in both directions at once.

Rule: every send is begun before any receive, the other way round than in MPI's Alltoallv and Allgatherv. A large
message waits for its receiver's consent, and over TCP the consent travels in the connection of the receiver's own
messages: where it is given behind a large one, it is stuck until that has left, and the two directions take turns. A
receiver that has announced its own message, but not begun it, gives its consent ahead of it
(benchmarks/exchange_order.py has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..program.effects import Array
from .headers import TAG


def exchange(comm: Any, outgoing: Sequence[Array], incoming: Sequence[Array], element: Any) -> None:
    """Send outgoing[r] to member r and receive incoming[r] from it; those of this member itself are not looked at.

    comm: a communicator, or one that polls (polling.py). element: the MPI type of the parts' elements.
    """
    size, rank = comm.size, comm.rank
    requests = []
    for other in (*range(rank + 1, size), *range(rank)):  # each begins with another one, to load the ports alike
        part = outgoing[other]
        requests.append(comm.Isend([part, part.size, element], other, TAG + 1))
    for other in (*reversed(range(rank)), *reversed(range(rank + 1, size))):
        part = incoming[other]
        requests.append(comm.Irecv([part, part.size, element], other, TAG + 1))
    for request in reversed(requests):  # one by one, for the errors' sake: Waitall's do not say of what kind they are
        request.Wait()
