"""Whether the workers of a run end with the same parameters, as the hashes of the parameters say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .program.errors import ReplicasDiffer


def fingerprints(digests: Sequence[str], sharded: bool) -> dict[str, Any]:
    """What summary.json says: the hash of worker 0's parameters, and whether all workers have the same.

    sharded: each worker has a part; the hash is then that of all workers' hashes.
    """
    if sharded:
        return {"params_sha256": hashlib.sha256("".join(digests).encode()).hexdigest()}
    return {"params_sha256": digests[0], "replicas_agree": len(set(digests)) == 1}


def check_replicas(digests: Sequence[str], where: Path | None) -> None:
    """ReplicasDiffer unless all workers have the same hash. where: the directory of the run, if it has one."""
    others = [str(worker) for worker, digest in enumerate(digests) if digest != digests[0]]
    if others:
        shown = ", ".join(others[:8]) + ", ..." * (len(others) > 8)
        recorded = f"; the run is in {where}" if where else ""
        raise ReplicasDiffer(
            f"replicas disagree: workers {shown} end with other parameters than worker 0, though all had the same "
            f"exchanges; does the model or the loss change parameters by itself?{recorded}"
        )
