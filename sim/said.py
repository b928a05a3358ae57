"""What the programs of a run have said, kept until the run has ended: a file takes it where there is much."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

from ..program.outcome import Hooks, ignored

IN_MEMORY = 1 << 20  # bytes; where it is more, a temporary file takes it


@contextmanager
def told_at_the_end(hooks: Hooks) -> Iterator[Hooks]:
    """Hooks that pass report lines and checkpoints on to `hooks` where the block ends well, and else nothing."""
    calls = hooks.log, hooks.checkpoint
    with SpooledTemporaryFile(IN_MEMORY) as file:

        def keep(call: int, *arguments: Any) -> None:
            pickle.dump((call, arguments), file, pickle.HIGHEST_PROTOCOL)

        yield Hooks(
            lambda *line: keep(0, *line),
            ignored if hooks.checkpoint is ignored else lambda *snapshot: keep(1, *snapshot),
            hooks.stop,
        )
        end = file.tell()
        file.seek(0)
        while file.tell() < end:
            call, arguments = pickle.load(file)
            calls[call](*arguments)
