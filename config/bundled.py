"""Files that come with Paceline, found by name: scenarios, lists of sweeps, profiles.

Rule: a file of the user's own comes first, so a name never hides one. A folder of that name hides nothing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

from ..program.errors import ScenarioError, nearest

Kind = Literal["scenarios", "profiles"]


def names(kind: Kind = "scenarios") -> list[str]:
    """The names of the files, such as "quickstart" and "papers/qsr_resnet152_imagenet"."""
    folder = _folder(kind)
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find(path: Path | str, kind: Kind = "scenarios") -> Path:
    """The file at `path`; where there is none, the one of that name that comes with Paceline.

    The folder may be left out of a name. ScenarioError for a name without an ending that nothing has.
    """
    path = Path(path)
    if os.path.exists(path) and not path.is_dir():
        return path
    known, name, noun = names(kind), path.as_posix(), kind.removesuffix("s")
    found = [each for each in known if name in (each, each.rpartition("/")[2])]
    if found:
        return _folder(kind) / f"{found[0]}.yaml"
    if path.stem in known:
        raise ScenarioError(f"{path}: no such file; write {path.stem} for the {noun} that comes with Paceline")
    if not path.suffix and not path.is_dir():
        hint = nearest(name, [*known, *(each.rpartition("/")[2] for each in known)])
        listed = " (`paceline scenarios` lists them)" if kind == "scenarios" else ""
        raise ScenarioError(f"{path}: no such file, and no {noun} of this name comes with Paceline{listed}{hint}")
    return path


def told() -> Iterator[tuple[str, str]]:
    """(name, the first sentence of its comment) of each scenario and list of points, those of `validate` left out."""
    for name in names():
        if not name.startswith("validation/"):
            yield name, _first_sentence((_folder("scenarios") / f"{name}.yaml").read_text(encoding="utf-8"))


def _first_sentence(text: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line[1:].strip() for line in lines)
    return re.split(r"(?<=\.) (?=[A-Z])", re.sub(r" \([^()]*\d{5}[^()]*\)", "", comment))[0]  # without its sources


def _folder(kind: Kind) -> Path:
    return Path(str(resources.files("paceline") / kind))
