"""The history of a run: an entry for each of its parts. A part begins with the start of the run or with a resume."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ..program.errors import one_line


def part(
    from_round: int, environment: Mapping[str, Any], folder: Path, host: bool, hosts: Sequence[Any] = ()
) -> dict[str, Any]:
    """The entry for a part that begins now.

    folder: where the scenario lies. host: whether to name machines. hosts: the host of each worker, of a real run.
    """
    return {
        "from_round": from_round,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "environment": dict(environment),
        **({"git": git} if (git := commit(folder)) else {}),
        **({"host": platform.node()} if host else {}),
        **({"hosts": list(hosts)} if host and hosts else {}),
    }


def command() -> str:
    """The command line as the user typed it; "from Python" where Paceline is used as a library."""
    program = Path(sys.argv[0]).parts[-2:]
    if program[-1:] != ("paceline",) and program != ("paceline", "__main__.py"):
        return "from Python"
    typed = [word for word in sys.argv[1:] if word != "--bar" and not word.startswith("--restart=")]
    return one_line(shlex.join(["paceline", *typed]), 2000)


@cache
def commit(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out in a folder, and whether tracked files differ from it. None without git."""
    # A repository's configuration may name a program that watches its files, which git would start.
    line = ["git", "-C", str(folder), "-c", "core.fsmonitor=false"]
    line += ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # git must not write to the user's repository
    try:
        found = subprocess.run(line, capture_output=True, text=True, env=variables, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, _, dirty = found.stdout.strip().partition("-")
    return {"commit": name, "dirty": bool(dirty)} if found.returncode == 0 else None


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """key.of.the.scenario -> [value before, value now] where two documents differ. A missing value is None."""
    old, new = _flat(before), _flat(now)
    return {key: [old.get(key), new.get(key)] for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)}


def _flat(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found
