"""What work and moves cost on a device, as both engines ask it. Rule: a price that is no length of time is refused."""

from __future__ import annotations

from ..algorithms.effects import Move, Work
from ..algorithms.errors import ScenarioError
from ..config.timing import Device

LANES = {"device": "compute", "host": "host"}  # where a Compute runs


def work_seconds(device: Device, work: Work) -> float:
    """Seconds of `work` on the device; ScenarioError where they are no finite number of 0 or more."""
    seconds = float(device.seconds(work))
    if not 0 <= seconds < float("inf"):
        raise ScenarioError(f"device {device.name} takes {seconds} s for {work}; seconds must be 0 or more")
    return seconds


def move_seconds(device: Device, move: Move) -> float:
    """Seconds of a copy between host and device; none where they are the same memory."""
    return 0.0 if device.host_link is None else move.value.nbytes / device.host_link
