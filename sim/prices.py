"""What work and moves cost on a device, as both engines ask it. Rule: a price must be a length of time."""

from __future__ import annotations

from ..config.timing import LONGEST, Device, lasting
from ..program.effects import Move, Work

LANES = {"device": "compute", "host": "host"}  # where a Compute runs


def work_seconds(device: Device, work: Work) -> float:
    """Seconds of `work` on the device; ScenarioError where they are not a length of time."""
    what = f"{work.phase} of {work.samples} samples"
    return lasting(float(device.seconds(work)), f"cluster: device {device.name}", what)


def move_seconds(device: Device, move: Move) -> float:
    """Seconds of a copy between host and device; none where they are the same memory. ScenarioError as above."""
    if device.host_link is None:
        return 0.0
    seconds = move.value.nbytes / device.host_link
    if seconds <= LONGEST:
        return seconds
    what = f"a copy of {move.value.nbytes} bytes"
    return lasting(seconds, f"cluster: the host_link of device {device.name}", what)
