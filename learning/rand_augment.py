"""RandAugment (Cubuk et al., arXiv 1909.13719): `depth` operations for each image, chosen at random with equal chances.

The operations are Pillow's, on bytes, as in the papers; what an operation uncovers becomes black. Their strength:

- fixed: of all operations the same, as in the paper, on the scale of AutoAugment (arXiv 1805.09501), where 10 is the
  strongest. Rotations turn by 30 degrees at 10, shears by 0.3, translations by 150/331 of the side; factors of colour,
  contrast, brightness and sharpness go from 0.1 at 0 to 1.9 at 10; posterizing keeps 8 to 4 bits, and solarizing
  inverts bytes from 256 down to 0.
- drawn: of each operation another one, from 0.1 to `severity`, as in QSR's recipe (arXiv 2310.14423), which takes
  Composer's operations and thus AugMix's (arXiv 1912.02781). Translations go up to a third of the side. Factors are,
  with equal chances, from 1 - 0.09 severity to 1 or from 1 to `severity` (brightness: 3/4 of that). Posterizing keeps 4
  to 1 bits. There is no operation that leaves the image as it is.

Different from the first paper's code: turned, sheared and moved images are interpolated, bilinearly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from .dataset import Pixels
from .recipe import RandAugment


class Strength(NamedTuple):
    """How strong an operation is."""

    share: float  # of the strongest; 0 to 1, and above where the severity is above 10
    sign: int  # of a rotation, shear or translation
    factor: float  # of colour, contrast, brightness and sharpness; 1 changes nothing
    shift: float  # a translation at share 1, as a share of the side
    bits: int  # that posterizing keeps at share 0


Picture = Image.Image
Operation = Callable[[Picture, Strength], Picture]


def rand_augment(x: Tensor, pixels: Pixels, how: RandAugment, random: np.random.Generator) -> Tensor:
    """x: (batch, 1 or 3, height, width), as `pixels` says made of bytes; the result is a new tensor."""
    draws = random.random((len(x), how.depth, 4))
    images = np.ascontiguousarray(pixels.to_bytes(x.numpy()).transpose(0, 2, 3, 1))
    for image, own in zip(images, draws, strict=True):
        grey = image.shape[2] == 1
        picture = Image.fromarray(image[:, :, 0] if grey else image)
        for numbers in own:
            picture = _changed(picture, numbers, how)
        image[...] = np.asarray(picture).reshape(image.shape)
    return torch.from_numpy(np.ascontiguousarray(pixels.from_bytes(images.transpose(0, 3, 1, 2))))


def _changed(picture: Picture, numbers: np.ndarray, how: RandAugment) -> Picture:
    """The picture after one operation. numbers: four of [0, 1), which say which operation, and how."""
    which, level, side, factor = map(float, numbers)
    names = list(OPERATIONS)[1 if how.strength == "drawn" else 0 :]
    name = names[int(which * len(names))]
    return OPERATIONS[name](picture, strength(name, how, level, side, factor))


def strength(name: str, how: RandAugment, level: float, side: float, factor: float) -> Strength:
    """How strong an operation is, from three numbers in [0, 1)."""
    sign, most = 1 if side < 0.5 else -1, how.severity
    if how.strength == "fixed":
        return Strength(most / 10, sign, 0.1 + 0.18 * most, 150 / 331, 8)
    enhanced = 1 + factor * (most - 1) if sign > 0 else 1 - factor * 0.09 * most
    if name == "brightness" and enhanced > 1:
        enhanced *= 0.75
    return Strength((0.1 + level * (most - 0.1)) / 10, sign, enhanced, 1 / 3, 4)


def _moved(picture: Picture, *matrix: float) -> Picture:
    """The output's pixel (x, y) is the input's (a x + b y + c, d x + e y + f)."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _rotate(p: Picture, s: Strength) -> Picture:
    return p.rotate(s.sign * int(30 * s.share), Image.Resampling.BILINEAR)


def _shear_x(p: Picture, s: Strength) -> Picture:
    return _moved(p, 1, s.sign * 0.3 * s.share, 0, 0, 1, 0)


def _shear_y(p: Picture, s: Strength) -> Picture:
    return _moved(p, 1, 0, 0, s.sign * 0.3 * s.share, 1, 0)


def _translate_x(p: Picture, s: Strength) -> Picture:
    return _moved(p, 1, 0, s.sign * int(s.share * s.shift * p.width), 0, 1, 0)


def _translate_y(p: Picture, s: Strength) -> Picture:
    return _moved(p, 1, 0, 0, 0, 1, s.sign * int(s.share * s.shift * p.height))


def _posterize(p: Picture, s: Strength) -> Picture:
    return ImageOps.posterize(p, max(1, s.bits - int(4 * s.share)))


def _solarize(p: Picture, s: Strength) -> Picture:
    return ImageOps.solarize(p, max(0, 256 - int(256 * s.share)))


OPERATIONS: dict[str, Operation] = {
    "identity": lambda p, s: p,
    "autocontrast": lambda p, s: ImageOps.autocontrast(p),
    "equalize": lambda p, s: ImageOps.equalize(p),
    "rotate": _rotate,
    "solarize": _solarize,
    "posterize": _posterize,
    "color": lambda p, s: ImageEnhance.Color(p).enhance(s.factor),
    "contrast": lambda p, s: ImageEnhance.Contrast(p).enhance(s.factor),
    "brightness": lambda p, s: ImageEnhance.Brightness(p).enhance(s.factor),
    "sharpness": lambda p, s: ImageEnhance.Sharpness(p).enhance(s.factor),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
