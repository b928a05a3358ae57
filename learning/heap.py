"""The C library's heap, from which torch takes memory on a CPU."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Give free memory of the heap back to the system, where the C library can (glibc).

    Otherwise it stays with the process, in pieces into which blocks of other sizes may not fit. An evaluation after
    training steps would take its memory in addition to theirs.
    """
    if _TRIM is not None:
        _TRIM(0)


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries do not have it
