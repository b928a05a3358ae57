"""Small files in the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values: np.ndarray) -> bytes:
    """Bytes of an IDX file with these values."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, train: int = 30, test: int = 12, packed: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The four files in `folder`, whose images show their class: a bright row. Returns their values.

    packed: the files that are .gz.
    """
    random, made = np.random.default_rng(0), dict[str, np.ndarray]()
    for part, count in (("train", train), ("t10k", test)):
        labels = random.permutation(np.arange(count) % 10)
        images = random.integers(0, 200, (count, 28, 28), np.uint8)
        images[np.arange(count), 2 * labels + 4] = 255
        made |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in made.items():
        put(folder, name, idx(values), name in packed)
    return made


def put(folder: Path, name: str, content: bytes, packed: bool = False) -> None:
    """Write a file, or its .gz, instead of what was there."""
    for old in (folder / name, folder / f"{name}.gz"):
        old.unlink(missing_ok=True)
    (folder / f"{name}.gz" if packed else folder / name).write_bytes(gzip.compress(content) if packed else content)
