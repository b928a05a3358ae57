"""Notebooks run from top to bottom, and their stored outputs next to those of a run.

A cell's tags say how equal its outputs must be:

- none: what is virtual, and equal on each machine: texts to the last character, figures to a few pixels.
- "trained": numbers that training has made, which other processors round differently: a little apart.
- "measured": this machine's time: the same words, with any numbers; figures of the same width.

A cell with the tag "quick" belongs to the part that the fast tests run of a notebook that is long.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

SMALL = 200_000  # bytes of a notebook with its outputs
CLOSE = {"": (0.0, 0.0), "trained": (0.02, 0.05)}  # absolute and relative, of numbers
PIXELS = {"": 0.004, "trained": 0.02}  # the mean difference of a figure's pixels, of 0 to 1
COLOURS = 128  # of a stored figure
_NUMBER = re.compile(r"[-+]?\d[\d,_]*(?:\.\d+)?(?:e[-+]?\d+)?|[-+]?\.\d+")
_HERE = re.compile(r"0x[0-9a-f]+|T_[0-9a-f]{5}|paceline-\w+")  # addresses, a style's name, temporary folders


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in the folder, and leave out what they write to standard error."""
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def rewrite(notebook: Any, path: Path) -> None:
    """Store a notebook that has run: small figures, and nothing that differs from run to run for no reason."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
            if "data" in output:
                output["metadata"] = {}
            if "execution_count" in output:
                output["execution_count"] = None
        if cell.cell_type == "code":
            cell.execution_count = None
    for name in [name for name in notebook.metadata if name not in ("kernelspec", "language_info")]:
        del notebook.metadata[name]
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def differences(stored: Any, found: Any) -> list[str]:
    """What the outputs of two equal notebooks differ in, as sentences."""
    told = []
    for number, (old, new) in enumerate(zip(stored.cells, found.cells, strict=True)):
        if old.cell_type == "code":
            kinds = [tag for tag in old.metadata.get("tags", ()) if tag in ("trained", "measured")]
            place, kind = f"cell {number} {kinds}", kinds[0] if kinds else ""
            told += [f"{place}: {what}" for what in _cell(old.outputs, new.outputs, kind)]
    return told


def _cell(old: Any, new: Any, kind: str) -> list[str]:
    if [sorted(output.get("data", {"text": 0})) for output in old] != [
        sorted(output.get("data", {"text": 0})) for output in new
    ]:
        return ["other kinds of outputs"]
    told = []
    for one, other in zip(old, new, strict=True):
        for a, b in zip(_texts(one), _texts(other), strict=True):
            told += _text(a, b, kind)
        if "image/png" in one.get("data", {}):
            told += _figure(one.data["image/png"], other.data["image/png"], kind)
    return told


def _texts(output: Any) -> list[str]:
    data = output.get("data", {"text/plain": output.get("text", "")})
    return [_HERE.sub("", "".join(text)) for kind, text in sorted(data.items()) if kind.startswith("text/")]


def _text(old: str, new: str, kind: str) -> list[str]:
    if (form := _form(old)) != _form(new):
        return [f"the words differ: {form[:200]!r} and {_form(new)[:200]!r}"]
    if kind == "measured":
        return []
    absolute, relative = CLOSE[kind]
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    apart = [(a, b) for a, b in pairs if a != b and abs(_value(a) - _value(b)) > absolute + relative * abs(_value(b))]
    return [f"stored and found: {a} and {b}" for a, b in apart]


def _form(text: str) -> str:
    """The words without the numbers, whose width may differ."""
    return re.sub(r"[-\s]+", " ", _NUMBER.sub("#", text)).strip()


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("_", ""))


def _figure(old: str, new: str, kind: str) -> list[str]:
    a, b = _pixels(old), _pixels(new)
    if kind == "measured":
        return [] if a.shape[1] == b.shape[1] else [f"a figure is {a.shape[1]} and {b.shape[1]} pixels wide"]
    if a.shape != b.shape:
        return [f"a figure has {a.shape[:2]} and {b.shape[:2]} pixels"]
    apart = float(np.abs(a - b).mean())
    return [] if apart <= PIXELS[kind] else [f"a figure's pixels differ by {apart:.4f}"]


def _pixels(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), float) / 255


def _smaller(encoded: str) -> str:
    """The picture with few colours, which takes a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
