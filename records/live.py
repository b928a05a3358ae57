"""What a run is doing now: a small file that is written now and then while it goes on, for `paceline watch`.

Rule: looking takes nothing but files. The file is replaced as a whole, so that half of it is never read, also on
another host of a shared file system. A directory that cannot be written does not keep a run from going on.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..program.errors import one_line
from .directory import NOW

Natural = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Now(BaseModel):
    """Where a run is."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    # "restarting": its ranks were lost and are started again. The last two are its end, where it has no results.
    state: Literal["running", "restarting", "stopped", "failed"] = "running"
    why: str = ""  # it restarts, or has ended
    engine: str = ""
    host: str = ""
    process: Natural = 0  # its number there
    round: Natural = 0  # rounds done
    step: Natural = 0  # nominal steps done, with those of the present round
    samples: Natural = 0  # of all workers, likewise
    H: Natural = 0  # nominal steps of the present round, or of the last one between two rounds
    done: Natural = 0  # steps of the present round that are done
    progress: Number = 0.0  # in the budget's unit
    budget: Number = 0.0  # 0: the run says no end
    unit: str = ""
    seconds: Number = 0.0  # of training, by the run's clock; virtual ones in a simulation
    left: Number | None = None  # seconds until the end, by the clock on the wall; None: not known yet
    idle: Share | None = None  # this process's worker's
    waiting: str | None = None  # in what it waits for the others; None while it computes
    waits: Number = 0.0  # for how many seconds
    workers: tuple[Natural, ...] = ()  # the worker of each rank, by its number when the command began


class LiveFile:
    """Writes the file of a run directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NOW
        self._partial = directory / f"{NOW}.partial"

    def write(self, now: Now) -> None:
        """Replace the file."""
        with suppress(OSError):
            self._partial.write_text(now.model_dump_json())
            self._partial.replace(self._path)

    def remove(self) -> None:
        """Remove it: the run has its results."""
        for path in (self._path, self._partial):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def read_now(directory: Path) -> Now | None:
    """What a directory's run is doing, or was doing last; None where nothing tells."""
    try:
        return Now.model_validate_json((directory / NOW).read_bytes())
    except (OSError, ValidationError):
        return None


def tell(directory: Path, state: Literal["restarting", "stopped", "failed"], why: str) -> None:
    """Say what has become of a run whose ranks have ended without results; nothing where none was going on."""
    now = read_now(directory)
    if now is not None:
        LiveFile(directory).write(now.model_copy(update={"state": state, "why": one_line(why, 500)}))


def here() -> dict[str, Any]:
    """This process: the fields host and process."""
    return {"host": socket.gethostname(), "process": os.getpid()}
