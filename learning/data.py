"""Data sets as NumPy arrays, and their shapes without loading them.

Rule: a data set depends on its own description alone, not on the run's seed, so that runs with different seeds learn
the same task. In a simulation all workers share one Dataset object.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..program.effects import Array
from ..program.errors import brief, nearest
from ..program.streams import stream
from . import cifar, user_code
from . import images as image_folders
from .dataset import Dataset, DataShape
from .recipe import TIMING_ONLY

KEYS = ("train_x", "train_y", "test_x", "test_y")
FILE_KEYS = ("x_train", "y_train", "x_test", "y_test")  # the names that .npz files use, after Keras
MOST = 1e12  # examples, pixels of a side: no machine holds them
DIGITS = (1437, 360)  # training and test examples
STORED = ("images", "imagenet")  # files that are read when they are used
EXACT = 1 << 24  # up to here float32 holds every whole number


def load(name: str, args: Mapping[str, Any]) -> Dataset:
    """The data set: a name in BUILT_IN, a path ending in .npz, or an import path to a function returning four arrays.

    ValueError of one line where it cannot be had.
    """
    if user_code.named(name) and not name.endswith(".npz"):
        return _from_factory(name, args)
    if name.endswith(".npz"):
        return _from_npz(Path(name), _pixels(name, args))
    load_it, _ = _builtin(name)
    return load_it(**_options(name, args))


def shape_of(name: str, args: Mapping[str, Any]) -> DataShape:
    """The data set's shape without its images: constants, or a file's headers and labels.

    Data given by import path must be made before its shape is known. ValueError as for `load`.
    """
    if user_code.named(name) and not name.endswith(".npz"):
        return _from_factory(name, args).shape
    if name.endswith(".npz"):
        _pixels(name, args)
        return _npz_shape(Path(name))
    _, tell_shape = _builtin(name)
    return tell_shape(**_options(name, args))


def in_memory(name: str) -> bool:
    """Whether a data set is in memory as a whole. A user's function is taken to give arrays."""
    return name not in STORED


def load_libraries(name: str) -> None:
    """Import what `load` needs, without the data. ValueError as for `load`."""
    if user_code.named(name) and not name.endswith(".npz"):
        user_code.load(name, "data")
    elif name == "digits":
        import sklearn.datasets  # noqa: F401
    elif name in STORED:
        import torchvision  # noqa: F401


def _npz(*, images: bool | None = None) -> None:
    """What a .npz file takes. images: whether its bytes are pixels, to be scaled to [0, 1]; None: not said."""


def _pixels(name: str, args: Mapping[str, Any]) -> bool | None:
    found = user_code.options(_npz, args, f"data {name}")["images"]
    if found is not None and not isinstance(found, bool):
        raise ValueError(f"data {name}: images is {brief(found)}; write true or false")
    return found


def _builtin(name: str) -> tuple[Callable[..., Dataset], Callable[..., DataShape]]:
    if name not in BUILT_IN:
        raise ValueError(
            f"no data {name!r}{nearest(name, BUILT_IN)}; write {', '.join(BUILT_IN)}, a file that ends in "
            ".npz or an import path package.module:factory"
        )
    return BUILT_IN[name]


def _options(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    found = user_code.options(BUILT_IN[name][0], args, f"data {name}")
    for key, value in found.items():
        if key in TYPES:
            if not isinstance(value, TYPES[key]):
                raise ValueError(
                    f"data {name}: {key} is {value!r}; write {'a folder' if key == 'path' else 'true or false'}"
                )
            continue
        number = float if key == "noise" else int
        # Ten training examples, so that all of ten classes can be there.
        least = {"train": 10, "test": 1, "size": 1, "sequence": 1, "vocabulary": 2}.get(key, 0)
        most = 1 << 63 if key == "seed" else MOST
        if isinstance(value, bool) or not isinstance(value, int | number) or not least <= value <= most:
            raise ValueError(
                f"data {name}: {key} is {value!r:.60}; write a number of {least} or more, up to {most:.3g}"
            )
    return found


def digits() -> Dataset:
    """The 8x8 digits bundled with scikit-learn: (1, 8, 8), 10 classes, normalised; a fixed fifth is for testing.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.int64), bunch.target.astype(np.int64)
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
    return Dataset(x[~test], labels[~test], x[test], labels[test])


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


def tokens(*, sequence: int = 512, vocabulary: int = 256, train: int = 1_000_000, test: int = 10_000) -> Dataset:
    """Sequences of tokens, for timing-only runs: there is nothing to load. See _tokens_shape."""
    raise ValueError(f"data tokens is for timing-only runs so far; {TIMING_ONLY}")


def _tokens_shape(*, sequence: int, vocabulary: int, train: int, test: int) -> DataShape:
    """sequence: tokens of an example, its input's shape. vocabulary: how many tokens there are, its classes."""
    return DataShape((sequence,), vocabulary, train, test)


def _digits_shape() -> DataShape:
    return DataShape((1, 8, 8), 10, *DIGITS)


def _synthetic_shape(*, train: int, test: int, noise: float, seed: int) -> DataShape:
    return DataShape((3, 32, 32), 10, train, test)


def _imagenet_shape(*, path: str | None, size: int) -> DataShape:
    """ImageNet's numbers are known, so a timing-only run needs no folder."""
    return DataShape((3, size, size), 1000, 1_281_167, 50_000)


TYPES: dict[str, Any] = {"path": (str, type(None)), "verify": bool}
# By name: what loads the data set, and what tells its shape without loading it. Both take the same arguments.
BUILT_IN: dict[str, tuple[Callable[..., Dataset], Callable[..., DataShape]]] = {
    "digits": (digits, _digits_shape),
    "synthetic": (synthetic, _synthetic_shape),
    **{name: (partial(cifar.load, name), partial(cifar.shape, name)) for name in cifar.FORMATS},
    "images": (partial(image_folders.load, "images"), partial(image_folders.shape, "images")),
    "imagenet": (partial(image_folders.load, "imagenet"), _imagenet_shape),
    "tokens": (tokens, _tokens_shape),
}


def _from_factory(path: str, args: Mapping[str, Any]) -> Dataset:
    what = f"data {path!r}"
    made = user_code.call(user_code.load(path, "data"), what, **args)
    if isinstance(made, Dataset):
        made = tuple(getattr(made, key) for key in KEYS)
    if not isinstance(made, tuple | list) or len(made) != 4:
        raise ValueError(f"{what} gave a {type(made).__name__}; its function must return {', '.join(KEYS)}")
    found = checked(dict(zip(KEYS, map(np.asarray, made), strict=True)), what)
    return _said(found, made[0], f"{what}: bytes are taken as they are, 0 to 255; let it divide them by 255 if they")


def _from_npz(path: Path, pixels: bool | None) -> Dataset:
    with _open(path) as archive:
        arrays = {key: user_code.call(archive.__getitem__, f"{path}: reading {key}", key) for key in FILE_KEYS}
    if pixels is False:
        return checked(arrays, str(path))
    if pixels is None:
        how = f"data {path}: bytes are taken as they are, 0 to 255; write data: {{name: {path}, images: true}} if they"
        return _said(checked(arrays, str(path)), arrays["x_train"], how)
    if arrays["x_train"].dtype != np.uint8 or arrays["x_test"].dtype != np.uint8:
        found = f"{arrays['x_train'].dtype} and {arrays['x_test'].dtype}"
        raise ValueError(f"{path}: images: true is for bytes (uint8), to divide by 255; x_train and x_test are {found}")
    return checked(arrays, str(path), scale=255)


def _said(data: Dataset, given: Any, how: str) -> Dataset:
    """The data, with a note where its bytes look like images."""
    looks = np.asarray(given).dtype == np.uint8 and len(data.train_x.shape) == 4 and data.train_x.shape[1] in (1, 3)
    return replace(data, notes=(f"{how} are pixels",)) if looks else data


def _npz_shape(path: Path) -> DataShape:
    with _open(path) as archive:
        heads = {key: _head(archive, path, key) for key in FILE_KEYS}
        labels = [user_code.call(archive.__getitem__, f"{path}: reading {key}", key) for key in ("y_train", "y_test")]
    _check(heads, str(path))
    highest = max(
        int(_labels(y, key, str(path)).max(initial=0)) for y, key in zip(labels, ("y_train", "y_test"), strict=True)
    )
    return DataShape(heads["x_train"][0][1:], highest + 1, heads["x_train"][0][0], heads["x_test"][0][0])


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The archive, known to hold the four arrays."""
    if not path.is_file():
        raise ValueError(f"no file {path}; it should be a .npz file with {', '.join(FILE_KEYS)}")
    with path.open("rb") as file:
        try:
            archive: Any = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not an .npz file: {user_code.in_words(error)}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} holds a single array; write it with numpy.savez and {', '.join(FILE_KEYS)}")
        missing = [key for key in FILE_KEYS if key not in archive.files]
        if missing:
            raise ValueError(f"{path} has no {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}")
        yield archive


def _head(archive: np.lib.npyio.NpzFile, path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) of one array, from its header."""

    def read() -> tuple[tuple[int, ...], np.dtype[Any]]:
        with archive.zip.open(f"{key}.npy") as file:  # type: ignore[union-attr]
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
            return shape, dtype

    head: tuple[tuple[int, ...], np.dtype[Any]] = user_code.call(read, f"{path}: reading {key}'s header")
    return head


def checked(arrays: Mapping[str, Array], what: str, scale: int = 1) -> Dataset:
    """A Dataset from four arrays in the order of KEYS, x divided by `scale`. ValueError begins with `what`."""
    _check({key: (array.shape, array.dtype) for key, array in arrays.items()}, what)
    made = []
    for key, array in arrays.items():
        if "x" in key:
            if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > EXACT:
                raise ValueError(f"{what}: {key} holds whole numbers beyond {EXACT}, which float32 would round")
            with np.errstate(over="ignore"):  # what is too large for float32 is refused below
                x = np.require(array, np.float32, ["C", "W"])  # as it is where possible: data may be large
            if scale != 1:
                x /= np.float32(scale)
            if not np.isfinite(x).all():
                raise ValueError(f"{what}: {key} holds values that are not finite numbers in float32")
            made.append(x)
        else:
            made.append(_labels(array, key, what))
    return Dataset(*made)


def _check(heads: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], what: str) -> None:
    """ValueError unless the four shapes and dtypes fit together."""
    names = list(heads)
    for x, y in (names[:2], names[2:]):
        (shape, kind), (label_shape, label_kind) = heads[x], heads[y]
        if len(shape) < 2 or kind.kind not in "fiu" or 0 in shape[1:]:
            raise ValueError(f"{what}: {x} is {kind} {shape}; expected numbers, examples x channels x height x width")
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            raise ValueError(
                f"{what}: {x} is {shape}, channels last; transpose it to examples x channels x height x width"
            )
        if label_kind.kind not in "iu" or len(label_shape) != 1:
            raise ValueError(f"{what}: {y} is {label_kind} {label_shape}; expected one whole number per example")
        if label_shape[0] != shape[0]:
            raise ValueError(f"{what}: {x} has {shape[0]} examples and {y} {label_shape[0]}; they must match")
    if heads[names[0]][0][0] == 0:
        raise ValueError(f"{what}: {names[0]} has no examples")
    if heads[names[0]][0][1:] != heads[names[2]][0][1:]:
        raise ValueError(
            f"{what}: examples are {heads[names[0]][0][1:]} in {names[0]} and {heads[names[2]][0][1:]} in {names[2]}"
        )


def _labels(array: Array, key: str, what: str) -> NDArray[np.int64]:
    labels = array.astype(np.int64)
    if labels.size and labels.min() < 0:
        raise ValueError(f"{what}: {key} holds the label {labels.min()}; labels count from 0")
    return labels
