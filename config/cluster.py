"""Makes a Timing of the scenario's `cluster:` section: each worker's device and node, the network, the noise.

A worker's times come from its own `speed`, `step_time` or `flops`, else from the profile, else from the catalogue's
datasheet. What the scenario says of the network has precedence over what the profile measured.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

from ..program.effects import Work
from ..program.errors import ScenarioError, nearest
from .catalogue import CatalogueDevice, catalogue
from .machines import Cluster, NoiseSpec, WorkerGroup
from .network import build_network
from .profile import MeasuredNetwork, Profile
from .timing import Device, Noise, Timing, whole_step

# The part of its peak that training reaches where the scenario does not say. Published for large models: 0.21 to 0.46
# (GPT-3 to PaLM; Chowdhery et al., arXiv 2204.02311, table 3) and 0.44 to 0.52 (Megatron-LM; Narayanan et al.,
# arXiv 2104.04473, table 1). Small models and convolutions reach less.
EFFICIENCY = 0.4


def build_timing(
    cluster: Cluster,
    profile: Profile | None,
    workload: str,
    seed: int,
    precision: str = "fp32",
    step: Callable[[int], Work] = whole_step,
) -> Timing:
    """The described cluster. ScenarioError where it is not clear how fast it is.

    workload: the key of this model, data and optimizer in profiles.
    seed: of the noise, where the cluster does not give it one of its own.
    precision: of matrix products; it selects the peak in a datasheet.
    step: batch -> the Work of one step.
    """
    made, drifts = dict[str, Device](), list[float]()
    blocks = cluster.blocks
    for key, group in {block.key: block.group for block in blocks}.items():
        try:
            times = _times(group, profile, workload, precision)
            varies = _variation(group, profile, workload, times) if cluster.noise.source == "profile" else {}
            drifts.append(varies.pop("drift", 0.0))
            largest = group.max_batch or (profile.largest(group.device, workload) if profile else None)
            described = times | _hardware(group) | {"max_batch": largest}
            made[key] = Device(group.device, **described, step=step, **varies)
        except ValueError as error:
            raise ScenarioError(f"cluster.{key}: {error}") from None
    devices = tuple(chain.from_iterable(repeat(made[block.key], len(block.nodes)) for block in blocks))
    ports = list(chain.from_iterable(repeat(block.group.port, len(block.nodes)) for block in blocks))
    nodes = tuple(chain.from_iterable(block.nodes for block in blocks))
    measured = profile.network if profile else None
    network = build_network(cluster.network, measured, ports, cluster.background, cluster.inside)
    noise = _noise(cluster.noise, seed, max(drifts), measured)
    return Timing(devices, network, noise, nodes)


def _noise(given: NoiseSpec, seed: int, drift: float, measured: MeasuredNetwork | None) -> Noise:
    """The described noise. drift, measured: the profile's, of its devices and its network."""
    between = measured.variation if measured and given.source == "profile" else 0.0
    return Noise(
        given.sigma,
        seed if given.seed is None else given.seed,
        given.worker_sigma,
        drift if given.run_sigma is None else given.run_sigma,
        between if given.network_sigma is None else given.network_sigma,
    )


def _hardware(group: WorkerGroup) -> dict[str, Any]:
    """A device without its times: as the scenario says, else as the catalogue says."""
    known = catalogue().devices.get(group.device)
    found = {name: getattr(group, name) for name in ("slowdown", "memory", "host_memory", "host_link", "torch_device")}
    found["host_memory_bandwidth"] = group.host_memory_bandwidth
    if known is not None:
        found["memory"] = found["memory"] or known.memory
        if found["host_link"] is None and known.host_link is not None:
            found["host_link"] = catalogue().links[known.host_link].bandwidth
    return found


def _variation(group: WorkerGroup, profile: Profile | None, workload: str, times: dict[str, Any]) -> dict[str, Any]:
    """How a device's times vary, as Device has it, and their drift; ValueError where that was not measured."""
    if profile is None or times["source"] != "profile":
        raise ValueError(
            "cluster.noise.source is profile, but this device's time does not come from one; "
            "leave out what else says how fast it is, or write cluster.noise.sigma"
        )
    known = profile.variation.get(group.device, {}).get(workload)
    return {"residuals": profile.factors(group.device, workload), **dict(known or ())}


def _times(group: WorkerGroup, profile: Profile | None, workload: str, precision: str) -> dict[str, Any]:
    """A device's times, and where they come from. ValueError where there are none, or a key has no effect."""
    if group.speed is not None:
        return {"speed": group.speed, "source": "speed"}
    if isinstance(group.step_time, dict):
        table = tuple(sorted((float(batch), seconds) for batch, seconds in group.step_time.items()))
        return {"tables": {"step": table}, "source": "step_time"}
    if group.step_time is not None:
        # One time for a step of any batch: a level line.
        return {"tables": {"step": ((1, group.step_time), (float("inf"), group.step_time))}, "source": "step_time"}
    known = catalogue().devices.get(group.device)
    if group.flops is not None:
        return _roofline(group, group.flops, known)
    if profile is not None and (known is None or group.device in profile.devices):
        tables = profile.tables(group.device, workload)
        group.refuse_rates("the profile's times")
        return {"tables": tables, "pieces": profile.piece_times(group.device, workload), "source": "profile"}
    if known is None:
        raise ValueError(
            "how fast is it? give speed (like 900 samples/s), step_time (like 2 ms), flops (like 20 Tflop/s), a "
            "cluster.profile (`paceline profile SCENARIO` measures this machine) or a device of `paceline catalogue`"
            f"{nearest(group.device, catalogue().devices)}"
        )
    if precision not in known.peaks:
        raise ValueError(
            f"the catalogue has no {precision} peak of {group.device}, only {', '.join(known.peaks)}; "
            "give flops, speed or step_time, or another workload.precision"
        )
    return _roofline(group, known.peaks[precision], known)


def _roofline(group: WorkerGroup, peak: float, known: CatalogueDevice | None) -> dict[str, Any]:
    efficiency = EFFICIENCY if group.efficiency is None else group.efficiency
    bandwidth = group.memory_bandwidth or (known.memory_bandwidth if known else float("inf"))
    source = "flops" if group.flops is not None else known.source if known else ""
    text = f"{peak / 1e12:g} Tflop/s x efficiency {efficiency:g}, {bandwidth / 1e9:g} GB/s ({source})"
    return {"flops": peak * efficiency, "memory_bandwidth": bandwidth, "source": text}
