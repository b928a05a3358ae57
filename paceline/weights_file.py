"""Files of weights: a state_dict in a .safetensors file, or in a file of torch that holds nothing but tensors.

Rule: nothing is unpickled that could run code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from .program.errors import ScenarioError, brief
from .records.directory import whole_or_absent

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """(the state_dict in a file, the file's SHA-256). ValueError of one line where it cannot be read."""
    from .learning.user_code import in_words

    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = _tensors(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch's reader raises whatever a file that is not its own leads it to
        how = "write a state_dict with safetensors, or with torch.save(model.state_dict(), FILE)"
        # Torch's own text is long, and advises to unpickle the file all the same.
        what = (
            "it is not torch's, or holds more than tensors" if isinstance(error, UnpicklingError) else in_words(error)
        )
        raise ValueError(f"cannot be read as a state_dict: {what}; {how}") from None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"holds a {type(found).__name__}; write torch.save(model.state_dict(), FILE)")
    inner = [name for name, value in found.items() if isinstance(value, Mapping)]
    if inner:
        raise ValueError(f"holds more than a state_dict: {brief(inner[0])} is a mapping; save the state_dict alone")
    return dict(found), sha256


def _tensors(path: Path) -> Any:
    if path.suffix == SUFFIX:
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def write(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a state_dict as a safetensors file, whole or not at all. ScenarioError where the format lacks a type."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from torch import Tensor, contiguous_format

    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ScenarioError(
                f"{path}: the model's state_dict holds {brief(name)}, a {type(tensor).__name__}; "
                "a safetensors file holds tensors only"
            )
    # Tied tensors share memory, which the format refuses. Each name has its own copy, so that any torch model loads it.
    copies = {name: tensor.detach().clone(memory_format=contiguous_format) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(copies, temporary, {"format": "pt", **metadata})
        except (SafetensorError, KeyError, ValueError) as error:
            temporary.unlink(missing_ok=True)
            raise ScenarioError(f"{path}: cannot be written: {error}") from None
        temporary.chmod(mode)  # as other files: save_file lets only the owner read it
