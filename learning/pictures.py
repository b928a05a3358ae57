"""Image files and their bytes, through Pillow, which Matplotlib brings along.

The bytes are those of torchvision's usual transforms of such files (Resize, CenterCrop), which are Pillow's too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom
# What a file may hold, whatever its name ends in. Pillow would give a file in PostScript to Ghostscript, a program.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


def read(file: Path, size: int, choose: Callable[[int, int], Box] | None = None) -> NDArray[np.uint8]:
    """The RGB image in the file: (3, size, size).

    It is scaled so that the shorter side is 256/224 of `size`, and its centre is cut out. choose: the piece that is cut
    out and scaled to `size` instead, from (width, height).
    """
    with Image.open(file, formats=FORMATS) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if choose is not None:
        made = image.crop(choose(width, height)).resize((size, size), Image.Resampling.BILINEAR)
    else:
        shorter, least = round(size * 256 / 224), min(width, height)
        scaled = int(shorter * width / least), int(shorter * height / least)
        left, top = (round((side - size) / 2) for side in scaled)
        made = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(made).transpose(2, 0, 1)
