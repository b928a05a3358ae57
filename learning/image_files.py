"""Known sets of images in files of their own format: at any size, for models with as many classes as they have or more.

Timing-only runs need no file of them: their numbers are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from . import cifar, idx
from .dataset import Dataset, DataShape

# By name: what loads the data set, and what tells its shape.
READERS: dict[str, tuple[Callable[..., Dataset], Callable[..., DataShape]]] = {
    **dict.fromkeys(idx.SETS, (idx.load, idx.shape)),
    **dict.fromkeys(cifar.FORMATS, (cifar.load, cifar.shape)),
}


def load(
    name: str,
    *,
    path: str | None = None,
    verify: bool = True,
    size: int | None = None,
    classes: int | None = None,
) -> Dataset:
    """The data set in the folder `path`. verify: compare the files with the official ones.

    size: pixels of a side; None: as they are stored. classes: of the model's outputs; None: as many as the labels have.
    ValueError of one line: a file is missing or wrong, or there are too few classes.
    """
    read, _ = READERS[name]
    found = read(name, path=path, verify=verify)
    wanted = _fitted(name, found.shape, size, classes)
    found = replace(found, classes=wanted.classes)
    if wanted.input_shape == found.shape.input_shape:
        return found
    from .resized import Resized  # loads torch, which timing-only runs do not need

    train_x, test_x = (Resized(x, wanted.input_shape[-1]) for x in (found.train_x, found.test_x))  # type: ignore[arg-type]
    return replace(found, train_x=train_x, test_x=test_x)


def shape(name: str, *, path: str | None, verify: bool, size: int | None, classes: int | None) -> DataShape:
    """Its shape: known without the files, or, without `verify`, that of the files."""
    _, tell_shape = READERS[name]
    return _fitted(name, tell_shape(name, path=path, verify=verify), size, classes)


def _fitted(name: str, stored: DataShape, size: int | None, classes: int | None) -> DataShape:
    """The shape of the data at another size, and for a model with more classes than there are labels."""
    least, images = stored.classes, stored.input_shape
    if classes is not None and least is not None and classes < least:
        raise ValueError(f"data {name}: classes is {classes}, and its labels need {least} or more")
    input_shape = images if size is None else (images[0], size, size)
    return replace(stored, classes=classes or least, input_shape=input_shape)
