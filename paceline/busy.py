"""Whether a machine is quiet enough to be measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

DRIFT = 0.05  # of equal measurements, from which on a warning is due


class Watch:
    """Looks at the machine from now on."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        self._before = _times()

    def said(self) -> dict[str, Any]:
        """For the profile: processes that were running or waiting to run, and the part of time that was stolen."""
        return {"load_before": round(self._load, 2), "stolen": round(self._stolen(), 4)}

    def warnings(self, drift: float) -> list[str]:
        """A line for each reason to measure again. drift: of equal measurements, as a part of them."""
        lines = []
        if self._load > 0.5 * (os.cpu_count() or 1):
            lines.append(f"the machine was busy before (load {self._load:.1f}); wait, and measure again")
        if (stolen := self._stolen()) > 0.02:
            lines.append(f"other virtual machines took {100 * stolen:.0f} % of the processor's time")
        if drift > DRIFT:
            lines.append(f"equal measurements varied by {100 * drift:.0f} %, so predictions can be off by as much")
        return lines

    def _stolen(self) -> float:
        passed = [now - before for now, before in zip(_times(), self._before, strict=True)]
        return passed[7] / sum(passed) if sum(passed) else 0.0


def _times() -> list[int]:
    """The processor's time by what it did, as Linux counts it: the eighth was stolen. Zeros on other systems."""
    path = Path("/proc/stat")
    return [int(field) for field in path.read_text().splitlines()[0].split()[1:9]] if path.exists() else [0] * 8
