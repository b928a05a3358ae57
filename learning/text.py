"""Text as tokens: its bytes, 256 of them. From a file, the files of a folder, or Python's own standard library.

The standard library is a real text that every machine has: nothing is downloaded. Another version of Python has another
text, and so may a distribution that changes it.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np

from ..program.effects import Array
from . import raw_files, user_code
from .dataset import Dataset, DataShape
from .tokens import Cut

BYTES = 256  # tokens


def load(
    *,
    path: str | None = None,
    files: str = "*",
    sequence: int = 256,
    stride: int | None = None,
    test_share: float = 0.1,
    train: int | None = None,
    test: int | None = None,
) -> Dataset:
    """The examples of a text, whose end is the test set.

    path: a file or a folder; None: the modules of the standard library. files: which of the folder's, a pattern like
    "**/*.md"; they follow one another in the order of their names. Others: see Cut.
    """
    cut, what = Cut(sequence, stride, test_share, train, test), _named(path)
    rows = cut.parts(_row(_files(path, files)))
    version = f"data text: the standard library of Python {platform.python_version()}; another version has another text"
    notes = () if path else (version,)
    return cut.dataset(rows, BYTES, what, notes)


def shape(
    *,
    path: str | None,
    files: str,
    sequence: int,
    stride: int | None,
    test_share: float,
    train: int | None,
    test: int | None,
) -> DataShape:
    """The shape of these examples, from the files' sizes alone."""
    cut = Cut(sequence, stride, test_share, train, test)
    size = sum(file.stat().st_size for file in _files(path, files))
    return cut.shape(cut.lengths(size), BYTES, 1, _named(path))


def _row(files: list[Path]) -> Array:
    """The bytes of the files: mapped where there is one, in memory where there are several."""
    parts = [raw_files.mapped(file) for file in files]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _files(path: str | None, files: str) -> list[Path]:
    """The text's files, in the order of their names."""
    if path is None:
        folder = Path(os.__file__).parent
        known = [name for name in sys.stdlib_module_names if not name.startswith("_")]
        found = [file for name in sorted(known) if (file := folder / f"{name}.py").is_file()]
        if not found:
            raise ValueError(f"data text: Python's standard library is not in {folder}; write path: a file or folder")
        return found
    place = Path(path)
    if not place.is_dir():
        if not place.is_file():
            raise ValueError(f"data text: no file or folder {path}")
        return [place]
    inside = user_code.call(lambda: sorted(place.glob(files)), f"data text: files {files!r:.60}")
    found = [file for file in inside if file.is_file()]
    if not found:
        raise ValueError(f"data text: {path} has no files {files}; write a pattern like '**/*.md'")
    return found


def _named(path: str | None) -> str:
    return f"data text: {path or 'the standard library'}"
