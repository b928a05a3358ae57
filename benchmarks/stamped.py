"""`python -m paceline ARGUMENTS...`, which also notes when its stages begin and end, for start.py.

    STAMPS=FOLDER python -m benchmarks.stamped train SCENARIO ...

Paceline knows nothing of this: the functions in STAGES are wrapped as soon as their modules have been imported, and the
launcher is told to run its ranks in the same way. Each process writes a file into the folder.

Rule: nothing is imported here that would be counted as an import of Paceline's.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

BEGUN = time.monotonic()  # a clock that all processes of a machine share
LAUNCHER = "paceline.runtime.launcher"
# By module: the functions that are stages, and the stages' names.
STAGES = {
    LAUNCHER: {"_start": "mpirun", "world": "MPI"},
    "paceline.learning_problem": {"LearningProblem.load_libraries": "libraries"},
    "paceline.learning.worker": {"TorchWorker._begin": "warm-up"},
    "paceline.runtime.engine": {"run": "run"},
}
stamps: dict[str, tuple[float, float]] = {}  # by stage: when it began and ended


def stage(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; its newest call is noted."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        begin = time.monotonic()
        try:
            return function(*arguments, **options)
        finally:
            stamps[name] = begin, time.monotonic()

    return call


class _Wrapping(Loader):
    """Loads a module and wraps its stages."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        for path, name in STAGES[module.__name__].items():
            owner, _, function = path.rpartition(".")
            place = vars(module)[owner] if owner else module
            setattr(place, function, stage(name, vars(place)[function]))
        if module.__name__ == LAUNCHER:
            place = vars(module)
            place["launch"] = functools.partial(place["launch"], program=("-m", "benchmarks.stamped"))


class _Finder(MetaPathFinder):
    """Finds the modules of STAGES as Python does, and has them wrapped."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in STAGES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        sys.meta_path.insert(0, self)
        if spec is not None:
            spec.loader = _Wrapping(spec.loader)
        return spec


def write() -> None:
    """Write what was noted. The process's own stage is as long as its program."""
    stamps["process"] = BEGUN, time.monotonic()
    with open(os.path.join(os.environ["STAMPS"], f"{os.getpid()}.json"), "w") as file:
        json.dump(stamps, file)


if __name__ == "__main__":
    atexit.register(write)
    sys.meta_path.insert(0, _Finder())
    runpy.run_module("paceline", run_name="__main__", alter_sys=True)
