"""Named random streams: every random number comes from a seed, a purpose and a key, never from a global generator."""

from __future__ import annotations

import zlib

import numpy as np


def seed_of(seed: int, purpose: str, *key: int) -> np.random.SeedSequence:
    """The seed sequence of a named stream. `purpose` enters as its checksum, so a new name moves no other stream."""
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *key])


def stream(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """A fresh generator at the start of the named stream, e.g. `stream(7, "shuffle", epoch)`."""
    return np.random.Generator(np.random.PCG64(seed_of(seed, purpose, *key)))


def torch_seed(seed: int, purpose: str, *key: int) -> int:
    """A 63-bit seed for a library that takes one number."""
    return int(seed_of(seed, purpose, *key).generate_state(1, np.uint64)[0] >> 1)
