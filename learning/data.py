"""Data sets by name, and their shapes without loading them.

Rule: a data set depends on its own description alone, not on the run's seed, so that runs with different seeds learn
the same task. In a simulation all workers share one Dataset object.

Values stay in the type in which they are stored, and are converted when a batch is drawn (dataset.batch_kind). Large
files are mapped where they can be, so that the ranks of a host share them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..program.effects import Array
from ..program.errors import nearest
from ..program.streams import stream
from . import image_files, npz, text, tokens, user_code
from . import images as image_folders
from .arrays import KEYS, Given, checked, checked_classes, noted
from .dataset import Dataset, DataShape, Pixels, Stored
from .recipe import TIMING_ONLY
from .trees import mapped

MOST = 1e12  # examples, pixels of a side: no machine holds them
# The least of the arguments that cannot be 0. Ten training examples, so that all of ten classes can be there.
LEAST = {"train": 10, "test": 1, "size": 1, "classes": 1, "sequence": 1, "stride": 1, "vocabulary": 2}
DIGITS = (1437, 360)  # training and test examples
STORED = ("images", "imagenet")  # files that are read when they are used


def load(name: str, args: Mapping[str, Any]) -> Dataset:
    """The data set: a name in BUILT_IN, a path ending in .npz, or an import path to a function that returns
    inputs and targets to train and to test with, a Dataset, or two torch Datasets.

    ValueError of one line where it cannot be had.
    """
    if user_code.named(name) and not name.endswith(".npz"):
        return _from_factory(name, args)
    if name.endswith(".npz"):
        return npz.load(Path(name), args)
    load_it, _ = _builtin(name)
    return load_it(**_options(name, args))


def shape_of(name: str, args: Mapping[str, Any]) -> DataShape:
    """The data set's shape without its images: constants, or a file's headers and labels.

    Data given by import path must be made before its shape is known. ValueError as for `load`.
    """
    if user_code.named(name) and not name.endswith(".npz"):
        return _from_factory(name, args).shape
    if name.endswith(".npz"):
        return npz.shape(Path(name), args)
    _, tell_shape = _builtin(name)
    return tell_shape(**_options(name, args))


def load_libraries(name: str) -> None:
    """Import what `load` needs, without the data. ValueError as for `load`."""
    if user_code.named(name) and not name.endswith(".npz"):
        user_code.load(name, "data")
    elif name in STORED:
        from . import pictures  # noqa: F401 - Pillow


def _builtin(name: str) -> tuple[Callable[..., Dataset], Callable[..., DataShape]]:
    if name not in BUILT_IN:
        raise ValueError(
            f"no data {name!r}{nearest(name, BUILT_IN)}; write {', '.join(BUILT_IN)}, a file that ends in "
            ".npz or an import path package.module:factory"
        )
    return BUILT_IN[name]


def _options(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    function = BUILT_IN[name][0]
    found, usual = user_code.options(function, args, f"data {name}"), user_code.options(function, {}, name)
    for key, value in found.items():
        if value is None and usual[key] is None:
            continue
        if key in TYPES:
            kind, wanted = PATHS.get(name, TYPES[key]) if key == "path" else TYPES[key]
            if not isinstance(value, kind):
                raise ValueError(f"data {name}: {key} is {value!r:.60}; write {wanted}")
            continue
        number = float if key in ("noise", "test_share") else int
        least = LEAST.get(key, 0)
        most = {"seed": 1 << 63, "test_share": 1}.get(key, MOST)
        if isinstance(value, bool) or not isinstance(value, int | number) or not least <= value <= most:
            raise ValueError(
                f"data {name}: {key} is {value!r:.60}; write a number of {least} or more, up to {most:.3g}"
            )
    return found


def digits() -> Dataset:
    """The 8x8 digits bundled with scikit-learn: (1, 8, 8), 10 classes, normalised; a fixed fifth is for testing.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    # Its file is read as scikit-learn does. To import scikit-learn takes as long as to import torch.
    spec = find_spec("sklearn")
    assert spec, "Paceline requires scikit-learn"
    table = np.loadtxt(Path(str(spec.origin)).parent / "datasets" / "data" / "digits.csv.gz", np.int64, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    # Each class shuffled and spread over [0, 1): the first fifth of the line then holds a fifth of every class.
    place = np.empty(len(labels))
    for label in range(10):
        own = np.flatnonzero(labels == label)
        place[stream(0, "digits", label).permutation(own)] = (np.arange(len(own)) + 0.5) / len(own)
    test = np.zeros(len(labels), bool)
    test[np.argsort(place, kind="stable")[: DIGITS[1]]] = True
    known = images[~test]  # whole numbers, so mean and deviation are the same on every machine
    mean = known.sum() / known.size
    deviation = ((known**2).sum() / known.size - mean**2) ** 0.5
    x = ((images - mean) / deviation).astype(np.float32)[:, None]
    pixels = Pixels(deviation * 255 / 16, mean / deviation)  # the file's values are 0 to 16
    return Dataset(x[~test], labels[~test], x[test], labels[test], pixels=pixels)


def synthetic(*, train: int = 5000, test: int = 1000, noise: float = 1.0, seed: int = 0) -> Dataset:
    """CIFAR-shaped images (3, 32, 32) of 10 classes: a class is a smooth pattern, seen shifted by up to 4 pixels either
    way, at a contrast between 0.5 and 1.5, under white noise of deviation `noise` (the pattern's is 1).

    The shifts keep it from being linear. noise is the difficulty: a small ResNet20 learns 1 within a few epochs; from 3
    on it improves slowly, epoch by epoch, so that methods differ visibly.
    """
    patterns = stream(seed, "synthetic patterns").standard_normal((10, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
    patterns = ((patterns - patterns.mean((1, 2, 3), keepdims=True)) / patterns.std((1, 2, 3), keepdims=True)).astype(
        np.float32
    )
    shifted = np.stack([np.roll(patterns, (i // 9 - 4, i % 9 - 4), (2, 3)) for i in range(81)])
    made: list[Array] = []
    for part, count in (("train", train), ("test", test)):
        random = stream(seed, f"synthetic {part}")
        y = random.permutation(np.arange(count) % 10)
        shift = random.integers(0, 81, count)
        contrast = random.uniform(0.5, 1.5, (count, 1, 1, 1)).astype(np.float32)
        x = random.standard_normal((count, 3, 32, 32), np.float32)
        x *= np.float32(noise)
        for start in range(0, count, 1024):  # in pieces: no second array of the data's size
            cut = slice(start, start + 1024)
            x[cut] += shifted[shift[cut], y[cut]] * contrast[cut]
        x /= np.float32((1.0 + noise**2) ** 0.5)
        made += [x, y.astype(np.int64)]
    return Dataset(*made)


def sized(*, train: int = 1_000_000, test: int = 10_000) -> Dataset:
    """Data of which only the number of examples is known, for timing-only runs."""
    raise ValueError(f"data sized is for timing-only runs: it has no examples; {TIMING_ONLY}")


def _sized_shape(*, train: int, test: int) -> DataShape:
    return DataShape((1,), 2, train, test)


def _digits_shape() -> DataShape:
    return DataShape((1, 8, 8), 10, *DIGITS)


def _synthetic_shape(*, train: int, test: int, noise: float, seed: int) -> DataShape:
    return DataShape((3, 32, 32), 10, train, test)


def _imagenet_shape(*, path: str | None, size: int) -> DataShape:
    """ImageNet's numbers are known, so a timing-only run needs no folder."""
    return DataShape((3, size, size), *image_folders.IMAGENET, stored_bytes=0)


# Arguments that are not numbers: their types, and what to write.
TYPES: dict[str, tuple[Any, str]] = {
    "path": (str, "a folder"),
    "verify": (bool, "true or false"),
    "dtype": (str, "the name of a type, like uint16"),
    "files": (str, "a pattern of file names, like '*.md'"),
}
PATHS: dict[str, tuple[Any, str]] = {  # of data in files
    "tokens": (str | Mapping, "a file, or {train: FILE, test: FILE}"),
    "text": (str, "a file or a folder"),
}
# By name: what loads the data set, and what tells its shape without loading it. Both take the same arguments.
BUILT_IN: dict[str, tuple[Callable[..., Dataset], Callable[..., DataShape]]] = {
    "digits": (digits, _digits_shape),
    "synthetic": (synthetic, _synthetic_shape),
    **{name: (partial(image_files.load, name), partial(image_files.shape, name)) for name in image_files.READERS},
    "images": (partial(image_folders.load, "images"), partial(image_folders.shape, "images")),
    "imagenet": (partial(image_folders.load, "imagenet"), _imagenet_shape),
    "tokens": (tokens.load, tokens.shape),
    "text": (text.load, text.shape),
    "sized": (sized, _sized_shape),
}


def _from_factory(path: str, args: Mapping[str, Any]) -> Dataset:
    what, function = f"data {path!r}", user_code.load(path, "data")
    classes, options = _classes(function, args, what)
    made, known = user_code.call(function, what, **options), dict[str, Any]()
    if isinstance(made, tuple | list) and len(made) == 2:
        from .torch_datasets import lazily  # loads torch

        return lazily(made[0], made[1], classes, what)
    if isinstance(made, Dataset):
        classes, known = classes or made.classes, {"pixels": made.pixels, "notes": made.notes}
        made = made.train_x, made.train_y, made.test_x, made.test_y
    if not isinstance(made, tuple | list) or len(made) != 4:
        raise ValueError(
            f"{what} gave a {type(made).__name__}; its function must return {', '.join(KEYS)}, or two torch Datasets"
        )
    # An array can fail to be made, for example of a tensor in bf16, which NumPy does not have.
    arrays: dict[str, Given] = {
        key: user_code.call(mapped, f"{what}: an array of {key}", _as_array, x)
        for key, x in zip(KEYS, made, strict=True)
    }
    del made  # arrays that are converted are freed
    found = replace(checked(arrays, what, classes), **known)
    return found if found.pixels is not None else noted(found, what, "let it divide them by 255")


def _classes(function: Callable[..., Any], args: Mapping[str, Any], what: str) -> tuple[int | None, dict[str, Any]]:
    """(the argument `classes`, if there is one; the arguments for the function, which need not take that one)."""
    if "classes" not in args:
        return None, dict(args)
    found = checked_classes(args["classes"], what)
    taken = inspect.signature(function).parameters
    if "classes" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return found, dict(args)
    return found, {name: value for name, value in args.items() if name != "classes"}


def _as_array(x: Any) -> Array | Stored:
    return x if isinstance(x, np.memmap | Stored) else np.asarray(x)
