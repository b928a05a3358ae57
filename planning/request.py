"""A plan's question without a file: a model, machines and a link by name, as a scenario's document."""

from __future__ import annotations

import re
from typing import Any

from ..config.catalogue import catalogue
from ..learning import torchvision_tables
from ..program.errors import ScenarioError, brief, nearest

LATENCY = "50 us"  # of a message step, where a link of the catalogue is all that is known
# The optimizer decides about memory: AdamW for transformers, SGD with momentum for others.
ADAM, SGD = {"name": "adamw", "lr": 0.001}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}
TRANSFORMERS = ("vit", "gpt", "bert", "swin", "deit", "llama")


def document_of(
    model: str, workers: str, link: str, batch: int | None = None, epochs: float | None = None, data: str | None = None
) -> dict[str, Any]:
    """A scenario's document.

    model: a model's name, of Paceline's or torchvision's.
    workers: like "2 x a6000, 2 x rtx2080ti, epyc-7742", devices of the catalogue.
    link: of the catalogue, like 10gbe, or a bandwidth, like "1 Gbit/s".
    batch: samples of all workers in a step; 32 for each by default.
    epochs: 90 by default.
    data: imagenet by default.

    ScenarioError where a device or a link is unknown.
    """
    groups = [_group(text) for text in workers.split(",")]
    workload: dict[str, Any] = {
        "model": f"{torchvision_tables.PREFIX}{model}" if model in torchvision_tables.TABLES else model,
        "data": data or "imagenet",
        "optimizer": dict(ADAM if model.rpartition(":")[2].startswith(TRANSFORMERS) else SGD),
    }
    workload |= {"total_batch": batch} if batch else {"batch": 32}
    return {
        "workload": workload,
        "cluster": {"workers": groups, "network": _network(link)},
        "strategy": {"preset": "sync_sgd"},
        "budget": {"epochs": epochs or 90},
    }


def _group(text: str) -> dict[str, Any]:
    """A group of workers, like "2 x a6000"."""
    found = re.fullmatch(r"\s*(?:([0-9]{1,7})\s*[x*]\s*)?(\S+)\s*", text)
    if found is None or found[1] == "0":
        raise ScenarioError(f"--workers: {brief(text.strip())}: write a number and a device, like 2 x rtx-a6000")
    group: dict[str, Any] = {"device": _device(found[2])}
    return group | {"count": int(found[1])} if found[1] else group


def _device(name: str) -> str:
    """The catalogue's device of this name, or of the only name that ends in it."""
    known = catalogue().devices
    if name in known:
        return name
    ending = [each for each in known if each.endswith(f"-{name}") or each.startswith(f"{name}-")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ScenarioError(f"--workers: {name} may be {' or '.join(ending)}; write one of them")
    hint = nearest(name, known) or "; `paceline catalogue` lists the known ones"
    raise ScenarioError(f"--workers: {brief(name)} is not a device of the catalogue{hint}")


def _network(link: str) -> dict[str, Any]:
    known = catalogue().links
    if link in known:
        return {"link": link, "latency": LATENCY}
    if "/" not in link:
        raise ScenarioError(
            f"--link: {brief(link)} is not a link of the catalogue{nearest(link, known) or ''}; a bandwidth is written "
            "like '1 Gbit/s'"
        )
    return {"bandwidth": link, "latency": LATENCY}
