"""The bytes of files that hold data sets, and their checksums."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 20  # bytes that are unpacked at a time


def mapped(file: Path) -> NDArray[np.uint8]:
    """The file's bytes, which are read when they are used. ValueError of one line where it cannot be read."""
    try:
        if file.stat().st_size == 0:  # the system maps no empty file
            return np.empty(0, np.uint8)
        return np.memmap(file, np.uint8, "r")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


def unpacked(file: Path, most: int) -> NDArray[np.uint8]:
    """The bytes in a .gz file: all of them, or a few more than `most` where there are more.

    ValueError of one line where it is not a whole .gz file.
    """
    whole = bytearray()
    try:
        with gzip.open(file) as opened:
            while len(whole) <= most and (block := opened.read(BLOCK)):
                whole += block
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is not a whole .gz file: {error}") from error
    return np.frombuffer(whole, np.uint8)


def md5(content: Any = b"") -> Any:
    """A checksum that only finds mistakes, which systems that forbid MD5 for security allow."""
    return hashlib.md5(content, usedforsecurity=False)


def compare(what: str, found: str, expected: str, remedy: str) -> None:
    """ValueError unless the MD5 checksum is the known one."""
    if found != expected:
        raise ValueError(f"{what} has the MD5 checksum {found}, not {expected}; {remedy}")
