"""What the programs of a run have said, kept until the run has ended: a file takes it where there is much."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

from ..program.outcome import Hooks, ignored

IN_MEMORY = 1 << 20  # bytes; where it is more, a temporary file takes it


@contextmanager
def told_at_the_end(hooks: Sequence[Hooks]) -> Iterator[list[Hooks]]:
    """Hooks that pass lines, rounds and checkpoints on to `hooks`, each to its own, where the block ends well."""
    calls = [call for each in hooks for call in (each.log, each.checkpoint, each.round or ignored)]
    with SpooledTemporaryFile(IN_MEMORY) as file:

        def kept(call: int) -> Callable[..., None]:
            def keep(*arguments: Any) -> None:
                pickle.dump((call, arguments), file, pickle.HIGHEST_PROTOCOL)

            return ignored if calls[call] is ignored else keep

        yield [
            Hooks(kept(3 * place), kept(3 * place + 1), each.stop, round=kept(3 * place + 2) if each.round else None)
            for place, each in enumerate(hooks)
        ]
        end = file.tell()
        file.seek(0)
        while file.tell() < end:
            call, arguments = pickle.load(file)
            calls[call](*arguments)
