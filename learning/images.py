"""Folders of images: DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, read when they are asked for.

Images are decoded at every use, since a large set does not fit into memory; see pictures.py.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..program.effects import Array
from . import user_code
from .dataset import REAL, Dataset, DataShape, Pixels

if TYPE_CHECKING:
    from .pieces import Pieces

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
IMAGENET = (1000, 1_281_167, 50_000)  # classes, training and test images: ILSVRC 2012
MEAN, DEVIATION = (  # of ImageNet's pixels in [0, 1], by channel, as is usual
    np.array(values, np.float32)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def shape(name: str, *, path: str | None = None, size: int = 224) -> DataShape:
    """Classes and numbers of files; no image is opened."""
    classes, train, test = _listed(name, path)
    return DataShape((3, size, size), len(classes), len(train[0]), len(test[0]), stored_bytes=0)


def load(name: str, *, path: str | None = None, size: int = 224) -> Dataset:
    """The data set, its images read when they are used. ValueError of one line where there is no such folder.

    The plan of a run on `imagenet` is made of its known numbers, so the folder must have them.
    """
    classes, train, test = _listed(name, path)
    found = len(classes), len(train[0]), len(test[0])
    if name == "imagenet" and found != IMAGENET:
        shown = [f"{n[0]} classes and {n[1]} + {n[2]} images" for n in (found, IMAGENET)]
        raise ValueError(f"data imagenet: {path} has {shown[0]}, not {shown[1]}; write data: {{name: images, ...}}")
    return Dataset(
        Images(train[0], size),
        np.array(train[1], np.int64),
        Images(test[0], size),
        np.array(test[1], np.int64),
        classes=len(classes),
        pixels=Pixels(255 * DEVIATION, MEAN / DEVIATION),
    )


class Images:
    """Files that look like a float32 array (examples, 3, size, size); `take` reads some of them. See Stored."""

    dtype = REAL
    stored_bytes = 0  # they stay in their files

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.shape: tuple[int, ...] = (len(files), 3, size, size)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Array, out: Array, pieces: Pieces | None = None) -> None:
        """Read the images at these places into `out`, float32 (len(indices), 3, size, size).

        pieces: what to cut out of each, in place of the centre.
        """
        from .pictures import read  # Pillow, which timing-only runs do not need

        for row, index in enumerate(indices):
            file = self.files[int(index)]
            box = None if pieces is None else partial(pieces.box, row)
            pixels = user_code.call(read, f"image {file}", file, self.shape[-1], box)
            out[row] = (pixels.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION


def _listed(
    name: str, path: str | None
) -> tuple[list[str], tuple[list[Path], list[int]], tuple[list[Path], list[int]]]:
    """(class names, (files, labels) for training, for testing), in the order of names."""
    layout = "a folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
    if path is None:
        raise ValueError(f"data {name} needs a path: {layout}")
    folders = [Path(path) / part for part in ("train", "val")]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"data {name}: no folder {folder}; the path must be {layout}")
    classes = sorted(entry.name for entry in os.scandir(folders[0]) if entry.is_dir())
    other = sorted(entry.name for entry in os.scandir(folders[1]) if entry.is_dir())
    if classes != other or not classes:
        raise ValueError(
            f"data {name}: {len(classes)} classes in {folders[0]} and {len(other)} in {folders[1]}, or others"
        )
    parts = []
    for folder in folders:
        files, labels = list[Path](), list[int]()
        for label, kind in enumerate(classes):
            found = sorted(f for f in (folder / kind).rglob("*") if f.suffix.lower() in ENDINGS)
            files += found
            labels += [label] * len(found)
        if not files:
            raise ValueError(f"data {name}: no images in {folder}; it should hold CLASS/*.jpg")
        parts.append((files, labels))
    return classes, parts[0], parts[1]
